"""Labels: the appearance tags that the generator will obey, chosen by how frequent they are."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dataset.errors import ConfigError, EmptyStageError, SchemaError, listed, nearest
from dataset.facetags import FacePosts, posts_of_faces, tagged_posts
from dataset.schemas import manifest_schema
from dataset.store import Store, digest_of
from dataset.vocabulary import Vocabulary, appearance, sided

__all__ = [
    "LABELS_PATH",
    "Cut",
    "LabelSettings",
    "LabelsFile",
    "appearance",
    "choose_labels",
    "label_matrix",
    "load_labels",
    "read_labels",
]

LABELS_PATH = "labels.json"
TOO_RARE, TOO_FREQUENT, OUTNUMBERED = "too_rare", "too_frequent", "not_among_the_most_frequent"
ALIAS, LEFT_OUT = "alias", "left_out"
_SHOWN_TAGS = 20


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
class Cut:
    """Why a tag that was seen is no label."""

    why: str  # too_rare, too_frequent, not_among_the_most_frequent, alias or left_out
    text: str  # the same in words
    count: int  # crops with it
    counts_as: list[str]  # tags that it leads to, as alias or by implication


@dataclass(frozen=True)
class LabelsFile:
    """What `labels.json` holds. Counts and parts are of the crops whose posts have tags."""

    labels: list[str]  # the more frequent first
    groups: dict[str, str]  # of each label: hair_colour, …
    counts: dict[str, int]  # of every curated tag that was seen, after aliases and implications
    fractions: dict[str, float]
    seen_as: dict[str, dict[str, int]]  # for each label, the boards' tags that led to it
    together: list[list[int]]  # [L, L], crops that have both labels
    cut: dict[str, Cut]
    sided: list[str]  # labels that tell left from right: no flips with them
    crops: int
    untagged: int  # kept crops besides, whose posts have no tag: they count nowhere
    settings: dict[str, float]
    vocabulary: str
    faces: str  # digest of the kept faces
    warning: str | None
    digest: str = field(default="")  # of all the above

    @property
    def path(self) -> str:
        """Where it lies under the home."""
        return LABELS_PATH


def choose_labels(store: Store, settings: LabelSettings) -> LabelsFile:
    """Chooses the labels by the tags of the kept crops and writes `labels.json`.

    A tag qualifies on min_frac to max_frac of the crops; the most frequent `count` are taken, the
    more frequent first, equal ones by name. Crops of posts without any tag are left out of account.
    Fewer labels are a warning. Raises EmptyStageError, naming the tags seen, if none qualifies.
    """
    posts = posts_of_faces(store)
    tally = _Tally(appearance())
    for numbers, tags in tagged_posts(store, posts):
        tally.add(tags, posts.faces[numbers])
    counts = _by_frequency(tally.counted)
    labels, cut = _choose(counts, tally.crops, settings, tally=tally)
    if not labels:
        raise EmptyStageError(_none_left(store, posts, counts, tally=tally, settings=settings))
    made = LabelsFile(
        labels=labels,
        groups={label: tally.vocabulary.groups[label] for label in labels},
        counts=counts,
        fractions={tag: round(count / tally.crops, 6) for tag, count in counts.items()},
        seen_as=_seen_as(labels, tally),
        together=tally.pairs(labels),
        cut=cut,
        sided=sided(labels),
        crops=tally.crops,
        untagged=tally.untagged,
        settings=asdict(settings),
        vocabulary=tally.vocabulary.digest,
        faces=posts.faces_digest,
        warning=_warning(labels, tally.crops, settings),
    )
    content = asdict(made)
    content["digest"] = _digest(content)
    store.write_json(LABELS_PATH, content)
    return LabelsFile(**{**content, "cut": cut})


def load_labels(store: Store) -> LabelsFile:
    """Reads `labels.json`; raises SchemaError, naming all faults, unless it is as it was made."""
    content = store.read_json(LABELS_PATH)
    where = store.url(LABELS_PATH)
    wanted = [one.name for one in fields(LabelsFile)]
    if not isinstance(content, dict):
        raise SchemaError(f"{where}: an object of {', '.join(wanted)} wanted. Build labels again.")
    faults = [f'unknown key "{key}"{nearest(key, wanted)}' for key in content if key not in wanted]
    if missing := [key for key in wanted if key not in content]:
        faults.append(f"missing: {', '.join(missing)}")
    faults += _faults_of_labels(content.get("labels"), content.get("counts"))
    if not faults and content["digest"] != _digest(content):
        faults = [f'its content has the digest {_digest(content)}, it says "{content["digest"]}"']
    if faults:
        raise SchemaError(
            f"{where} is not as it was made. Change the settings of the stage instead, and build "
            f"labels again:\n{listed(faults)}"
        )
    cut = {tag: Cut(**reason) for tag, reason in content["cut"].items()}
    return LabelsFile(**{**content, "cut": cut})


def read_labels(store: Store) -> tuple[list[str], str]:
    """Returns the labels of `labels.json` in their order, and its digest; see `load_labels`."""
    read = load_labels(store)
    return read.labels, read.digest


def label_matrix(tags: pa.ListArray, labels: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Returns which of `labels` each row of `tags` has, after aliases and implications: [N, L]."""
    vocabulary = appearance()
    column = {name: number for number, name in enumerate(vocabulary.groups)}
    unknown = [label for label in labels if label not in column]
    if unknown:
        raise SchemaError(
            f"labels that are not in the curated list of appearance tags: {', '.join(unknown)}. "
            "Build labels again."
        )
    rows, codes = _known_tags(tags, list(vocabulary.meaning))
    matrix = _presence(rows, codes, len(tags), vocabulary=vocabulary)
    return matrix[:, [column[label] for label in labels]]


