"""Labels: the appearance tags that the generator will obey, chosen by how frequent they are."""

import importlib.resources
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dataset.digests import content_digest
from dataset.errors import ConfigError, EmptyStageError, SchemaError, listed
from dataset.schemas import FACES, FACES_PATH, POSTS, POSTS_PATH, manifest_schema, read_table
from dataset.store import Store, digest_of

LABELS_PATH = "labels.json"
_SHOWN_TAGS = 20


@dataclass(frozen=True)
class Vocabulary:
    """The curated appearance tags, and how other tags lead to them.

    `groups` is the group of each tag; `meaning` gives for every known tag (aliases too) the tags
    that it stands for: itself, or what it is an alias of, and all that follows from that.
    """

    groups: dict[str, str]
    meaning: dict[str, tuple[str, ...]]

    @property
    def digest(self) -> str:
        """Digest of the tags and their meaning."""
        return digest_of({"groups": self.groups, "meaning": self.meaning})


@dataclass(frozen=True)
class LabelSettings:
    """Which appearance tags become labels. Raises ConfigError for a value out of range."""

    min_frac: float = 0.05  # part of the crops: rarer tags are cut
    max_frac: float = 0.5  # more frequent ones too
    count: int = 23  # of the rest, the most frequent

    def __post_init__(self) -> None:
        faults = []
        if not 0 <= self.min_frac <= self.max_frac <= 1:
            faults.append(
                f"min_frac is {self.min_frac:g} and max_frac {self.max_frac:g}; "
                "0 <= min_frac <= max_frac <= 1 wanted"
            )
        if self.count < 1:
            faults.append(f"count is {self.count}; at least 1 wanted")
        if faults:
            raise ConfigError(f"label settings out of range:\n{listed(faults)}")


@dataclass(frozen=True)
class LabelsFile:
    """What `choose_labels` wrote: labels in their order, counts and parts of the crops."""

    path: str
    labels: list[str]
    counts: dict[str, int]
    fractions: dict[str, float]
    cut: dict[str, str]  # why a tag that was seen is no label
    digest: str
    warning: str | None


def choose_labels(store: Store, settings: LabelSettings) -> LabelsFile:
    """Chooses the labels by the tags of the kept crops and writes `labels.json`.

    A tag qualifies on min_frac to max_frac of the crops; the most frequent `count` are taken, the
    more frequent first, equal ones by name. Fewer are a warning. Raises EmptyStageError, naming the
    tags seen, if none qualifies.
    """
    vocabulary = appearance()
    faces = kept_faces(store)
    tags = tags_of_faces(store, faces)
    matrix, names = _presence(tags, vocabulary)
    counts = _by_frequency(dict(zip(names, matrix.sum(axis=0).tolist(), strict=True)))
    labels, cut = _choose(counts, faces.num_rows, settings)
    if not labels:
        raise EmptyStageError(_none_left(tags, counts, faces.num_rows, settings=settings))
    fractions = {tag: round(count / faces.num_rows, 6) for tag, count in counts.items()}
    warning = None
    if len(labels) < settings.count:
        warning = (
            f"{len(labels)} labels instead of {settings.count}: {', '.join(labels)}. No other "
            f"appearance tag is on {settings.min_frac:.0%} to {settings.max_frac:.0%} of the "
            f"{faces.num_rows:,} crops; labels.json says why each was cut."
        )
    content: dict[str, Any] = {
        "labels": labels,
        "counts": counts,
        "fractions": fractions,
        "cut": cut,
        "crops": faces.num_rows,
        "settings": asdict(settings),
        "vocabulary": vocabulary.digest,
        "faces": content_digest(faces),
    }
    digest = digest_of(content)
    store.write_json(LABELS_PATH, {**content, "digest": digest, "warning": warning})
    return LabelsFile(LABELS_PATH, labels, counts, fractions, cut, digest, warning)


