"""Characters: all that a face is drawn from, beyond a seed, and the points they become.

A character begins as the latent of its seed and its label row. Variations move the latent to a
neighbour that is as typical as it was; a shift (of directions, or of an inverted picture) moves
what is drawn. In families with W it is added to w, once that is mapped and truncated; without W it
moves the latent itself.

A label has a strength from 0 to 1. Without W that is its number in the label row. Mapping networks
norm their labels: half of a single label is there all of it. So w is a mean over rows of 0 and 1,
w(s) = ∫ w(labels with a strength of at least t) dt, t from 0 to 1: continuous, and exact for labels
that are off or full, whichever they are. Source: Lovász 1983, Submodular functions and convexity.

A shift also has a short text that a link can hold: `shift_text` writes it, `read_shift` reads it.
"""

import base64
import binascii
import dataclasses
import hashlib
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
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
    """N characters.

    Attributes:
        seeds: N of them; they choose the noise too.
        labels: [N,L] of 0 and 1.
        z: latents [N,Z], without z_std.
        w_shift: [N,K,W], None for none.
        strengths: of all labels [N,L], 0 to 1; None where all are 1.

    """

    seeds: Sequence[int]
    labels: Rows
    z: Tensor
    w_shift: Tensor | None = None
    strengths: Rows | None = None

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
    strengths: Rows | None = None,
    variations: Sequence[Variations] = (),
    shift: Tensor | None = None,
) -> Characters:
    """Returns the characters of N seeds and label rows [N,L].

    strengths [N,L]: of all labels, 0 to 1, also of those that a character does not have.
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
    if strengths is not None and (strengths == 1).all():
        strengths = None
    return Characters(seeds, labels, z, shift if spec.can_w else None, strengths)


def beside(a: Characters, b: Characters) -> Characters:
    """Returns two groups of characters as one."""
    a, b = alike(a, b)
    return Characters(
        [*a.seeds, *b.seeds],
        np.concatenate([a.labels, b.labels]),
        torch.cat([a.z, b.z]),
        None if a.w_shift is None or b.w_shift is None else torch.cat([a.w_shift, b.w_shift]),
        None
        if a.strengths is None or b.strengths is None
        else np.concatenate([a.strengths, b.strengths]),
    )


def repeated(who: Characters, count: int) -> Characters:
    """Returns N characters `count` times, one round after the other."""
    return Characters(
        list(who.seeds) * count,
        np.tile(who.labels, (count, 1)),
        who.z.repeat(count, 1),
        None if who.w_shift is None else who.w_shift.repeat(count, 1, 1),
        None if who.strengths is None else np.tile(who.strengths, (count, 1)),
    )


def alike(a: Characters, b: Characters) -> tuple[Characters, Characters]:
    """Returns both groups; what only one has (shifts, strengths), the other gets without effect."""
    return _with_what(a, b), _with_what(b, a)


def _with_what(who: Characters, other: Characters) -> Characters:
    shift, strengths = who.w_shift, who.strengths
    if shift is None and other.w_shift is not None:
        shift = other.w_shift.new_zeros(len(who), *other.w_shift.shape[1:])
    if strengths is None and other.strengths is not None:
        strengths = np.ones_like(who.labels)
    return dataclasses.replace(who, w_shift=shift, strengths=strengths)


def points(generator: GeneratorNet, who: Characters, *, psi: float = 1.0) -> Points:
    """Returns what the characters are drawn from; psi truncates w before the shift is added."""
    return place(generator, who, who.z * generator.spec.z_std, psi=psi)


def place(generator: GeneratorNet, who: Characters, z: Tensor, *, psi: float) -> Points:
    """Returns the points of characters that have moved to other latents z [N,Z], z_std in them.

    w is None where neither a shift nor a strength asks for it: the generator then maps z, with the
    psi that it is given.
    """
    if not generator.spec.can_w:
        return Points(z, who.labels if who.strengths is None else who.labels * who.strengths)
    if who.w_shift is None and who.strengths is None:
        return Points(z, who.labels)
    return Points(z, who.labels, _mapped(generator, who, z, psi))


def mapped(generator: GeneratorNet, who: Characters, *, psi: float = 1.0) -> Tensor:
    """Returns the w [N,K,W] of characters, shift included; raises UsageError without W."""
    return _mapped(generator, who, who.z * generator.spec.z_std, psi)


def _mapped(generator: GeneratorNet, who: Characters, z: Tensor, psi: float) -> Tensor:
    if who.strengths is None:
        w = map_latents(generator, z, who.labels, psi=psi)
    else:
        below, parts = 0.0, []
        for level in np.unique([*who.strengths.flatten(), 1.0]):
            if level > 0:
                rows = who.labels * (who.strengths >= level)
                parts.append((float(level) - below) * map_latents(generator, z, rows, psi=psi))
                below = float(level)
        w = torch.stack(parts).sum(dim=0)
    return w if who.w_shift is None else w + who.w_shift


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
    quantiles: Tensor = torch.special.ndtri(z.double().clamp(_EDGE, 1 - _EDGE))
    return quantiles


def from_normal(normal: Tensor, spec: GeneratorSpec) -> Tensor:
    """Returns the latents [N,Z], without z_std, of normal ones: the inverse of `as_normal`."""
    drawn: Tensor = normal if spec.z_dist == "normal" else torch.special.ndtr(normal)
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


Shift = npt.NDArray[np.float32]  # [R,D]

SHIFT_VERSION = 1
SHIFT_ROWS_MAX = 255
_PEAK = 127
_HEAD, _SCALE = 2, 2  # bytes before the rows, and of a row's scale


def shift_text(shift: npt.NDArray[np.floating]) -> str:
    """Returns the text of a shift [R,D], which a link can hold.

    R is 1 to 255, and numbers are at most 8 million.

    Base64 for addresses, without padding, of: SHIFT_VERSION (one byte), the rows R (one byte), then
    for each row its scale (float16, little-endian) and its D numbers (int8, -127 to 127, times the
    scale). So a number is off by at most a 254th of its row's largest one. 12 rows of 512 take
    8,227 characters.
    """
    rows, count = shift.shape
    assert 1 <= rows <= SHIFT_ROWS_MAX, f"{rows} rows"
    assert count, "a shift without numbers"
    values = np.asarray(shift, dtype=np.float64)
    scales = (np.abs(values).max(axis=1) / _PEAK).astype("<f2")  # [R]
    assert np.isfinite(scales).all(), "the shift is too large, or no number"
    steps = scales.astype(np.float64)[:, None]
    whole = np.divide(values, steps, out=np.zeros_like(values), where=steps > 0)
    numbers = np.rint(whole).clip(-_PEAK, _PEAK).astype(np.int8)
    parts = [scale.tobytes() + row.tobytes() for scale, row in zip(scales, numbers, strict=True)]
    content = bytes([SHIFT_VERSION, rows]) + b"".join(parts)
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def read_shift(text: str) -> Shift:
    """Reads a text of `shift_text`; raises UsageError, a phrase such as "it is cut off"."""
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise UsageError("it is damaged: no text of letters, digits, - and _") from error
    if base64.urlsafe_b64encode(content).rstrip(b"=").decode() != text:
        raise UsageError("it is damaged: its last character cannot be")
    if len(content) < _HEAD:
        raise UsageError("it is cut off")
    version, rows = content[:_HEAD]
    if version != SHIFT_VERSION:
        raise UsageError(f"it is of version {version}; {SHIFT_VERSION} is known here")
    width, rest = divmod(len(content) - _HEAD, rows) if rows else (0, 0)
    if width <= _SCALE or rest:
        raise UsageError(f"it is cut off: {len(content)} bytes are no {rows} rows")
    packed = np.frombuffer(content, np.uint8, offset=_HEAD).reshape(rows, width)
    scales = packed[:, :_SCALE].copy().view("<f2").astype(np.float32)  # [R,1]
    numbers = packed[:, _SCALE:].view(np.int8)
    if not np.isfinite(scales).all() or (scales < 0).any() or (numbers == -_PEAK - 1).any():
        raise UsageError("it is damaged: it holds what is no number")
    return numbers.astype(np.float32) * scales
