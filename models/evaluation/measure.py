"""The whole evaluation of one generator: reals, fakes, numbers, pictures, evaluation.json."""

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from dataset.errors import TrainingError
from dataset.labels import appearance
from dataset.manifest import Manifest
from dataset.store import Store, digest_of
from models.entry import Report
from models.evaluation import charts
from models.evaluation.axes import Axes
from models.evaluation.fakes import FakeSet, WorkFolder, work_folder
from models.evaluation.flips import flipped_pairs
from models.evaluation.going import Going, going
from models.evaluation.judge import Judge, JudgeConfig, judge_at
from models.evaluation.measuring import Measured, Measuring
from models.evaluation.numbers import (
    SUBSETS,
    Numbers,
    Reals,
    by_label,
    finite_or_none,
    joint_axes,
    mean_ap,
    mean_of,
    numbers_of,
    sigma_of,
)
from models.evaluation.pictures import (
    FAKES,
    NEAREST_REALS,
    NEIGHBOURS,
    REALS,
    SHOWN,
    first_fakes,
    neighbours_table,
    write_grid,
)
from models.evaluation.protocol import Protocol
from models.evaluation.reference import (
    Split,
    asked_of,
    measured_reals,
    shared_labels,
    split_of,
)
from models.evaluation.truncation import curve_point
from models.extractors import Extractor
from models.labels import Rows, typical_labels
from models.metrics.frechet import statistics
from models.metrics.hair import hair_labels, hits, tones_by_label
from models.metrics.label_scores import average_precisions, flip_success
from models.networks import GeneratorNet

