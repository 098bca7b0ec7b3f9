"""The promotion log: the champion's moves, stored as tags of the registered model, one per move.

A move by the gate also holds what both versions measured, so that later candidates are held against
the best of all champions, whatever becomes of the versions and their evaluations.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dataset.errors import RegistryError
from models.registry.gate import MeasuredVersion

PREFIX = "omokage.move."
GATE, PROMOTE, ROLLBACK, PERSON = "gate", "promote", "rollback", "person"
BY = (GATE, PROMOTE, ROLLBACK, PERSON)
BEGUN, DONE = "begun", "done"
STATES = (BEGUN, DONE)

_NUMBERED = re.compile(rf"{re.escape(PREFIX)}(\d+)")
# The words of a move in its tag, and the fields here.
_WORDS = {
    "from": "source",
    "to": "to",
    "by": "by",
    "reason": "reason",
    "at": "at",
    "state": "state",
    "evidence": "evidence",
}
MEASURED = "measured"  # the word of what the gate compared: numbers by version


@dataclass(frozen=True)
class Promotion:
    """The alias `champion` going from one version to another; an empty text stands for none."""

    number: int
    source: str
    to: str
    by: str  # gate; promote: a person, past the gate; rollback; person: in MLflow's own UI
    reason: str
    at: str  # UTC, ISO 8601
    state: str = BEGUN  # begun: the aliases may not be where they belong yet
    evidence: str = ""  # manifest and protocol that a gate's decision rests on
    measured: tuple[MeasuredVersion, ...] = ()  # champion and candidate, as the gate compared them

    @property
    def tag(self) -> str:
        """Name of the tag that holds it."""
        return f"{PREFIX}{self.number:04d}"

    def to_json(self) -> str:
        """Returns the tag's value."""
        held: dict[str, Any] = {word: getattr(self, field) for word, field in _WORDS.items()}
        if self.measured:
            held[MEASURED] = {one.version: one.to_json() for one in self.measured}
        return json.dumps(held, ensure_ascii=False)

    def done(self) -> "Promotion":
        """Returns the same move as finished."""
        return dataclasses.replace(self, state=DONE)

    def is_same(self, other: "Promotion | None") -> bool:
        """Tells whether the other is this very move, in whichever state."""
        return other is not None and self.done() == other.done()


def read_promotion_log(tags: Mapping[str, str]) -> list[Promotion]:
    """Returns the moves among a registered model's tags, the oldest first.

    Raises RegistryError, naming the tag, for one that is no move.
    """
    found = [_read(tag, value) for tag, value in tags.items() if tag.startswith(PREFIX)]
    return sorted(found, key=lambda move: move.number)


def champions_on(log: Iterable[Promotion], terms: tuple[str, str]) -> list[MeasuredVersion]:
    """Returns the champions, measured on these terms, that a candidate is held against.

    log: the oldest first. A rollback brings back those from before the move that it undoes. A move
    by a person begins anew: the version chosen may be worse, and is measured when next challenged.
    """
    before: dict[str, MeasuredVersion] = {}
    held: dict[str, MeasuredVersion] = {}
    for move in log:
        if move.by == ROLLBACK:
            held = before
            continue
        before, held = held, ({} if move.by in (PROMOTE, PERSON) else held)
        held = held | {one.version: one for one in move.measured if one.terms == terms}
    return list(held.values())


def newest_champions(log: Sequence[Promotion]) -> list[MeasuredVersion]:
    """Returns those that hold on the terms of the last move that was measured; [] if none was."""
    terms = [move.measured[-1].terms for move in log if move.measured][-1:]
    return champions_on(log, *terms) if terms else []


def _read(tag: str, text: str) -> Promotion:
    numbered = _NUMBERED.fullmatch(tag)
    try:
        held: Any = json.loads(text)
    except ValueError:
        held = None
    if numbered is None or not isinstance(held, dict):
        raise _unreadable(tag, f"it says {text[:80]!r}")
    values = {field: held.get(word, "") for word, field in _WORDS.items()}
    if not all(isinstance(value, str) for value in values.values()):
        raise _unreadable(tag, "a value of it is no text")
    if values["by"] not in BY or values["state"] not in STATES:
        raise _unreadable(tag, f"by is {values['by']!r}, state is {values['state']!r}")
    try:
        numbers = dict(held.get(MEASURED, {}))
        measured = tuple(MeasuredVersion.of(version, one) for version, one in numbers.items())
    except (AttributeError, KeyError, RegistryError, TypeError, ValueError) as error:
        raise _unreadable(tag, f"{MEASURED} is no numbers of versions") from error
    return Promotion(number=int(numbered[1]), **values, measured=measured)


def _unreadable(tag: str, found: str) -> RegistryError:
    return RegistryError(
        f"the registered model's tag {tag} is no move of the champion: {found}; wanted is JSON "
        f"with from, to, by ({', '.join(BY)}), reason, at and state ({', '.join(STATES)}). "
        "Delete that tag in MLflow."
    )
