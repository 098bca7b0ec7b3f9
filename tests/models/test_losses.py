import math

import pytest
import torch
from torch import Tensor, nn

from models.losses import (
    ADVERSARIAL,
    hinge_d,
    label_loss,
    ns_d,
    ns_g,
    positive_weights,
    r1_penalty,
    rp_d,
    rp_g,
)

ZERO = torch.zeros(5)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (ns_d(ZERO, ZERO), 2 * math.log(2)),
        (ns_g(ZERO, ZERO), math.log(2)),
        (hinge_d(ZERO, ZERO), 2.0),
        (rp_d(ZERO + 3, ZERO + 3), math.log(2)),
        (rp_g(ZERO - 1, ZERO - 1), math.log(2)),
        (ns_d(ZERO + 100, ZERO - 100), 0.0),
        (ns_g(ZERO, ZERO - 50), 50.0),
    ],
)
def test_adversarial_losses_have_their_closed_forms(found: Tensor, wanted: float) -> None:
    assert found.item() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_descending_pulls_fake_logits_up_for_g_and_down_for_d(name: str) -> None:
    for side, sign in (("d", 1), ("g", -1)):
        fake = torch.zeros(3, requires_grad=True)
        loss: Tensor = getattr(ADVERSARIAL[name], side)(torch.zeros(3), fake)
        (gradient,) = torch.autograd.grad(loss, fake)
        assert bool((gradient.sign() == sign).all())


class Linear(nn.Module):
    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * x.sum(dim=(1, 2, 3)), labels


def test_r1_of_a_linear_d_is_four_for_each_input() -> None:
    penalty = r1_penalty(Linear(), torch.randn(4, 3, 8, 8), torch.zeros(4, 2))
    assert penalty.shape == (4,)
    assert torch.allclose(penalty, torch.full((4,), 4.0 * 3 * 8 * 8))


class Weighted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.weight * x.sum(dim=(1, 2, 3)), labels


def test_r1_reaches_the_weights_of_d() -> None:
    D = Weighted()
    penalty = r1_penalty(D, torch.randn(2, 1, 2, 2), torch.zeros(2, 1)).mean()
    (gradient,) = torch.autograd.grad(penalty, D.weight)
    assert gradient.item() == pytest.approx(2 * 3 * 4)  # d(w²·4)/dw


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
