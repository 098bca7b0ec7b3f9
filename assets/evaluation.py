"""The evaluation of the generator, and its asset checks: no copies, labels obeyed, variety kept.

The limits, by evaluations of 64 fakes against 24 and 60 unseen heads: a generator that returns
training faces has memory_ratio 0.00 and copied_frac 1.00, honest and deaf ones 0.99 to 1.06 and
0.03 to 0.05, so neither noise nor a small set trips a half and a fifth. One that ignores its labels
draws the same picture on both sides of a flip, which counts as a failure: none of them shows, of an
honest one's 0.8. Its average precision comes by chance up to 0.17 of the way from chance to the
reals (few pictures make it noisy), an honest one's all of it.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from PIL import Image
from pydantic import Field

from assets.generator import generator_of_run
from assets.reporting import OWNERS, Stopwatch, inline, materialised, plain_failures, tags_of
from assets.resources import ChildProcess, StoreResource, TrackingResource
from dataset.errors import EmptyStageError
from dataset.manifest import load_manifest
from dataset.store import Store
from dataset.takedown import CURRENT_GENERATOR
from models.registry.gate import MAX_COPIED_FRAC, MIN_MEMORY_RATIO, MIN_SPREAD
from models.registry.pages import numbers_table

RESULT = "evaluation.json"
PREVIEWS = {
    "fakes_grid": "fakes_preview",
    "reals_grid": "reals_preview",
    "neighbours_grid": "neighbours_preview",
    "truncation_chart": "truncation_chart",
    "labels_chart": "labels_chart",
}
# Options of models.evaluate that belong to the protocol
OPTIONS = (
    *("extractor", "fakes", "repeats", "seed", "reference_px", "train_rows", "flips"),
    *("psi", "psis"),
)


class EvaluationConfig(dg.Config):
    """The protocol: how much is drawn, and what looks at it."""

    fakes: int = Field(
        default=1000,
        ge=64,
        le=100_000,
        description="Pictures of a set. The distance falls with more of them, so numbers of "
        "different sizes are not compared; 10,000 is usual, 50,000 for the record.",
    )
    repeats: int = Field(
        default=5,
        ge=1,
        le=20,
        description="Sets, each with seeds and labels of its own: numbers are means over them, and "
        "sigma is what they differ by.",
    )
    flips: int = Field(
        default=16,
        ge=0,
        le=1000,
        description="Pairs of pictures a label that differ in that label alone, to see whether the "
        "picture follows. 0 leaves that out.",
    )
    extractor: str = Field(
        default="auto",
        description="Network whose features are compared: efficientnet_lite0 or efficientnet_lite2 "
        "(come with the packages; the number is no FID) or inception (the standard one: the number "
        "is FID). auto is efficientnet_lite0, and efficientnet_lite2 for a generator whose "
        "training saw the features of efficientnet_lite0.",
    )
    weights: str = Field(
        default="",
        description="Path of the weights file of inception. Empty: the variable "
        "OMOKAGE_EXTRACTOR_WEIGHTS, else they are fetched once into the home's cache.",
    )


@dg.asset(
    deps=["manifest", "generator"],
    group_name="evaluation",
    kinds={"pytorch", "mlflow"},
    owners=OWNERS,
    tags=tags_of("evaluation", needs="gpu"),
    pool="gpu",
)
def evaluation(
    context: dg.AssetExecutionContext,
    config: EvaluationConfig,
    store: StoreResource,
    child: ChildProcess,
    tracking: TrackingResource,
) -> dg.MaterializeResult:
    """Likeness, variety, obedience and memory of the generator, by the pinned protocol.

    **From** the `generator`, whose fakes are compared with the `eval` split of the `manifest`,
    which no training saw, at the generator's own side: Fréchet and kernel distances, precision,
    recall and spread, labels by a judge that only saw the `eval` split, and the nearest training
    faces. The offline extractors are EfficientNets, so the distance is named
    `fd_efficientnet_lite0`, say; it is not an FID.

    **Lies in** `evaluations/`, in the folder that `path` below names: `evaluation.json` and its
    pictures. The same generator, manifest and protocol are not measured again.

    **If it is wrong:** the checks say what is wrong with the generator. Numbers that jump from one
    evaluation to the next want more `fakes` and `repeats`; only equal protocols are comparable.
    """
    watch = Stopwatch()
    opened, registry = store.open(), tracking.open()
    with plain_failures():
        manifest = load_manifest(opened, None)
        generator = generator_of_run(context.instance, context.run, opened)
    made = evaluate(
        context,
        child,
        store=opened,
        generator=generator["folder"],
        manifest=manifest.digest,
        protocol=config.model_dump(exclude={"weights"}),
        weights=config.weights,
    )
    result = f"{made['folder']}/{RESULT}"
    newest = opened.read_json(CURRENT_GENERATOR)
    if newest["id"] == generator["id"]:  # else another run has trained one since
        opened.write_json(CURRENT_GENERATOR, newest | {"evaluation": result})
    pictures = {name: opened.read_bytes(made[name]) for name in PREVIEWS if name in made}
    with plain_failures():
        step, run_id = generator["images_seen"], generator["mlflow_run"]
        registry.log_evaluation(run_id, made, step=step)
        for name, png in pictures.items():
            registry.log_picture_of_step(run_id, f"eval_{name}", png, step=step)
    return dg.MaterializeResult(
        metadata={
            "numbers": dg.MetadataValue.md(numbers_table(made)),
            **{PREVIEWS[name]: _picture(opened, made[name]) for name in pictures},
            **({"labels": labels_table(made)} if made["label_ap_by_label"] else {}),
            **numbers_of(made),
            "fakes": made["fakes"],
            "repeats": made["repeats"],
            "reference_rows": made["reference_rows"],
            "resolution_px": made["resolution_px"],
            "reused": made["reused"],
            "manifest": made["manifest_digest"],
            "generator": dg.MetadataValue.json(generator),
            "evaluation": result,
            "seconds": watch.seconds,
            "path": dg.MetadataValue.path(opened.url(result)),
            "digest": made["protocol_digest"],
            "protocol": dg.MetadataValue.json(made["protocol"]),
        },
        data_version=dg.DataVersion(
            "-".join(
                made[name][:16]
                for name in ("generator_sha256", "manifest_digest", "protocol_digest")
            )
        ),
    )


def evaluate(
    context: dg.AssetExecutionContext | dg.OpExecutionContext,
    child: ChildProcess,
    *,
    store: Store,
    generator: str,
    manifest: str,
    protocol: Mapping[str, Any],
    weights: str = "",
) -> dict[str, Any]:
    """Measures one generator against one manifest in a child process; returns its evaluation.

    generator: its folder, under the home. protocol: options by the names of OPTIONS, of which the
    ones that are left out have their defaults; an evaluation's own `protocol` can be given back.
    weights: of the extractor; empty: the environment says, or the home's cache has them.
    """
    arguments = ["-m", "models.evaluate", "--home", store.state.root, "--generator", generator]
    arguments += ["--manifest", manifest, *_options(protocol)]
    arguments += ["--weights", weights] if weights else []
    return child.run(context, arguments, environment=store.variables())


def numbers_of(made: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of an evaluation by the names that people look for.

    What has no meaning for this generator, such as the label AP of one without labels, is left out.
    """
    metric, kernel = made["metric"], made["kernel_metric"]
    names = {
        metric: metric,
        "sigma": "sigma",
        "distance_of_training_reals": "real_fd",
        f"{metric}_at128": f"{metric}_at128",
        "distance_of_training_reals_at128": "real_fd_at128",
        f"joint_{metric}": f"joint_{metric}",
        kernel: kernel,
        f"{kernel}_sigma": f"{kernel}_sigma",
        f"{kernel}_se": f"{kernel}_se",
        f"{kernel}_at128": f"{kernel}_at128",
        f"{kernel}_at128_se": f"{kernel}_at128_se",
        "precision": "precision",
        "precision_of_training_reals": "real_precision",
        "recall": "recall",
        "recall_of_training_reals": "real_recall",
        "coverage": "coverage",
        "coverage_of_training_reals": "real_coverage",
        "spread": "spread",
        "spread_of_training_reals": "real_spread",
        "spread_within_labels": "spread_within_labels",
        "spread_within_labels_of_training_reals": "real_spread_within_labels",
        "label_ap": "label_ap",
        "label_ap_of_reals": "real_label_ap",
        "label_ap_of_chance": "label_chance",
        "flip_success": "flip_success",
        "memory_ratio": "memory_ratio",
        "copied_frac": "copied_frac",
        "hair_colour_hits": "hair_colour_hits",
        "hair_colour_hits_of_reals": "real_hair_colour_hits",
    }
    return {shown: made[name] for shown, name in names.items() if made.get(name) is not None}


