"""Refusals: why a post is not stored, what that rests on, and whether it still stands.

A refusal rests on the post alone (it is deleted, its file is cut short), or on something else, too:
a search, a setting of the site, a limit of this release. That is its *cause* in the ledger. Once it
differs, the post is judged again, by the stored record as far as that can tell.
"""

import re

from crawlers.ledger import (
    GONE,
    MAX_REVISITS,
    RETRY_AFTER,
    REVISIT_AFTER,
    TAKEDOWN,
    UNFINISHED,
    Ledger,
)
from crawlers.post import NOT_ASKED_FOR, Post, is_checked, matches
from crawlers.sites import Site
from dataset import media, policy
from dataset.policy import Takedowns, drop_reason

# Of the gate: what a file was refused for that its board has just so.
_BY_GATE = frozenset({"animated", "corrupt", "empty", "mislabelled", "not_a_picture"})
# Of which the stored record tells whether they still stand.
_BY_RECORD = frozenset({NOT_ASKED_FOR, "format", "host", "robots"})
# What of a site's settings they rest on.
_BY_SITE = {"rating": "safe_ratings", "host": "media_hosts", "robots": "robots_exempt"}
# Words of a search that the policy decides, whatever the board makes of them.
_BY_POLICY = re.compile(r"-?(rating|status):\S+")


def cause_of(reason: str, *, query: str = "", site: Site | None = None) -> str | None:
    """Returns what a refusal rests on beside the post and its picture; None: on nothing.

    site: None for imported pictures. A tag that is excluded is in the reason itself.
    """
    if reason in _BY_GATE:
        return f"media gate {media.GATE}"
    if site is not None and reason in _BY_SITE:
        values = " ".join(getattr(site, _BY_SITE[reason]))
        return f"{_setting_of(site, reason)} {values}"
    causes = {
        NOT_ASKED_FOR: f"search {query}",
        "format": f"formats {' '.join(sorted(policy.STILL_EXTS))}",
        "too_large": f"limit of {media.MAX_BYTES:,} bytes",
        "too_many_pixels": f"limits of {media.MAX_PIXELS:,} pixels and {media.DECODING_BYTES:,} "
        "bytes to decode them",
    }
    return causes.get(reason)


def _setting_of(site: Site, reason: str) -> str:
    return f"{_BY_SITE[reason]} of {site.name}:"


def stands(reason: str, cause: str | None, *, query: str = "", site: Site | None = None) -> bool:
    """Tells whether a refusal rests on what is so today; `cause` is the ledger's.

    By the settings of another site of the board it stands: that site's crawls judge it. None is
    also the cause of refusals by an earlier release that did not store it. Those which the record
    can tell of do not stand, and neither do those of imports, whose files are at hand.
    """
    if reason == TAKEDOWN:
        return True
    if reason.startswith("tag_"):
        more = site.excluded_tags if site else ()
        return reason.removeprefix("tag_") in policy.EXCLUDED_TAGS.union(more)
    present = cause_of(reason, query=query, site=site)
    if cause is None and present is not None:
        return site is not None and reason not in _BY_RECORD
    if cause and site and reason in _BY_SITE and not cause.startswith(_setting_of(site, reason)):
        return True
    return cause == present


def remedy(reason: str) -> str:
    """Returns what brings the posts refused for a reason back, for people."""
    if reason.startswith("tag_"):
        return "taken once the tag is no longer excluded"
    if reason.startswith("status_"):
        return _TRIED_AGAIN
    return _REMEDIES.get(reason, "judged again once its record has changed")


_TRIED_AGAIN = f"tried again after {RETRY_AFTER.days} days, {MAX_REVISITS} times"
_BY_RELEASE = "tried again by a release that takes more"
_REMEDIES = {
    TAKEDOWN: "stays so",
    GONE: "taken once the board shows it again",
    NOT_ASKED_FOR: "taken by any search that lists it and whose words it has",
    "host": "taken once media_hosts of the site has its host",
    "robots": f"taken once robots_exempt has its path; {_TRIED_AGAIN}",
    "rating": "judged again once its record or safe_ratings has changed",
    "unavailable": _TRIED_AGAIN,
    **dict.fromkeys(
        UNFINISHED, f"tried again after {REVISIT_AFTER.days} days, {MAX_REVISITS} times"
    ),
    **dict.fromkeys(("format", "too_large", "too_many_pixels", *_BY_GATE), _BY_RELEASE),
}


class Judge:
    """Judges the posts of a site by the policy and by the search that brought them."""

    def __init__(self, ledger: Ledger, site: Site, takedowns: Takedowns) -> None:
        self._ledger = ledger
        self._site = site
        self._takedowns = takedowns

    def reason(self, post: Post, query: str) -> str | None:
        """Returns why a post may not be stored, None if its picture may be fetched."""
        reason = drop_reason(post, self._takedowns, excluded=self._site.excluded_tags)
        if reason is None and self._ledger.is_taken_down(post.md5):
            reason = TAKEDOWN
        if reason is None and not matches(query, post):
            # Words that a board does not know are ignored without a sound.
            reason = NOT_ASKED_FOR
        return reason

    def cause(self, reason: str, query: str) -> str | None:
        """Returns what a refusal rests on beside the post; see `cause_of`."""
        return cause_of(reason, query=query, site=self._site)

    def judge_again(self, query: str) -> int:
        """Judges what was refused for a cause that is another today; returns how many wait again.

        By their stored records, so nothing is requested. Posts that a search did not want wait for
        this one if it has passed them; those that it has yet to list are judged when it does.
        """
        board, waiting = self._site.board, 0
        for reason, cause, _count in self._ledger.refusals(board):
            if stands(reason, cause, query=query, site=self._site):
                continue
            of_search = reason == NOT_ASKED_FOR
            if of_search and not _is_decided_here(query):
                continue
            window = self._ledger.cursor(board, query) if of_search else None

            def judge(post: Post, old: str, reason: str = reason) -> tuple[str | None, str | None]:
                found = self._again(post, query if reason == NOT_ASKED_FOR else old, reason)
                return found, found and self.cause(found, query)

            waiting += self._ledger.judge_again(
                board, reason, cause, judge,
                query=query if of_search else None,
                ids=(window.low or 0, window.high or 0) if window else None,
            )  # fmt: skip
        return waiting

    def _again(self, post: Post, query: str, reason: str) -> str | None:
        """Returns why a refused post is refused today; None if the board has to be requested."""
        url = post.file_url or ""
        if reason == "host" and not self._site.allows(url):
            return reason
        if reason == "robots" and not self._site.is_exempt_from_robots(url):
            return reason
        if reason == "rating" and post.rating == "sensitive":
            return None  # that is also our word for one that is safe but was not among safe_ratings
        return self.reason(post, query)


def _is_decided_here(query: str) -> bool:
    """Tells whether `matches` and the policy check every word of a search."""
    return all(is_checked(word) or _BY_POLICY.fullmatch(word) for word in query.lower().split())
