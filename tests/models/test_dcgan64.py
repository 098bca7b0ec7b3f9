import pytest
import torch

from models.families import dcgan64
from models.families.base import NetworkSize

LABELS = tuple(f"label{number}" for number in range(23))
SIZE = NetworkSize(64)
SMALL = NetworkSize(64, width=0.1)


def parameters(network: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize("labels", [0, 1, 23])
def test_parameter_counts_are_those_of_the_docstring(labels: int) -> None:
    spec = dcgan64.spec(LABELS[:labels], SIZE)
    assert parameters(dcgan64.Generator(spec)) == 2_767_171 + 1_856 * labels
    assert parameters(dcgan64.Discriminator(spec)) == 1_031_553 + 2_561 * labels


def test_layers_are_those_of_the_table() -> None:
    G = dcgan64.Generator(dcgan64.spec(LABELS, SIZE))
    ups = [(layer.in_channels, layer.out_channels) for layer in (G.up1, G.up2, G.up3)]
    assert ups == [(512, 256), (256, 128), (128, 3)]
    assert [layer.kernel_size[0] for layer in (G.up1, G.up2, G.up3)] == [3, 5, 4]
    assert [layer.stride[0] for layer in (G.up1, G.up2, G.up3)] == [3, 2, 3]


def test_labels_change_realness_by_the_projection() -> None:
    D = dcgan64.Discriminator(dcgan64.spec(LABELS, SMALL)).eval()
    labels = torch.stack([torch.zeros(23), torch.ones(23)])
    with torch.no_grad():
        realness, auxiliary = D(torch.rand(1, 3, 64, 64).repeat(2, 1, 1, 1), labels)
    assert (realness[0] - realness[1]).abs().item() > 1e-3
    # Rows of one batch may be summed in another order, by kernels of other processors.
    assert torch.allclose(auxiliary[0], auxiliary[1], rtol=0, atol=1e-5)


def test_width_multiplies_the_channels() -> None:
    spec = dcgan64.spec(LABELS, NetworkSize(64, width=0.5))
    assert dcgan64.Generator(spec).up1.in_channels == 256
