import pytest
import torch

from models.families import FAMILIES, dcgan64, family_of
from models.spec import GeneratorSpec

LABELS = tuple(f"label{number}" for number in range(23))


def parameters(network: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize("labels", [1, 23])
def test_parameter_counts_are_those_of_the_docstring(labels: int) -> None:
    spec = dcgan64.spec(LABELS[:labels])
    assert parameters(dcgan64.Generator(spec)) == 2_767_171 + 1_856 * labels
    assert parameters(dcgan64.Discriminator(spec)) == 1_031_553 + 2_561 * labels


def test_layers_are_those_of_the_table() -> None:
    G = dcgan64.Generator(dcgan64.spec(LABELS))
    ups = [(layer.in_channels, layer.out_channels) for layer in (G.up1, G.up2, G.up3)]
    assert ups == [(512, 256), (256, 128), (128, 3)]
    assert [layer.kernel_size[0] for layer in (G.up1, G.up2, G.up3)] == [3, 5, 4]
    assert [layer.stride[0] for layer in (G.up1, G.up2, G.up3)] == [3, 2, 3]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_keeps_the_interface(name: str) -> None:
    family = family_of(name)
    spec = family.spec(LABELS[:4], width=0.1)
    G, D = family.generator(spec), family.discriminator(spec)
    side = spec.resolution_px
    labels = torch.eye(4)[:3]
    images = G(torch.randn(3, spec.z_dim), labels)
    assert images.shape == (3, 3, side, side)
    assert -1 <= images.min().item() <= images.max().item() <= 1
    adversarial, auxiliary = D(images, labels)
    assert adversarial.shape == (3,)
    assert auxiliary.shape == (3, 4)
    assert (G.map(torch.randn(3, spec.z_dim), labels) is None) is not spec.can_w
    assert G.spec == spec


def test_psi_zero_gives_one_face_whatever_the_latent() -> None:
    G = dcgan64.Generator(dcgan64.spec(LABELS, width=0.1)).eval()
    labels = torch.zeros(2, 23)
    with torch.no_grad():
        one, two = G(torch.randn(2, 100), labels, psi=0.0)
    assert torch.equal(one, two)


def test_labels_change_g_and_both_heads_of_d() -> None:
    spec = dcgan64.spec(LABELS, width=0.1)
    G, D = dcgan64.Generator(spec).eval(), dcgan64.Discriminator(spec).eval()
    z = torch.randn(1, 100).repeat(2, 1)
    labels = torch.stack([torch.zeros(23), torch.ones(23)])
    with torch.no_grad():
        images = G(z, labels)
        realness, _ = D(images[:1].repeat(2, 1, 1, 1), labels)
    assert not torch.equal(images[0], images[1])
    assert realness[0].item() != realness[1].item()


def test_width_multiplies_the_channels() -> None:
    assert dcgan64.Generator(dcgan64.spec(LABELS, width=0.5)).up1.in_channels == 256


def test_spec_survives_json() -> None:
    spec = dcgan64.spec(LABELS, width=0.25)
    assert GeneratorSpec.from_json(spec.to_json(), where="spec.json") == spec
