import math

import pytest
import torch
from torch import Tensor

from models.training.losses import (
    LOSSES,
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


def test_positive_weights_are_roots_within_bounds() -> None:
    labels = torch.zeros(100, 3)
    labels[:10, 0] = 1
    labels[:60, 1] = 1
    assert positive_weights(labels).tolist() == pytest.approx([3.0, 1.0, 8.0])
