"""The one tree of Omokage's errors; the command line turns each into a line and an exit code.

OmokageError                 1
├── UsageError               2   a wrong option, path, name or port
├── ConfigError              3   a setting that is unknown, ill-typed or out of range
├── SchemaError              4   a file that does not match its declared columns
├── StoreError               5   the store is read-only, full or out of reach
├── CrawlError               6   a board refused us or the crawl could not go on
│   └── BoardDownError       6   a board is down or throttles us: a later crawl may go on
├── EmptyStageError          7   a stage that left nothing for the next one
├── TrainingError            8   training could not start or go on
├── RegistryError            9   MLflow or its registry is out of reach or inconsistent
└── ComputeError            10   the workers died, or the cluster is out of reach
"""

import difflib
from collections.abc import Iterable
from urllib.parse import urlsplit


class OmokageError(Exception):
    """A fault that a user can mend; its text names the place, what is there and what is wanted."""

    exit_code = 1


class UsageError(OmokageError):
    """A wrong option, path, name or port."""

    exit_code = 2


class ConfigError(OmokageError):
    """A setting that is unknown, ill-typed or out of its range."""

    exit_code = 3


class SchemaError(OmokageError):
    """A file whose columns are not the declared ones."""

    exit_code = 4


class StoreError(OmokageError):
    """The store is read-only, full or out of reach."""

    exit_code = 5


class CrawlError(OmokageError):
    """A board refused us, or the crawl could not go on."""

    exit_code = 6


class BoardDownError(CrawlError):
    """A board is down, out of reach or throttles us: a later crawl may go on."""


class EmptyStageError(OmokageError):
    """A stage that left nothing for the next one: no post, no face, no label."""

    exit_code = 7


class TrainingError(OmokageError):
    """Training could not start or go on."""

    exit_code = 8


class RegistryError(OmokageError):
    """MLflow or its registry is out of reach or inconsistent."""

    exit_code = 9


class ComputeError(OmokageError):
    """The workers that cut out faces died, or are out of reach."""

    exit_code = 10


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns `; did you mean "blonde_hair"?` for a near miss of `known`, else an empty text."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


def listed(faults: list[str], *, shown: int = 10) -> str:
    """Joins the first `shown` faults, a line each, and counts those left out."""
    rest = len(faults) - shown
    lines = faults[:shown] + ([f"… and {rest:,} more"] if rest > 0 else [])
    return "\n".join(f"  {line}" for line in lines)


def bare(url: str) -> str:
    """Returns an address without user, query and fragment: all that may hold a secret."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that cannot be read"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
