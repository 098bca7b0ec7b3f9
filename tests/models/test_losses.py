import math

import pytest
import torch
from torch import Tensor

from models.training.losses import (
    LOSSES,
    NEAR,
    energy_distance,
    energy_score,
    hinge_d,
    hinge_g,
    label_loss,
    ns_d,
    ns_g,
    positive_weights,
    rp_d,
    rp_g,
    wgan_d,
    wgan_g,
)

ZERO = torch.zeros(5)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (ns_d(ZERO, ZERO), 2 * math.log(2)),
        (ns_g(ZERO, ZERO), math.log(2)),
        (hinge_d(ZERO, ZERO), 2.0),
        (hinge_d(ZERO + 1, ZERO - 1), 0.0),
        (hinge_g(ZERO, ZERO + 3), -3.0),
        (rp_d(ZERO + 3, ZERO + 3), math.log(2)),
        (rp_g(ZERO - 1, ZERO - 1), math.log(2)),
        (rp_d(ZERO, ZERO + 40), 40.0),
        (ns_d(ZERO + 100, ZERO - 100), 0.0),
        (ns_g(ZERO, ZERO - 50), 50.0),
        (wgan_d(ZERO, ZERO), 0.0),
        (wgan_d(ZERO + 2, ZERO - 3), -5.0),
        (wgan_d(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 8.0])), 2.0),
        (wgan_g(ZERO + 9, torch.tensor([1.0, 5.0])), -3.0),
    ],
)
def test_adversarial_losses_have_their_closed_forms(found: Tensor, wanted: float) -> None:
    assert found.item() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_descending_pulls_fake_logits_up_for_g_and_down_for_d(name: str) -> None:
    for side, sign in (("d", 1), ("g", -1)):
        fake = torch.zeros(3, requires_grad=True)
        loss: Tensor = getattr(LOSSES[name], side)(torch.zeros(3), fake)
        (gradient,) = torch.autograd.grad(loss, fake)
        assert bool((gradient.sign() == sign).all())


@pytest.mark.parametrize("name", LOSSES)
def test_descending_pulls_real_logits_up_for_d(name: str) -> None:
    real = torch.zeros(3, requires_grad=True)
    (gradient,) = torch.autograd.grad(LOSSES[name].d(real, torch.zeros(3)), real)
    assert bool((gradient < 0).all())


def test_only_the_critics_are_penalised_or_clipped() -> None:
    found = {name: (loss.penalty, loss.clipped) for name, loss in LOSSES.items()}
    assert found == {
        "ns": ("", False),
        "hinge": ("", False),
        "rp": ("", False),
        "wgan": ("", True),
        "wgan-gp": ("wgan-gp", False),
        "dragan": ("dragan", False),
    }


def test_losses_that_a_constant_added_to_d_leaves_as_they_are_are_paired_or_critics() -> None:
    real, fake = torch.randn(2, 16)
    for name, loss in LOSSES.items():
        shifted = loss.d(real + 3, fake + 3)
        free = torch.allclose(loss.d(real, fake), shifted, atol=1e-5)
        assert free == (loss.paired or loss.critic), name


def test_label_loss_is_ln_2_without_knowledge_and_weighs_positives() -> None:
    logits = torch.zeros(2, 2)
    labels = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert label_loss(logits, labels, torch.ones(2)).item() == pytest.approx(math.log(2))
    weighted = label_loss(logits, labels, torch.tensor([5.0, 5.0])).item()
    assert weighted == pytest.approx(math.log(2) * (5 + 3) / 4)


def test_label_loss_without_labels_is_zero() -> None:
    none = torch.zeros(3, 0)
    assert label_loss(none, none, torch.zeros(0)).item() == 0


def test_the_energy_distance_has_its_closed_form_on_a_few_points() -> None:
    fakes, reals = torch.tensor([[0.0], [6.0]]), torch.tensor([[0.0], [3.0], [6.0]])
    # Each fake is 0, 3 and 6 from the reals, and 6 from the other one.
    assert energy_distance(fakes, reals).item() == pytest.approx(2 * 3 - 6, abs=0.02)
    assert energy_distance(fakes, reals + 100).item() == pytest.approx(2 * 100 - 6, abs=0.02)


def test_the_energy_distance_is_that_of_a_plain_loop_over_pairs() -> None:
    fakes, reals = torch.randn(7, 5), 1 + torch.randn(9, 5)
    between = sum(math.dist(f, r) for f in fakes.tolist() for r in reals.tolist()) / (7 * 9)
    among = [math.dist(f, o) for i, f in enumerate(fakes.tolist()) for o in fakes[i + 1 :].tolist()]
    wanted = 2 * between - sum(among) / len(among)  # a fake is no neighbour of its own
    assert energy_distance(fakes, reals).item() == pytest.approx(wanted, abs=2 * NEAR)


def test_the_energy_distance_is_the_same_in_the_mean_however_many_are_drawn() -> None:
    torch.manual_seed(0)
    few, many = (
        torch.stack([energy_distance(*torch.randn(2, count, 3)) for _ in range(800)]).mean()
        for count in (2, 16)
    )
    assert few.item() == pytest.approx(many.item(), abs=0.1)  # biased it would be 1.1 greater


def test_repeated_fakes_are_further_from_the_reals_and_their_gradient_is_finite() -> None:
    torch.manual_seed(0)
    reals, fakes = torch.randn(2, 16, 8)
    repeated = fakes[:1].repeat(16, 1).requires_grad_()
    found = energy_distance(repeated, reals)
    assert found.item() > energy_distance(fakes, reals).item() + 1
    (gradient,) = torch.autograd.grad(found, repeated)
    assert bool(gradient.isfinite().all())
    assert gradient.abs().max() > 0


def test_positive_weights_are_roots_within_bounds() -> None:
    labels = torch.zeros(100, 3)
    labels[:10, 0] = 1
    labels[:60, 1] = 1
    assert positive_weights(labels).tolist() == pytest.approx([3.0, 1.0, 8.0])


def test_the_energy_score_has_its_closed_form_on_two_pairs() -> None:
    fakes, reals = torch.tensor([[0.0], [1.0], [4.0], [1.0]]), torch.tensor([[3.0], [2.0], [99.0]])
    # The first pair, 0 and 4, is 3 and 1 from its real and 4 apart; the second one 1, 1 and 0.
    assert energy_score(fakes, reals).item() == pytest.approx((3 + 1 - 4 + 1 + 1 - 0) / 2, abs=0.02)


def test_the_energy_score_is_least_for_fakes_that_are_spread_as_reals_of_their_labels_are() -> None:
    torch.manual_seed(0)
    labels = 5 * torch.randn(2000, 3)
    reals = labels + torch.randn(2000, 3)
    scores = {
        width: energy_score(labels.repeat(2, 1) + width * torch.randn(4000, 3), reals).item()
        for width in (0.0, 0.5, 1.0, 2.0)
    }
    assert min(scores, key=scores.__getitem__) == 1.0
    shuffled = reals[torch.randperm(2000)]  # spread as reals are, but not as those of the label
    assert energy_score(torch.cat([shuffled, reals.flip(0)]), reals).item() > scores[0.0]
