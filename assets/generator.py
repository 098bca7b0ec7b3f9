"""The generator: resumes or starts a training, and shows its samples and learning curves."""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
from PIL import Image
from pydantic import Field

from assets.charts import curves_chart, growth_preview
from assets.reporting import (
    MAX_BYTES,
    OWNERS,
    Stopwatch,
    inline,
    materialised,
    plain_failures,
    tags_of,
)
from assets.resources import INTERRUPTS, ChildProcess, StoreResource, TrackingResource
from dataset.errors import TrainingError
from dataset.manifest import Manifest, load_manifest, taken_rows
from dataset.store import Store, file_lock
from dataset.takedown import CURRENT_GENERATOR, learnt_from
from models.config import TrainConfig, overridden
from models.families import family_of
from models.registry.pages import describe, run_url, training_note
from models.registry.promotion import lock_folder
from models.training.checkpoint import last_checkpoint, unfit_to_continue

FOLDER = "generators"


@dataclass(frozen=True)
class Plan:
    """What is trained, under which name, from where on, and why so."""

    name: str
    settings: TrainConfig
    origin: str = ""  # name of the generator that it goes on from; "" is none
    reason: str = "from scratch"

    @property
    def folder(self) -> str:
        """Where the training lies in the store."""
        return f"{FOLDER}/{self.name}"

    @property
    def continue_from(self) -> str:
        """The folder of the origin's training; "" for a training from scratch."""
        return f"{FOLDER}/{self.origin}" if self.origin else ""


def generator_id(manifest_digest: str, config_digest: str, origin: str = "") -> str:
    """Returns the name of a generator: what it learnt from, how, and from which other one on."""
    name = f"{manifest_digest[:12]}-{config_digest[:12]}"
    return f"{name}-from-{hashlib.sha256(origin.encode()).hexdigest()[:8]}" if origin else name


def planned(
    store: Store,
    settings: TrainConfig,
    *,
    manifest: Manifest,
    grow_kimg: float,
    current: dict[str, Any] | None,
) -> Plan:
    """Plans a training of these settings on a manifest; current: the generator that there is.

    grow_kimg 0 trains from scratch. Above it, the current generator is gone on from for so many
    thousand pictures if another manifest taught it, with the same settings and labels; else the
    plan is a training from scratch, whose reason says what stood against it. On the manifest
    that the current generator has grown on, the plan is that generator.
    """
    scratch = generator_id(manifest.digest, settings.digest)
    if grow_kimg == 0:
        return Plan(scratch, settings)
    if current is None:
        return Plan(scratch, settings, reason="from scratch: there is no generator yet to grow")
    same_set = current["manifest"] == manifest.digest
    origin = current.get("origin", "") if same_set else current["id"]
    if not origin:
        reason = (
            f"from scratch: {current['id']} learnt from this very manifest, which has not grown"
        )
        return Plan(scratch, settings, reason=reason)
    grown = overridden(settings, [f"total_kimg={grow_kimg}"])
    plan = Plan(
        generator_id(manifest.digest, grown.digest, origin),
        grown,
        origin=origin,
        reason=f"going on from {origin} for {grow_kimg:g} kimg",
    )
    faults = [] if plan.name == current["id"] else _unfit(store, plan, manifest)
    if faults:
        return Plan(scratch, settings, reason=f"from scratch: {origin}: {'; '.join(faults)}")
    return plan


def _unfit(store: Store, plan: Plan, manifest: Manifest) -> list[str]:
    learnt = learnt_from(store, plan.continue_from)
    if taken := [row for digest in learnt for row in taken_rows(store, digest)]:
        return [f"{len(taken):,} of the faces that it learnt from were taken down"]
    labels = family_of(plan.settings.family).labels(tuple(manifest.labels))
    try:
        _, facts = last_checkpoint(store, plan.continue_from)
    except TrainingError as error:
        return [str(error)]
    return unfit_to_continue(facts, plan.settings, labels)


def generator_of_run(
    instance: dg.DagsterInstance, run: dg.DagsterRun, store: Store
) -> dict[str, Any]:
    """Returns id, folder, images_seen, manifest and mlflow_run of the generator of a run.

    See `materialised`. Where Dagster knows of none, as in a home that was moved without its
    history, it is that of generators/current.json, whose absence raises StoreError.
    """
    made = materialised(instance, run, dg.AssetKey("generator"))
    if made is None:
        current: dict[str, Any] = store.read_json(CURRENT_GENERATOR)
        return current
    names = ("images_seen", "manifest", "mlflow_run")
    found = {"id": made["digest"], "folder": f"{FOLDER}/{made['digest']}"}
    return found | {name: made[name] for name in names}


