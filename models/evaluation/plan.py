"""The plan of an evaluation: which reals are compared, and which fakes are drawn for it."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from dataset.labels import appearance
from dataset.manifest import Manifest
from dataset.store import Store
from models.evaluation.fakes import FakeSet
from models.evaluation.protocol import Protocol
from models.evaluation.reference import Split, asked_of, shared_labels, split_of
from models.labels import Rows, typical_labels
from models.metrics.label_control import flipped_pairs


@dataclasses.dataclass(frozen=True, eq=False)
class EvalPlan:
    """What is compared and drawn.

    Attributes:
        shared: labels that the generator knows and the manifest has, in the generator's order.
        reals: both splits at the protocol's side.
        near: both at the generator's own side, to look for copies: a 48 px copy of each training
            face beside the sharper originals had memory_ratio 0.98; beside its like it has 0.
        labels: rows [N,L] of the manifest that each of `repeats` is drawn for.
        curve: sets of the truncation curve by psi. flips: pairs that differ in one label.

    """

    shared: list[str]
    reals: dict[str, Split]
    near: dict[str, Split]
    labels: list[Rows]
    repeats: list[FakeSet]
    curve: dict[float, FakeSet]
    flips: FakeSet | None

    @property
    def total(self) -> int:
        """Pictures in all."""
        fakes = [*self.repeats, *self.curve.values(), *([self.flips] if self.flips else [])]
        reals = [*self.reals.values(), *self.near.values()]
        return sum(len(one) for one in fakes) + sum(len(one) for one in reals)


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
    reals = _splits(store, manifest, protocol, side_px=protocol.reference_px)
    labels, repeats = [], []
    for repeat in range(protocol.repeats):  # each with labels and seeds of its own
        start = protocol.seed + repeat * protocol.fakes
        rows = typical_labels(reals["eval"].labels, protocol.fakes, start)
        asked = asked_of(rows, manifest.labels, known)
        seeds = range(start, start + protocol.fakes)
        labels.append(rows)
        repeats.append(FakeSet(f"repeat-{repeat}", asked, seeds, protocol.psi))
    return EvalPlan(
        shared=shared,
        reals=reals,
        near=_splits(store, manifest, protocol, side_px=resolution_px),
        labels=labels,
        repeats=repeats,
        curve=_curve_sets(protocol, repeats[0]),
        flips=_flip_set(protocol, reals["eval"], shared, manifest=manifest.labels, known=known),
    )


def _splits(
    store: Store, manifest: Manifest, protocol: Protocol, *, side_px: int
) -> dict[str, Split]:
    return {
        split: split_of(store, manifest, protocol, split, side_px=side_px)
        for split in ("eval", "train")
    }


def _curve_sets(protocol: Protocol, first: FakeSet) -> dict[float, FakeSet]:
    """Returns the sets of the curve's points; the protocol's own psi is drawn already."""
    asked = first.asked[: protocol.curve_fakes]
    return {
        psi: FakeSet(f"psi-{psi:g}", asked, first.seeds[: len(asked)], psi)
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
    return FakeSet("flips", asked_of(flat, shared, known), seeds)
