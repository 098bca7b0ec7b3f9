"""Penalties on gradients: of D by its pictures, and of G by its w.

All are made with `torch.func`, which works in compiled and in eager steps alike; the gradient by
`torch.autograd.grad(create_graph=True)` raises under `torch.compile`.
"""

import torch
from torch import Tensor, nn

from models.networks import GeneratorNet, Noise
from models.parallel import mean_over_ranks

DRAGAN_SPREAD = 0.5  # of the pictures' standard deviation


def input_gradients(D: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Returns dD/dx [N,3,H,W] of D's realness, one picture by itself, float32."""
    gradients: Tensor = torch.func.grad(lambda x: D(x, labels)[0].float().sum())(images)
    return gradients.float()


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
