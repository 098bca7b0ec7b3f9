"""Inversion: the latent whose picture comes as near to a given one as the generator can draw.

Labels and a seed are found first: the labels by a judge that is fitted to the generator's own
fakes, the seed by the nearest fake with these labels. From there the w of each layer (families
without W: z) moves down the gradient of a distance between pictures. What is returned is a shift
from that seed's w or z, so that labels, variations and sliders mean what they mean elsewhere.

Sources: Karras et al. 2020, arXiv:1912.04958, appendix D (projection: noise early, learning rate up
and down, mean w); Abdal et al. 2019, arXiv:1904.03189 (a w for each layer); Zhang et al. 2018,
arXiv:1801.03924 (distance of unit-length features).
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataset.errors import UsageError
from models.evaluation.label_judge import JudgeConfig, fit_judge, thumbnails
from models.families.base import GeneratorNet, GeneratorSpec
from models.labels import Rows, typical_labels
from models.layers.frozen_features import FrozenBlock, FrozenConv, pretrained
from models.sampling.characters import (
    Characters,
    Shift,
    as_normal,
    characters,
    draw_characters,
    from_normal,
    mapped,
    read_shift,
    shift_text,
)
from models.sampling.draw import (
    CHUNK,
    Pictures,
    device_of,
    draw,
    latents,
    to_uint8,
)

# Neither the critic of `omokage` (Lite0) nor what its labels and distances are judged by (Lite2).
KIND = "lite1"
TAPS = (0, 3, 6, 14)  # blocks whose outputs are compared: strides 2, 4, 8 and 16
SEEN_PX = 128  # larger pictures are reduced to it first

CANDIDATES = 256  # fakes that labels are learned from, and as many that the seed is found among
STEPS = 250
PREVIEW_EVERY = 20
LR = 0.1  # of numbers that are about 1 in size
RAMP_UP, RAMP_DOWN = 0.05, 0.25  # parts of all steps, as in the projector of the StyleGAN2 authors
RAREST = 1e-3  # share of a label among fakes, at least
SPREAD = 1024  # w whose standard deviation a step counts in
NOISE, NOISE_FRAC = 0.5, 0.5  # standard deviations of w at the start, none after this part
PIXEL_WEIGHT = 1.0
COLOUR_WEIGHT = 4.0  # of the picture at COLOURS_PX: features hardly say how bright and which hue
COLOURS_PX = 16
# At 0.0005 real faces came a little nearer (a distance of 0.57, not 0.62), and fell apart when
# another hair colour was chosen.
PRIOR_WEIGHT = 0.002

Progress = Callable[[int, Pictures | None], None]


def ignore(_step: int, _preview: Pictures | None) -> None:
    """Does nothing: the progress of those who show none."""


@dataclasses.dataclass(frozen=True, eq=False)
class Inversion:
    """A picture as a point of a generator.

    Attributes:
        seed: of z.
        labels: row [1,L] of 0 and 1.
        latent: the shift of `characters.characters` as `shift_text` writes it, at psi 1.
        distance: `PictureDistance` between the picture and what `character` draws.

    """

    seed: int
    labels: Rows
    latent: str
    distance: float

    def character(self, spec: GeneratorSpec) -> Characters:
        """Returns the one character that this is."""
        shift = torch.from_numpy(read_shift(self.latent))[None]
        return characters(spec, [self.seed], self.labels, shift=shift)


class PictureDistance(nn.Module):
    """How far pictures are from each other, by features of a frozen EfficientNet-Lite1.

    At four depths (strides 2, 4, 8 and 16) each place's features are scaled to length 1; the
    distance is the squared length of their difference, averaged over places and depths: 0 for equal
    pictures, 2 where features have nothing in common, 4 at most.
    """

    def __init__(self) -> None:
        super().__init__()
        network: Any
        network, self.sha256 = pretrained(KIND)
        self.stem = FrozenConv(network._conv_stem, network._bn0, active=True)
        self.blocks = nn.ModuleList(FrozenBlock(block) for block in network._blocks[: TAPS[-1] + 1])

    def features(self, images: Tensor) -> list[Tensor]:
        """Maps images [N,3,R,R] in [-1,1] to four maps [N,C,S,S] of vectors of length 1."""
        if images.shape[-1] > SEEN_PX:
            images = F.interpolate(images, size=(SEEN_PX, SEEN_PX), mode="area")
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        maps = []
        for at, block in enumerate(self.blocks):
            x = block(x)
            if at in TAPS:
                maps.append(F.normalize(x, dim=1))
        return maps

    def between(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """Returns the distances [N] between the features of N pictures and of N or 1 others."""
        parts = [(x - y).square().sum(dim=1).mean(dim=(1, 2)) for x, y in zip(a, b, strict=True)]
        return torch.stack(parts).mean(dim=0)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Returns the distances [N] of images a [N,3,R,R] and b [N or 1,3,R,R] in [-1,1]."""
        return self.between(self.features(a), self.features(b))


