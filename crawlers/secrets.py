"""Keeps credentials out of what is said: addresses, error messages and log lines."""

import json
import logging
import os
import re
from urllib.parse import quote, quote_plus

from crawlers.sites import Site

HIDDEN = "***"
LEAST_LETTERS = 6  # a shorter value is hidden only behind its parameter's name

_FORMATTER = logging.Formatter()
# As a board's JSON may hold a value that it repeats: PHP writes \/ for a slash.
_AS_JSON = (
    lambda value: json.dumps(value)[1:-1],
    lambda value: json.dumps(value, ensure_ascii=False)[1:-1],
    lambda value: json.dumps(value)[1:-1].replace("/", "\\/"),
)


class Secrets:
    """The values of a site's credentials, as they stand in the environment now."""

    def __init__(self, site: Site) -> None:
        names = "|".join(re.escape(name) for name in sorted(site.credentials))
        values = [os.environ.get(variable, "") for variable in site.credentials.values()]
        spelt = {way(value) for value in values for way in (str, quote, quote_plus, *_AS_JSON)}
        found = [re.escape(value) for value in spelt if len(value) >= LEAST_LETTERS]
        found.sort(key=len, reverse=True)
        mark = r"""(=|\\?["']\s*:\s*\\?["']?)"""  # of a query, or of JSON
        self._named = re.compile(rf"\b({names}){mark}[^&\s\"'<>#:,}}]*") if names else None
        self._values = re.compile("|".join(found)) if found else None

    def hidden(self, text: str) -> str:
        """Returns a text with the credentials in it replaced by ***."""
        if self._values is not None:
            text = self._values.sub(HIDDEN, text)
        return self._named.sub(rf"\1\2{HIDDEN}", text) if self._named is not None else text


class SecretsFilter(logging.Filter):
    """Hides credentials in log records, also in the tracebacks that come with them."""

    def __init__(self, secrets: Secrets) -> None:
        super().__init__()
        self._secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        """Changes the record; lets every one pass."""
        record.msg = self._secrets.hidden(record.getMessage())
        record.args = ()
        if record.exc_info and not record.exc_text:
            record.exc_text = _FORMATTER.formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self._secrets.hidden(record.exc_text)
        return True