def labels_table(made: Mapping[str, Any]) -> dg.MarkdownMetadataValue:
    """Returns each label's average precision on fakes and reals and its flip success, in a table.

    The labels that lose most against the reals come first.
    """
    scores, flips = made["label_ap_by_label"], made["flip_by_label"]
    lines = ["| label | AP of fakes | AP of reals | flips that show |", "|---|---|---|---|"]
    for name in sorted(scores, key=lambda name: _loss(*scores[name]), reverse=True):
        cells = [*scores[name], flips.get(name)]
        shown = ["–" if cell is None else f"{cell:.2f}" for cell in cells]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return dg.MetadataValue.md("\n".join(lines))


def _loss(fake: float | None, real: float | None) -> float:
    return -1.0 if fake is None or real is None else real - fake


def _options(protocol: Mapping[str, Any]) -> Iterator[str]:
    for name in OPTIONS:
        if name in protocol:
            value = protocol[name]
            text = ",".join(f"{one:g}" for one in value) if name == "psis" else str(value)
            yield f"--{name.replace('_', '-')}={text}"


def _picture(store: Store, path: str) -> dg.MarkdownMetadataValue:
    with contextlib.closing(store.open(path)) as file:
        return inline(Image.open(file))


MIN_FLIPS = 0.6  # chance gives 0.5
MIN_AP_GAIN_FRAC = 0.1  # of the way from chance to the reals
MIN_RECALL_FRAC = 0.01  # of the recall of as many training faces at the same side


