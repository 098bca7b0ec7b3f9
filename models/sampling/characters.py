"""Characters: all that a face is drawn from, beyond a seed, and the points they become.

A character begins as the latent of its seed and its label row. Variations move the latent to a
neighbour that is as typical as it was; a shift (of directions, or of an inverted picture) moves
what is drawn. In families with W it is added to w, once that is mapped and truncated; without W it
moves the latent itself.
"""

import dataclasses
import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dataset.errors import UsageError
from models.families.base import GeneratorNet, GeneratorSpec
from models.labels import Rows
from models.sampling.draw import Pictures, draw_latents, latents, map_latents

Variations = Sequence[tuple[int, float]]  # noise seeds, each once, and amounts

_EDGE = 1e-7  # uniform latents are held so far from 0 and 1, where the normal ones lie at ±5.2


@dataclasses.dataclass(frozen=True)
class Points:
    """What the generator is given: z [N,Z] with z_std, labels [N,L], w [N,K,W] or None."""

    z: Tensor
    labels: Rows
    w: Tensor | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Characters:
    """N characters: seeds (of their noise too), labels [N,L] from 0 to 1, latents z [N,Z] without
    z_std, and the shift of their w [N,K,W], None for none.
    """

    seeds: Sequence[int]
    labels: Rows
    z: Tensor
    w_shift: Tensor | None = None

    def __len__(self) -> int:
        return len(self.seeds)


def shift_shape(spec: GeneratorSpec) -> tuple[int, int]:
    """Returns rows and numbers of a shift: K and W, or 1 and Z in a family without W."""
    return (spec.w_layers, spec.w_dim) if spec.can_w else (1, spec.z_dim)


def characters(
    spec: GeneratorSpec,
    seeds: Sequence[int],
    labels: Rows,
    *,
    variations: Sequence[Variations] = (),
    shift: Tensor | None = None,
) -> Characters:
    """Returns the characters of N seeds and label rows [N,L].

    variations: noise seeds and amounts, N times; () for none. shift [N, *shift_shape(spec)]: of w,
    or of the latent. Without either the latents are exactly those of `latents`.

    A latent z ~ N(0, 1) with the noises n_i, normal too, becomes (z + Σ a_i·n_i) / √(1 + Σ a_i²),
    which is N(0, 1) again. A uniform one is moved through the normal one with the same quantile,
    so that it stays between 0 and 1, by a shift too.

    Raises UsageError if the numbers of rows do not fit, or the shift is of another generator.
    """
    if labels.shape != (len(seeds), len(spec.labels)):
        raise UsageError(
            f"labels are {list(labels.shape)}; {[len(seeds), len(spec.labels)]} wanted "
            f"for {len(seeds)} seeds and {len(spec.labels)} labels"
        )
    assert len(variations) in (0, len(seeds)), "variations of some characters alone"
    z = latents(seeds, spec.z_dim, spec.z_dist)
    if shift is not None:
        _check_shift(spec, shift, len(seeds))
    z_shift = shift[:, 0] if shift is not None and not spec.can_w else torch.zeros_like(z)
    moved = [
        _moved(z[row], variations[row] if variations else (), z_shift[row], spec)
        for row in range(len(seeds))
    ]
    z = torch.stack(moved) if moved else z
    return Characters(seeds, labels, z, shift if spec.can_w else None)


def beside(a: Characters, b: Characters) -> Characters:
    """Returns two groups of characters as one."""
    shift, to_shift = shifts_of_both(a, b)
    return Characters(
        [*a.seeds, *b.seeds],
        np.concatenate([a.labels, b.labels]),
        torch.cat([a.z, b.z]),
        None if shift is None or to_shift is None else torch.cat([shift, to_shift]),
    )


def repeated(who: Characters, count: int) -> Characters:
    """Returns N characters `count` times, one round after the other."""
    return Characters(
        list(who.seeds) * count,
        np.tile(who.labels, (count, 1)),
        who.z.repeat(count, 1),
        None if who.w_shift is None else who.w_shift.repeat(count, 1, 1),
    )