@functools.cache
def picture_distance(device: torch.device) -> PictureDistance:
    """Returns the distance, loaded once a device; raises TrainingError without its package."""
    return PictureDistance().eval().requires_grad_(False).to(device)


def invert(
    generator: GeneratorNet,
    picture: npt.NDArray[np.uint8],
    typical: Rows,
    *,
    seed: int = 0,
    steps: int = STEPS,
    candidates: int = CANDIDATES,
    advance: Progress = ignore,
) -> Inversion:
    """Finds the point whose picture is nearest to a picture [R,R,3] of the generator's side.

    typical: real label rows [M,L], among which the picture's labels are looked for. seed: of the
    candidates and the noise; one seed gives the same point on the same machine. advance is called
    at the start with 0 and the nearest fake [R,R,3], and after each step with its number; every
    PREVIEW_EVERY with the picture so far. Before, it is called with 0 and None between the fakes.
    What it raises ends the work.

    Raises UsageError for a picture of another shape.
    """
    spec = generator.spec
    side = spec.resolution_px
    if picture.shape != (side, side, 3) or picture.dtype != np.uint8:
        raise UsageError(
            f"a picture of {list(picture.shape)} {picture.dtype}; {[side, side, 3]} uint8 is wanted"
        )
    device = device_of(generator)
    distance = picture_distance(device)
    target = _images(picture[None], device)
    seen, colours = distance.features(target), _colours(target)
    labels = guessed_labels(
        generator, picture, typical, seed=seed, candidates=candidates, advance=advance
    )
    nearest = _nearest_seed(generator, seen, labels, range(seed, seed + candidates), advance)
    way: _InW | _InZ
    if spec.can_w:
        rows = typical_labels(typical, SPREAD, seed)
        way = _InW(generator, nearest, labels, typical=rows)
    else:
        way = _InZ(generator, nearest, labels)
    moved = way.start().requires_grad_(True)
    with torch.no_grad():
        advance(0, to_uint8(way.draw(moved))[0])
    optimizer = torch.optim.Adam([moved])
    rng = torch.Generator().manual_seed(seed)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = LR * _ramp(step / steps)
        noise = torch.randn(moved.shape, generator=rng).to(device) * _noise(step / steps)
        images = way.draw(moved + noise)
        loss = distance.between(distance.features(images), seen).sum()
        loss = loss + PIXEL_WEIGHT * (images - target).abs().mean()
        loss = loss + COLOUR_WEIGHT * (_colours(images) - colours).abs().mean()
        loss = loss + PRIOR_WEIGHT * way.prior(moved)
        (moved.grad,) = torch.autograd.grad(loss, [moved])
        optimizer.step()
        shows = (step + 1) % PREVIEW_EVERY == 0
        advance(step + 1, to_uint8(images.detach())[0] if shows else None)
    found = Inversion(nearest, labels, shift_text(way.shift(moved.detach())), math.nan)
    drawn = draw_characters(generator, found.character(spec))
    with torch.no_grad():
        left = distance.between(distance.features(_images(drawn, device)), seen)
    return dataclasses.replace(found, distance=float(left))


def between(a: Pictures, b: Pictures) -> npt.NDArray[np.float32]:
    """Returns the `PictureDistance` [N] of pictures a [N,R,R,3] and b [N,R,R,3], on the CPU."""
    cpu = torch.device("cpu")
    far: Tensor = picture_distance(cpu)(_images(a, cpu), _images(b, cpu))
    return far.numpy()


def guessed_labels(
    generator: GeneratorNet,
    picture: npt.NDArray[np.uint8],
    typical: Rows,
    *,
    seed: int = 0,
    candidates: int = CANDIDATES,
    advance: Progress = ignore,
) -> Rows:
    """Returns the row [1,L] among the typical ones [M,L] that fits a picture [R,R,3] best.

    The judge is that of the evaluation, fitted to fakes whose labels are known: it needs no real
    picture, and knows labels as the generator draws them. Rows are weighed as naive Bayes does, by
    how much likelier the picture makes each label than it is, and by how often the row occurs. Of
    real faces with one of 8 hair colours 55% got it, 25% by the plain likelihood of rows, for
    which few labels are always the better guess.
    """
    if not generator.spec.labels:
        return np.zeros((1, 0), np.float32)
    rows = typical_labels(typical, candidates, seed)
    pooled, small = [], []
    for part in _chunks(range(candidates), generator):
        advance(0, None)
        fakes = draw(generator, rows[part], [seed + at for at in part])
        pooled.append(_pooled(fakes, generator))
        small.append(thumbnails(fakes))
    advance(0, None)
    config = JudgeConfig(iterations=30)  # as good as 100 here
    judge = fit_judge(np.concatenate(pooled), np.concatenate(small), rows, config=config)
    logits = judge.logits(_pooled(picture[None], generator), thumbnails(picture[None]))[0]
    share = rows.mean(axis=0).clip(RAREST, 1 - RAREST)
    known, counts = np.unique(typical, axis=0, return_counts=True)
    fits = known @ (logits - np.log(share / (1 - share))) + np.log(counts)
    return np.asarray(known[[int(fits.argmax())]], np.float32)