def evaluation_checks() -> list[dg.AssetChecksDefinition]:
    """Returns the checks on the asset `evaluation`."""
    return [
        memorises_no_training_face,
        obeys_labels,
        recall_is_not_collapsed,
        repeats_no_composition,
    ]


@dg.asset_check(asset="evaluation", blocking=True)
def memorises_no_training_face(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """The fakes are no nearer to training faces than unseen faces are; else nothing is promoted."""
    return memory_verdict(_of_run(context, store))


@dg.asset_check(asset="evaluation")
def obeys_labels(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """The labels that were asked for show, more often than by chance."""
    return label_verdict(_of_run(context, store))


@dg.asset_check(asset="evaluation")
def recall_is_not_collapsed(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """Some unseen faces lie among the fakes: those are not all one face, nor far from all."""
    return recall_verdict(_of_run(context, store))


@dg.asset_check(asset="evaluation")
def repeats_no_composition(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """The fakes differ from each other as real faces do; else the gate may not promote them."""
    return spread_verdict(_of_run(context, store))


def memory_verdict(made: Mapping[str, Any]) -> dg.AssetCheckResult:
    """Judges `memory_ratio` and `copied_frac` of an evaluation."""
    ratio, copied = made["memory_ratio"], made["copied_frac"]
    passed = (ratio is None or ratio >= MIN_MEMORY_RATIO) and copied <= MAX_COPIED_FRAC
    shown = "unknown" if ratio is None else f"{ratio:.2f}"
    number = (
        f"The fakes' distance to the nearest training face is {shown} of the unseen faces' own "
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
    if "real_recall" not in made:
        return dg.AssetCheckResult(
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"The evaluation is of the old protocol, whose real faces had "
            f"{made['protocol']['reference_px']} px whatever the generator's side: its recall of "
            f"{made['recall']:.1%} says nothing of a collapse. Materialise evaluation again.",
        )
    recall, limit = made["recall"], MIN_RECALL_FRAC * made["real_recall"]
    passed = recall >= limit
    number = (
        f"{recall:.1%} of the unseen faces lie among the fakes, {made['real_recall']:.1%} among as "
        f"many training faces of {made['resolution_px']} px (limit {limit:.1%})"
    )
    hint = (
        "Look at fakes.png. Do all look alike? Then go back to an earlier snapshot. Are they still "
        f"far from real faces ({made['precision']:.1%} of them lie among those)? Then train longer."
    )
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{number}." if passed else f"{number}. {hint}",
        metadata=_metadata(made, "recall", "real_recall", "precision", "real_precision"),
    )


def spread_verdict(made: Mapping[str, Any]) -> dg.AssetCheckResult:
    """Judges `spread` of an evaluation."""
    spread = made.get("spread")
    if spread is None:
        return dg.AssetCheckResult(
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description="The evaluation is from before the spread of the fakes was measured, and "
            "the gate promotes nothing without it. Materialise evaluation again.",
        )
    passed = spread >= MIN_SPREAD
    number = (
        f"The fakes differ from each other {spread:.2f} times as much as unseen faces do (limit "
        f"{MIN_SPREAD:g}; training faces {made['real_spread']:.2f})"
    )
    hint = (
        "The generator repeats one composition, which the gate does not promote where its faces "
        "are near real ones: look at fakes.png. Train longer, or go back to an earlier snapshot."
    )
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{number}." if passed else f"{number}. {hint}",
        metadata=_metadata(made, "spread", "real_spread", "spread_within_labels"),
    )


def evaluation_of_run(
    instance: dg.DagsterInstance, run: dg.DagsterRun, store: Store
) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Returns the generator that a run is about, as `generator_of_run`, and its evaluation.

    See `materialised`. Where Dagster knows of no evaluation, or of one that an earlier version
    made, both are those of generators/current.json. Raises EmptyStageError if the generator has not
    been evaluated.
    """
    made = materialised(instance, run, dg.AssetKey("evaluation"))
    if made is None or "evaluation" not in made:
        current = store.read_json(CURRENT_GENERATOR)
        made = {"generator": current, "evaluation": current.get("evaluation")}
    judged = made["generator"]
    trained = materialised(instance, run, dg.AssetKey("generator"), newest=False)
    wanted = trained["digest"] if trained else judged["id"]
    if made["evaluation"] is None or wanted != judged["id"]:
        raise EmptyStageError(
            f"generator {wanted} has not been judged; materialise evaluation first"
        )
    return judged, store.read_json(made["evaluation"])


def _of_run(context: dg.AssetCheckExecutionContext, store: StoreResource) -> Mapping[str, Any]:
    return evaluation_of_run(context.instance, context.run, store.open())[1]


def _metadata(made: Mapping[str, Any], *names: str) -> dict[str, float]:
    return {name: made[name] for name in names if made[name] is not None}
