"""The plan of an evaluation: the protocol, the packed reals, their statistics, the fakes.

The protocol is all that must be equal for the numbers of two generators to be compared.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from dataset.errors import EmptyStageError, UsageError
from dataset.labels import appearance
from dataset.manifest import Manifest
from dataset.packed import Packed, pack
from dataset.store import Store, digest_of, file_lock
from models.evaluation.fakes import EvalProgress, FakeSet
from models.evaluation.feature_rows import FeatureRows, Pictures, RowExtractor, RowFile
from models.evaluation.label_judge import JudgeConfig
from models.io.safe_io import parse_tensors
from models.labels import Rows, typical_labels
from models.metrics.distances import ReferenceStats, Statistics
from models.metrics.extractors import Extractor
from models.metrics.label_control import flipped_pairs
from models.sampling.draw import CHUNK

FAKES, REPEATS, FLIPS = 10_000, 5, 16
REFERENCE_PX = 128  # of the numbers that generators of different sides are compared by
TRAIN_ROWS = 10_000
PSIS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
NEIGHBOURS = 3  # k of precision and recall
MIN_FAKES = NEIGHBOURS + 1
CURVE_PART, MIN_CURVE = 4, 64  # a point of the curve has a fourth of the fakes, or 64


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a generator is measured; averaged (EMA) weights always.

    Attributes:
        extractor, extractor_sha256, input_px, resizer: what turns pictures into features.
        judge: digest of the settings of the network that judges labels.
        fakes: pictures of a set, for each of `repeats` sets with seeds of their own.
        reference_px: side of the reals that generators of different sides are compared with by
            `…_at128`; all else compares with reals at the generator's own side.
        train_rows: training pictures, at most, that copies are looked for among.
        psi: truncation of all numbers but the curve's, which has one point for each of `psis`.
        flips: pairs of pictures a label that differ in that label alone.

    """

    extractor: str
    extractor_sha256: str
    input_px: int
    resizer: str
    judge: str
    psi: float = 1.0
    fakes: int = FAKES
    repeats: int = REPEATS
    seed: int = 0
    reference: str = "eval"
    reference_px: int = REFERENCE_PX
    train_rows: int = TRAIN_ROWS
    neighbours: int = NEIGHBOURS
    flips: int = FLIPS
    psis: tuple[float, ...] = PSIS
    labels: str = "drawn from the reference's rows"
    # 2: reals at the generator's own side, kernel distance over all rows. Before: reals at
    # reference_px, where real faces of 64 px had a distance of 365 and a recall of 0.02.
    version: int = 2

    @property
    def digest(self) -> str:
        """The sha256 of all of it."""
        return digest_of(self.to_json())

    @property
    def curve_fakes(self) -> int:
        """Pictures of each point of the truncation curve."""
        return min(self.fakes, max(MIN_CURVE, self.fakes // CURVE_PART))

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values."""
        return {**dataclasses.asdict(self), "psis": list(self.psis)}


def protocol_for(network: Extractor, **sizes: Any) -> Protocol:
    """Returns the protocol of this extractor with our judge; `sizes` are fields of `Protocol`."""
    return Protocol(
        extractor=network.name,
        extractor_sha256=network.sha256,
        input_px=network.input_px,
        resizer=network.resizer,
        judge=JudgeConfig().digest,
        **sizes,
    )


CACHE = "cache/features"
_VERSION = 1  # of what a row holds


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Reals of a split: packed pictures, the places [n] of those that are used, their labels."""

    images: npt.NDArray[np.uint8]  # [N,3,R,R], memory-mapped
    places: npt.NDArray[np.int64]  # [n], ascending
    labels: Rows  # [n,L], in the manifest's order
    file: Path  # of their rows

    def __len__(self) -> int:
        return len(self.places)

    def pictures(self, rows: npt.NDArray[np.int64] | slice) -> Pictures:
        """Returns the pictures [k,R,R,3] of some of the n rows."""
        return np.ascontiguousarray(self.images[self.places[rows]].transpose(0, 2, 3, 1))


def split_of(
    store: Store, manifest: Manifest, protocol: Protocol, split: str, *, side_px: int
) -> Split:
    """Packs a split at a side and finds the file of its rows, which may be empty as yet.

    All of the `eval` split is used, of `train` up to `protocol.train_rows`, always the same ones.
    Raises EmptyStageError if too few pictures are there to be compared with.
    """
    packed = pack(store, manifest, split, resolution_px=side_px)
    least = protocol.neighbours + 1
    if len(packed.images) < least:
        raise EmptyStageError(
            f"the {split} split of manifest {manifest.digest[:12]} has {len(packed.images)} "
            f"pictures; {least} or more are needed to compare with. Crawl more posts."
        )
    places = _places(packed, protocol, split)
    key = {
        "manifest": manifest.digest,
        "split": split,
        "places": len(places),
        "side_px": side_px,
        "extractor": protocol.extractor_sha256,
        "input_px": protocol.input_px,
        "resizer": protocol.resizer,
        "thumbnail_px": JudgeConfig.thumbnail_px,
        "version": _VERSION,
    }
    file = store.scratch.make_folder(CACHE) / f"{digest_of(key)}.f32"
    labels = np.asarray(packed.labels[places], dtype=np.float32)
    return Split(packed.images, places, labels, file)


def real_feature_rows(split: Split, extract: RowExtractor, progress: EvalProgress) -> FeatureRows:
    """Returns the rows of a split: those that are cached, and the others made now.

    Another process that makes the same ones is waited for.
    """
    with file_lock(split.file.with_suffix(".lock")):
        file = RowFile(split.file, len(split), extract.width, chunk=CHUNK)
        progress.advance(file.done)
        while file.done < file.rows:
            some = slice(file.done, min(file.done + CHUNK, file.rows))
            file.append(extract(split.pictures(some)))
            progress.advance(some.stop - some.start)
    return extract.read(file)


def reference_stats_at(store: Store, path: str, make: Callable[[], Statistics]) -> ReferenceStats:
    """Returns the stats stored at `path`, after decomposing those of `make()` on the first call."""
    if store.exists(path):
        held = parse_tensors(store.read_bytes(path), where=store.url(path))
        return ReferenceStats(**{name: tensor.numpy() for name, tensor in held.items()})
    made = ReferenceStats.of(make())
    parts = {name: np.ascontiguousarray(part) for name, part in vars(made).items()}
    store.write_bytes(path, safetensors.numpy.save(parts))
    return made


def shared_labels(manifest: Sequence[str], known: Sequence[str]) -> list[str]:
    """Returns the labels that a generator knows and the manifest has, in the generator's order.

    Raises UsageError if it knows labels and none of them is there.
    """
    shared = [name for name in known if name in manifest]
    if known and not shared:
        raise UsageError(
            f"the generator knows {', '.join(known[:5])}{' …' if len(known) > 5 else ''}, and the "
            f"manifest has none of its {len(known)} labels but {', '.join(manifest[:5])}"
            f"{' …' if len(manifest) > 5 else ''}: it learnt from another label set. Name its own "
            "manifest with --manifest."
        )
    return shared


def labels_for_generator(rows: Rows, manifest: Sequence[str], known: Sequence[str]) -> Rows:
    """Brings label rows [n,L] of the manifest into a generator's order: [n,known].

    A label that the manifest has not is 0 in every row.
    """
    labels = np.zeros((len(rows), len(known)), dtype=np.float32)
    for column, name in enumerate(known):
        if name in manifest:
            labels[:, column] = rows[:, list(manifest).index(name)]
    return labels


def _places(packed: Packed, protocol: Protocol, split: str) -> npt.NDArray[np.int64]:
    count = len(packed.images)
    if split == "eval" or count <= protocol.train_rows:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).permutation(count)[: protocol.train_rows])


