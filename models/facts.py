"""What state.json and train.json must say, and of what kind; nothing of them is believed before."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from models.shown import shown

_MOST = 2**53  # the greatest count that every reader of JSON holds exactly


def fact_faults(found: Mapping[str, Any], wanted: "Mapping[str, Kind]") -> list[str]:
    """Returns a sentence for each fact that is missing or of another kind."""
    faults = []
    for name, kind in wanted.items():
        fits, words = kind
        if name not in found and not fits(None):
            faults.append(f"{name} is missing")
        elif not fits(found.get(name)):
            faults.append(f"{name} is {told(found[name])}, {words} wanted")
    return faults


def told(value: Any) -> str:
    """Returns a JSON value as an error may show it; a large whole number by its size alone."""
    if isinstance(value, int) and abs(value) > _MOST:
        return f"a number of {value.bit_length():,} bits"
    if isinstance(value, dict | list) and len(value) > 8:
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value):,}"
    try:
        return shown(repr(value))
    except (RecursionError, ValueError):  # nested deeply, or with a number of many digits in it
        return f"a {type(value).__name__}"


def is_count(found: Any) -> bool:
    """Whether it is a whole number from 0 on."""
    return isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= _MOST


def is_number(found: Any) -> bool:
    """Whether it is a finite number."""
    if isinstance(found, bool) or not isinstance(found, int | float):
        return False
    return abs(found) <= _MOST if isinstance(found, int) else math.isfinite(found)


def _is_name(found: Any) -> bool:
    return isinstance(found, str) and len(found) <= 1000 and found.isprintable()


def _is_origin(found: Any) -> bool:
    return found is None or (isinstance(found, dict) and not fact_faults(found, _OF_ORIGIN))


Kind = tuple[Callable[[Any], bool], str]  # a test, and what passes it in words

COUNT: Kind = (is_count, "a whole number from 0")
SECONDS: Kind = (lambda found: is_number(found) and found >= 0, "a number from 0")
SCORE: Kind = (lambda found: found is None or is_number(found), "a number or null")
NAME: Kind = (_is_name, "a text")
OBJECT: Kind = (lambda found: isinstance(found, dict), "an object")
SHA256: Kind = (
    lambda found: isinstance(found, str) and bool(re.fullmatch("[0-9a-f]{64}", found)),
    "a sha256 (64 hexadecimal digits)",
)
NAMES_OR_NONE: Kind = (
    lambda found: found is None or (isinstance(found, list) and all(map(_is_name, found))),
    "a list of texts or null",
)
_OF_ORIGIN: dict[str, Kind] = {
    "folder": NAME,
    "step": COUNT,
    "images_seen": COUNT,
    "manifest_digest": NAME,
    "labels": NAMES_OR_NONE,  # in the order in which the weights have them
}
ORIGIN: Kind = (_is_origin, f"null or an object of {', '.join(_OF_ORIGIN)}")
