"""Small networks of the W families for their tests."""

import torch
from torch import Tensor, nn

from models.families import family_of
from models.families.base import DiscriminatorNet, NetworkSize
from models.families.stylegan2 import Generator

FAMILIES = ("stylegan2", "omokage")
SMALL = NetworkSize(32, channel_base=256, channel_max=16, w_dim=12, mapping_layers=2)


def parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def label_names(count: int) -> tuple[str, ...]:
    return tuple(f"label{number}" for number in range(count))


def networks(
    family: str, *, labels: int = 3, size: NetworkSize = SMALL, seed: int = 0
) -> tuple[Generator, DiscriminatorNet]:
    """Builds G in eval mode and D; every parameter is set as if something had been learnt."""
    torch.manual_seed(seed)
    spec = family_of(family).spec(label_names(labels), size)
    G, D = family_of(family).generator(spec), family_of(family).discriminator(spec)
    assert isinstance(G, Generator)
    with torch.no_grad():
        for weight in (*G.parameters(), *D.parameters()):
            if weight.eq(weight.flatten()[0]).all():  # zeros and ones of the start
                weight.add_(0.2 * torch.randn_like(weight))
    return G.eval(), D


def some_labels(count: int, labels: int = 3) -> Tensor:
    """Rows of 0 and 1 [N,L], no two neighbours alike."""
    return torch.eye(labels).repeat(count, 1)[:count]
