import pytest
import torch

from models.families import srresnet
from models.families.base import NetworkSize

LABELS = tuple(f"label{number}" for number in range(23))


def parameters(network: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize("labels", [0, 1, 23])
@pytest.mark.parametrize(("side", "more_g", "more_d"), [(64, 0, 0), (128, 147_584, 68_256)])
def test_parameter_counts_are_those_of_the_docstring(
    labels: int, side: int, *, more_g: int, more_d: int
) -> None:
    blocks = 3
    spec = srresnet.spec(LABELS[:labels], NetworkSize(side, blocks=blocks))
    wanted = 2_444_995 + 73_984 * blocks + 16_384 * labels + more_g
    assert parameters(srresnet.Generator(spec)) == wanted
    with torch.device("meta"):  # counts need no weights
        D = srresnet.Discriminator(spec)
    assert parameters(D) == 19_948_865 + 129 * labels + more_d


@pytest.mark.parametrize(
    ("side", "g_sides", "d_sides"),
    [(64, [32, 64], [32, 16, 8, 4, 2]), (128, [32, 64, 128], [64, 32, 16, 8, 4, 2])],
)
def test_shapes_are_those_of_the_table(side: int, g_sides: list[int], d_sides: list[int]) -> None:
    spec = srresnet.spec(LABELS[:4], NetworkSize(side, width=0.05, blocks=2))
    G, D = srresnet.Generator(spec), srresnet.Discriminator(spec)
    found: list[int] = []
    halvings = [layer for layer in D.features if isinstance(layer, torch.nn.Sequential)]
    for layer in (*G.stages, *halvings):
        layer.register_forward_hook(lambda _layer, _given, made: found.append(made.shape[-1]))
    images = G(torch.randn(2, 128), torch.eye(4)[:2])
    D(images, torch.eye(4)[:2])
    assert images.shape == (2, 3, side, side)
    assert found == [*g_sides, *d_sides]


def test_channels_of_d_are_those_of_the_table() -> None:
    with torch.device("meta"):
        D = srresnet.Discriminator(srresnet.spec((), NetworkSize(128)))
    halvings = [layer for layer in D.features.modules() if isinstance(layer, torch.nn.Conv2d)]
    halvings = [conv for conv in halvings if conv.stride == (2, 2)]
    assert [conv.out_channels for conv in halvings] == [32, 64, 128, 256, 512, 1024]
    assert [conv.kernel_size[0] for conv in halvings] == [4, 4, 4, 3, 3, 3]
    assert sum(isinstance(layer, srresnet.PlainBlock) for layer in D.features) == 10


def test_blocks_come_from_the_size() -> None:
    spec = srresnet.spec((), NetworkSize(64, width=0.1, blocks=5))
    assert spec.blocks == len(srresnet.Generator(spec).blocks) == 5
    assert NetworkSize(64).blocks == 16


def test_heads_share_the_features_and_nothing_else() -> None:
    D = srresnet.Discriminator(srresnet.spec(LABELS[:4], NetworkSize(64, width=0.05)))
    realness, _ = D(torch.rand(2, 3, 64, 64), torch.eye(4)[:2])
    realness.sum().backward()
    assert all(weight.grad is not None for weight in D.realness.parameters())
    assert all(weight.grad is None for weight in D.labels.parameters())
    weights = [m for m in D.labels.modules() if isinstance(m, torch.nn.Linear)]
    assert [layer.out_features for layer in weights] == [6, 6, 4]


def test_block_of_d_starts_as_nothing_but_its_relu() -> None:
    x = torch.rand(2, 8, 4, 4)
    assert torch.equal(srresnet.PlainBlock(8)(x), x)
