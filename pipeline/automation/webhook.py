"""The webhook: a JSON message to an address of the user's, whose path may be a secret."""

import ipaddress
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from dataset.errors import ConfigError

TIMEOUT_S = 10.0


def check_webhook(url: str) -> None:
    """Raises ConfigError unless `url` is empty, https, or http on this machine.

    Its text names no more than the scheme and the host.
    """
    if not url:
        return
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError as error:
        raise ConfigError(
            "it cannot be read; an address such as https://host/path wanted"
        ) from error
    if not host:
        raise ConfigError("it names no host; an address such as https://host/path wanted")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise ConfigError(
            f'its scheme is "{parts.scheme}" and its host {host}; https wanted (http only on this '
            "machine), since others could read along"
        )


def host_of(url: str) -> str:
    """Returns what may be said of a webhook: its host, without user, port, path and query."""
    return urlsplit(url).hostname or "the webhook"


def post(url: str, message: Mapping[str, Any], *, timeout_s: float = TIMEOUT_S) -> str:
    """Posts the message as JSON and returns how that went, in words that name only the host.

    A failure is returned and never raised: the report itself is what counts.
    """
    request = urllib.request.Request(  # the scheme was checked with the settings
        url,
        data=json.dumps(message, ensure_ascii=False).encode(),
        headers={"Content-Type": "application/json; charset=utf-8", "User-Agent": "omokage"},
        method="POST",
    )
    host = host_of(url)
    try:
        with _OPENER.open(request, timeout=timeout_s) as answer:
            return f"sent to {host} (HTTP {answer.status})"
    except urllib.error.HTTPError as error:
        with error:
            return f"not sent to {host}: it answered HTTP {error.code}"
    except TimeoutError:
        return f"not sent to {host}: no answer within {timeout_s:g} s"
    except (OSError, ValueError) as error:  # URLError and http.client's errors are among them
        reason = getattr(error, "reason", None)
        if isinstance(reason, TimeoutError):
            return f"not sent to {host}: no answer within {timeout_s:g} s"
        return f"not sent to {host}: {type(reason or error).__name__}"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like another: the message goes nowhere but where it was sent."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