def read_labels(store: Store) -> tuple[list[str], str]:
    """Returns the labels of `labels.json` in their order, and its digest.

    Raises SchemaError if the file is not one of ours, or a label cannot be a column.
    """
    content = store.read_json(LABELS_PATH)
    labels = content.get("labels") if isinstance(content, dict) else None
    if not (
        isinstance(labels, list)
        and labels
        and all(isinstance(label, str) for label in labels)
        and isinstance(content.get("digest"), str)
    ):
        raise SchemaError(
            f'{store.url(LABELS_PATH)}: a list "labels" of tags and a "digest" wanted. '
            "Build labels again."
        )
    taken = set(manifest_schema([]).names)
    double = sorted({label for label in labels if labels.count(label) > 1 or label in taken})
    if double:
        raise SchemaError(
            f"{store.url(LABELS_PATH)}: labels that stand twice or are columns of the manifest "
            f"already: {', '.join(double)}. Build labels again."
        )
    return labels, str(content["digest"])


def label_matrix(tags: pa.ListArray, labels: list[str]) -> npt.NDArray[np.bool_]:
    """Returns which of `labels` each row of `tags` has, after aliases and implications: [N, L]."""
    matrix, names = _presence(tags, appearance())
    column = {name: number for number, name in enumerate(names)}
    unknown = [label for label in labels if label not in column]
    if unknown:
        raise SchemaError(
            f"labels that are not in the curated list of appearance tags: {', '.join(unknown)}. "
            "Build labels again."
        )
    return matrix[:, [column[label] for label in labels]]


def kept_faces(store: Store) -> pa.Table:
    """Returns the rows of faces.parquet that were not dropped; raises EmptyStageError for none."""
    table = read_table(store, FACES_PATH, declared=FACES)
    kept = table.filter(pc.is_null(table["drop_reason"]))
    if not kept.num_rows:
        raise EmptyStageError(
            f"{store.url(FACES_PATH)}: all {table.num_rows:,} faces are dropped; its drop_reason "
            "column says why."
        )
    return kept


def tags_of_faces(store: Store, faces: pa.Table) -> pa.ListArray:
    """Returns the general tags of each face's post, in the order of `faces`.

    Raises SchemaError naming faces whose post is not in posts.parquet.
    """
    posts = read_table(store, POSTS_PATH, declared=POSTS)
    rows = pc.index_in(_keys(faces), value_set=_keys(posts))
    if rows.null_count:
        lost = faces.filter(pc.is_null(rows))
        names = [
            f"{face['face_id']} of {face['board']} {face['post_id']}" for face in lost.to_pylist()
        ]
        raise SchemaError(
            f"{store.url(FACES_PATH)}: faces without a post in posts.parquet. Build faces again.\n"
            f"{listed(names)}"
        )
    tags: pa.ListArray = posts["tags_general"].combine_chunks().take(rows)
    return tags


@cache
def appearance() -> Vocabulary:
    """Returns the curated vocabulary of `appearance.toml`; raises ConfigError for a fault in it."""
    text = (importlib.resources.files("dataset") / "appearance.toml").read_text("utf-8")
    return read_vocabulary(tomllib.loads(text), where="appearance.toml")


def read_vocabulary(content: Mapping[str, Any], *, where: str) -> Vocabulary:
    """Builds a vocabulary of `groups`, `aliases` and `implications`.

    Raises ConfigError naming every tag that stands twice, that an alias or implication names
    although it is in no group, and every circle of implications.
    """
    members = [(tag, group) for group, tags in content["groups"].items() for tag in tags]
    groups = dict(members)
    aliases: Mapping[str, str] = content["aliases"]
    implications: Mapping[str, list[str]] = content["implications"]
    implied = [(tag, target) for tag, targets in implications.items() for target in targets]
    names = [tag for tag, _ in members]
    faults = [f'"{tag}" stands twice' for tag in sorted({t for t in names if names.count(t) > 1})]
    faults += [f'alias "{tag}" is a tag of a group' for tag in aliases if tag in groups]
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
    if faults:
        raise ConfigError(f"{where} has faults:\n{listed(faults)}")
    meaning = {tag: _closure(tag, implications) for tag in groups}
    meaning |= {tag: meaning[target] for tag, target in aliases.items()}
    return Vocabulary(groups, meaning)


