"""The whole evaluation of one generator: reals, fakes, numbers, pictures, evaluation.json."""

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dataset.errors import TrainingError
from dataset.labels import appearance
from dataset.manifest import Manifest
from dataset.store import Store, digest_of
from models.entry import Report
from models.evaluation.fakes import FakeSet, WorkFolder, work_folder
from models.evaluation.feature_rows import FeatureRows, RowExtractor
from models.evaluation.figures import (
    CURVE,
    FAKES,
    LABELS,
    NEAREST_REALS,
    NEIGHBOURS,
    REALS,
    SHOWN,
    first_fakes,
    labels_png,
    neighbours_table,
    truncation_png,
    write_grid,
)
from models.evaluation.label_judge import Judge, JudgeConfig, judge_at
from models.evaluation.progress import EvalProgress, eval_progress
from models.evaluation.protocol import Protocol
from models.evaluation.reference import (
    Split,
    asked_of,
    real_feature_rows,
    reference_stats_at,
    shared_labels,
    split_of,
)
from models.evaluation.results import (
    SUBSETS,
    Reference,
    SetMetrics,
    by_label,
    finite_or_none,
    joint_statistics,
    mean_ap,
    mean_of,
    metrics_for_set,
    plain_statistics,
    sigma_of,
    truncation_point,
)
from models.labels import Rows, typical_labels
from models.metrics.extractors import Extractor
from models.metrics.frechet import ReferenceStats, Statistics, joint_weight
from models.metrics.label_control import (
    average_precisions,
    flip_success,
    flipped_pairs,
    hair_labels,
    hits,
    tones_by_label,
)
from models.metrics.memorization import Memorization
from models.networks import GeneratorNet

EVALUATION = "evaluation.json"  # written last: where it stands, the evaluation is whole
JUDGES, STATISTICS = "cache/judges", "cache/statistics"

Precisions = npt.NDArray[np.float64]  # [L]


def evaluate(
    store: Store,
    out: str,
    protocol: Protocol,
    *,
    generator: GeneratorNet,
    identity: Mapping[str, str],
    manifest: Manifest,
    network: Extractor,
    report: Report = lambda _payload: None,
    stop_signal: Callable[[], int] = lambda: 0,
) -> dict[str, Any]:
    """Measures the generator and writes evaluation.json, grids and charts into `out`.

    Returns at once if `out` holds an evaluation of the same identity (digests of weights, manifest
    and protocol). An interrupted one goes on at the chunk of pictures where it stopped. Memory does
    not grow with the number of fakes: their features lie on disk until the end.

    Raises Stopped when a signal came; EmptyStageError for a split that is too small, UsageError for
    a generator of other labels, TrainingError if it draws what is no picture.
    """
    if (before := _before(store, out, identity)) is not None:
        return before
    with work_folder(store, out, identity) as work:
        if (before := _before(store, out, identity)) is not None:  # by the process we waited for
            work.remove()
            return before
        made = _Evaluation(
            store=store,
            out=out,
            protocol=protocol,
            generator=generator,
            manifest=manifest,
            network=network,
            work=work,
        )
        started = time.monotonic()
        found = made.run(report, stop_signal)
        seconds = round(time.monotonic() - started, 2)
        result = {**identity, **found, "seconds": seconds, "reused": False}
        store.write_json(f"{out}/{EVALUATION}", result)
        work.remove()
    return result


def _before(store: Store, out: str, identity: Mapping[str, str]) -> dict[str, Any] | None:
    path = f"{out}/{EVALUATION}"
    if not store.exists(path):
        return None
    found: dict[str, Any] = store.read_json(path)
    if any(found.get(name) != value for name, value in identity.items()):
        return None
    print(f"already evaluated: {store.url(path)}", file=sys.stderr)
    return found | {"reused": True, "seconds": 0.0}


