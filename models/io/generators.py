"""Finds and loads a trained generator: a generator's folder, a checkpoint's, or a training's."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dataset.errors import ConfigError, TrainingError, UsageError, listed
from dataset.store import Store
from models.families import family_of, spec_faults
from models.families.base import GeneratorNet, GeneratorSpec
from models.io.safe_io import (
    parse_tensors,
    read_own,
    read_own_json,
    shown,
    tensor_faults,
    tensor_kind,
    without_memory,
)
from models.labels import Rows, label_rows
from models.training.checkpoint import STATE, TENSORS, finished

WEIGHTS = "generator.safetensors"
SPEC = "spec.json"
TYPICAL = "typical_labels.json"
TRAIN = "train.json"  # written last: where it stands, the generator is whole

# Below the folder of a training
GENERATOR = "generator"
CHECKPOINTS = "checkpoints"
_FINISHED = f"{GENERATOR}/{TRAIN}"

_COUNTER = ".num_batches_tracked"  # generators from before our own batch norm hold it; unused
_AVERAGE = "ema."  # begins the names of the averaged weights in a checkpoint
_MAX_ROWS = 4096  # typical label rows that are read; a training keeps 256


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a generator lies: a folder of the store, and whether that is a checkpoint."""

    store: Store
    folder: str  # "" is the store's root
    is_checkpoint: bool

    def path(self, name: str) -> str:
        """Returns the path of one of its files in the store."""
        return f"{self.folder}/{name}" if self.folder else name

    def url(self, name: str) -> str:
        """Returns the address of one of its files, for messages."""
        return self.store.url(self.path(name))

    @property
    def own_url(self) -> str:
        """The address of its own folder."""
        return self.store.url(self.folder) if self.folder else self.store.root


def find_generator(folder: str) -> Place:
    """Finds the generator of a folder or fsspec URL.

    The folder is a generator's (`spec.json`), a checkpoint's (`state.json`), or a training's: of
    that the finished `generator/` is taken, else the newest whole checkpoint. Raises UsageError
    naming what was looked for if it is none of these.
    """
    store = Store(folder)
    if store.exists(SPEC):
        return Place(store, "", is_checkpoint=False)
    if store.exists(STATE):
        return Place(store, "", is_checkpoint=True)
    if store.exists(_FINISHED):
        return Place(store, GENERATOR, is_checkpoint=False)
    places = finished(store, CHECKPOINTS)
    if places:
        return Place(store, places[-1], is_checkpoint=True)
    raise UsageError(
        f"{store.root} holds no generator: neither {SPEC} (a generator), nor {STATE} (a "
        f"checkpoint), nor {_FINISHED} or {CHECKPOINTS}/*/{STATE} (a training)"
    )


def load_generator(folder: str, *, device: str | torch.device = "cpu") -> GeneratorNet:
    """Loads the generator that `find_generator` finds, in eval mode; of a checkpoint the average.

    Nothing in the files is run, and no memory is taken for what their sizes alone promise. Raises
    TrainingError naming the file and every fault: a truncated file, a link that leads out of the
    folder, a spec that no generator has, tensors that are missing, unknown, misshapen or not
    finite; StoreError if a file is not there.
    """
    place = find_generator(folder)
    if place.is_checkpoint:
        spec, tensors, name = *_of_checkpoint(place), TENSORS
    else:
        spec = read_spec(_json(place, SPEC), where=place.url(SPEC))
        tensors, name = parse_tensors(_bytes(place, WEIGHTS), where=place.url(WEIGHTS)), WEIGHTS
    tensors = {key: one for key, one in tensors.items() if not key.endswith(_COUNTER)}
    with without_memory():  # none is taken before the shapes are known to fit
        network = family_of(spec.family).generator(spec)
    faults = tensor_faults(tensors, network.state_dict())
    if faults:
        raise TrainingError(
            f"{place.url(name)} does not fit {STATE if place.is_checkpoint else SPEC}:\n"
            f"{listed(faults)}\nBoth must come from the same training."
        )
    network.load_state_dict(tensors, assign=True)
    return network.to(device).eval().requires_grad_(False)