class GeneratorConfig(dg.Config):
    """What is trained, for how long, and on how much of the machine."""

    preset: str = Field(
        default="demo",
        description="Settings to begin with: a family's own (dcgan64, dcgan96, acgan64, srresnet, "
        "stylegan2, omokage: hours on a GPU), <family>-small (minutes on two cores), "
        "<family>-smoke (seconds, draws nothing worth seeing), or demo (the default: five minutes "
        "on two cores); models/presets.py has them.",
    )
    overrides: dict[str, str] = Field(
        default={},
        description='Settings of the preset to change, as texts, such as {"total_kimg": "200", '
        '"batch": "64"}; models/config.py says what each means, its unit and its range. None are '
        "changed by default; each change is a training of its own.",
    )
    processes: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes that share each batch (1 to 64, default 1), started by torchrun on "
        "this machine, or where OMOKAGE_LAUNCHER says: one GPU each, or all on the CPU where there "
        "is none. They learn what one would; the batch must be a multiple of them. The run holds "
        "one slot of the pool `gpu`, however many they are.",
    )
    grow_kimg: float = Field(
        default=0.0,
        ge=0.0,
        description="0 (the default) trains from scratch on a new manifest. Above it, training is "
        "incremental: "
        "if the current generator learnt with the same settings and labels from another manifest, "
        "it is gone on from for so many thousand pictures of the new one (instead of the preset's "
        "total_kimg); otherwise a new one is trained from scratch, and the metadata says why.",
    )


@dg.asset(
    deps=["manifest"],
    group_name="training",
    kinds={"pytorch", "mlflow"},
    owners=OWNERS,
    tags=tags_of("training", needs="gpu"),
    pool="gpu",
)
def generator(
    context: dg.AssetExecutionContext,
    config: GeneratorConfig,
    store: StoreResource,
    child: ChildProcess,
    tracking: TrackingResource,
) -> dg.MaterializeResult:
    """A label-conditioned generator, trained in a subprocess that checkpoints and resumes.

    **From** the `manifest`, by the settings of a preset. The same manifest with the same settings
    is not trained again. One that was stopped goes on from its last checkpoint, in the MLflow run
    that it began.

    **Lies in** `generators/<manifest>-<settings>/`: `generator/` (weights and what is known of
    them), `checkpoints/`, `samples/`, `growth.gif`, `progress.jsonl`; `generators/current.json`
    names the newest.

    **If it is wrong:** look at the samples and curves below and on the MLflow page. Blurred or
    alike faces want more pictures (`total_kimg`) or another family; a loss that is not finite wants
    smaller `lr_g` and `lr_d`. What to change goes into `overrides`.
    """
    watch = Stopwatch()
    # These import torch, which the code location need not load.
    from models.presets import preset
    from models.training.checkpoint import finished

    opened, registry = store.open(), tracking.open()
    with plain_failures():
        overrides = [f"{key}={value}" for key, value in config.overrides.items()]
        manifest = load_manifest(opened, None)
        settings = preset(config.preset, overrides)
        plan = planned(
            opened,
            settings,
            manifest=manifest,
            grow_kimg=config.grow_kimg,
            current=opened.read_json(CURRENT_GENERATOR)
            if opened.exists(CURRENT_GENERATOR)
            else None,
        )
        run_id = registry.run_for(
            plan.name,
            name=f"{settings.family} {plan.name}",
            tags={
                "omokage.family": settings.family,
                "omokage.manifest": manifest.digest,
                "omokage.config": plan.settings.digest,
                "omokage.origin": plan.origin or "none",
                "omokage.dagster_run": context.run.run_id,
            },
        )
        note = training_note(
            registry,
            manifest,
            dataclasses.asdict(plan.settings),
            folder=plan.folder,
            reason=plan.reason,
            dagster_run=context.run.run_id,
        )
        describe(registry, run_id, store=opened, manifest=manifest, note=note)
    context.log.info(f"{plan.name}: {plan.reason}")
    begun = bool(finished(opened, f"{plan.folder}/checkpoints"))
    if plan.origin:
        overrides.append(f"total_kimg={plan.settings.total_kimg}")
    arguments = ["-m", "models.train", "--home", opened.state.root, "--manifest", manifest.digest]
    arguments += ["--out", plan.folder, "--preset", config.preset]
    arguments += [part for text in overrides for part in ("--set", text)]
    if plan.origin:
        arguments += ["--continue-from", plan.continue_from]
    # With several slots of the pool, two runs may come to the same training: the second one waits.
    alone = file_lock(lock_folder(opened) / plan.folder / "training.lock")
    with alone, registry.open_run(run_id, interrupts=INTERRUPTS):
        made = child.run(
            context,
            arguments,
            environment={
                "MLFLOW_RUN_ID": run_id,
                "MLFLOW_TRACKING_URI": tracking.uri,
                **opened.variables(),
            },
            processes=config.processes,
        )
    opened.write_json(
        CURRENT_GENERATOR,
        {
            "folder": plan.folder,
            "id": plan.name,
            "images_seen": made["images_seen"],
            "manifest": manifest.digest,
            "mlflow_run": run_id,
            "origin": plan.origin,
        },
    )
    facts = opened.read_json(f"{plan.folder}/generator/train.json")
    curves = curves_chart(opened, plan.folder)
    return dg.MaterializeResult(
        # In the order in which the page shows them: what a person looks at, numbers, addresses.
        metadata={
            "preview": _samples(opened, made["samples"], max_bytes=MAX_BYTES - len(curves.value)),
            "growth": growth_preview(
                opened, plan.folder, images_seen=made["images_seen"], max_bytes=MAX_BYTES
            ),
            "curves": curves,
            "family": settings.family,
            "resolution_px": settings.resolution_px,
            "images_seen": made["images_seen"],
            "device": device_in_words(facts),
            "processes": facts["processes"],
            "started": plan.reason,
            "origin": _origin(plan, facts),
            "reused": made["already_trained"],
            "resumed": begun and not made["already_trained"],
            **_best_snapshot(opened, plan.folder),
            "seconds": watch.seconds,
            "path": dg.MetadataValue.path(opened.url(plan.folder)),
            "digest": plan.name,
            "manifest": manifest.digest,
            "mlflow_run": run_id,
            "mlflow_page": dg.MetadataValue.url(run_url(registry, run_id)),
            "dagster/uri": opened.url(f"{plan.folder}/generator"),
            **_last_losses(facts),
            "config": dg.MetadataValue.json(dataclasses.asdict(plan.settings)),
        },
        data_version=dg.DataVersion(plan.name),
    )