def _closure(tag: str, implications: Mapping[str, list[str]]) -> tuple[str, ...]:
    """The tag and all that follows from it, without end or repetition even in a circle."""
    found = [tag]
    for known in found:  # grows while it is walked
        found += [more for more in implications.get(known, []) if more not in found]
    return tuple(found)


def _presence(
    tags: pa.ListArray, vocabulary: Vocabulary
) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """Which tags of the vocabulary each row has, implied ones too: [N, V], and the V names."""
    names = list(vocabulary.groups)
    column = {name: number for number, name in enumerate(names)}
    known = list(vocabulary.meaning)
    codes = pc.index_in(pc.list_flatten(tags), value_set=pa.array(known))
    seen = pc.is_valid(codes)
    rows = pc.list_parent_indices(tags).filter(seen).to_numpy()
    codes = codes.filter(seen).to_numpy()
    matrix = np.zeros((len(tags), len(names)), bool)
    meant = list(vocabulary.meaning.values())
    for place in range(max(map(len, meant))):  # the tag itself, then what follows from it
        columns = [column[each[place]] if place < len(each) else -1 for each in meant]
        found = np.array(columns)[codes]
        matrix[rows[found >= 0], found[found >= 0]] = True
    return matrix, names


def _by_frequency(counts: dict[str, int]) -> dict[str, int]:
    seen = [(tag, count) for tag, count in counts.items() if count]
    return dict(sorted(seen, key=lambda item: (-item[1], item[0])))


def _choose(
    counts: dict[str, int], crops: int, settings: LabelSettings
) -> tuple[list[str], dict[str, str]]:
    """Splits the tags, the most frequent first, into labels and those cut with their reason."""
    labels: list[str] = []
    cut: dict[str, str] = {}
    # Whole crops are compared: 0.05 * 100 must not fail by a rounding error.
    fewest = math.ceil(round(settings.min_frac * crops, 6))
    most = math.floor(round(settings.max_frac * crops, 6))
    for tag, count in counts.items():
        part = f"on {count / crops:.1%} of the crops"
        if count < fewest:
            cut[tag] = f"{part}, at least {settings.min_frac:.1%} wanted"
        elif count > most:
            cut[tag] = f"{part}, at most {settings.max_frac:.1%} wanted"
        elif len(labels) == settings.count:
            cut[tag] = f"{part}, {settings.count} others are more frequent"
        else:
            labels.append(tag)
    return labels, cut


def _none_left(
    tags: pa.ListArray, counts: dict[str, int], crops: int, *, settings: LabelSettings
) -> str:
    wanted = f"{settings.min_frac:.0%} to {settings.max_frac:.0%} of the {crops:,} crops"
    if counts:
        seen = [f"{tag} {count / crops:.1%}" for tag, count in counts.items()][:_SHOWN_TAGS]
        return f"No appearance tag is on {wanted}. Seen: {', '.join(seen)}."
    every = pc.value_counts(pc.list_flatten(tags)).to_pylist()
    every.sort(key=lambda item: (-item["counts"], item["values"]))
    seen = [f"{item['values']} {item['counts']:,}" for item in every][:_SHOWN_TAGS]
    shown = f"The most frequent tags: {', '.join(seen)}." if seen else "Their posts have no tags."
    return f"No appearance tag is on any of the {crops:,} crops. {shown}"


def _keys(table: pa.Table) -> pa.Array:
    numbers = pc.cast(table["post_id"], pa.string())
    keys: pa.Array = pc.binary_join_element_wise(table["board"], numbers, " ").combine_chunks()
    return keys
