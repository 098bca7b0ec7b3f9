import pytest
import torch
import torch.nn.functional as F

from models.families import dcgan96
from models.families.base import NetworkSize
from models.layers.norm import ConditionalNorm
from models.training.losses import ns_d

LABELS = tuple(f"label{number}" for number in range(23))
SIZE = NetworkSize(96)
SMALL = NetworkSize(96, width=0.05)


def parameters(network: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize("labels", [0, 1, 23])
def test_parameter_counts_are_those_of_the_docstring(labels: int) -> None:
    spec = dcgan96.spec(LABELS[:labels], SIZE)
    assert parameters(dcgan96.Generator(spec)) == 4_175_747 + 8_064 * labels
    assert parameters(dcgan96.Discriminator(spec)) == 2_793_410 + 18_945 * labels


def test_shapes_are_those_of_the_table() -> None:
    spec = dcgan96.spec(LABELS[:4], SMALL)
    G, D = dcgan96.Generator(spec), dcgan96.Discriminator(spec)
    sides: list[int] = []
    layers = [G.block.up1, G.block, G.up1, G.up2, G.up3, G.up4]
    for layer in (*layers, D.conv1, D.conv2, D.conv3, D.conv4):
        layer.register_forward_hook(lambda _layer, _given, made: sides.append(made.shape[-1]))
    D(G(torch.rand(2, 72), torch.eye(4)[:2]), torch.eye(4)[:2])
    assert sides == [3, 6, 12, 24, 48, 96, 48, 24, 12, 6]


def test_spec_is_that_of_the_described_system() -> None:
    spec = dcgan96.spec(LABELS, SIZE)
    assert (spec.z_dim, spec.z_dist, spec.z_std, spec.resolution_px) == (72, "uniform", 1.0, 96)
    norms = [m for m in dcgan96.Generator(spec).modules() if isinstance(m, ConditionalNorm)]
    assert [norm.norm.momentum for norm in norms] == [0.5] * 5


def test_loss_ns_is_the_softmax_cross_entropy_of_the_two_classes() -> None:
    D = dcgan96.Discriminator(dcgan96.spec(LABELS[:4], SMALL)).eval()
    reals, fakes = torch.rand(2, 5, 3, 96, 96) * 2 - 1
    labels = torch.eye(4)[[0, 1, 2, 3, 0]]
    with torch.no_grad():
        entropy = sum(
            F.cross_entropy(D.classes(images, labels)[0], torch.full((5,), wanted))
            for images, wanted in ((fakes, 0), (reals, 1))
        )
        loss = ns_d(D(reals, labels)[0], D(fakes, labels)[0])
    torch.testing.assert_close(loss, entropy)


def test_short_cut_of_the_first_block_reaches_every_place() -> None:
    block = dcgan96.FirstBlock(72, 8, 0).eval()
    torch.nn.init.zeros_(block.up2.weight)
    z = torch.rand(1, 72, 1, 1)
    with torch.no_grad():
        made = block(z, torch.zeros(1, 0))
        wanted = F.relu(block.shortcut(z)).expand(1, 8, 6, 6)
    torch.testing.assert_close(made, wanted)


def test_d_drops_out_in_training_alone() -> None:
    D = dcgan96.Discriminator(dcgan96.spec((), SMALL))
    images, labels = torch.rand(2, 3, 96, 96), torch.zeros(2, 0)
    with torch.no_grad():
        assert not torch.equal(D(images, labels)[0], D(images, labels)[0])
        D.eval()
        assert torch.equal(D(images, labels)[0], D(images, labels)[0])


def test_labels_change_realness_by_the_projection() -> None:
    D = dcgan96.Discriminator(dcgan96.spec(LABELS[:4], SMALL)).eval()
    labels = torch.stack([torch.zeros(4), torch.ones(4)])
    with torch.no_grad():
        realness, auxiliary = D(torch.rand(1, 3, 96, 96).repeat(2, 1, 1, 1), labels)
    assert realness[0].item() != realness[1].item()
    assert torch.equal(auxiliary[0], auxiliary[1])
