"""Generator: a network trained on the manifest, in a child process on the best device there is."""

import dataclasses

import dagster as dg
from PIL import Image
from pydantic import Field

from assets.faults import plain_failures
from assets.previews import inline
from assets.resources import ChildProcess, StoreResource, TrackingResource
from assets.stopwatch import Stopwatch
from assets.tables import OWNERS
from dataset.manifest import load_manifest
from dataset.store import Store

FOLDER = "generators"
CURRENT = f"{FOLDER}/current.json"  # the one that the stages below look at


class GeneratorConfig(dg.Config):
    """What is trained, and for how long."""

    preset: str = Field(
        default="demo", description="Settings to begin with; models/config.py lists them."
    )
    overrides: dict[str, str] = Field(
        default={}, description='Settings to change, such as {"total_kimg": "200", "batch": "64"}.'
    )


def generator_id(manifest_digest: str, config_digest: str) -> str:
    """Returns the name of a generator: what it learnt from, and how."""
    return f"{manifest_digest[:12]}-{config_digest[:12]}"


@dg.asset(
    deps=["manifest"], group_name="training", kinds={"pytorch", "mlflow"}, owners=OWNERS, pool="gpu"
)
def generator(
    context: dg.AssetExecutionContext,
    config: GeneratorConfig,
    store: StoreResource,
    child: ChildProcess,
    tracking: TrackingResource,
) -> dg.MaterializeResult:
    """A label-conditioned generator, trained in a subprocess that checkpoints and resumes.

    The same manifest with the same settings is not trained again.
    """
    watch = Stopwatch()
    from models.presets import preset  # imports torch, which the code location need not load

    opened = store.open()
    with plain_failures():
        overrides = [f"{key}={value}" for key, value in config.overrides.items()]
        settings = preset(config.preset, overrides)
        manifest = load_manifest(opened, None)
        name = generator_id(manifest.digest, settings.digest)
        run_id = tracking.run_for(
            name,
            name=f"{settings.family} {name}",
            tags={
                "omokage.manifest": manifest.digest,
                "omokage.config": settings.digest,
                "omokage.dagster_run": context.run.run_id,
            },
        )
    folder = f"{FOLDER}/{name}"
    arguments = ["-m", "models.train", "--home", store.root, "--manifest", manifest.digest]
    arguments += ["--out", folder, "--preset", config.preset]
    arguments += [part for text in overrides for part in ("--set", text)]
    with tracking.open_run(run_id):
        made = child.run(context, arguments, environment={"MLFLOW_RUN_ID": run_id})
    opened.write_json(
        CURRENT,
        {
            "folder": folder,
            "id": name,
            "images_seen": made["images_seen"],
            "manifest": manifest.digest,
            "mlflow_run": run_id,
        },
    )
    return dg.MaterializeResult(
        metadata={
            "family": settings.family,
            "images_seen": made["images_seen"],
            "device": made["device"],
            "reused": made["already_trained"],
            "seconds": watch.seconds,
            "path": dg.MetadataValue.path(opened.url(folder)),
            "digest": name,
            "manifest": manifest.digest,
            "config": dg.MetadataValue.json(dataclasses.asdict(settings)),
            "mlflow_run": run_id,
            "preview": _last_samples(opened, folder),
        },
        data_version=dg.DataVersion(name),
    )


def _last_samples(store: Store, folder: str) -> dg.MarkdownMetadataValue:
    """Shows the newest grid of the fixed-seed samples that training draws as it goes."""
    with store.open(store.files(f"{folder}/samples")[-1]) as file:
        return inline(Image.open(file))