@dataclasses.dataclass(frozen=True, eq=False)
class _Evaluation:
    """One evaluation at work."""

    store: Store
    out: str
    protocol: Protocol
    generator: GeneratorNet
    manifest: Manifest
    network: Extractor
    work: WorkFolder

    def run(self, report: Report, stop_signal: Callable[[], int]) -> dict[str, Any]:
        """Returns all but the identity."""
        plan = self._plan()
        with eval_progress(plan.total, report=report, stop_signal=stop_signal) as progress:
            progress.stage("reals")
            plain = RowExtractor(self.network, self._device)
            reals = {
                split: real_feature_rows(held, plain, progress)
                for split, held in plan.reals.items()
            }
            near = {
                split: real_feature_rows(held, plain, progress) for split, held in plan.near.items()
            }
            progress.stage("judge")
            judge = self._judge(plan.reals["eval"], reals["eval"])
            judged = RowExtractor(self.network, self._device, judge)
            compared = self._compared(plan, reals["eval"], near)
            first, found = self._repeats(plan, compared, judged, progress)
            progress.stage("truncation curve")
            points = self._curve(plan.curve, first, judged, compared, progress)
            progress.stage("flipped labels")
            flipped = self._flipped(plan, judged, progress)
            progress.stage("pictures and charts")

        # The judge never saw training reals: what it makes of them is the ceiling.
        ceiling = _ceiling(judge, plan.reals["train"], reals["train"], shared=compared.shared)
        own_tones = hits(compared.rows.tones, compared.labels[:, compared.hair], compared.tones)
        result = {
            **self._distances(found, self._floor(reals["train"], compared)),
            **_variety(found),
            **_labels(found, ceiling, plan.shared),
            "label_chance": _chance(compared),
            "flip_success": _mean_or_none(list(flipped.values())),
            "flip_by_label": by_label(list(flipped), flipped.values()),
            "hair_colour_hits": mean_of([one.hair_hits for one in found]),
            "real_hair_colour_hits": finite_or_none(own_tones),
            "truncation": points,
            "fakes": self.protocol.fakes,
            "repeats": self.protocol.repeats,
            "reference_rows": len(plan.reals["eval"]),
            "train_rows": len(plan.reals["train"]),
            "judge_digest": judge.digest,
            "protocol": self.protocol.to_json(),
            "folder": self.out,
        }
        paths = self._grids(plan, found[0].memory, measured=first, near=near["train"])
        return result | paths | self._charts(result)

    def _plan(self) -> "_Plan":
        """Packs the reals and says what is to be drawn."""
        shared = shared_labels(self.manifest.labels, self.generator.spec.labels)
        reals = self._splits(self.protocol.reference_px)
        labels, repeats = [], []
        for repeat in range(self.protocol.repeats):  # each with labels and seeds of its own
            start = self.protocol.seed + repeat * self.protocol.fakes
            rows = typical_labels(reals["eval"].labels, self.protocol.fakes, start)
            asked = asked_of(rows, self.manifest.labels, self.generator.spec.labels)
            seeds = range(start, start + self.protocol.fakes)
            labels.append(rows)
            repeats.append(FakeSet(f"repeat-{repeat}", asked, seeds, self.protocol.psi))
        return _Plan(
            shared=shared,
            reals=reals,
            near=self._splits(self.generator.spec.resolution_px),
            labels=labels,
            repeats=repeats,
            curve=self._curve_sets(repeats[0]),
            flips=self._flip_set(reals["eval"], shared),
        )

    def _repeats(
        self, plan: "_Plan", compared: Reference, judged: RowExtractor, progress: EvalProgress
    ) -> tuple[FeatureRows, list[SetMetrics]]:
        """Draws and measures all sets; returns the rows of the first one, and all numbers."""
        rows: list[FeatureRows] = []
        found: list[SetMetrics] = []
        for repeat, fakes in enumerate(plan.repeats):
            progress.stage(f"fakes {repeat + 1} of {len(plan.repeats)}")
            rows.append(self.work.feature_rows(fakes, self.generator, judged, progress=progress))
            progress.stage(f"numbers {repeat + 1} of {len(plan.repeats)}")
            numbers = metrics_for_set(
                rows[-1],
                plan.labels[repeat],
                compared,
                neighbours=self.protocol.neighbours,
                subsets=max(1, SUBSETS // len(plan.repeats)),
                seed=self.protocol.seed + repeat,
            )
            found.append(numbers)
            progress.report_facts(**{self.network.metric: numbers.distance})
        return rows[0], found

    @property
    def _device(self) -> torch.device:
        return next(self.generator.parameters()).device

    def _curve_sets(self, first: FakeSet) -> dict[float, FakeSet]:
        """Returns the sets of the curve's points; the protocol's own psi is drawn already."""
        asked = first.asked[: self.protocol.curve_fakes]
        return {
            psi: FakeSet(f"psi-{psi:g}", asked, first.seeds[: len(asked)], psi)
            for psi in self.protocol.psis
            if psi != self.protocol.psi
        }

    def _flip_set(self, split: Split, shared: list[str]) -> FakeSet | None:
        """Returns the pairs of all labels: K with the first, K without it, K with the second ….

        Both sides of a pair have the same seed.
        """
        count, groups = self.protocol.flips, appearance().groups
        if not shared or not count:
            return None
        known = self.manifest.labels
        columns = [known.index(name) for name in shared]
        rows = split.labels[:, columns]  # only what the generator knows can be a sibling
        pairs = [
            flipped_pairs(
                rows, shared, name, groups=groups, count=count, seed=self.protocol.seed + place
            )
            for place, name in enumerate(shared)
        ]
        flat = np.concatenate([side for pair in pairs for side in pair])
        first = self.protocol.seed
        seeds = [*range(first, first + count)] * (2 * len(shared))
        return FakeSet("flips", asked_of(flat, shared, self.generator.spec.labels), seeds)

    def _judge(self, split: Split, reals: FeatureRows) -> Judge:
        key = {
            "manifest": self.manifest.digest,
            "judge": JudgeConfig().digest,
            "features": split.file.stem,
        }
        return judge_at(
            self.store,
            f"{JUDGES}/{digest_of(key)}.safetensors",
            features=reals.features,
            thumbs=reals.rest,
            labels=split.labels,
            config=JudgeConfig(),
        )

    def _splits(self, side_px: int) -> dict[str, Split]:
        return {
            split: split_of(self.store, self.manifest, self.protocol, split, side_px=side_px)
            for split in ("eval", "train")
        }

    def _compared(
        self, plan: "_Plan", reals: FeatureRows, near: Mapping[str, FeatureRows]
    ) -> Reference:
        split, shared = plan.reals["eval"], plan.shared
        columns = [self.manifest.labels.index(name) for name in shared]
        hair = [columns[place] for place in hair_labels(shared)]
        weight = joint_weight(reals.features, split.labels)
        return Reference(
            rows=reals,
            labels=split.labels,
            train=near["train"],
            unseen=near["eval"],
            stats=self._reference_stats(split, "plain", lambda: plain_statistics(reals.features)),
            joint_stats=self._reference_stats(
                split, "joint", lambda: joint_statistics(reals, split.labels, weight)
            )
            if weight
            else None,
            weight=weight,
            shared=columns,
            hair=hair,
            tones=tones_by_label(reals.tones, split.labels[:, hair]),
        )

    def _reference_stats(
        self, split: Split, kind: str, make: Callable[[], Statistics]
    ) -> ReferenceStats:
        # The file of the features is named by all that they depend on; labels by the manifest.
        key = {"manifest": self.manifest.digest, "features": split.file.stem, "kind": kind}
        return reference_stats_at(self.store, f"{STATISTICS}/{digest_of(key)}.safetensors", make)

    def _curve(
        self,
        sets: Mapping[float, FakeSet],
        first: FeatureRows,
        judged: RowExtractor,
        compared: Reference,
        progress: EvalProgress,
    ) -> list[dict[str, Any]]:
        points = []
        for psi in self.protocol.psis:
            if psi in sets:
                fakes = self.work.feature_rows(sets[psi], self.generator, judged, progress=progress)
            else:
                fakes = first.first(self.protocol.curve_fakes)
            points.append(
                truncation_point(
                    psi,
                    fakes,
                    compared.rows,
                    compared.stats,
                    metric=self.network.metric,
                    neighbours=self.protocol.neighbours,
                )
            )
        return points

    def _flipped(
        self, plan: "_Plan", judged: RowExtractor, progress: EvalProgress
    ) -> dict[str, float]:
        """Returns the flip success of each label."""
        flips, shared = plan.flips, plan.shared
        if flips is None:
            return {}
        logits = self.work.feature_rows(flips, self.generator, judged, progress=progress).rest
        sides = np.asarray(logits).reshape(len(shared), 2, self.protocol.flips, -1)
        columns = [self.manifest.labels.index(name) for name in shared]
        return {
            name: flip_success(sides[place, 0, :, column], sides[place, 1, :, column])
            for place, (name, column) in enumerate(zip(shared, columns, strict=True))
        }

    def _floor(self, train: FeatureRows, compared: Reference) -> float:
        """Returns the distance of as many training reals: what a perfect generator would reach."""
        count = min(self.protocol.fakes, len(train.rows))
        order = np.random.default_rng(self.protocol.seed).permutation(len(train.rows))
        return compared.stats.distance(plain_statistics(train.features[np.sort(order[:count])]))

    def _distances(self, found: list[SetMetrics], floor: float) -> dict[str, Any]:
        metric, kernel = self.network.metric, self.network.kernel_metric
        distances = [one.distance for one in found]
        return {
            "metric": metric,
            metric: float(np.mean(distances)),
            "sigma": sigma_of(distances),
            "distances": distances,
            "real_fd": floor,
            f"joint_{metric}": mean_of([one.joint for one in found]),
            "kernel_metric": kernel,
            kernel: mean_of([one.kernel for one in found]),
            f"{kernel}_sigma": sigma_of([one.kernel for one in found]),
        }

    def _grids(
        self, plan: "_Plan", memory: Memorization, *, measured: FeatureRows, near: FeatureRows
    ) -> dict[str, str]:
        fakes, reals = plan.repeats[0], plan.reals["eval"]
        table = neighbours_table(
            fakes,
            self.generator,
            measured=measured,
            memory=memory,
            train=plan.near["train"],
            train_rows=near,
        )
        shown = first_fakes(fakes, self.generator)
        write_grid(self.store, f"{self.out}/{FAKES}", shown)
        write_grid(self.store, f"{self.out}/{REALS}", reals.pictures(slice(SHOWN)))
        write_grid(self.store, f"{self.out}/{NEIGHBOURS}", table, columns=1 + NEAREST_REALS)
        names = {"fakes_grid": FAKES, "reals_grid": REALS, "neighbours_grid": NEIGHBOURS}
        return {name: f"{self.out}/{file}" for name, file in names.items()}

    def _charts(self, result: Mapping[str, Any]) -> dict[str, str]:
        """Draws the charts that there is something on; says so where matplotlib is missing."""
        paths = {}
        try:
            if len(result["truncation"]) > 1:
                drawn = truncation_png(
                    result["truncation"],
                    metric=result["metric"],
                    fakes=self.protocol.curve_fakes,
                )
                paths["truncation_chart"] = f"{self.out}/{CURVE}"
                self.store.write_bytes(paths["truncation_chart"], drawn, durable=False)
            if result["label_ap_by_label"]:
                drawn = labels_png(result["label_ap_by_label"], result["flip_by_label"])
                paths["labels_chart"] = f"{self.out}/{LABELS}"
                self.store.write_bytes(paths["labels_chart"], drawn, durable=False)
        except TrainingError as error:
            print(f"no charts are drawn: {error}", file=sys.stderr)
        return paths


@dataclasses.dataclass(frozen=True, eq=False)
class _Plan:
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


def _ceiling(judge: Judge, split: Split, train: FeatureRows, *, shared: list[int]) -> Precisions:
    """Returns the judge's average precision [L] on training reals, which it never saw."""
    chunks = range(0, len(split), 1024)
    logits = [
        judge.logits(train.features[at : at + 1024], train.rest[at : at + 1024]) for at in chunks
    ]
    return average_precisions(np.concatenate(logits)[:, shared], split.labels[:, shared])


def _variety(found: list[SetMetrics]) -> dict[str, Any]:
    """Precision, recall and memory: means and, of the first two, standard deviations."""
    return {
        "precision": mean_of([one.precision for one in found]),
        "precision_sigma": sigma_of([one.precision for one in found]),
        "recall": mean_of([one.recall for one in found]),
        "recall_sigma": sigma_of([one.recall for one in found]),
        "memory_ratio": mean_of([one.memory.ratio for one in found]),
        "copied_frac": mean_of([one.memory.copied_frac for one in found]),
    }


def _labels(found: list[SetMetrics], ceiling: Precisions, names: list[str]) -> dict[str, Any]:
    """Label scores: means over the labels that fakes and reals both have, and all of them."""
    occurring = np.isfinite(ceiling)
    for one in found:
        occurring = occurring & np.isfinite(one.label_aps)
    means = [mean_ap(one.label_aps, occurring) for one in found]
    return {
        "label_ap": mean_of(means),
        "label_ap_sigma": sigma_of(means),
        "real_label_ap": finite_or_none(mean_ap(ceiling, occurring)),
        "label_ap_by_label": {
            name: [_mean_or_none([one.label_aps[place] for one in found]), finite_or_none(real)]
            for place, (name, real) in enumerate(zip(names, ceiling.tolist(), strict=True))
        },
    }


def _chance(compared: Reference) -> float | None:
    """Returns the mean part of the reals with a label: the average precision of chance."""
    parts = compared.labels[:, compared.shared].mean(axis=0)
    return float(parts[parts > 0].mean()) if (parts > 0).any() else None


def _mean_or_none(values: list[float]) -> float | None:
    """Returns the mean of those that mean something, None if none does."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else None
