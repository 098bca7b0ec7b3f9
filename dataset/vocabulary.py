"""The curated appearance tags of `appearance.toml`: groups, aliases, implications, left out."""

import importlib.resources
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from dataset.errors import ConfigError, listed
from dataset.store import digest_of

_SIDED = re.compile(r"(?:^|_)(?:left|right)(?:_|$)")


@dataclass(frozen=True)
class Vocabulary:
    """The curated appearance tags, and how other tags lead to them.

    `groups` is the group of each tag; `meaning` gives for every known tag (aliases too) the tags
    that it stands for: itself, or what it is an alias of, and all that follows from that.
    `left_out` gives the reason for tags that look like appearance tags and are none. `names` is
    what groups and tags are called, by tag and language ("zh", "ja"); the digest is without them.
    """

    groups: dict[str, str]
    meaning: dict[str, tuple[str, ...]]
    left_out: dict[str, str]
    names: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Digest of the tags and their meaning."""
        return digest_of(
            {"groups": self.groups, "meaning": self.meaning, "left_out": self.left_out}
        )


def sided(tags: Iterable[str]) -> list[str]:
    """Returns the tags that tell left from right: with one of them, pictures must not be flipped.

    A flipped picture would need the other side's tag; `upright_ahoge` tells no side.
    """
    return [tag for tag in tags if _SIDED.search(tag)]


@cache
def appearance() -> Vocabulary:
    """Returns the curated vocabulary of `appearance.toml`; raises ConfigError for a fault in it."""
    text = (importlib.resources.files("dataset") / "appearance.toml").read_text("utf-8")
    return read_vocabulary(tomllib.loads(text), where="appearance.toml")


def read_vocabulary(content: Mapping[str, Any], *, where: str) -> Vocabulary:
    """Builds a vocabulary of `groups`, `aliases`, `implications`, `left_out` and `names`.

    Raises ConfigError naming every tag that stands twice, that an alias or implication names
    although it is in no group, every circle of implications, and every name that is missing in a
    language that another tag has, or that belongs to no group or tag.
    """
    members = [(tag, group) for group, tags in content["groups"].items() for tag in tags]
    groups = dict(members)
    aliases: Mapping[str, str] = content["aliases"]
    implications: Mapping[str, list[str]] = content["implications"]
    kinds = content.get("left_out", {}).values()
    without = [(tag, str(kind["reason"])) for kind in kinds for tag in kind["tags"]]
    implied = [(tag, target) for tag, targets in implications.items() for target in targets]
    names = [*(tag for tag, _ in members), *(tag for tag, _ in without)]
    faults = [f'"{tag}" stands twice' for tag in sorted({t for t in names if names.count(t) > 1})]
    faults += [f'alias "{tag}" is a tag of a group' for tag in aliases if tag in groups]
    faults += [f'alias "{tag}" is left out' for tag in aliases if tag in dict(without)]
    faults += [
        f'"{tag}" leads to "{target}", which is in no group'
        for tag, target in [*aliases.items(), *implied]
        if target not in groups
    ]
    faults += [f'"{tag}" implies but is in no group' for tag in implications if tag not in groups]
    faults += [
        f'"{tag}" and "{target}" imply each other'
        for tag, target in implied
        if tag in _closure(target, implications)
    ]
    called: dict[str, dict[str, str]] = content.get("names", {})
    languages = sorted({language for name in called.values() for language in name})
    faults += [
        f'"{tag}" has no name in {language}'
        for language in languages
        for tag in (*content["groups"], *groups)
        if not called.get(tag, {}).get(language)
    ]
    faults += [
        f'"{tag}" has a name but is no group and in none'
        for tag in called
        if tag not in groups and tag not in content["groups"]
    ]
    if faults:
        raise ConfigError(f"{where} has faults:\n{listed(faults)}")
    meaning = {tag: _closure(tag, implications) for tag in groups}
    meaning |= {tag: meaning[target] for tag, target in aliases.items()}
    return Vocabulary(groups, meaning, dict(without), called)


def _closure(tag: str, implications: Mapping[str, list[str]]) -> tuple[str, ...]:
    """The tag and all that follows from it, without end or repetition even in a circle."""
    found = [tag]
    for known in found:  # grows while it is walked
        found += [more for more in implications.get(known, []) if more not in found]
    return tuple(found)
