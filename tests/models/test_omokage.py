from itertools import pairwise

import pytest
import torch

from models.families import family_of
from models.families.base import NetworkSize
from tests.models.style_families import label_names, networks, parameters, some_labels


@pytest.mark.parametrize("labels", [0, 1, 23])
def test_parameter_counts_are_those_of_the_docstring(labels: int) -> None:
    family = family_of("omokage")
    spec = family.spec(label_names(labels), NetworkSize(128, channel_base=8192))
    with torch.device("meta"):
        G, D = family.generator(spec), family.discriminator(spec)
    assert parameters(G) == (19_520_989 + 512 * labels if labels else 19_258_333)
    assert parameters(D) == 20_744_961 + 1_025 * labels


@pytest.mark.parametrize("resolution_px", [8, 64, 256])
def test_parameters_of_d_follow_the_formula_at_any_side(resolution_px: int) -> None:
    size = NetworkSize(resolution_px, channel_base=2048, channel_max=96)
    family = family_of("omokage")
    with torch.device("meta"):
        D = family.discriminator(family.spec(label_names(5), size))
    sides = [side for side in (4, 8, 16, 32, 64, 128) if side < resolution_px]
    c = [min(2048 // side, 96) for side in sides]
    blocks = [(i, o) for o, i in pairwise(c)]
    assert parameters(D) == (
        109 * c[-1]
        + sum(9 * i * i + i + 9 * i * o + o + (i * o if i != o else 0) for i, o in blocks)
        + 18 * c[0] ** 2 + 2 * c[0]
        + 16 * c[0] ** 2 + c[0]
        + c[0] + 1
        + 5 * c[0]
        + 5 * c[0] + 5
    )  # fmt: skip


def test_no_block_of_d_adds_anything_at_the_start() -> None:
    family = family_of("omokage")
    D = family.discriminator(family.spec(label_names(2), NetworkSize(32, channel_base=256)))
    for block in D.blocks:  # type: ignore[union-attr]
        x = torch.randn(2, block.conv0.weight.shape[1], 8, 8)
        assert torch.equal(block(x), block.skip(block.down(x)))


def test_a_picture_is_judged_whatever_stands_beside_it() -> None:
    _, D = networks("omokage")
    x, rows = torch.randn(4, 3, 32, 32), some_labels(4)
    alone = D(x[:1], rows[:1])
    beside = D(torch.cat([x[:1], torch.zeros(3, 3, 32, 32)]), rows)
    for part in (0, 1):
        torch.testing.assert_close(alone[part], beside[part][:1], rtol=1e-5, atol=1e-5)


def test_labels_change_realness_but_not_what_the_label_head_reads() -> None:
    _, D = networks("omokage")
    x, rows = torch.randn(1, 3, 32, 32).repeat(2, 1, 1, 1), some_labels(2)
    realness, logits = D(x, rows)
    assert abs(realness[0].item() - realness[1].item()) > 1e-4
    torch.testing.assert_close(logits[0], logits[1])


def test_it_draws_with_stylegan2s_generator_under_its_own_name() -> None:
    G, _ = networks("omokage")
    assert G.spec.family == "omokage"
    assert (G.spec.can_w, G.spec.can_mixing, G.spec.can_noise) == (True, True, True)
    assert G.noise_sides() == [4, 8, 8, 16, 16, 32, 32]
