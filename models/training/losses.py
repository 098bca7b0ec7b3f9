"""Losses of logits and penalties on gradients: what D and G are trained to lower.

Penalties are made with `torch.func`, which works in compiled and in eager steps alike; the
gradient by `torch.autograd.grad(create_graph=True)` raises under `torch.compile`.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.families.base import GeneratorNet, Noise
from models.training.distributed import mean_over_ranks


class AdversarialLoss(NamedTuple):
    """What D and G minimise, and what that asks of D.

    d(real [N], fake [N]) and g(real [N], fake [N]) -> scalar; g may leave `real` unused. penalty is
    "" or the name of a penalty below that belongs to it; clipped: D's weights are clipped after
    each of its steps. paired: row i of real and fake is one pair, which has the labels of the real
    and is judged by one state of D. critic: D is determined up to a constant, so the sign of a
    logit says nothing.
    """

    d: Callable[[Tensor, Tensor], Tensor]
    g: Callable[[Tensor, Tensor], Tensor]
    penalty: str = ""
    clipped: bool = False
    paired: bool = False
    critic: bool = False


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


def wgan_d(real: Tensor, fake: Tensor) -> Tensor:
    """Critic's loss: mean D(fake) - mean D(real), the negated estimate of Wasserstein's distance.

    real, fake [N]; returns a scalar of any sign.
    Source: Arjovsky et al. 2017, arXiv:1701.07875, algorithm 1.
    """
    return fake.mean() - real.mean()


def wgan_g(real: Tensor, fake: Tensor) -> Tensor:
    """Generator's loss against a critic: -mean D(fake).

    fake [N], `real` unused; returns a scalar of any sign. Source: as `wgan_d`.
    """
    return -fake.mean()


def label_loss(logits: Tensor, labels: Tensor, positive_weight: Tensor) -> Tensor:
    """Weighted binary cross-entropy of all labels, a mean over pictures and labels.

    logits, labels [N,L]; positive_weight [L] multiplies the terms where the label is 1; at logits 0
    and weights 1 it is ln 2. Returns a scalar >= 0.
    """
    if logits.shape[1] == 0:
        return logits.sum()
    return F.binary_cross_entropy_with_logits(logits, labels, pos_weight=positive_weight)


NEAR = 0.01  # features of faces are about 1 apart


def energy_distance(fakes: Tensor, reals: Tensor) -> Tensor:
    """Energy distance less the reals' own part: 2·mean |fake - real| - mean |fake - other fake|.

    fakes [N,F], reals [M,F]; returns a scalar. An unbiased estimate: a fake is no neighbour of its
    own. Its second part drives fakes apart that are nearer to each other than reals are.
    Source: Székely and Rizzo 2013, J. Stat. Plan. Inference 143, equation 1; as a generator's loss
    Bellemare et al. 2017, arXiv:1705.10743.
    """
    count = len(fakes)
    apart = _distances(fakes, fakes).sum() / (count * (count - 1))
    return 2 * _distances(fakes, reals).mean() - apart


def energy_score(fakes: Tensor, reals: Tensor) -> Tensor:
    """Energy score of pairs a, b of fakes: mean |a - real| + |b - real| - |a - b|, labels alike.

    fakes [2N,F], all a before all b; reals [N or more,F], of which the first N count; returns a
    scalar. In expectation it is least where the fakes of each row of labels are spread as its reals
    are: one picture for all latents lacks the last part.
    Source: Gneiting and Raftery 2007, J. Am. Stat. Assoc. 102, equation 21.
    """
    one, other = fakes.chunk(2)
    reals = reals[: len(one)]
    return (_apart(one, reals) + _apart(other, reals) - _apart(one, other)).mean()


def _apart(some: Tensor, others: Tensor) -> Tensor:
    """Returns the Euclidean distances [N] of rows [N,F] and [N,F], each at least NEAR."""
    return ((some - others).square().sum(dim=1) + NEAR**2).sqrt()


def _distances(some: Tensor, others: Tensor) -> Tensor:
    """Returns Euclidean distances [N,M] of rows [N,F] and [M,F], by a product of matrices.

    The slope of a root is without bound at 0, so a distance is at least NEAR.
    """
    squared = some.square().sum(1)[:, None] + others.square().sum(1) - 2 * some @ others.T
    return (squared.clamp(min=0) + NEAR**2).sqrt()


def positive_weights(labels: Tensor, *, at_most: float = 8.0) -> Tensor:
    """Returns [L] weights sqrt(absent / present), within [1, at_most], from all rows [M,L].

    The root, not the ratio: a full ratio makes D call rare labels far too often.
    """
    present = labels.sum(dim=0).clamp(min=1)
    return ((len(labels) - present) / present).sqrt().clamp(1.0, at_most)


LOSSES: dict[str, AdversarialLoss] = {
    "ns": AdversarialLoss(ns_d, ns_g),
    "hinge": AdversarialLoss(hinge_d, hinge_g),
    "rp": AdversarialLoss(rp_d, rp_g, paired=True),
    "wgan": AdversarialLoss(wgan_d, wgan_g, clipped=True, critic=True),
    "wgan-gp": AdversarialLoss(wgan_d, wgan_g, penalty="wgan-gp", critic=True),
    "dragan": AdversarialLoss(ns_d, ns_g, penalty="dragan"),
}


DRAGAN_SPREAD = 0.5  # of the pictures' standard deviation


def input_gradients(D: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Returns dD/dx [N,3,H,W] of D's realness, one picture by itself, float32."""
    gradients: Tensor = torch.func.grad(lambda x: D(x, labels)[0].sum())(images)
    return gradients