@dataclasses.dataclass(frozen=True, eq=False)
class EvalPlan:
    """What is compared and drawn.

    Attributes:
        shared: labels that the generator knows and the manifest has, in the generator's order.
        reals: both splits at the generator's own side. A 48 px copy of each training face beside
            the sharper originals had memory_ratio 0.98; beside its like it has 0.
        common: what is compared at the protocol's side: the eval split, and the training pictures
            at that side or the generator's own where it is smaller; none if the sides are equal.
        reduced_px: side that fakes are reduced to for that, 0 if they are no larger.
        labels: rows [N,L] of the manifest that each of `repeats` is drawn for.
        curve: sets of the truncation curve by psi. flips: pairs that differ in one label.

    """

    shared: list[str]
    reals: dict[str, Split]
    common: dict[str, Split]
    reduced_px: int
    labels: list[Rows]
    repeats: list[FakeSet]
    curve: dict[float, FakeSet]
    flips: FakeSet | None

    @property
    def total(self) -> int:
        """Pictures in all."""
        fakes = [*self.repeats, *self.curve.values(), *([self.flips] if self.flips else [])]
        reals = {one.file: one for one in [*self.reals.values(), *self.common.values()]}
        return sum(len(one) for one in fakes) + sum(len(one) for one in reals.values())


