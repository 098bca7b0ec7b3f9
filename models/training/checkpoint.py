"""Saves, loads and compares the whole state of a training: safetensors and JSON, nothing pickled.

`checkpoints/<images>/state.safetensors` is written first, `state.json` with its sha256 last; a
folder without a `state.json` was cut off in mid-write and does not count.
"""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from dataset.errors import TrainingError, listed
from dataset.store import Store
from models.config import TrainConfig, canonical
from models.families.base import DiscriminatorNet, GeneratorNet, GeneratorSpec
from models.io.safe_io import (
    COUNT,
    NAME,
    OBJECT,
    ORIGIN,
    SCORE,
    SECONDS,
    SHA256,
    Kind,
    fact_faults,
    parse_tensors,
    read_own,
    read_own_json,
    shown,
    shown_value,
    tensor_faults,
)

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
    rng: torch.Generator  # of latents, fake labels and augmentation; on the device
    device_rng: torch.Generator  # of noise maps and directions; on the device as well
    aug_p: Tensor  # [] chance of augmentation
    real_sign: Tensor  # [] running mean of D's sign on reals
    path_mean: Tensor  # [] running mean of path lengths
    step: int = 0  # steps done; with the seed it is also the place in the data's order
    seconds: float = 0.0  # spent on them, over all starts
    done: float = 0.0  # how much of the training is over, 0 to 1; set before each step

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
    """Returns the folders of whole checkpoints, oldest first; they are named by pictures seen."""
    places = [f"{folder}/{name}" for name in store.names(folder) if _NAME.fullmatch(name)]
    return [place for place in sorted(places, key=_images) if store.exists(f"{place}/{STATE}")]


_NAME = re.compile(r"[0-9]{10,16}")


def _images(place: str) -> int:
    return int(place.rpartition("/")[2])


def _folder(place: str) -> str:
    return place.rpartition("/")[0]


def best(store: Store, folder: str, score_name: str) -> str | None:
    """Returns the whole checkpoint of the best (least) score of that name, None if none has one.

    A name of "" means any; checkpoints of before scores had names count under each.
    """
    scores = {}
    for place in finished(store, folder):
        facts = facts_of(store, place)
        comparable = score_name in ("", facts.get("score_name", score_name))
        if facts["score"] is not None and comparable:
            scores[place] = float(facts["score"])
    return min(scores, key=scores.__getitem__) if scores else None


def prune(store: Store, folder: str, *, keep: int, score_name: str = "") -> None:
    """Removes all but the newest `keep` checkpoints and that of the best score of that name.

    Of each the state.json goes first.
    """
    kept = best(store, folder, score_name)
    for place in finished(store, folder)[:-keep]:
        if place != kept:
            store.remove(f"{place}/{STATE}")
            store.remove(place)


def facts_of(store: Store, place: str) -> dict[str, Any]:
    """Reads a checkpoint's state.json; raises TrainingError naming all that it says wrongly."""
    facts = read_own_json(store, f"{place}/{STATE}", within=_folder(place))
    faults = fact_faults(facts, _FACTS) if isinstance(facts, dict) else ["a JSON object is wanted"]
    if faults:
        raise TrainingError(
            f"{store.url(place)}/{STATE} is no checkpoint's:\n{listed(faults)}\n{_REMEDY}"
        )
    return dict(facts)


def load(store: Store, place: str, state: TrainState) -> None:
    """Puts a checkpoint into `state`, which is left as it was if the checkpoint does not fit.

    Raises TrainingError naming the file and what is wrong.
    """
    path = f"{place}/{TENSORS}"
    facts = facts_of(store, place)
    where = f"{store.url(place)}/{STATE}, spec"
    if GeneratorSpec.from_json(facts["spec"], where=where) != state.G.spec:
        raise TrainingError(f"{where} is of another generator than the settings ask for. {_REMEDY}")
    content = read_own(store, path, within=_folder(place))
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != facts["sha256"]:
        raise TrainingError(
            f"{store.url(path)} is damaged: its sha256 is {sha256[:12]}…, "
            f"{STATE} says {facts['sha256'][:12]}…. {_REMEDY}"
        )
    tensors = parse_tensors(content, where=store.url(path))
    faults = _faults(tensors, state)
    if faults:
        raise TrainingError(f"{store.url(path)}:\n{listed(faults)}\n{_REMEDY}")
    for prefix, network in state.networks().items():
        network.load_state_dict(_part(tensors, prefix))
    for prefix, optimiser in state.optimisers().items():
        _load_optimiser(optimiser, _part(tensors, prefix))
    for name, tensor in state.steering().items():
        tensor.copy_(tensors[f"steering.{name}"])
    _load_random(tensors, state)
    state.step, state.seconds = facts["step"], float(facts["seconds"])