def r1_penalty(D: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Zero-centred gradient penalty: |dD/dx|² a picture, before gamma/2.

    images [N,3,H,W] in [-1,1], labels [N,L] of 0 and 1; returns [N], float32, >= 0.
    On reals this is R1, on fakes R2. Source: Mescheder et al. 2018, arXiv:1801.04406, section 4.1.
    """
    return input_gradients(D, images, labels).square().sum(dim=(1, 2, 3))


def slope_penalty(D: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """One-centred gradient penalty: (|dD/dx| - 1)² a picture, before its weight.

    images [N,3,H,W], labels [N,L]; returns [N], float32, >= 0.
    Source: Gulrajani et al. 2017, arXiv:1704.00028, equation 3.
    """
    squares = input_gradients(D, images, labels).square().sum(dim=(1, 2, 3))
    # The root's own slope is endless at 0.
    slopes: Tensor = (squares + 1e-12).sqrt()
    return (slopes - 1).square()


def between(reals: Tensor, fakes: Tensor, share: Tensor) -> Tensor:
    """Returns the pictures on the lines from fakes to reals where WGAN-GP looks: [N,3,H,W].

    share [N] in [0,1] is how much of each is real. Source: as `slope_penalty`, algorithm 1.
    """
    return torch.lerp(fakes, reals, share[:, None, None, None])


def around(reals: Tensor, share: Tensor, noise: Tensor) -> Tensor:
    """Returns the pictures near the reals where DRAGAN looks: [N,3,H,W].

    share [N] in [0,1] is how far each goes, noise [N,3,H,W] in [0,1] whereto, in halves of the
    standard deviation of the whole batch.
    Source: Kodali et al. 2017, arXiv:1705.07215, algorithm 1, as its authors' code has it.
    """
    mean, square = mean_over_ranks(torch.stack([reals.mean(), reals.square().mean()]))
    spread = (square - mean.square()).clamp(min=0).sqrt()
    moved: Tensor = reals + DRAGAN_SPREAD * spread * share[:, None, None, None] * noise
    return moved


def path_lengths(
    G: GeneratorNet, w: Tensor, labels: Tensor, *, direction: Tensor, noise: Noise
) -> Tensor:
    """How far a picture moves when its w does: |Jᵀy| of each [N], float32, >= 0.

    w [N,K,W], labels [N,L]; direction y [N,3,R,R] ~ N(0,1), which is divided by R here so that the
    length does not grow with the side; the square is a mean over the K layers.
    Source: Karras et al. 2020, arXiv:1912.04958, section 3.2.
    """
    side = direction.shape[-1]
    drawn = torch.func.vjp(lambda w: G(w[:, 0], labels, w=w, noise=noise).float(), w)
    (gradient,) = drawn[1](direction / side)
    lengths: Tensor = (gradient.float().square().sum(dim=2).mean(dim=1) + 1e-12).sqrt()
    return lengths
