"""Evaluation: how far the generator's pictures are from those that it never saw."""

from typing import Any

import dagster as dg
from PIL import Image
from pydantic import Field

from assets.faults import plain_failures
from assets.generator import CURRENT
from assets.previews import inline
from assets.resources import ChildProcess, StoreResource, TrackingResource
from assets.tables import OWNERS
from dataset.manifest import load_manifest
from dataset.store import Store


class EvaluationConfig(dg.Config):
    """The protocol's size."""

    fakes: int = Field(1000, ge=64, le=100_000, description="Pictures drawn for the distance.")


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
    opened = store.open()
    with plain_failures():
        manifest = load_manifest(opened, None)
        current = opened.read_json(CURRENT)
    made = evaluate(
        context,
        child,
        home=store.root,
        generator=current["folder"],
        manifest=manifest.digest,
        fakes=config.fakes,
    )
    opened.write_json(CURRENT, current | {"evaluation": f"{made['folder']}/{RESULT}"})
    with plain_failures():
        tracking.log_evaluation(current["mlflow_run"], made, step=current["images_seen"])
    return dg.MaterializeResult(
        metadata={
            "fd_efficientnet_lite0": made["fd_efficientnet_lite0"],
            "sigma": made["sigma"],
            "fakes": made["fakes"],
            "reference_rows": made["reference_rows"],
            "seconds": made["seconds"],
            "reused": made["reused"],
            "protocol": made["protocol"],
            "manifest": made["manifest"],
            "path": dg.MetadataValue.path(opened.url(made["folder"])),
            "digest": made["protocol"],
            "fakes_preview": _picture(opened, made["fakes_grid"]),
            "reals_preview": _picture(opened, made["reals_grid"]),
        }
    )


def evaluate(
    context: dg.AssetExecutionContext,
    child: ChildProcess,
    *,
    home: str,
    generator: str,
    manifest: str,
    fakes: int,
) -> dict[str, Any]:
    """Measures one generator against one manifest in a child process; returns its summary."""
    folder = f"{generator}/evaluation/{manifest[:12]}-{fakes}"
    arguments = ["-m", "models.evaluate", "--home", home, "--generator", generator]
    arguments += ["--manifest", manifest, "--fakes", str(fakes), "--out", folder]
    arguments += ["--die-with-parent"]
    return child.run(context, arguments)


def _picture(store: Store, path: str) -> dg.MarkdownMetadataValue:
    with store.open(path) as file:
        return inline(Image.open(file))