def shifts_of_both(a: Characters, b: Characters) -> tuple[Tensor | None, Tensor | None]:
    """Returns the shifts of w; where only one group has any, the other's are of nothing."""
    one = b.w_shift if a.w_shift is None else a.w_shift
    if one is None:
        return None, None
    first, second = (
        one.new_zeros(len(who), *one.shape[1:]) if who.w_shift is None else who.w_shift
        for who in (a, b)
    )
    return first, second


def points(generator: GeneratorNet, who: Characters, *, psi: float = 1.0) -> Points:
    """Returns what the characters are drawn from; psi truncates w before the shift is added.

    w is None where nothing is shifted: the generator then maps z, with the psi that it is given.
    """
    z = who.z * generator.spec.z_std
    return place(generator, z, who.labels, w_shift=who.w_shift, psi=psi)


def place(
    generator: GeneratorNet, z: Tensor, labels: Rows, *, w_shift: Tensor | None, psi: float
) -> Points:
    """Returns the points of latents z [N,Z], z_std in them, with the shift [N,K,W] of their w."""
    if w_shift is None:
        return Points(z, labels)
    return Points(z, labels, map_latents(generator, z, labels, psi=psi) + w_shift)


def mapped(generator: GeneratorNet, who: Characters, *, psi: float = 1.0) -> Tensor:
    """Returns the w [N,K,W] of characters, shift included; raises UsageError without W."""
    at = points(generator, who, psi=psi)
    return map_latents(generator, at.z, at.labels, psi=psi) if at.w is None else at.w


def draw_characters(
    generator: GeneratorNet, who: Characters, *, psi: float = 1.0, noise: str = "const"
) -> Pictures:
    """Draws characters -> uint8 [N,R,R,3]; psi and noise are as in `sampling.draw`."""
    at = points(generator, who, psi=psi)
    return draw_latents(
        generator, at.z, at.labels, psi=psi, noise=noise, noise_seeds=who.seeds, w=at.w
    )


def as_normal(z: Tensor, spec: GeneratorSpec) -> Tensor:
    """Returns latents z [N,Z], without z_std, as normal ones of the same quantiles, float64."""
    if spec.z_dist == "normal":
        return z.double()
    return torch.special.ndtri(z.double().clamp(_EDGE, 1 - _EDGE))


def from_normal(normal: Tensor, spec: GeneratorSpec) -> Tensor:
    """Returns the latents [N,Z], without z_std, of normal ones: the inverse of `as_normal`."""
    drawn = normal if spec.z_dist == "normal" else torch.special.ndtr(normal)
    return drawn.float()


def _moved(z: Tensor, variations: Variations, shift: Tensor, spec: GeneratorSpec) -> Tensor:
    """Returns a latent [Z] moved by its variations, in whatever order they are named, and shift."""
    if not variations and not shift.any():
        return z
    normal, square = as_normal(z, spec), 1.0
    for seed, amount in sorted(variations):
        normal = normal + amount * _noise(seed, len(z))
        square += amount**2
    return from_normal(normal / math.sqrt(square) + shift, spec)


def _noise(seed: int, count: int) -> Tensor:
    # By a source of its own: variation 12 of seed 12 is not its latent once more.
    mixed = int.from_bytes(hashlib.sha256(f"variation {seed}".encode()).digest()[:7], "big")
    rng = torch.Generator().manual_seed(mixed)
    return torch.randn(count, generator=rng).double()


def _check_shift(spec: GeneratorSpec, shift: Tensor, count: int) -> None:
    wanted = (count, *shift_shape(spec))
    if tuple(shift.shape) != wanted:
        rows, numbers = shift.shape[1:]
        raise UsageError(
            f"the shift has {rows} x {numbers} numbers; {spec.family} at {spec.resolution_px} px "
            f"has {wanted[1]} x {wanted[2]}: it was made with another generator"
        )
