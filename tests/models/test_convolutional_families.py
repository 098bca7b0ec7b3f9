"""The convolutional families: parameters, shapes and heads are those of their docstrings."""

import math
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dataset.errors import ConfigError
from models.families import acgan64, dcgan64, dcgan96, family_of, srresnet
from models.families.base import NetworkSize
from models.layers.norm import ConditionalNorm
from models.training.losses import ns_d
from tests.models.small_generators import label_names

LABELS = label_names(23)


def output_sides(layers: list[nn.Module], sides: list[int]) -> None:
    """Appends the side of each layer's output to `sides`, forward after forward."""
    for layer in layers:
        layer.register_forward_hook(lambda _layer, _given, made: sides.append(made.shape[-1]))


@pytest.mark.parametrize("family", [dcgan64, dcgan96])
def test_labels_change_realness_by_the_projection(family: ModuleType) -> None:
    spec = family.spec(LABELS, NetworkSize(family.RESOLUTION_PX, width=0.1))
    D = family.Discriminator(spec).eval()
    labels = torch.stack([torch.zeros(23), torch.ones(23)])
    side = family.RESOLUTION_PX
    with torch.no_grad():
        realness, auxiliary = D(torch.rand(1, 3, side, side).repeat(2, 1, 1, 1), labels)
    assert (realness[0] - realness[1]).abs().item() > 1e-3
    # Rows of one batch may be summed in another order, by kernels of other processors.
    assert torch.allclose(auxiliary[0], auxiliary[1], rtol=0, atol=1e-5)


def test_layers_of_dcgan64_are_those_of_the_table() -> None:
    G = dcgan64.Generator(dcgan64.spec(LABELS, NetworkSize(64)))
    ups = [(layer.in_channels, layer.out_channels) for layer in (G.up1, G.up2, G.up3)]
    assert ups == [(512, 256), (256, 128), (128, 3)]
    assert [layer.kernel_size[0] for layer in (G.up1, G.up2, G.up3)] == [3, 5, 4]
    assert [layer.stride[0] for layer in (G.up1, G.up2, G.up3)] == [3, 2, 3]


def test_width_multiplies_the_channels() -> None:
    spec = dcgan64.spec(LABELS, NetworkSize(64, width=0.5))
    assert dcgan64.Generator(spec).up1.in_channels == 256


def test_shapes_of_dcgan96_are_those_of_the_table() -> None:
    spec = dcgan96.spec(LABELS[:4], NetworkSize(96, width=0.05))
    G, D = dcgan96.Generator(spec), dcgan96.Discriminator(spec)
    sides: list[int] = []
    output_sides([G.block.up1, G.block, G.up1, G.up2, G.up3, G.up4], sides)
    output_sides([D.conv1, D.conv2, D.conv3, D.conv4], sides)
    D(G(torch.rand(2, 72), torch.eye(4)[:2]), torch.eye(4)[:2])
    assert sides == [3, 6, 12, 24, 48, 96, 48, 24, 12, 6]


def test_spec_of_dcgan96_is_that_of_the_described_system() -> None:
    spec = dcgan96.spec(LABELS, NetworkSize(96))
    assert (spec.z_dim, spec.z_dist, spec.z_std, spec.resolution_px) == (72, "uniform", 1.0, 96)
    norms = [m for m in dcgan96.Generator(spec).modules() if isinstance(m, ConditionalNorm)]
    assert [norm.norm.momentum for norm in norms] == [0.5] * 5


def test_loss_ns_is_the_softmax_cross_entropy_of_the_two_classes_of_dcgan96() -> None:
    D = dcgan96.Discriminator(dcgan96.spec(LABELS[:4], NetworkSize(96, width=0.05))).eval()
    reals, fakes = torch.rand(2, 5, 3, 96, 96) * 2 - 1
    labels = torch.eye(4)[[0, 1, 2, 3, 0]]
    with torch.no_grad():
        entropy = sum(
            F.cross_entropy(D.classes(images, labels)[0], torch.full((5,), wanted))
            for images, wanted in ((fakes, 0), (reals, 1))
        )
        loss = ns_d(D(reals, labels)[0], D(fakes, labels)[0])
    torch.testing.assert_close(loss, entropy)


def test_short_cut_of_the_first_block_of_dcgan96_reaches_every_place() -> None:
    block = dcgan96.FirstBlock(72, 8, 0).eval()
    torch.nn.init.zeros_(block.up2.weight)
    z = torch.rand(1, 72, 1, 1)
    with torch.no_grad():
        made = block(z, torch.zeros(1, 0))
        wanted = F.relu(block.shortcut(z)).expand(1, 8, 6, 6)
    torch.testing.assert_close(made, wanted)


def test_at_the_start_of_dcgan96_what_z_moves_is_not_drowned_by_its_mean() -> None:
    block = dcgan96.FirstBlock(72, 32, 5)
    z = torch.cat([torch.rand(512, 72), torch.zeros(512, 5)], dim=1)[:, :, None, None]
    with torch.no_grad():
        for maps in (block.up1(z), block.shortcut(z)):
            of_all_faces = maps.mean(dim=0).square().mean()
            of_each = maps.var(dim=0).mean()
            assert of_all_faces < 0.05 * of_each