class _Tally:
    """Counts crops by tag: as the boards say it, after the maps, and two tags together."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.crops = self.untagged = 0
        self._names = list(vocabulary.groups)
        self._known = [*vocabulary.meaning, *vocabulary.left_out]
        self._raw = np.zeros(len(self._known), np.int64)
        self._together = np.zeros((len(self._names), len(self._names)), np.int64)

    def add(self, tags: pa.ListArray, faces: npt.NDArray[np.int32]) -> None:
        """Adds posts: their tags, and the number of crops [n] that each stands for."""
        tagged = has_tags(tags)
        self.crops += int(faces[tagged].sum())
        self.untagged += int(faces[~tagged].sum())
        rows, codes = _known_tags(tags, self._known)
        self._raw += np.bincount(codes, weights=faces[rows], minlength=len(self._known)).astype(
            np.int64
        )
        curated = codes < len(self.vocabulary.meaning)
        matrix = _presence(
            rows[curated], codes[curated], len(tags), vocabulary=self.vocabulary
        ).astype(np.float32)  # exact: a batch has far fewer than 2^24 crops
        weighted = matrix * faces[:, np.newaxis].astype(np.float32)
        self._together += (weighted.T @ matrix).astype(np.int64)

    @property
    def counted(self) -> dict[str, int]:
        """Crops with each curated tag, after aliases and implications."""
        return dict(zip(self._names, self._together.diagonal().tolist(), strict=True))

    @property
    def raw(self) -> dict[str, int]:
        """Crops with each known tag as it stands on the board."""
        return dict(zip(self._known, self._raw.tolist(), strict=True))

    def pairs(self, labels: Sequence[str]) -> list[list[int]]:
        """Crops with two labels each: [L, L]."""
        at = [self._names.index(label) for label in labels]
        pairs: list[list[int]] = self._together[np.ix_(at, at)].tolist()
        return pairs


def has_tags(tags: pa.ListArray) -> npt.NDArray[np.bool_]:
    """Returns which posts have any general tag: of the others, nothing is known [N]."""
    tagged: npt.NDArray[np.bool_] = pc.greater(pc.list_value_length(tags), 0).to_numpy(
        zero_copy_only=False
    )
    return tagged


def _known_tags(
    tags: pa.ListArray, known: Sequence[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row and number in `known` of every known tag, each pair once."""
    codes = pc.index_in(pc.list_flatten(tags), value_set=pa.array(known, pa.string()))
    seen = pc.is_valid(codes)
    rows = pc.list_parent_indices(tags).filter(seen).to_numpy()
    pairs = np.unique(rows * np.int64(len(known)) + codes.filter(seen).to_numpy())
    return pairs // len(known), pairs % len(known)


def _presence(
    rows: npt.NDArray[np.int64],
    codes: npt.NDArray[np.int64],
    count: int,
    *,
    vocabulary: Vocabulary,
) -> npt.NDArray[np.bool_]:
    """Which tags of the vocabulary each row has, implied ones too: [count, V]."""
    column = {name: number for number, name in enumerate(vocabulary.groups)}
    matrix = np.zeros((count, len(column)), bool)
    meant = list(vocabulary.meaning.values())
    for place in range(max(map(len, meant))):  # the tag itself, then what follows from it
        columns = [column[each[place]] if place < len(each) else -1 for each in meant]
        found = np.array(columns)[codes]
        matrix[rows[found >= 0], found[found >= 0]] = True
    return matrix


def _by_frequency(counts: Mapping[str, int]) -> dict[str, int]:
    seen = [(tag, count) for tag, count in counts.items() if count]
    return dict(sorted(seen, key=lambda item: (-item[1], item[0])))


