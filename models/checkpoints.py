"""Saves and loads the whole state of a training: safetensors and JSON, nothing pickled.

`checkpoints/<images>/state.safetensors` is written first, `state.json` with its sha256 last; a
folder without a `state.json` was cut off in mid-write and does not count.
"""

import dataclasses
import hashlib
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from dataset.errors import TrainingError, listed
from dataset.store import Store
from models.networks import DiscriminatorNet, GeneratorNet
from models.tensors import read_tensors, tensor_faults

TENSORS = "state.safetensors"
STATE = "state.json"


@dataclasses.dataclass
class TrainState:
    """Everything that the next step depends on."""

    G: GeneratorNet
    D: DiscriminatorNet
    ema: GeneratorNet
    opt_g: torch.optim.Optimizer
    opt_d: torch.optim.Optimizer
    rng: torch.Generator  # of latents, fake labels and augmentation; on the CPU
    device_rng: torch.Generator  # of noise maps and directions; on the device
    aug_p: Tensor  # [] chance of augmentation
    real_sign: Tensor  # [] running mean of D's sign on reals
    path_mean: Tensor  # [] running mean of path lengths
    step: int = 0  # steps done; with the seed it is also the place in the data's order
    seconds: float = 0.0  # spent on them, over all starts

    def steering(self) -> dict[str, Tensor]:
        """The numbers that steps steer by themselves."""
        return {"aug_p": self.aug_p, "real_sign": self.real_sign, "path_mean": self.path_mean}

    def networks(self) -> dict[str, nn.Module]:
        """The three networks by the prefix of their tensors."""
        return {"G": self.G, "D": self.D, "ema": self.ema}

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """The two optimisers by the prefix of their tensors."""
        return {"opt_g": self.opt_g, "opt_d": self.opt_d}


def save(
    store: Store, folder: str, state: TrainState, *, images: int, facts: dict[str, Any]
) -> None:
    """Writes a checkpoint below `folder`; `facts` (JSON) go into its state.json."""
    tensors = {name: tensor.detach().cpu() for name, tensor in _tensors(state).items()}
    content = safetensors.torch.save({name: t.contiguous() for name, t in tensors.items()})
    place = f"{folder}/{images:010d}"
    store.write_bytes(f"{place}/{TENSORS}", content)
    about = {
        **facts,
        "images_seen": images,
        "step": state.step,
        "seconds": state.seconds,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    store.write_json(f"{place}/{STATE}", about)


def finished(store: Store, folder: str) -> list[str]:
    """Returns the folders of whole checkpoints, oldest first."""
    ends = f"/{STATE}"
    return [path.removesuffix(ends) for path in store.files(folder) if path.endswith(ends)]


def prune(store: Store, folder: str, *, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints and that of the best (least) score.

    Of each the state.json goes first.
    """
    places = finished(store, folder)
    scores = {place: facts_of(store, place).get("score") for place in places}
    scored = {place: score for place, score in scores.items() if score is not None}
    best = min(scored, key=lambda place: scored[place]) if scored else None
    for place in places[:-keep]:
        if place != best:
            store.remove(f"{place}/{STATE}")
            store.remove(place)


def facts_of(store: Store, place: str) -> dict[str, Any]:
    """Reads a checkpoint's state.json; raises TrainingError if it holds no step and digest."""
    facts = store.read_json(f"{place}/{STATE}")
    wanted = ("step", "seconds", "images_seen", "sha256", "config", "manifest_digest", "spec")
    if not isinstance(facts, dict) or any(name not in facts for name in wanted):
        raise TrainingError(
            f"{store.url(place)}/{STATE} is no checkpoint's ({', '.join(wanted)} wanted). {_REMEDY}"
        )
    return facts


def load(store: Store, place: str, state: TrainState) -> None:
    """Puts a checkpoint into `state`; raises TrainingError naming the file and what is wrong."""
    path = f"{place}/{TENSORS}"
    facts = facts_of(store, place)
    sha256 = hashlib.sha256(store.read_bytes(path)).hexdigest()
    if sha256 != facts["sha256"]:
        raise TrainingError(
            f"{store.url(path)} is damaged: its sha256 is {sha256[:12]}…, "
            f"{STATE} says {str(facts['sha256'])[:12]}…. {_REMEDY}"
        )
    tensors = read_tensors(store, path)
    for prefix, network in state.networks().items():
        part = _part(tensors, prefix)
        faults = tensor_faults(part, network.state_dict())
        if faults:
            raise TrainingError(f"{store.url(path)}, {prefix}:\n{listed(faults)}\n{_REMEDY}")
        network.load_state_dict(part)
    for prefix, optimiser in state.optimisers().items():
        _load_optimiser(optimiser, _part(tensors, prefix))
    for name, tensor in state.steering().items():
        tensor.copy_(_part(tensors, "steering")[name])
    rng = _part(tensors, "rng")
    state.rng.set_state(rng["own"])
    if rng["device"].shape == state.device_rng.get_state().shape:
        state.device_rng.set_state(rng["device"])  # else it was another kind of device
    torch.set_rng_state(rng["cpu"])
    if "cuda" in rng and torch.cuda.is_available():
        torch.cuda.set_rng_state(rng["cuda"])
    state.step, state.seconds = int(facts["step"]), float(facts["seconds"])


_REMEDY = "Remove that folder to go on from the checkpoint before it."


def _tensors(state: TrainState) -> dict[str, Tensor]:
    tensors = {
        f"{prefix}.{name}": tensor
        for prefix, network in state.networks().items()
        for name, tensor in network.state_dict().items()
    }
    for prefix, optimiser in state.optimisers().items():
        for index, values in optimiser.state_dict()["state"].items():
            tensors |= {f"{prefix}.{index}.{key}": value for key, value in values.items()}
    tensors |= {f"steering.{name}": value for name, value in state.steering().items()}
    tensors["rng.own"] = state.rng.get_state()
    tensors["rng.device"] = state.device_rng.get_state()
    tensors["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    return tensors


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name[: len(start)] == start
    }


def _load_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    values: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        values.setdefault(int(index), {})[key] = tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": values, "param_groups": groups})