def test_d_of_dcgan96_drops_out_in_training_alone() -> None:
    D = dcgan96.Discriminator(dcgan96.spec((), NetworkSize(96, width=0.05)))
    images, labels = torch.rand(2, 3, 96, 96), torch.zeros(2, 0)
    with torch.no_grad():
        assert not torch.equal(D(images, labels)[0], D(images, labels)[0])
        D.eval()
        assert torch.equal(D(images, labels)[0], D(images, labels)[0])


def test_shapes_of_acgan64_are_those_of_the_table() -> None:
    spec = acgan64.spec(LABELS[:4], NetworkSize(64, width=0.05))
    G, D = acgan64.Generator(spec), acgan64.Discriminator(spec)
    sides: list[int] = []
    output_sides([G.norm0, G.up1, G.up2, G.up3, G.up4], sides)
    output_sides([D.conv1, D.conv2, D.conv3, D.conv4], sides)
    D(G(torch.randn(2, 100), torch.eye(4)[:2]), torch.eye(4)[:2])
    assert sides == [4, 8, 16, 32, 64, 32, 16, 8, 4]


def test_latents_of_acgan64_have_the_described_spread() -> None:
    spec = acgan64.spec(LABELS, NetworkSize(64))
    assert (spec.z_dist, spec.z_dim) == ("normal", 100)
    assert spec.z_std == pytest.approx(math.e ** (-1 / math.pi)) == pytest.approx(0.72738, abs=1e-5)


def test_only_hair_and_eye_colours_are_conditions_in_the_manifests_order() -> None:
    labels = ("red_eyes", "long_hair", "blonde_hair", "hair_ornament", "ahoge", "blue_eyes")
    assert family_of("acgan64").labels(labels) == ("red_eyes", "blonde_hair", "blue_eyes")


@pytest.mark.parametrize(
    ("labels", "there"), [(("long_hair", "ahoge"), "long_hair, ahoge"), ((), "none")]
)
def test_labels_without_a_colour_are_refused_by_name(labels: tuple[str, ...], there: str) -> None:
    with pytest.raises(ConfigError, match=rf"no such label \(its labels: {there}\)"):
        acgan64.conditions(labels)


def test_realness_of_acgan64_does_not_look_at_the_labels() -> None:
    D = acgan64.Discriminator(acgan64.spec(LABELS[:4], NetworkSize(64, width=0.05)))
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        one, _ = D(images, torch.zeros(2, 4))
        other, _ = D(images, torch.ones(2, 4))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("side", "g_sides", "d_sides"),
    [(64, [32, 64], [32, 16, 8, 4, 2]), (128, [32, 64, 128], [64, 32, 16, 8, 4, 2])],
)
def test_shapes_of_srresnet_are_those_of_the_table(
    side: int, g_sides: list[int], d_sides: list[int]
) -> None:
    spec = srresnet.spec(LABELS[:4], NetworkSize(side, width=0.05, blocks=2))
    G, D = srresnet.Generator(spec), srresnet.Discriminator(spec)
    found: list[int] = []
    halvings = [layer for layer in D.features if isinstance(layer, torch.nn.Sequential)]
    output_sides([*G.stages, *halvings], found)
    images = G(torch.randn(2, 128), torch.eye(4)[:2])
    D(images, torch.eye(4)[:2])
    assert images.shape == (2, 3, side, side)
    assert found == [*g_sides, *d_sides]


def test_channels_of_d_of_srresnet_are_those_of_the_table() -> None:
    with torch.device("meta"):
        D = srresnet.Discriminator(srresnet.spec((), NetworkSize(128)))
    halvings = [layer for layer in D.features.modules() if isinstance(layer, torch.nn.Conv2d)]
    halvings = [conv for conv in halvings if conv.stride == (2, 2)]
    assert [conv.out_channels for conv in halvings] == [32, 64, 128, 256, 512, 1024]
    assert [conv.kernel_size[0] for conv in halvings] == [4, 4, 4, 3, 3, 3]
    assert sum(isinstance(layer, srresnet.PlainBlock) for layer in D.features) == 10


def test_blocks_of_srresnet_come_from_the_size() -> None:
    spec = srresnet.spec((), NetworkSize(64, width=0.1, blocks=5))
    assert spec.blocks == len(srresnet.Generator(spec).blocks) == 5
    assert NetworkSize(64).blocks == 16


def test_heads_of_srresnet_share_the_features_and_nothing_else() -> None:
    D = srresnet.Discriminator(srresnet.spec(LABELS[:4], NetworkSize(64, width=0.05)))
    realness, _ = D(torch.rand(2, 3, 64, 64), torch.eye(4)[:2])
    realness.sum().backward()
    assert all(weight.grad is not None for weight in D.realness.parameters())
    assert all(weight.grad is None for weight in D.labels.parameters())
    weights = [m for m in D.labels.modules() if isinstance(m, torch.nn.Linear)]
    assert [layer.out_features for layer in weights] == [6, 6, 4]


def test_block_of_srresnets_d_starts_as_nothing_but_its_relu() -> None:
    x = torch.rand(2, 8, 4, 4)
    assert torch.equal(srresnet.PlainBlock(8)(x), x)
