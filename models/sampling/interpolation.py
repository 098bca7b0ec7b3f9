"""Paths between and around points: lines, arcs, closed walks; knows nothing of pictures."""

import math

import torch
from torch import Tensor

HARMONICS = 2  # of a closed walk: how often it turns; more is more restless
_FADE = 1.5  # harmonic k has the weight k^-_FADE before all are brought to a variance of 1


def lerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Returns the point at t in [0,1] of the straight line from a to b, both ends exact."""
    if t in (0, 1):
        return (b if t else a).clone()
    return a + (b - a) * t


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Returns the point at t in [0,1] of the arc from a to b [...,D], both ends exact.

    The direction goes along the great circle at an even pace, the length goes straight from |a| to
    |b|; so latents on the way are as long as latents are. Opposite directions go round by the axis
    that both have least of. A number alone (D = 1) or a point at 0 has no arc: they go straight.
    Source: Shoemake 1985, Animating rotation with quaternion curves.
    """
    if t in (0, 1) or a.shape[-1] == 1:
        return lerp(a, b, t)
    first, second = a.double(), b.double()
    length_a = first.norm(dim=-1, keepdim=True)
    length_b = second.norm(dim=-1, keepdim=True)
    straight = first + (second - first) * t
    start = first / length_a.clamp_min(1e-300)
    end = second / length_b.clamp_min(1e-300)
    # The angle by its half: exact for nearly equal and nearly opposite directions alike.
    angle = 2 * torch.atan2((start - end).norm(dim=-1), (start + end).norm(dim=-1))[..., None]
    across = end - (start * end).sum(dim=-1, keepdim=True) * start
    sideways = torch.where(math.pi - angle < 1e-6, _perpendicular(start), across)
    sideways = sideways / sideways.norm(dim=-1, keepdim=True).clamp_min(1e-300)
    direction = torch.cos(angle * t) * start + torch.sin(angle * t) * sideways
    arc = direction * (length_a + (length_b - length_a) * t)
    no_turn = (length_a == 0) | (length_b == 0) | (angle < 1e-9)
    return torch.where(no_turn, straight, arc).to(a.dtype)


PATHS = {"lerp": lerp, "slerp": slerp}


class ClosedWalk:
    """A smooth closed random walk through latents that begins and ends at a given one.

    For normal latents it is a sum of a few sines whose weights are normal and add up to a variance
    of 1, bent so that it passes `start` at t = 0: taken over random starts, every point of it is
    distributed as latents are. Uniform latents walk as normal ones that are pressed into 0..1.
    """

    def __init__(self, start: Tensor, rng: torch.Generator, *, z_dist: str = "normal") -> None:
        """Plans the walk of start [Z], z_std not yet in it, by the random source rng."""
        self._start, self._uniform = start, z_dist == "uniform"
        origin = start.double()
        if self._uniform:
            origin = torch.special.ndtri(origin.clamp(1e-6, 1 - 1e-6))
        weights = torch.tensor(
            [1.0, *(k**-_FADE for k in range(1, HARMONICS + 1))], dtype=torch.float64
        )
        self._weights = weights / weights.norm()  # [K+1], squares add up to 1
        shape = (HARMONICS + 1, len(origin))
        cosines = torch.randn(shape, generator=rng, dtype=torch.float64)
        missing = origin - self._weights @ cosines
        self._cosines = cosines + self._weights[:, None] * missing  # so that t = 0 is the start
        self._sines = torch.randn(shape, generator=rng, dtype=torch.float64)

    def at(self, t: float) -> Tensor:
        """Returns the latent [Z] at t; t and t + 1 are the same place, whole t the start."""
        t %= 1.0
        if t == 0:
            return self._start.clone()
        angles = 2 * math.pi * t * torch.arange(HARMONICS + 1, dtype=torch.float64)
        waves = self._cosines * angles.cos()[:, None] + self._sines * angles.sin()[:, None]
        place: Tensor = self._weights @ waves
        if self._uniform:
            place = torch.special.ndtr(place)
        return place.to(self._start.dtype)


def closed_curve(points: Tensor, t: float) -> Tensor:
    """Returns the place at t of the smooth closed curve through points [M,...], in that order.

    Point i is passed at t = i/M, exactly; t and t + 1 are the same place. The tangent at a point
    is half the way from the one before it to the one after it (Catmull-Rom).
    """
    count = len(points)
    place = (t % 1.0) * count
    index = int(place) % count
    u = place - int(place)
    before, here, there, after = (points[(index + shift) % count] for shift in (-1, 0, 1, 2))
    if u == 0:
        return here.clone()
    return here + u / 2 * (
        (there - before)
        + u * (2 * before - 5 * here + 4 * there - after)
        + u * u * (3 * (here - there) + after - before)
    )


def _perpendicular(directions: Tensor) -> Tensor:
    """Returns for each direction [...,D] of length 1 one at a right angle to it, D at least 2."""
    axis = torch.zeros_like(directions)
    axis.scatter_(-1, directions.abs().argmin(dim=-1, keepdim=True), 1.0)
    return axis - (axis * directions).sum(dim=-1, keepdim=True) * directions