EVALUATION = "evaluation.json"  # written last: where it stands, the evaluation is whole
JUDGES = "cache/judges"


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
        shared = shared_labels(self.manifest.labels, self.generator.spec.labels)
        held = {
            split: split_of(self.store, self.manifest, self.protocol, split)
            for split in ("eval", "train")
        }
        labels = [self._labels(held["eval"], repeat) for repeat in range(self.protocol.repeats)]
        repeats = [self._set(repeat, rows) for repeat, rows in enumerate(labels)]
        curve = self._curve_sets(repeats[0])
        flips = self._flip_set(held["eval"], shared)
        drawn = [*repeats, *curve.values(), *([flips] if flips else [])]
        total = sum(len(one) for one in held.values()) + sum(len(one) for one in drawn)
        with going(total, report=report, stop_signal=stop_signal) as on:
            on.stage("reals")
            plain = Measuring(self.network, self._device)
            reals = {split: measured_reals(held[split], plain, on) for split in held}
            on.stage("judge")
            judge = self._judge(held["eval"], reals["eval"])
            judged = Measuring(self.network, self._device, judge)
            compared = self._compared(held["eval"], reals, shared)
            ceiling = _ceiling(judge, held["train"], reals["train"], shared=compared.shared)

            # Fakes, a set a repeat, each with labels and seeds of its own
            found: list[Numbers] = []
            first = None
            for repeat, fakes in enumerate(repeats):
                on.stage(f"fakes {repeat + 1} of {len(repeats)}")
                measured = self.work.measured(fakes, self.generator, judged, going=on)
                first = first or measured
                on.stage(f"numbers {repeat + 1} of {len(repeats)}")
                numbers = numbers_of(
                    measured,
                    labels[repeat],
                    compared,
                    neighbours=self.protocol.neighbours,
                    subsets=max(1, SUBSETS // len(repeats)),
                    seed=self.protocol.seed + repeat,
                )
                found.append(numbers)
                on.stage("fakes", **{self.network.metric: numbers.distance})
            assert first is not None  # repeats >= 1

            on.stage("truncation curve")
            points = self._curve(curve, first, judged, compared, on)
            on.stage("flipped labels")
            flipped = self._flipped(flips, shared, judged, on)
            on.stage("pictures and charts")
            floor = self._floor(reals["train"], compared)

        table = {
            name: [_mean_or_none([one.label_aps[place] for one in found]), finite_or_none(real)]
            for place, (name, real) in enumerate(zip(shared, ceiling, strict=True))
        }
        result = {
            **self._distances(found, floor),
            **_variety(found),
            **_labels(found, ceiling),
            "label_ap_by_label": table,
            "label_chance": self._chance(held["eval"], shared),
            "flip_success": _mean_or_none(list(flipped.values())),
            "flip_by_label": by_label(list(flipped), flipped.values()),
            "hair_colour_hits": mean_of([one.hair_hits for one in found]),
            "real_hair_colour_hits": finite_or_none(
                hits(compared.measured.tones, compared.labels[:, compared.hair], compared.tones)
            ),
            "truncation": points,
            "fakes": self.protocol.fakes,
            "repeats": self.protocol.repeats,
            "reference_rows": len(held["eval"]),
            "train_rows": len(held["train"]),
            "judge_digest": judge.digest,
            "protocol": self.protocol.to_json(),
            "folder": self.out,
        }
        paths = self._grids(held, repeats[0], first, train_rows=reals["train"], memory=found[0])
        return result | paths | self._charts(result)

    @property
    def _device(self) -> torch.device:
        return next(self.generator.parameters()).device

    def _labels(self, split: Split, repeat: int) -> Rows:
        """Draws the manifest's label rows [N,L] that a repeat's fakes are asked for."""
        start = self.protocol.seed + repeat * self.protocol.fakes
        return typical_labels(split.labels, self.protocol.fakes, start)

    def _set(self, repeat: int, labels: Rows) -> FakeSet:
        start = self.protocol.seed + repeat * self.protocol.fakes
        return FakeSet(f"repeat-{repeat}", self._asked(labels), start, self.protocol.psi)

    def _asked(self, labels: Rows) -> Rows:
        return asked_of(labels, self.manifest.labels, self.generator.spec.labels)

    def _curve_sets(self, first: FakeSet) -> dict[float, FakeSet]:
        """Returns the sets of the curve's points; the protocol's own psi is drawn already."""
        asked = first.asked[: self.protocol.curve_fakes]
        return {
            psi: FakeSet(f"psi-{psi:g}", asked, first.seed, psi)
            for psi in self.protocol.psis
            if psi != self.protocol.psi
        }

    def _flip_set(self, split: Split, shared: list[str]) -> FakeSet | None:
        """Returns the pairs of all labels: K with the first, K without it, K with the second …."""
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
        return FakeSet("flips", asked_of(flat, shared, self.generator.spec.labels), 0)

    def _judge(self, split: Split, reals: Measured) -> Judge:
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

    def _compared(self, split: Split, reals: Mapping[str, Measured], shared: list[str]) -> Reals:
        columns = [self.manifest.labels.index(name) for name in shared]
        hair = [columns[place] for place in hair_labels(shared)]
        of_labels, weight = joint_axes(reals["eval"], split.labels)
        return Reals(
            measured=reals["eval"],
            labels=split.labels,
            train=reals["train"],
            axes=Axes(statistics(reals["eval"].features)),
            joint_axes=of_labels,
            weight=weight,
            shared=columns,
            hair=hair,
            tones=tones_by_label(reals["eval"].tones, split.labels[:, hair]),
        )

    def _curve(
        self,
        sets: Mapping[float, FakeSet],
        first: Measured,
        judged: Measuring,
        compared: Reals,
        on: Going,
    ) -> list[dict[str, Any]]:
        points = []
        for psi in self.protocol.psis:
            if psi in sets:
                fakes = self.work.measured(sets[psi], self.generator, judged, going=on)
            else:
                fakes = first.first(self.protocol.curve_fakes)
            points.append(
                curve_point(
                    psi,
                    fakes,
                    compared.measured,
                    compared.axes,
                    metric=self.network.metric,
                    neighbours=self.protocol.neighbours,
                )
            )
        return points

    def _flipped(
        self, flips: FakeSet | None, shared: list[str], judged: Measuring, on: Going
    ) -> dict[str, float]:
        """Returns the flip success of each label."""
        if flips is None:
            return {}
        logits = self.work.measured(flips, self.generator, judged, going=on).rest
        sides = np.asarray(logits).reshape(len(shared), 2, self.protocol.flips, -1)
        columns = [self.manifest.labels.index(name) for name in shared]
        return {
            name: flip_success(sides[place, 0, :, column], sides[place, 1, :, column])
            for place, (name, column) in enumerate(zip(shared, columns, strict=True))
        }

    def _floor(self, train: Measured, compared: Reals) -> float:
        """Returns the distance of as many training reals: what a perfect generator would reach."""
        count = min(self.protocol.fakes, len(train.rows))
        order = np.random.default_rng(self.protocol.seed).permutation(len(train.rows))
        return compared.axes.distance(statistics(train.features[np.sort(order[:count])]))

    def _distances(self, found: list[Numbers], floor: float) -> dict[str, Any]:
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

    def _chance(self, split: Split, shared: list[str]) -> float | None:
        """Returns the mean part of the reals with a label: the average precision of chance."""
        columns = [self.manifest.labels.index(name) for name in shared]
        parts = split.labels[:, columns].mean(axis=0)
        return float(parts[parts > 0].mean()) if (parts > 0).any() else None

    def _grids(
        self,
        held: Mapping[str, Split],
        fakes: FakeSet,
        measured: Measured,
        *,
        train_rows: Measured,
        memory: Numbers,
    ) -> dict[str, str]:
        table = neighbours_table(
            fakes,
            self.generator,
            measured=measured,
            memory=memory.memory,
            train=held["train"],
            train_rows=train_rows,
        )
        shown = first_fakes(fakes, self.generator)
        write_grid(self.store, f"{self.out}/{FAKES}", shown)
        write_grid(self.store, f"{self.out}/{REALS}", held["eval"].pictures(slice(SHOWN)))
        write_grid(self.store, f"{self.out}/{NEIGHBOURS}", table, columns=1 + NEAREST_REALS)
        names = {"fakes_grid": FAKES, "reals_grid": REALS, "neighbours_grid": NEIGHBOURS}
        return {name: f"{self.out}/{file}" for name, file in names.items()}

    def _charts(self, result: Mapping[str, Any]) -> dict[str, str]:
        """Draws the charts that there is something on; says so where matplotlib is missing."""
        paths = {}
        try:
            if len(result["truncation"]) > 1:
                drawn = charts.truncation_png(
                    result["truncation"],
                    metric=result["metric"],
                    fakes=self.protocol.curve_fakes,
                )
                paths["truncation_chart"] = f"{self.out}/{charts.CURVE}"
                self.store.write_bytes(paths["truncation_chart"], drawn, durable=False)
            if result["label_ap_by_label"]:
                drawn = charts.labels_png(result["label_ap_by_label"], result["flip_by_label"])
                paths["labels_chart"] = f"{self.out}/{charts.LABELS}"
                self.store.write_bytes(paths["labels_chart"], drawn, durable=False)
        except TrainingError as error:
            print(f"no charts are drawn: {error}", file=sys.stderr)
        return paths


def _ceiling(judge: Judge, split: Split, train: Measured, *, shared: list[int]) -> np.ndarray:
    """Returns the judge's average precision [L] on training reals, which it never saw."""
    chunks = range(0, len(split), 1024)
    logits = [
        judge.logits(train.features[at : at + 1024], train.rest[at : at + 1024]) for at in chunks
    ]
    return average_precisions(np.concatenate(logits)[:, shared], split.labels[:, shared])


def _variety(found: list[Numbers]) -> dict[str, Any]:
    """Precision, recall and memory: means and, of the first two, standard deviations."""
    return {
        "precision": mean_of([one.precision for one in found]),
        "precision_sigma": sigma_of([one.precision for one in found]),
        "recall": mean_of([one.recall for one in found]),
        "recall_sigma": sigma_of([one.recall for one in found]),
        "memory_ratio": mean_of([one.memory.ratio for one in found]),
        "copied_frac": mean_of([one.memory.copied_frac for one in found]),
    }


def _labels(found: list[Numbers], ceiling: np.ndarray) -> dict[str, Any]:
    """The mean average precision over the labels that fakes and reals both have."""
    occurring = np.isfinite(ceiling)
    for one in found:
        occurring = occurring & np.isfinite(one.label_aps)
    means = [mean_ap(one.label_aps, occurring) for one in found]
    return {
        "label_ap": mean_of(means),
        "label_ap_sigma": sigma_of(means),
        "real_label_ap": finite_or_none(mean_ap(ceiling, occurring)),
    }


def _mean_or_none(values: list[float]) -> float | None:
    """Returns the mean of those that mean something, None if none does."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else None
