"""Networks of small random weights: in memory, in a generator's folder, in a checkpoint."""

import dataclasses
import hashlib
import json
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from models.families import family_of
from models.families.base import DiscriminatorNet, GeneratorNet, NetworkSize
from models.families.stylegan2 import GeneratorWithW

NAMES = ("blonde_hair", "blue_hair", "blue_eyes")
TYPICAL = [["blonde_hair", "blue_eyes"], ["blue_hair"], ["blonde_hair"]]
SIZES = {
    "dcgan64": NetworkSize(64, width=0.03),
    "stylegan2": NetworkSize(16, channel_base=64, channel_max=8, w_dim=12, mapping_layers=2),
}
W_FAMILIES = ("stylegan2", "omokage")
W_SIZE = NetworkSize(32, channel_base=256, channel_max=16, w_dim=12, mapping_layers=2)


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


def parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def label_names(count: int) -> tuple[str, ...]:
    return tuple(f"label{number}" for number in range(count))


def w_networks(
    family: str, *, labels: int = 3, size: NetworkSize = W_SIZE, seed: int = 0
) -> tuple[GeneratorWithW, DiscriminatorNet]:
    """Builds G and D of a W family in eval mode; no parameter is at its initial 0 or 1."""
    torch.manual_seed(seed)
    spec = family_of(family).spec(label_names(labels), size)
    G, D = family_of(family).generator(spec), family_of(family).discriminator(spec)
    assert isinstance(G, GeneratorWithW)
    with torch.no_grad():
        for weight in (*G.parameters(), *D.parameters()):
            if weight.eq(weight.flatten()[0]).all():  # zeros and ones of the start
                weight.add_(0.2 * torch.randn_like(weight))
    return G.eval(), D.eval()


def some_labels(count: int, labels: int = 3) -> Tensor:
    """Rows of 0 and 1 [N,L], no two neighbours alike."""
    return torch.eye(labels).repeat(count, 1)[:count]
