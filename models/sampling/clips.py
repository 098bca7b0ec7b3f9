"""Moving pictures, drawn a few frames at a time on demand: morphs and loops."""

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
from models.sampling.interpolation import PATHS, ClosedWalk, closed_curve, lerp

Frame = npt.NDArray[np.uint8]  # [H,W,3], RGB

SPACES = ("z", "w")
A_PASS = 4  # pictures that are drawn together; more are no faster on a CPU and take memory
LOOP_KEYS = 5  # avatars that a loop in W goes through


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
