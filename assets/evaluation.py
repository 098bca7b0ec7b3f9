"""Evaluation: how far the generator's pictures are from those that it never saw."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from PIL import Image
from pydantic import Field

from assets.faults import plain_failures
from assets.generator import CURRENT
from assets.previews import inline
from assets.resources import ChildProcess, StoreResource, TrackingResource
from assets.stopwatch import Stopwatch
from assets.tables import OWNERS
from dataset.manifest import load_manifest
from dataset.store import Store

METRIC = "fd_efficientnet_lite0"
RESULT = "evaluation.json"


class EvaluationConfig(dg.Config):
    """The protocol's size."""

    fakes: int = Field(
        default=1000, ge=64, le=100_000, description="Pictures drawn for the distance."
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
    """The Fréchet distance to the `eval` split, by the pinned protocol.

    The offline extractor is EfficientNet-Lite0, so the number is named `fd_efficientnet_lite0`; it
    is not an FID.
    """
    watch = Stopwatch()
    opened = store.open()
    with plain_failures():
        manifest = load_manifest(opened, None)
        current = opened.read_json(CURRENT)
    folder = evaluation_folder(current["folder"], manifest.digest, config.fakes)
    made = evaluate(
        context,
        child,
        home=store.root,
        generator=current["folder"],
        manifest=manifest.digest,
        protocol={"fakes": config.fakes},
    )
    opened.write_json(CURRENT, current | {"evaluation": f"{folder}/{RESULT}"})
    with plain_failures():
        tracking.log_evaluation(current["mlflow_run"], made, step=current["images_seen"])
    return dg.MaterializeResult(
        metadata={
            METRIC: made[METRIC],
            "sigma": made["sigma"],
            "distance_of_training_reals": made["real_fd"],
            "hair_colour_hits": made["hair_colour_hits"],
            "fakes": made["fakes"],
            "reference_rows": made["reference_rows"],
            "reused": made["reused"],
            "manifest": made["manifest_digest"],
            "seconds": watch.seconds,
            "path": dg.MetadataValue.path(opened.url(f"{folder}/{RESULT}")),
            "digest": made["protocol_digest"],
            "fakes_preview": _picture(opened, f"{folder}/fakes.png"),
            "reals_preview": _picture(opened, f"{folder}/reals.png"),
        }
    )


def evaluate(
    context: dg.AssetExecutionContext,
    child: ChildProcess,
    *,
    home: str,
    generator: str,
    manifest: str,
    protocol: Mapping[str, Any],
) -> dict[str, Any]:
    """Measures one generator against one manifest in a child process; returns its summary.

    protocol: options of the protocol; an evaluation's own can be given back whole.
    """
    fakes = protocol["fakes"]
    arguments = ["-m", "models.evaluate", "--home", home, "--generator", f"{generator}/generator"]
    arguments += ["--manifest", manifest, "--fakes", str(fakes)]
    arguments += ["--out", evaluation_folder(generator, manifest, fakes)]
    return child.run(context, arguments)


def evaluation_folder(generator: str, manifest: str, fakes: int) -> str:
    """Returns where the evaluation of a generator on a manifest lies."""
    return f"{generator}/evaluation/{manifest[:12]}-{fakes}"


def _picture(store: Store, path: str) -> dg.MarkdownMetadataValue:
    with store.open(path) as file:
        return inline(Image.open(file))
