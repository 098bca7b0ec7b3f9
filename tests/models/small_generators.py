"""Generators of small random weights: in memory, in a generator's folder, in a checkpoint."""

import dataclasses
import hashlib
import json
from pathlib import Path

import safetensors.torch
import torch

from models.families import family_of
from models.families.base import GeneratorNet, NetworkSize

NAMES = ("blonde_hair", "blue_hair", "blue_eyes")
TYPICAL = [["blonde_hair", "blue_eyes"], ["blue_hair"], ["blonde_hair"]]
SIZES = {
    "dcgan64": NetworkSize(64, width=0.03),
    "stylegan2": NetworkSize(16, channel_base=64, channel_max=8, w_dim=12, mapping_layers=2),
}


def small_generator(
    family: str, *, labels: tuple[str, ...] = NAMES, **changes: object
) -> GeneratorNet:
    """Makes a generator whose weights are large enough that all pictures differ clearly."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        maker = family_of(family)
        spec = dataclasses.replace(maker.spec(labels, SIZES[family]), **changes)  # type: ignore[arg-type]
        network = maker.generator(spec)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.endswith("noise_strength"):
                    parameter.fill_(0.5)
                elif family == "dcgan64":
                    parameter.mul_(4)
    return network.eval().requires_grad_(False)


def write_generator(folder: Path, network: GeneratorNet) -> str:
    """Writes a generator's folder as a finished training does."""
    folder.mkdir(parents=True)
    safetensors.torch.save_file(network.state_dict(), folder / "generator.safetensors")
    (folder / "spec.json").write_text(json.dumps(network.spec.to_json()))
    typical = TYPICAL if network.spec.labels else [[]]
    (folder / "typical_labels.json").write_text(json.dumps(typical))
    (folder / "train.json").write_text("{}")
    return str(folder)


def write_checkpoint(folder: Path, network: GeneratorNet, **facts: object) -> str:
    """Writes a checkpoint whose average is `network`, beside weights of another kind."""
    folder.mkdir(parents=True)
    tensors = {f"ema.{name}": tensor for name, tensor in network.state_dict().items()}
    content = safetensors.torch.save(tensors | {"G.other": torch.zeros(3)})
    (folder / "state.safetensors").write_bytes(content)
    state = {"sha256": hashlib.sha256(content).hexdigest(), "spec": network.spec.to_json()}
    (folder / "state.json").write_text(json.dumps(state | facts))
    return str(folder)
