"""The losses and penalties of training, each a function that a config names.

An adversarial loss is a pair: what D minimises, and what G minimises, from D's logits.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AdversarialLoss(NamedTuple):
    """d(real [N], fake [N]) and g(real [N], fake [N]) -> scalar; g may leave `real` unused."""

    d: Callable[[Tensor, Tensor], Tensor]
    g: Callable[[Tensor, Tensor], Tensor]


def ns_d(real: Tensor, fake: Tensor) -> Tensor:
    """Logistic loss of D: mean softplus(-D(real)) + mean softplus(D(fake)); 2·ln 2 at logits 0.

    real, fake [N] logits; returns a scalar >= 0.
    Source: Goodfellow et al. 2014, arXiv:1406.2661, equation 1, negated.
    """
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def ns_g(real: Tensor, fake: Tensor) -> Tensor:
    """Non-saturating loss of G: mean softplus(-D(fake)); ln 2 at logits 0.

    fake [N] logits, `real` unused; returns a scalar >= 0.
    Source: Goodfellow et al. 2014, arXiv:1406.2661, section 3.
    """
    return F.softplus(-fake).mean()


def hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of D: mean max(0, 1 - D(real)) + mean max(0, 1 + D(fake)); 2 at logits 0.

    real, fake [N]; returns a scalar >= 0.
    Source: Lim and Ye 2017, arXiv:1705.02894, equations 7 and 8.
    """
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_g(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of G: -mean D(fake).

    fake [N], `real` unused; returns a scalar.
    Source: Lim and Ye 2017, arXiv:1705.02894.
    """
    return -fake.mean()


def rp_d(real: Tensor, fake: Tensor) -> Tensor:
    """Relativistic pairing loss of D: mean softplus(D(fake_i) - D(real_i)); ln 2 at equal logits.

    real, fake [N], paired by row; returns a scalar >= 0.
    Source: Jolicoeur-Martineau 2018, arXiv:1807.00734; Huang et al. 2024, arXiv:2501.05441.
    """
    return F.softplus(fake - real).mean()


def rp_g(real: Tensor, fake: Tensor) -> Tensor:
    """Relativistic pairing loss of G: mean softplus(D(real_i) - D(fake_i)); ln 2 at equal logits.

    real, fake [N], paired by row; returns a scalar >= 0. Source: as `rp_d`.
    """
    return F.softplus(real - fake).mean()


def r1_penalty(D: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Zero-centred gradient penalty: |dD/dx|² a picture, before gamma/2.

    images [N,3,H,W] in [-1,1], labels [N,L] of 0 and 1; returns [N], float32, >= 0.
    On reals this is R1, on fakes R2. Source: Mescheder et al. 2018, arXiv:1801.04406, section 4.1.
    """
    grad = torch.func.grad(lambda x: D(x, labels)[0].float().sum())(images)
    squares: Tensor = grad.float().square().sum(dim=(1, 2, 3))
    return squares


def label_loss(logits: Tensor, labels: Tensor, positive_weight: Tensor) -> Tensor:
    """Weighted binary cross-entropy of all labels, a mean over pictures and labels.

    logits, labels [N,L]; positive_weight [L] multiplies the terms where the label is 1; at logits 0
    and weights 1 it is ln 2. Returns a scalar >= 0.
    """
    if logits.shape[1] == 0:
        return logits.sum()
    return F.binary_cross_entropy_with_logits(logits, labels, pos_weight=positive_weight)


def positive_weights(labels: Tensor, *, at_most: float = 8.0) -> Tensor:
    """Returns [L] weights sqrt(absent / present), within [1, at_most], from all rows [M,L].

    The root, not the ratio: a full ratio makes D call rare labels far too often.
    """
    present = labels.sum(dim=0).clamp(min=1)
    return ((len(labels) - present) / present).sqrt().clamp(1.0, at_most)


ADVERSARIAL: dict[str, AdversarialLoss] = {
    "ns": AdversarialLoss(ns_d, ns_g),
    "hinge": AdversarialLoss(hinge_d, hinge_g),
    "rp": AdversarialLoss(rp_d, rp_g),
}
