"""Evaluation: how far the generator's pictures are from those that it never saw, and more."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from PIL import Image
from pydantic import Field

from assets.generator import CURRENT
from assets.previews import inline
from assets.reporting import OWNERS, Stopwatch, plain_failures
from assets.resources import ChildProcess, StoreResource, TrackingResource
from dataset.manifest import load_manifest
from dataset.store import Store

RESULT = "evaluation.json"
PREVIEWS = {
    "fakes_grid": "fakes_preview",
    "reals_grid": "reals_preview",
    "neighbours_grid": "neighbours_preview",
    "truncation_chart": "truncation_chart",
    "labels_chart": "labels_chart",
}
# What can be asked of the protocol, and what the command calls it
OPTIONS = ("extractor", "fakes", "repeats", "seed", "reference_px", "train_rows", "flips", "psis")


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
        default="efficientnet_lite0",
        description="Network whose features are compared: efficientnet_lite0 (comes with the "
        "packages; the number is no FID) or inception (the standard one: the number is FID).",
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

    Fakes are compared with the `eval` split, which no training saw: Fréchet and kernel distances,
    precision and recall, labels by a judge that only saw the `eval` split, and the nearest training
    faces. The offline extractor is EfficientNet-Lite0, so its distance is named
    `fd_efficientnet_lite0`; it is not an FID.
    """
    watch = Stopwatch()
    opened, registry = store.open(), tracking.open()
    with plain_failures():
        manifest = load_manifest(opened, None)
        current = opened.read_json(CURRENT)
    made = evaluate(
        context,
        child,
        home=store.root,
        generator=current["folder"],
        manifest=manifest.digest,
        protocol=config.model_dump(exclude={"weights"}),
        weights=config.weights,
    )
    result = f"{made['folder']}/{RESULT}"
    opened.write_json(CURRENT, current | {"evaluation": result})
    pictures = {name: opened.read_bytes(made[name]) for name in PREVIEWS if name in made}
    with plain_failures():
        step = current["images_seen"]
        registry.log_evaluation(current["mlflow_run"], made, step=step)
        for name, png in pictures.items():
            registry.log_picture_of_step(current["mlflow_run"], f"eval_{name}", png, step=step)
    return dg.MaterializeResult(
        metadata={
            **numbers_of(made),
            "fakes": made["fakes"],
            "repeats": made["repeats"],
            "reference_rows": made["reference_rows"],
            "reused": made["reused"],
            "manifest": made["manifest_digest"],
            "seconds": watch.seconds,
            "path": dg.MetadataValue.path(opened.url(result)),
            "digest": made["protocol_digest"],
            "protocol": dg.MetadataValue.json(made["protocol"]),
            **({"labels": labels_table(made)} if made["label_ap_by_label"] else {}),
            **{PREVIEWS[name]: _picture(opened, made[name]) for name in pictures},
        }
    )


def evaluate(
    context: dg.AssetExecutionContext | dg.OpExecutionContext,
    child: ChildProcess,
    *,
    home: str,
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
    arguments = ["-m", "models.evaluate", "--home", home, "--generator", generator]
    arguments += ["--manifest", manifest, *_options(protocol)]
    return child.run(context, arguments + (["--weights", weights] if weights else []))


def numbers_of(made: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of an evaluation by the names that people look for.

    What has no meaning for this generator, such as the label AP of one without labels, is left out.
    """
    metric, kernel = made["metric"], made["kernel_metric"]
    names = {
        metric: metric,
        "sigma": "sigma",
        "distance_of_training_reals": "real_fd",
        f"joint_{metric}": f"joint_{metric}",
        kernel: kernel,
        f"{kernel}_sigma": f"{kernel}_sigma",
        "precision": "precision",
        "recall": "recall",
        "label_ap": "label_ap",
        "label_ap_of_reals": "real_label_ap",
        "label_ap_of_chance": "label_chance",
        "flip_success": "flip_success",
        "memory_ratio": "memory_ratio",
        "copied_frac": "copied_frac",
        "hair_colour_hits": "hair_colour_hits",
        "hair_colour_hits_of_reals": "real_hair_colour_hits",
    }
    return {told: made[name] for told, name in names.items() if made.get(name) is not None}


def labels_table(made: Mapping[str, Any]) -> dg.MarkdownMetadataValue:
    """Returns each label's average precision on fakes and reals and its flip success, in a table.

    The labels that lose most against the reals come first.
    """
    scores, flips = made["label_ap_by_label"], made["flip_by_label"]
    lines = ["| label | AP of fakes | AP of reals | flips that show |", "|---|---|---|---|"]
    for name in sorted(scores, key=lambda name: _loss(*scores[name]), reverse=True):
        cells = [*scores[name], flips.get(name)]
        told = ["–" if cell is None else f"{cell:.2f}" for cell in cells]
        lines.append(f"| {name} | {' | '.join(told)} |")
    return dg.MetadataValue.md("\n".join(lines))


def _loss(fake: float | None, real: float | None) -> float:
    return -1.0 if fake is None or real is None else real - fake


def _options(protocol: Mapping[str, Any]) -> Iterator[str]:
    for name in OPTIONS:
        if name in protocol:
            value = protocol[name]
            told = ",".join(f"{one:g}" for one in value) if name == "psis" else str(value)
            yield f"--{name.replace('_', '-')}={told}"


def _picture(store: Store, path: str) -> dg.MarkdownMetadataValue:
    with contextlib.closing(store.open(path)) as file:
        return inline(Image.open(file))
