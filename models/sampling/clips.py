"""Moving pictures, drawn a few frames at a time on demand: morphs and loops.

And the paths that they take between and around points: lines, arcs, closed walks.
"""

import copy
import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from dataset.errors import UsageError
from models.families.base import GeneratorNet
from models.labels import Rows
from models.sampling.characters import Characters, Points, alike, mapped, place, points
from models.sampling.draw import (
    Pictures,
    check_drawing,
    draw_latents,
    laid_out,
    latents,
    require_w,
)

Frame = npt.NDArray[np.uint8]  # [H,W,3], RGB

SPACES = ("z", "w")
A_PASS = 4  # pictures that are drawn together; more are no faster on a CPU and take memory
LOOP_KEYS = 5  # avatars that a loop in W goes through
HARMONICS = 2  # of a closed walk: how often it turns; more is more restless
_FADE = 1.5  # harmonic k has the weight k^-_FADE before all are brought to a variance of 1


@dataclasses.dataclass(frozen=True)
class Clip:
    """A grid of moving cells; its frames are drawn on demand and not kept.

    Attributes:
        generator: what draws; see `make_clip`.
        seeds: one a cell; they also choose a cell's noise, which it keeps through all frames.
        at: t in [0,1] -> the cells' points.
        times: t of each frame.
        columns: cells a row.
        cell_px: side of a cell; the generator's own side is not resized.
        psi, noise: as in `sampling.draw`.

    """

    generator: GeneratorNet
    seeds: Sequence[int]
    at: Callable[[float], Points]
    times: Sequence[float]
    columns: int
    cell_px: int
    psi: float = 1.0
    noise: str = "const"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a frame, px."""
        columns = min(self.columns, len(self.seeds))
        return columns * self.cell_px, -(-len(self.seeds) // columns) * self.cell_px

    def frames(self) -> Iterator[Frame]:
        """Draws all frames [H,W,3] in order."""
        yield from self.frames_at(self.times)

    def frames_at(self, times: Sequence[float]) -> Iterator[Frame]:
        """Draws the frames at these t, a pass of about A_PASS pictures after the other."""
        at_once = max(1, A_PASS // len(self.seeds))
        columns = min(self.columns, len(self.seeds))
        for first in range(0, len(times), at_once):
            points = [self.at(t) for t in times[first : first + at_once]]
            cells = self._drawn(points)
            for number in range(len(points)):
                own = cells[number * len(self.seeds) : (number + 1) * len(self.seeds)]
                yield laid_out(_resized(own, self.cell_px), columns)

    def _drawn(self, points: Sequence[Points]) -> Pictures:
        given = [one.w for one in points if one.w is not None]
        return draw_latents(
            self.generator,
            torch.cat([one.z for one in points]),
            np.concatenate([one.labels for one in points]),
            psi=self.psi,
            noise=self.noise,
            noise_seeds=list(self.seeds) * len(points),
            w=torch.cat(given) if given else None,
        )


def morph(
    generator: GeneratorNet,
    a: Characters,
    b: Characters,
    *,
    space: str = "z",
    path: str = "",
    psi: float = 1.0,
) -> Callable[[float], Points]:
    """Returns the way from N characters (t = 0) to N others (t = 1).

    Labels go straight between, and so do their strengths and shifts of w.

    space "z" moves the latent, "w" what it is mapped to. path is "lerp" or "slerp"; by default the
    arc for normal latents, the straight line for uniform ones and in W. An arc in W turns about
    the centre of the labels, which itself goes straight.

    Raises UsageError for a space or a path that the family does not have.
    """
    spec = generator.spec
    _check_space(space)
    if path and path not in PATHS:
        raise UsageError(f'path is "{path}"; one of {", ".join(PATHS)} wanted')
    if space == "z" and path == "slerp" and spec.z_dist == "uniform":
        raise UsageError(
            f"{spec.family} has latents from 0 to 1, and an arc would leave that range: "
            "use --path lerp"
        )
    a, b = alike(a, b)
    z, to_z = a.z * spec.z_std, b.z * spec.z_std
    if space == "w":
        way = PATHS[path or "lerp"]
        w, centre = _w_and_centre(generator, a, psi)
        to_w, to_centre = _w_and_centre(generator, b, psi)

        def through_w(t: float) -> Points:
            labels = _between(a.labels, b.labels, t)
            if t in (0, 1):
                return Points(z, labels, to_w if t else w)
            turned = way(w - centre, to_w - to_centre, t)
            return Points(z, labels, lerp(centre, to_centre, t) + turned)

        return through_w
    way = PATHS[path or ("slerp" if spec.z_dist == "normal" else "lerp")]

    def through_z(t: float) -> Points:
        here = Characters(
            a.seeds,
            _between(a.labels, b.labels, t),
            a.z,
            None if a.w_shift is None or b.w_shift is None else lerp(a.w_shift, b.w_shift, t),
            None
            if a.strengths is None or b.strengths is None
            else _between(a.strengths, b.strengths, t),
        )
        return place(generator, here, way(z, to_z, t), psi=psi)

    return through_z


def loop(
    generator: GeneratorNet,
    who: Characters,
    *,
    space: str = "z",
    psi: float = 1.0,
) -> Callable[[float], Points]:
    """Returns a closed walk for each of N cells: t = 0 is the cell's character, and so is t = 1.

    space "z" walks through latents, "w" on a smooth curve through LOOP_KEYS avatars. Labels and
    shifts of w stay. Raises UsageError for a space that the family does not have.
    """
    spec = generator.spec
    _check_space(space)
    sources = [_walk_source(seed) for seed in who.seeds]
    if space == "w":
        require_w(spec, "--space w")
        further = [
            [int(torch.randint(2**31, (), generator=rng)) for _ in range(LOOP_KEYS - 1)]
            for rng in sources
        ]
        others = [latents(row, spec.z_dim, spec.z_dist) for row in zip(*further, strict=True)]
        keys = [who, *(dataclasses.replace(who, z=z) for z in others)]
        curve = torch.stack([mapped(generator, key, psi=psi) for key in keys])  # [M,N,K,W]
        return lambda t: Points(who.z * spec.z_std, who.labels, closed_curve(curve, t))
    walks = [
        ClosedWalk(start, rng, z_dist=spec.z_dist)
        for start, rng in zip(who.z, sources, strict=True)
    ]

    def through_z(t: float) -> Points:
        z = torch.stack([walk.at(t) for walk in walks])
        return points(generator, dataclasses.replace(who, z=z), psi=psi)

    return through_z


def one_way(frames: int) -> list[float]:
    """Returns t of each frame from 0 to 1, both ends among them."""
    return [number / (frames - 1) for number in range(frames)]


def there_and_back(frames: int) -> list[float]:
    """Returns t of each frame from 0 to 1 and back, slower at the ends; it closes to a loop."""
    return [(1 - math.cos(2 * math.pi * number / frames)) / 2 for number in range(frames)]


def around(frames: int) -> list[float]:
    """Returns t of each frame of a loop; the frame after the last would be the first again."""
    return [number / frames for number in range(frames)]


def make_clip(
    generator: GeneratorNet,
    seeds: Sequence[int],
    at: Callable[[float], Points],
    times: Sequence[float],
    *,
    columns: int = 1,
    cell_px: int = 0,
    psi: float = 1.0,
    noise: str = "const",
) -> Clip:
    """Returns a clip after checking psi and noise; cell_px 0 is the generator's own side.

    The clip draws with a copy of the generator whose weights lie channels last, so its pictures may
    differ from those of `sampling.draw` in the last bit.
    """
    check_drawing(generator.spec, psi=psi, noise=noise)
    side = cell_px or generator.spec.resolution_px
    # stylegan2 of full width at 128 px, two cores: 106 ms a picture, 147 with channels first
    faster = copy.deepcopy(generator)
    faster.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Clip(faster, seeds, at, times, columns, side, psi, noise)


def _between(labels: Rows, to_labels: Rows, t: float) -> Rows:
    if t in (0, 1):
        return to_labels if t else labels
    return np.asarray(labels + (to_labels - labels) * np.float32(t), np.float32)


def _w_and_centre(generator: GeneratorNet, who: Characters, psi: float) -> tuple[Tensor, Tensor]:
    require_w(generator.spec, "--space w")
    unshifted = dataclasses.replace(who, w_shift=None)
    return mapped(generator, who, psi=psi), mapped(generator, unshifted, psi=0.0)


def _walk_source(seed: int) -> torch.Generator:
    mixed = int.from_bytes(hashlib.sha256(f"walk {seed}".encode()).digest()[:7], "big")
    return torch.Generator().manual_seed(mixed)


def _check_space(space: str) -> None:
    if space not in SPACES:
        raise UsageError(f'space is "{space}"; z or w wanted')


def _resized(cells: Pictures, side_px: int) -> Pictures:
    if cells.shape[1] == side_px:
        return cells
    size = (side_px, side_px)
    resized = [Image.fromarray(cell).resize(size, Image.Resampling.LANCZOS) for cell in cells]
    return np.stack([np.asarray(cell) for cell in resized])


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
