"""How a generator is to be trained: from the beginning, or on from the one that there is."""

import hashlib
from dataclasses import dataclass
from typing import Any

from dataset.errors import TrainingError
from dataset.manifest import Manifest
from dataset.store import Store
from models.config import TrainConfig, overridden
from models.families import family_of
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
    plan is a training from scratch, whose reason says what stood against it. Asked again on the
    manifest that the current generator has grown on, the plan is that generator.
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
    labels = family_of(plan.settings.family).labels(tuple(manifest.labels))
    try:
        _, facts = last_checkpoint(store, plan.continue_from)
    except TrainingError as error:
        return [str(error)]
    return unfit_to_continue(facts, plan.settings, labels)