def device_in_words(facts: Mapping[str, Any]) -> str:
    """Returns what a training ran on, such as `2 x NVIDIA H200` or `CPU, 2 processes`.

    facts: of its train.json.
    """
    count = facts["processes"]
    if facts["device"] != "cpu":
        return f"{count} x {facts['device']}" if count > 1 else str(facts["device"])
    return f"CPU, {count} processes" if count > 1 else "CPU"


def _origin(plan: Plan, facts: Mapping[str, Any]) -> dg.MetadataValue:
    """Tells from which generator, and how far into its training, this one went on."""
    if not facts.get("origin"):
        return dg.MetadataValue.text("none")
    known = {name: facts["origin"][name] for name in ("images_seen", "manifest_digest")}
    return dg.MetadataValue.json({"generator": plan.origin, **known})


def _best_snapshot(store: Store, folder: str) -> dict[str, Any]:
    """Returns the least score of the kept checkpoints, and where it was; {} if none is scored."""
    from models.training.checkpoint import facts_of, finished

    facts = [facts_of(store, place) for place in finished(store, f"{folder}/checkpoints")]
    scored = [one for one in facts if one.get("score") is not None]
    if not scored:
        return {}
    best = min(scored, key=lambda one: float(one["score"]))
    return {
        "best_snapshot_score": float(best["score"]),
        "best_snapshot_images_seen": int(best["images_seen"]),
    }


def _last_losses(facts: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of the last tick, for plots over the generators: losses and speed.

    facts: of the train.json.
    """
    names = {"d": "d_loss", "g": "g_loss", "d_labels": "d_label_loss", "g_labels": "g_label_loss"}
    names |= {"pictures_per_s": "pictures_per_s"}
    last = facts["metrics"]  # empty where a training was stopped between its last step and its end
    return {words: round(last[name], 4) for name, words in names.items() if name in last}


def _samples(store: Store, path: str, *, max_bytes: int) -> dg.MarkdownMetadataValue:
    """Shows the grid of fixed-seed samples that training drew of the generator it left."""
    with store.open(path) as file:
        return inline(Image.open(file), max_bytes=max_bytes)
