"""Asset checks of an evaluation: no copied faces, labels obeyed, variety not lost.

The limits, by evaluations of 64 fakes against 24 and 60 unseen heads: a generator that returns
training faces has memory_ratio 0.00 and copied_frac 1.00, honest and deaf ones 0.99 to 1.06 and
0.03 to 0.05, so neither noise nor a small set trips a half and a fifth. One that ignores its labels
draws the same picture on both sides of a flip, which counts as a failure: none of them shows, of an
honest one's 0.8. Its average precision comes by chance up to 0.17 of the way from chance to the
reals (few pictures make it noisy), an honest one's all of it.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets.generator import CURRENT
from assets.resources import StoreResource
from models.registry.gate import MAX_COPIED_FRAC, MIN_MEMORY_RATIO

MIN_FLIPS = 0.6  # chance gives 0.5
MIN_AP_GAIN_FRAC = 0.1  # of the way from chance to the reals
MIN_RECALL = 0.01


def evaluation_checks() -> list[dg.AssetChecksDefinition]:
    """Returns the checks on the asset `evaluation`."""
    return [memorises_no_training_face, obeys_labels, recall_is_not_collapsed]


@dg.asset_check(asset="evaluation", blocking=True)
def memorises_no_training_face(store: StoreResource) -> dg.AssetCheckResult:
    """The fakes are no nearer to training faces than unseen faces are; else nothing is promoted."""
    return memory_verdict(_current(store))


@dg.asset_check(asset="evaluation")
def obeys_labels(store: StoreResource) -> dg.AssetCheckResult:
    """The labels that were asked for show, more often than by chance."""
    return label_verdict(_current(store))


@dg.asset_check(asset="evaluation")
def recall_is_not_collapsed(store: StoreResource) -> dg.AssetCheckResult:
    """Some unseen faces lie among the fakes: those are not all one face, nor far from all."""
    return recall_verdict(_current(store))


def memory_verdict(made: Mapping[str, Any]) -> dg.AssetCheckResult:
    """Judges `memory_ratio` and `copied_frac` of an evaluation."""
    ratio, copied = made["memory_ratio"], made["copied_frac"]
    passed = (ratio is None or ratio >= MIN_MEMORY_RATIO) and copied <= MAX_COPIED_FRAC
    told = "unknown" if ratio is None else f"{ratio:.2f}"
    number = (
        f"The fakes' distance to the nearest training face is {told} of the unseen faces' own "
        f"(limit {MIN_MEMORY_RATIO:g}), and {copied:.1%} lie nearer than nearly all unseen ones "
        f"(limit {MAX_COPIED_FRAC:.0%})"
    )
    hint = (
        "The generator repeats training faces: look at neighbours.png. Train on more pictures, for "
        "fewer kimg, or with augmentation."
    )
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{number}." if passed else f"{number}. {hint}",
        metadata=_metadata(made, "memory_ratio", "copied_frac"),
    )


def label_verdict(made: Mapping[str, Any]) -> dg.AssetCheckResult:
    """Judges `label_ap` against chance and `flip_success` of an evaluation."""
    names = ("label_ap", "label_chance", "real_label_ap", "flip_success")
    if made["label_ap"] is None:
        return dg.AssetCheckResult(
            passed=True,
            severity=dg.AssetCheckSeverity.WARN,
            description="The generator has no labels to obey.",
        )
    faults = []
    way = made["real_label_ap"] - made["label_chance"]
    if made["label_ap"] < made["label_chance"] + MIN_AP_GAIN_FRAC * way:
        faults.append(
            f"label AP {made['label_ap']:.3f}, where chance gives {made['label_chance']:.3f} and "
            f"real faces {made['real_label_ap']:.3f}"
        )
    if made["flip_success"] is not None and made["flip_success"] < MIN_FLIPS:
        faults.append(
            f"{made['flip_success']:.0%} of flipped labels show (limit {MIN_FLIPS:.0%}, chance 50%)"
        )
    hint = "Its faces hardly follow their labels. Train longer, or give the label loss more weight."
    return dg.AssetCheckResult(
        passed=not faults,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{'; '.join(faults)}. {hint}" if faults else "The labels asked for show.",
        metadata=_metadata(made, *names),
    )


def recall_verdict(made: Mapping[str, Any]) -> dg.AssetCheckResult:
    """Judges `recall` of an evaluation."""
    recall = made["recall"]
    passed = recall >= MIN_RECALL
    number = f"{recall:.1%} of the unseen faces lie among the fakes (limit {MIN_RECALL:.0%})"
    hint = (
        "Look at fakes.png. Do all look alike? Then go back to an earlier snapshot. Are they still "
        f"far from real faces ({made['precision']:.1%} of them lie among those)? Then train longer."
    )
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{number}." if passed else f"{number}. {hint}",
        metadata=_metadata(made, "recall", "precision"),
    )


def _current(store: StoreResource) -> Mapping[str, Any]:
    opened = store.open()
    made: Mapping[str, Any] = opened.read_json(opened.read_json(CURRENT)["evaluation"])
    return made


def _metadata(made: Mapping[str, Any], *names: str) -> dict[str, float]:
    return {name: made[name] for name in names if made[name] is not None}