_FACTS: dict[str, Kind] = {
    "step": COUNT,
    "seconds": SECONDS,
    "images_seen": COUNT,
    "sha256": SHA256,
    "config": OBJECT,
    "manifest_digest": NAME,
    "spec": OBJECT,
    "origin": ORIGIN,
    "score": SCORE,
}
_REMEDY = "Remove that folder to go on from the checkpoint before it."
_ADAM = ("exp_avg", "exp_avg_sq")  # beside the count of steps


def _faults(tensors: dict[str, Tensor], state: TrainState) -> list[str]:
    """Returns a sentence for every tensor that is not what `state` holds in its place."""
    wanted = _fixed_tensors(state)
    for prefix, optimiser in state.optimisers().items():
        parameters = (one for group in optimiser.param_groups for one in group["params"])
        for index, parameter in enumerate(parameters):  # numbered through all groups, as torch does
            wanted[f"{prefix}.{index}.step"] = torch.zeros(())
            wanted |= {f"{prefix}.{index}.{name}": parameter for name in _ADAM}
    random = {name: tensor for name, tensor in tensors.items() if name.startswith("rng.")}
    faults = tensor_faults({n: t for n, t in tensors.items() if n not in random}, wanted)
    faults += [f"{name} is missing" for name in _SOURCES if name != _CUDA and name not in random]
    for name, tensor in random.items():
        if name not in _SOURCES:
            faults.append(f"{shown(name)} is unknown")
        elif not any(is_state(tensor) for is_state in _SOURCES[name]):
            faults.append(f"{name} is no state of a source of random numbers")
    return faults


def _is_state(tensor: Tensor) -> bool:
    """Whether a tensor is the state of the CPU's source of random numbers."""
    if tensor.dtype != torch.uint8 or tensor.shape != torch.get_rng_state().shape:
        return False
    try:
        torch.Generator().set_state(tensor)
    except RuntimeError:  # torch looks into it
        return False
    return True


def _is_cuda_state(tensor: Tensor) -> bool:
    """The same for a GPU's: seed and offset, which is a multiple of four."""
    if tensor.dtype != torch.uint8 or tensor.shape != (16,):
        return False
    return int(tensor[8:].view(torch.int64)[0]) % 4 == 0


_CUDA = "rng.cuda"
_SOURCES = {
    "rng.own": (_is_state, _is_cuda_state),
    "rng.device": (_is_state, _is_cuda_state),
    "rng.cpu": (_is_state,),
    _CUDA: (_is_cuda_state,),
}


def _load_random(tensors: dict[str, Tensor], state: TrainState) -> None:
    _restore(state.rng, tensors["rng.own"])
    _restore(state.device_rng, tensors["rng.device"])
    torch.set_rng_state(tensors["rng.cpu"])
    if _CUDA in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors[_CUDA])


def _restore(rng: torch.Generator, stored: Tensor) -> None:
    """Puts a source where it was stored; one of another kind of device to a place that follows."""
    if stored.shape == rng.get_state().shape:
        rng.set_state(stored)
        return
    digest = hashlib.sha256(stored.numpy().tobytes()).digest()
    rng.manual_seed(int.from_bytes(digest[:7], "big"))  # its start would repeat draws


def _fixed_tensors(state: TrainState) -> dict[str, Tensor]:
    """Returns what every state holds from its start: networks and steering."""
    tensors = {
        f"{prefix}.{name}": tensor
        for prefix, network in state.networks().items()
        for name, tensor in network.state_dict().items()
    }
    return tensors | {f"steering.{name}": value for name, value in state.steering().items()}


def _tensors(state: TrainState) -> dict[str, Tensor]:
    tensors = _fixed_tensors(state)
    for prefix, optimiser in state.optimisers().items():
        for index, values in optimiser.state_dict()["state"].items():
            tensors |= {f"{prefix}.{index}.{key}": value for key, value in values.items()}
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


# A training may resume under other values of these: they do not change what a step does, except
# that a cooldown moves with the training's end.
MAY_CHANGE = (
    *("total_kimg", "max_minutes", "tick_kimg", "snapshot_kimg", "keep_checkpoints"),
    *("keep_generator", "score_pictures", "device", "threads", "batch_gpu", "deterministic"),
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
    """Returns the settings of a checkpoint that a training under `config` cannot resume with."""
    if before.get("family") == "omokage" and "energy_weight" not in before:
        return ["it is of the omokage whose D judged pixels, which is trained no more"]
    then, now = canonical(before), canonical(dataclasses.asdict(config))
    return [
        f"{name} was {shown_value(then.get(name))}, now {now.get(name)!r}"
        for name in now | then
        if name not in MAY_CHANGE and then.get(name) != now.get(name)
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
        return ()  # what is wrong with it is reported where it is resumed
    _, facts = last_checkpoint(store, continue_from)
    return GeneratorSpec.from_json(facts["spec"], where="its spec").labels


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
