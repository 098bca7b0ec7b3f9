"""Whether a training may go on from another one's last checkpoint, and if not, why."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from dataset.errors import TrainingError
from dataset.store import Store
from models.checkpoints import facts_of, finished
from models.config import TrainConfig
from models.facts import told
from models.spec import GeneratorSpec

# A training may go on under other values of these: they do not change what a step does.
MAY_CHANGE = (
    *("total_kimg", "max_minutes", "tick_kimg", "snapshot_kimg", "keep_checkpoints"),
    *("score_pictures", "device", "threads"),
)


def last_checkpoint(store: Store, folder: str) -> tuple[str, dict[str, Any]]:
    """Returns the newest whole checkpoint of a training's folder, and its facts.

    Raises TrainingError if there is none, or if its state.json is not one.
    """
    places = finished(store, f"{folder}/checkpoints")
    if not places:
        raise TrainingError(f"{store.url(folder)} holds no checkpoint to go on from")
    return places[-1], facts_of(store, places[-1])


def differences(config: TrainConfig, before: dict[str, Any]) -> list[str]:
    """Returns the settings of a checkpoint that a training under `config` cannot go on with."""
    return [
        f"{name} was {told(before.get(name))}, now {value!r}"
        for name, value in dataclasses.asdict(config).items()
        if name not in MAY_CHANGE and before.get(name) != value
    ]


def unfit_to_continue(
    facts: dict[str, Any], config: TrainConfig, label_names: Sequence[str]
) -> list[str]:
    """Returns why a training of these settings and labels cannot begin from that checkpoint.

    facts: of its state.json. An empty list means that it can.
    """
    faults = differences(config, facts["config"])
    before = GeneratorSpec.from_json(facts["spec"], where="its spec").labels
    if sorted(before) != sorted(label_names):  # `labels_in_use` gives them their order
        faults.append(f"its labels are {_list(before)}; now {_list(label_names)}")
    return faults


def labels_in_use(store: Store, out: str, continue_from: str) -> tuple[str, ...]:
    """Returns the labels in the order of the weights that `out` goes on from, () for none.

    Labels stand by their frequency, so they change places as a set grows, and columns of weights
    would then mean other labels. A training begun keeps the order that its origin had.
    """
    begun = finished(store, f"{out}/checkpoints")
    if begun:
        origin = facts_of(store, begun[-1]).get("origin") or {}
        return tuple(origin.get("labels") or ())
    if not continue_from or not finished(store, f"{continue_from}/checkpoints"):
        return ()  # what is wrong with it is told where it is gone on from
    _, facts = last_checkpoint(store, continue_from)
    return GeneratorSpec.from_json(facts["spec"], where="its spec").labels


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