def plan_evaluation(
    store: Store,
    manifest: Manifest,
    protocol: Protocol,
    *,
    known: Sequence[str],
    resolution_px: int,
) -> EvalPlan:
    """Packs the reals and says what is drawn.

    known, resolution_px: labels and side of the generator.
    """
    shared = shared_labels(manifest.labels, known)
    reals = {
        split: split_of(store, manifest, protocol, split, side_px=resolution_px)
        for split in ("eval", "train")
    }
    common, common_px = {}, protocol.reference_px
    if resolution_px != common_px:
        common = {"eval": split_of(store, manifest, protocol, "eval", side_px=common_px)}
        common["train"] = (
            reals["train"]
            if resolution_px < common_px
            else split_of(store, manifest, protocol, "train", side_px=common_px)
        )
    labels, repeats = [], []
    for repeat in range(protocol.repeats):  # each with labels and seeds of its own
        start = protocol.seed + repeat * protocol.fakes
        rows = typical_labels(reals["eval"].labels, protocol.fakes, start)
        known_labels = labels_for_generator(rows, manifest.labels, known)
        seeds = range(start, start + protocol.fakes)
        labels.append(rows)
        repeats.append(FakeSet(f"repeat-{repeat}", known_labels, seeds, protocol.psi))
    return EvalPlan(
        shared=shared,
        reals=reals,
        common=common,
        reduced_px=common_px if resolution_px > common_px else 0,
        labels=labels,
        repeats=repeats,
        curve=_curve_sets(protocol, repeats[0]),
        flips=_flip_set(protocol, reals["eval"], shared, manifest=manifest.labels, known=known),
    )


def _curve_sets(protocol: Protocol, first: FakeSet) -> dict[float, FakeSet]:
    """Returns the sets of the curve's points; the protocol's own psi is drawn already."""
    labels = first.labels[: protocol.curve_fakes]
    return {
        psi: FakeSet(f"psi-{psi:g}", labels, first.seeds[: len(labels)], psi)
        for psi in protocol.psis
        if psi != protocol.psi
    }


def _flip_set(
    protocol: Protocol,
    split: Split,
    shared: list[str],
    *,
    manifest: Sequence[str],
    known: Sequence[str],
) -> FakeSet | None:
    """Returns the pairs of all labels: K with the first, K without it, K with the second ….

    Both sides of a pair have the same seed.
    """
    count, groups = protocol.flips, appearance().groups
    if not shared or not count:
        return None
    columns = [list(manifest).index(name) for name in shared]
    rows = split.labels[:, columns]  # only what the generator knows can be a sibling
    pairs = [
        flipped_pairs(rows, shared, name, groups=groups, count=count, seed=protocol.seed + place)
        for place, name in enumerate(shared)
    ]
    flat = np.concatenate([side for pair in pairs for side in pair])
    first = protocol.seed
    seeds = [*range(first, first + count)] * (2 * len(shared))
    return FakeSet("flips", labels_for_generator(flat, shared, known), seeds)