def generator_digest(generator: GeneratorNet) -> str:
    """Returns the sha256 over a generator's spec and weights, whatever file they came from."""
    spec = json.dumps(generator.spec.to_json(), sort_keys=True)
    sha256 = hashlib.sha256(spec.encode())
    for name, tensor in sorted(generator.state_dict().items()):
        sha256.update(f"\0{name} {tensor_kind(tensor)}\0".encode())
        sha256.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha256.hexdigest()


def read_spec(value: Any, *, where: str) -> GeneratorSpec:
    """Reads a spec of unknown origin; raises TrainingError naming `where` and what does not fit."""
    spec = GeneratorSpec.from_json(value, where=where)
    try:
        faults = spec_faults(spec)
    except ConfigError as error:
        raise TrainingError(f"{where}: {error}") from error
    if faults:
        raise TrainingError(f"{where} describes no generator:\n{listed(faults)}")
    return spec


def typical_rows(folder: str, known: Sequence[str]) -> Rows:
    """Reads the real label rows [M,L] that a generator keeps for drawing without wishes.

    A checkpoint keeps them under "typical_labels" in its state.json. Raises TrainingError naming
    the file if it holds no rows of known labels; UsageError if a checkpoint keeps none.
    """
    place = find_generator(folder)
    if place.is_checkpoint:
        found = _state(place).get("typical_labels")
        if found is None and not known:
            found = [[]]
        if found is None:
            raise UsageError(
                f"{place.url(STATE)} keeps no typical labels to draw from: name --labels, from "
                f"{', '.join(known)}"
            )
        where = f"{place.url(STATE)}, typical_labels"
    else:
        found, where = _json(place, TYPICAL), place.url(TYPICAL)
    if not _are_rows(found):
        raise TrainingError(
            f"{where}: a list of 1 to {_MAX_ROWS:,} lists of different labels is wanted"
        )
    unknown = sorted({label for row in found for label in row} - set(known))
    if unknown:
        names = ", ".join(f'"{shown(label)}"' for label in unknown[:5])
        raise TrainingError(f"{where} names labels that the generator does not know: {names}")
    return label_rows(found, known)


def _are_rows(found: Any) -> bool:
    return (
        isinstance(found, list)
        and 0 < len(found) <= _MAX_ROWS
        and all(isinstance(row, list) for row in found)
        and all(isinstance(label, str) for row in found for label in row)
        and all(len(set(row)) == len(row) for row in found)
    )


def _of_checkpoint(place: Place) -> tuple[GeneratorSpec, dict[str, Tensor]]:
    state = _state(place)
    if "spec" not in state:
        raise TrainingError(
            f'{place.url(STATE)} has no "spec", so nobody can tell what its weights are; '
            "go on with that training to get a checkpoint that has one"
        )
    spec = read_spec(state["spec"], where=f"{place.url(STATE)}, spec")
    content = _bytes(place, TENSORS)
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != state.get("sha256"):
        raise TrainingError(
            f"{place.url(TENSORS)} is damaged: its sha256 is {sha256[:12]}…, "
            f"{STATE} says {shown(str(state.get('sha256'))[:12])}…"
        )
    tensors = parse_tensors(content, where=place.url(TENSORS))
    average = {
        name.removeprefix(_AVERAGE): tensor
        for name, tensor in tensors.items()
        if name.startswith(_AVERAGE)
    }
    return spec, average


def _state(place: Place) -> dict[str, Any]:
    state = _json(place, STATE)
    if not isinstance(state, dict):
        raise TrainingError(f"{place.url(STATE)}: a JSON object is wanted")
    return state


def _bytes(place: Place, name: str) -> bytes:
    return read_own(place.store, place.path(name), within="")


def _json(place: Place, name: str) -> Any:
    return read_own_json(place.store, place.path(name), within="")
