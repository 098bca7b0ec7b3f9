"""The whole evaluation of one generator: reals, fakes, metrics, figures, evaluation.json."""

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from dataset.manifest import Manifest
from dataset.store import Store, digest_of
from models.evaluation.fakes import EvalProgress, FakeSet, WorkFolder, eval_progress, work_folder
from models.evaluation.feature_rows import FeatureRows, RowExtractor
from models.evaluation.figures import (
    write_charts,
    write_grids,
)
from models.evaluation.label_judge import Judge, JudgeConfig, judge_at
from models.evaluation.plan import (
    EvalPlan,
    Protocol,
    Split,
    plan_evaluation,
    real_feature_rows,
    reference_stats_at,
)
from models.evaluation.results import (
    CommonReference,
    Reference,
    SetMetrics,
    by_label,
    distances_over_sets,
    finite_or_none,
    joint_statistics,
    label_chance,
    labels_over_sets,
    mean_of,
    mean_of_finite,
    metrics_for_set,
    numbers_of_reals,
    plain_statistics,
    real_label_aps,
    truncation_point,
    variety_over_sets,
)
from models.families.base import GeneratorNet
from models.io.entry_point import Report
from models.metrics.distances import ReferenceStats, Statistics, joint_weight
from models.metrics.extractors import Extractor
from models.metrics.label_control import (
    flip_success,
    hair_labels,
    hits,
    tones_by_label,
)

EVALUATION = "evaluation.json"  # written last: where it stands, the evaluation is whole
JUDGES, STATISTICS = "cache/judges", "cache/statistics"


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
    and protocol); one without the spread is made again. An interrupted one goes on at the chunk of
    pictures where it stopped. Memory does not grow with the number of fakes: their features lie on
    disk until the end.

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
    if (
        not {"coverage", "spread"} <= found.keys()
    ):  # made before variety was measured, which the gate looks at
        return None
    if any(found.get(name) != value for name, value in identity.items()):
        return None
    print(f"already evaluated: {store.url(path)}", file=sys.stderr)
    return found | {"reused": True, "seconds": 0.0}