class _InW:
    """From the w of a seed and labels: `moved` [1,K,W] counts in standard deviations of w.

    Each layer has a w of its own. typical: label rows [M,L] over which the deviation is taken.
    """

    def __init__(self, generator: GeneratorNet, seed: int, labels: Rows, *, typical: Rows) -> None:
        spec, device = generator.spec, device_of(generator)
        self._generator = generator
        self._labels = torch.from_numpy(labels).to(device)
        who = characters(spec, [seed], labels)
        self._z, self._w = who.z.to(device), mapped(generator, who).to(device)
        spread = mapped(generator, characters(spec, range(len(typical)), typical))
        self._scale = float(spread[:, 0].var(dim=0).mean().sqrt())

    def start(self) -> Tensor:
        """Returns where `moved` begins: at the seed's own picture."""
        return torch.zeros_like(self._w)

    def draw(self, moved: Tensor) -> Tensor:
        w = self._w + moved * self._scale
        images: Tensor = self._generator(self._z, self._labels, w=w)
        return images

    def prior(self, moved: Tensor) -> Tensor:
        """Returns the squared distance from the seed's w: near it is what training saw."""
        return moved.square().sum(dim=2).mean()

    def shift(self, moved: Tensor) -> Shift:
        return (moved * self._scale)[0].cpu().numpy()


class _InZ:
    """From the latent of a seed: `moved` [1,Z] is added to it as a normal one."""

    def __init__(self, generator: GeneratorNet, seed: int, labels: Rows) -> None:
        spec, device = generator.spec, device_of(generator)
        self._generator, self._spec = generator, spec
        self._labels = torch.from_numpy(labels).to(device)
        self._z = as_normal(latents([seed], spec.z_dim, spec.z_dist), spec).to(device)

    def start(self) -> Tensor:
        return torch.zeros_like(self._z, dtype=torch.float32)

    def draw(self, moved: Tensor) -> Tensor:
        z = from_normal(self._z + moved, self._spec) * self._spec.z_std
        images: Tensor = self._generator(z, self._labels)
        return images

    def prior(self, moved: Tensor) -> Tensor:
        """Returns the squared length of the normal latent."""
        return (self._z + moved).square().sum().float()

    def shift(self, moved: Tensor) -> Shift:
        return moved.cpu().numpy()


def _nearest_seed(
    generator: GeneratorNet,
    seen: list[Tensor],
    labels: Rows,
    seeds: Sequence[int],
    advance: Progress,
) -> int:
    device = device_of(generator)
    distance = picture_distance(device)
    found = []
    for part in _chunks(seeds, generator):
        advance(0, None)
        fakes = draw(generator, np.repeat(labels, len(part), axis=0), part)
        with torch.no_grad():
            found.append(distance.between(distance.features(_images(fakes, device)), seen))
    return seeds[int(torch.cat(found).argmin())]


def _chunks(numbers: Sequence[int], generator: GeneratorNet) -> Iterator[Sequence[int]]:
    """Yields numbers of as many pictures as have the pixels of CHUNK pictures of 64 px, or one."""
    size = max(1, CHUNK * 64**2 // generator.spec.resolution_px**2)
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


def _pooled(pictures: Pictures, generator: GeneratorNet) -> npt.NDArray[np.float32]:
    device = device_of(generator)
    with torch.no_grad():
        maps = picture_distance(device).features(_images(pictures, device))
    pooled: npt.NDArray[np.float32]
    pooled = torch.cat([x.mean(dim=(2, 3)) for x in maps], dim=1).cpu().numpy()
    return pooled


def _images(pictures: Pictures, device: torch.device) -> Tensor:
    images = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
    return images.to(device).float() / 127.5 - 1


def _colours(images: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(images, COLOURS_PX)


def _ramp(done: float) -> float:
    """Returns the part of the learning rate: straight up, and down along a cosine."""
    down = min(1.0, (1 - done) / RAMP_DOWN)
    return (0.5 - 0.5 * math.cos(down * math.pi)) * min(1.0, done / RAMP_UP)


def _noise(done: float) -> float:
    return NOISE * max(0.0, 1 - done / NOISE_FRAC) ** 2
