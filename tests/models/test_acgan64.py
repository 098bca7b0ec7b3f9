import math

import pytest
import torch

from dataset.errors import ConfigError
from models.families import acgan64, family_of
from models.families.base import NetworkSize

LABELS = tuple(f"label{number}" for number in range(23))
SIZE = NetworkSize(64)
SMALL = NetworkSize(64, width=0.05)


def parameters(network: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize("labels", [0, 1, 23])
def test_parameter_counts_are_those_of_the_docstring(labels: int) -> None:
    spec = acgan64.spec(LABELS[:labels], SIZE)
    assert parameters(acgan64.Generator(spec)) == 3_576_707 + 8_192 * labels
    assert parameters(acgan64.Discriminator(spec)) == 2_764_737 + 8_193 * labels


def test_shapes_are_those_of_the_table() -> None:
    spec = acgan64.spec(LABELS[:4], SMALL)
    G, D = acgan64.Generator(spec), acgan64.Discriminator(spec)
    sides: list[int] = []
    for layer in (G.norm0, G.up1, G.up2, G.up3, G.up4, D.conv1, D.conv2, D.conv3, D.conv4):
        layer.register_forward_hook(lambda _layer, _given, made: sides.append(made.shape[-1]))
    D(G(torch.randn(2, 100), torch.eye(4)[:2]), torch.eye(4)[:2])
    assert sides == [4, 8, 16, 32, 64, 32, 16, 8, 4]


def test_latents_have_the_described_spread() -> None:
    spec = acgan64.spec(LABELS, SIZE)
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


def test_realness_does_not_look_at_the_labels() -> None:
    D = acgan64.Discriminator(acgan64.spec(LABELS[:4], SMALL))
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        one, _ = D(images, torch.zeros(2, 4))
        other, _ = D(images, torch.ones(2, 4))
    assert torch.equal(one, other)