def _choose(
    counts: dict[str, int], crops: int, settings: LabelSettings, *, tally: _Tally
) -> tuple[list[str], dict[str, Cut]]:
    """Splits the tags, the most frequent first, into labels and those cut with their reason."""
    labels: list[str] = []
    cut: dict[str, Cut] = {}
    # Whole crops are compared: 0.05 * 100 must not fail by a rounding error.
    fewest = math.ceil(round(settings.min_frac * crops, 6))
    most = math.floor(round(settings.max_frac * crops, 6))
    for tag, count in counts.items():
        why = ""
        if count < fewest:
            why, wanted = TOO_RARE, f"at least {settings.min_frac:.1%} wanted"
        elif count > most:
            why, wanted = TOO_FREQUENT, f"at most {settings.max_frac:.1%} wanted"
        elif len(labels) == settings.count:
            why, wanted = OUTNUMBERED, f"{settings.count} others are more frequent"
        if not why:
            labels.append(tag)
            continue
        implied = list(tally.vocabulary.meaning[tag][1:])
        text = f"on {count / crops:.1%} of the crops, {wanted}"
        cut[tag] = Cut(why, text + _counting_as(implied), count, implied)
    return labels, cut | _other_tags(tally, fewest)


def _other_tags(tally: _Tally, fewest: int) -> dict[str, Cut]:
    """The seen tags that are aliases, and the frequent ones that were left out on purpose."""
    cut = {}
    vocabulary = tally.vocabulary
    for tag, count in _by_frequency(tally.raw).items():
        part = f"on {count / tally.crops:.1%} of the crops"
        if tag in vocabulary.left_out:
            if count >= fewest:
                cut[tag] = Cut(LEFT_OUT, f"{part}: {vocabulary.left_out[tag]}", count, [])
        elif tag not in vocabulary.groups:
            meant = list(vocabulary.meaning[tag])
            cut[tag] = Cut(ALIAS, f"{part}; an alias{_counting_as(meant)}", count, meant)
    return cut


def _counting_as(tags: Sequence[str]) -> str:
    return f"; it counts as {', '.join(tags)}" if tags else ""


def _seen_as(labels: Sequence[str], tally: _Tally) -> dict[str, dict[str, int]]:
    seen = _by_frequency(tally.raw)
    meaning = tally.vocabulary.meaning
    return {
        label: {tag: count for tag, count in seen.items() if label in meaning.get(tag, ())}
        for label in labels
    }


def _warning(labels: Sequence[str], crops: int, settings: LabelSettings) -> str | None:
    if len(labels) >= settings.count:
        return None
    return (
        f"{len(labels)} labels instead of {settings.count}: {', '.join(labels)}. No other "
        f"appearance tag is on {settings.min_frac:.0%} to {settings.max_frac:.0%} of the "
        f"{crops:,} crops; labels.json says why each was cut."
    )


def _none_left(
    store: Store,
    posts: FacePosts,
    counts: dict[str, int],
    *,
    tally: _Tally,
    settings: LabelSettings,
) -> str:
    if not tally.crops:
        return (
            f"None of the {tally.untagged:,} crops has a tag: labels are chosen by the tags of the "
            "posts. Add pictures with tags."
        )
    wanted = f"{settings.min_frac:.0%} to {settings.max_frac:.0%} of the {tally.crops:,} crops"
    if counts:
        seen = [f"{tag} {count / tally.crops:.1%}" for tag, count in counts.items()][:_SHOWN_TAGS]
        return f"No appearance tag is on {wanted}. Seen: {', '.join(seen)}."
    every: Counter[str] = Counter()
    for _, tags in tagged_posts(store, posts):
        found = pc.value_counts(pc.list_flatten(tags))
        every.update(dict(zip(found.field(0).to_pylist(), found.field(1).to_pylist(), strict=True)))
    seen = [f"{tag} {count:,}" for tag, count in _by_frequency(every).items()][:_SHOWN_TAGS]
    return (
        f"No appearance tag is on any of the {tally.crops:,} crops. The most frequent tags: "
        f"{', '.join(seen)}."
    )


def _faults_of_labels(labels: object, counts: object) -> list[str]:
    """What is wrong with the list of labels: each fault names its label."""
    if not (isinstance(labels, list) and labels and all(isinstance(one, str) for one in labels)):
        return ['"labels" is no list of tags']
    if not isinstance(counts, dict) or not all(isinstance(one, int) for one in counts.values()):
        return ['"counts" gives no number for each tag']
    taken = set(manifest_schema([]).names)
    known = appearance().groups
    once = dict.fromkeys(labels)
    faults = [f'label "{one}" stands twice' for one in once if labels.count(one) > 1]
    faults += [f'label "{one}" is a column of the manifest already' for one in once if one in taken]
    faults += [
        f'label "{one}" is no curated appearance tag{nearest(one, known)}'
        for one in once
        if one not in known and one not in taken
    ]
    faults += [
        f'label "{one}" is on no crop by "counts"'
        for one in once
        if one in known and not counts.get(one)
    ]
    if not faults and labels != sorted(labels, key=lambda one: (-counts[one], one)):
        faults.append('"labels" are out of order: the more frequent first, equal ones by name')
    return faults


def _digest(content: Mapping[str, Any]) -> str:
    return digest_of({key: value for key, value in content.items() if key != "digest"})
