"""The labels of a model in groups as people think of them, and labels by the names they type."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dataset.errors import UsageError, listed, nearest
from dataset.vocabulary import appearance
from studio.faults import quoted

SINGLE = ("hair_length", "hair_colour", "eye_colour")  # of these a character has one
OTHER = "other"  # labels that the vocabulary does not know
_LISTED = 40  # known labels that a message names
_MAX_NAME = 200  # characters of a name that is compared with those known


@dataclass(frozen=True)
class Group:
    """Labels that belong together.

    Attributes:
        name: as in the vocabulary, "hair_colour".
        title: for people, "Hair colour".
        labels: in the model's order; never empty.
        single: whether a character has one of them, so that a page offers a single choice.

    """

    name: str
    title: str
    labels: tuple[str, ...]
    single: bool


def label_groups(labels: Sequence[str]) -> list[Group]:
    """Returns the groups of a model's labels, in the vocabulary's order; the unknown ones last."""
    vocabulary = appearance()
    members: dict[str, list[str]] = {name: [] for name in vocabulary.groups.values()}
    members[OTHER] = []
    for label in labels:
        meaning = vocabulary.meaning.get(label, (label,))  # an alias belongs where its tag does
        members[vocabulary.groups.get(meaning[0], OTHER)].append(label)
    return [
        Group(name, name.replace("_", " ").capitalize(), tuple(own), name in SINGLE)
        for name, own in members.items()
        if own
    ]


def known_labels(names: Iterable[object], known: Sequence[str]) -> tuple[str, ...]:
    """Returns the named labels in the model's order, each once.

    Spaces in a name mean underscores. Raises UsageError naming each unknown one with the nearest.
    """
    asked = [name.strip().replace(" ", "_") if isinstance(name, str) else name for name in names]
    unknown = [name for name in asked if name not in known]
    if unknown:
        faults = [f"unknown label {quoted(name)}{_near(name, known)}" for name in unknown]
        if len(faults) == 1:
            raise UsageError(f"{faults[0]}{'' if faults[0].endswith('?') else '.'} {_told(known)}")
        raise UsageError(f"{len(faults)} labels are unknown:\n{listed(faults)}\n{_told(known)}")
    return tuple(label for label in known if label in asked)


def _near(name: object, known: Sequence[str]) -> str:
    return nearest(name, known) if isinstance(name, str) and len(name) <= _MAX_NAME else ""


def _told(known: Sequence[str]) -> str:
    if not known:
        return "This model knows no labels."
    more = f" and {len(known) - _LISTED:,} more" if len(known) > _LISTED else ""
    return f"This model knows {', '.join(known[:_LISTED])}{more}."