def judge_of(store: Store, manifest_digest: str, split: Split, reals: FeatureRows) -> Judge:
    """Returns the judge of labels that is fitted to the rows of an `eval` split, once a home."""
    key = {
        "manifest": manifest_digest,
        "judge": JudgeConfig().digest,
        "features": split.file.stem,
    }
    return judge_at(
        store,
        f"{JUDGES}/{digest_of(key)}.safetensors",
        features=reals.features,
        thumbs=reals.rest,
        labels=split.labels,
        config=JudgeConfig(),
    )


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
        plan = plan_evaluation(
            self.store,
            self.manifest,
            self.protocol,
            known=self.generator.spec.labels,
            resolution_px=self.generator.spec.resolution_px,
        )
        with eval_progress(plan.total, report=report, stop_signal=stop_signal) as progress:
            progress.stage("reals")
            plain = RowExtractor(self.network, self._device)
            reals = {
                split: real_feature_rows(held, plain, progress)
                for split, held in plan.reals.items()
            }
            common = {
                split: real_feature_rows(held, plain, progress)
                for split, held in plan.common.items()
                if held is not plan.reals[split]
            }
            progress.stage("judge")
            split = plan.reals["eval"]
            judge = judge_of(self.store, self.manifest.digest, split, reals["eval"])
            judged = RowExtractor(self.network, self._device, judge)
            compared = self._compared(plan, reals, reals | common)
            first, found = self._repeats(plan, compared, judged, progress)
            progress.stage("truncation curve")
            points = self._curve(plan.curve, first, judged, compared, progress)
            progress.stage("flipped labels")
            flipped = self._flipped(plan, judged, progress)
            progress.stage("pictures and charts")

        # The judge never saw training reals: what it makes of them is the ceiling.
        ceiling = real_label_aps(
            judge, plan.reals["train"].labels, reals["train"], shared=compared.shared
        )
        common_px = self.protocol.reference_px
        own_tones = hits(compared.rows.tones, compared.labels[:, compared.hair], compared.tones)
        result = {
            **distances_over_sets(self.network, found, common_px=common_px),
            **numbers_of_reals(
                compared,
                plan.reals["train"].labels,
                count=self.protocol.fakes,
                seed=self.protocol.seed,
                neighbours=self.protocol.neighbours,
                common_px=common_px,
            ),
            **variety_over_sets(found),
            **labels_over_sets(found, ceiling, plan.shared),
            "label_chance": label_chance(compared),
            "flip_success": mean_of_finite(list(flipped.values())),
            "flip_by_label": by_label(list(flipped), flipped.values()),
            "hair_colour_hits": mean_of([one.hair_hits for one in found]),
            "real_hair_colour_hits": finite_or_none(own_tones),
            "truncation": points,
            "fakes": self.protocol.fakes,
            "repeats": self.protocol.repeats,
            "resolution_px": self.generator.spec.resolution_px,
            "trained_on_features": list(self.generator.spec.trained_on_features),
            "reference_rows": len(plan.reals["eval"]),
            "train_rows": len(plan.reals["train"]),
            "judge_digest": judge.digest,
            "protocol": self.protocol.to_json(),
            "folder": self.out,
        }
        paths = write_grids(
            self.store,
            self.out,
            generator=self.generator,
            fakes=plan.repeats[0],
            rows=first,
            memory=found[0].memory,
            reals=plan.reals["eval"],
            train=plan.reals["train"],
            train_rows=reals["train"],
        )
        charts = write_charts(self.store, self.out, result, curve_fakes=self.protocol.curve_fakes)
        return result | paths | charts

    def _repeats(
        self, plan: EvalPlan, compared: Reference, judged: RowExtractor, progress: EvalProgress
    ) -> tuple[FeatureRows, list[SetMetrics]]:
        """Draws and measures all sets; returns the rows of the first one, and all numbers."""
        rows: list[FeatureRows] = []
        extract = dataclasses.replace(judged, reduced_px=plan.reduced_px)
        found: list[SetMetrics] = []
        for repeat, fakes in enumerate(plan.repeats):
            progress.stage(f"fakes {repeat + 1} of {len(plan.repeats)}")
            rows.append(self.work.feature_rows(fakes, self.generator, extract, progress=progress))
            progress.stage(f"numbers {repeat + 1} of {len(plan.repeats)}")
            numbers = metrics_for_set(
                rows[-1], plan.labels[repeat], compared, neighbours=self.protocol.neighbours
            )
            found.append(numbers)
            progress.report_facts(**{self.network.metric: numbers.distance})
        return rows[0], found

    @property
    def _device(self) -> torch.device:
        return next(self.generator.parameters()).device

    def _compared(
        self, plan: EvalPlan, rows: Mapping[str, FeatureRows], common: Mapping[str, FeatureRows]
    ) -> Reference:
        split, shared, reals = plan.reals["eval"], plan.shared, rows["eval"]
        columns = [self.manifest.labels.index(name) for name in shared]
        hair = [columns[place] for place in hair_labels(shared)]
        weight = joint_weight(reals.features, split.labels)
        return Reference(
            rows=reals,
            labels=split.labels,
            train=rows["train"],
            stats=self._reference_stats(split, "plain", lambda: plain_statistics(reals.features)),
            joint_stats=self._reference_stats(
                split, "joint", lambda: joint_statistics(reals, split.labels, weight)
            )
            if weight
            else None,
            common=self._common(plan.common["eval"], common) if plan.common else None,
            weight=weight,
            shared=columns,
            hair=hair,
            tones=tones_by_label(reals.tones, split.labels[:, hair]),
        )

    def _common(self, split: Split, rows: Mapping[str, FeatureRows]) -> CommonReference:
        def make() -> Statistics:
            return plain_statistics(rows["eval"].features)

        stats = self._reference_stats(split, "plain", make)
        return CommonReference(rows["eval"], rows["train"], stats)

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
                    compared,
                    metric=self.network.metric,
                    neighbours=self.protocol.neighbours,
                )
            )
        return points

    def _flipped(
        self, plan: EvalPlan, judged: RowExtractor, progress: EvalProgress
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
