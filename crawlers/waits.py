"""The waits that hosts asked for: in words, and as what the next crawl must heed."""

import datetime as dt
from collections.abc import Iterable
from typing import NamedTuple

from crawlers.pace import host_of
from crawlers.sites import Site
from dataset.errors import CrawlError

LONGEST_WAIT_S = 120.0  # a crawl waits so long; when a host wants more, it ends and says until when


class Wait(NamedTuple):
    """A host lets us wait until `not_before` (UTC), because it asked for `asked_s` seconds."""

    host: str
    not_before: dt.datetime
    asked_s: float

    @classmethod
    def asked(cls, host: str, asked_s: float, now: dt.datetime) -> "Wait":
        """Returns the wait that an answer of this moment asks for."""
        return cls(host, now + dt.timedelta(seconds=asked_s), asked_s)

    def left_s(self, now: dt.datetime) -> float:
        """Returns the seconds that are left; never more than were asked for at first.

        (Else a clock that was set back would lengthen the wait.)
        """
        return min(max(0.0, (self.not_before - now).total_seconds()), self.asked_s)

    @property
    def is_long(self) -> bool:
        """Whether a crawl ends instead of waiting."""
        return self.asked_s > LONGEST_WAIT_S


def refuse_to_undercut(site: Site, waits: Iterable[Wait], now: dt.datetime) -> None:
    """Raises CrawlError if a host of the site asked for a long wait that is not over yet."""
    scheme = "http" if site.is_loopback else "https"
    for wait in waits:
        ours = site.allows(f"{scheme}://{wait.host}/")
        if ours and wait.is_long and wait.left_s(now) > 0:
            raise too_soon(site, wait, now)


def too_soon(site: Site, wait: Wait, now: dt.datetime) -> CrawlError:
    """Returns the error of a crawl that would have to wait for too long."""
    own = wait.host == host_of(site.api)
    who = site.name if own else f"{site.name} (its host {wait.host})"
    return CrawlError(
        f"{who} asks us to wait until {_moment(wait.not_before, now)} UTC "
        f"(Retry-After {wait.asked_s:.0f} s): run again then"
    )


def _moment(moment: dt.datetime, now: dt.datetime) -> str:
    """Writes a moment down to the minute, rounded up: at the minute named, it is over."""
    up = (moment + dt.timedelta(seconds=59, microseconds=999_999)).replace(second=0, microsecond=0)
    return f"{up:%H:%M}" if up.date() == now.date() else f"{up:%Y-%m-%d %H:%M}"
