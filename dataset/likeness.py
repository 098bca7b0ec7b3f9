"""How sharp a crop is, and which crops show the same: perceptual hashes and small colour copies.

Drawn faces share their layout, so that a coarse hash alone takes distinct ones for the same. It
only proposes pairs; the small colour copies decide. Of 8,057 real faces the hash proposes 1,426
pairs at 10 bits, most of these of different pictures; 65 are at most 15 apart in colour, and all of
these that were looked at show the same picture, in another size or with another expression.
"""

import itertools

import cv2
import numpy as np
import numpy.typing as npt

from dataset.decode import Picture

Hashes = npt.NDArray[np.uint64]
Pairs = npt.NDArray[np.int64]  # [P, 2], the lower index first

THUMB_PX = 16
THUMB_BYTES = THUMB_PX * THUMB_PX * 3
MAX_DISTANCE = 11  # of the hash: above, a 16-bit band has to be looked up in too many variants
_BANDS = 4
_DCT_PX = 32
_PAIRS_AT_ONCE = 4_000_000


def sharpness(crop: Picture) -> float:
    """Returns the variance of the Laplacian of the grey crop [S, S, 3]; about 0 for a smear."""
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())


def phash(crop: Picture) -> int:
    """Returns the 64-bit perceptual hash: which of the 8x8 lowest DCT terms exceed their median."""
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_DCT_PX, _DCT_PX), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:8, :8].ravel()
    bits = low > np.median(low[1:])  # the first term is the mean brightness
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def thumb(crop: Picture) -> bytes:
    """Returns the crop as THUMB_PX² RGB pixels, row by row."""
    size = (THUMB_PX, THUMB_PX)
    return bytes(cv2.resize(crop, size, interpolation=cv2.INTER_AREA).tobytes())


def thumb_distance(thumbs: npt.NDArray[np.uint8], pairs: Pairs) -> npt.NDArray[np.float64]:
    """Returns the root of the mean squared difference (0-255) of each pair.

    thumbs [N, THUMB_BYTES]; pairs [P, 2]; returns [P].
    """
    first = thumbs[pairs[:, 0]].astype(np.float32)
    second = thumbs[pairs[:, 1]].astype(np.float32)
    squared: npt.NDArray[np.float64] = np.square(first - second).mean(axis=1, dtype=np.float64)
    return np.sqrt(squared)


def similar_pairs(hashes: Hashes, distance: int) -> Pairs:
    """Returns all pairs of `hashes` [N] that differ in at most `distance` bits (0-MAX_DISTANCE).

    Exact: of four 16-bit bands at least one differs in at most distance // 4 bits, so looking up
    each band in all its variants that far away finds every pair.
    """
    if not 0 <= distance <= MAX_DISTANCE:
        raise ValueError(f"distance is {distance}; 0 to {MAX_DISTANCE} wanted")
    found = [np.empty((0, 2), np.int64)]
    for band in range(_BANDS):
        part = (hashes >> np.uint64(16 * band)).astype(np.uint16)
        order = np.argsort(part, kind="stable")
        ranked = part[order]
        for mask in _masks(distance // _BANDS):
            found.append(_matching(hashes, distance, order=order, ranked=ranked, mask=mask))
    return np.unique(np.concatenate(found), axis=0)


def _matching(
    hashes: Hashes,
    distance: int,
    *,
    order: npt.NDArray[np.int64],
    ranked: npt.NDArray[np.uint16],
    mask: np.uint16,
) -> Pairs:
    """The near pairs whose bands differ by exactly `mask`; `ranked` is the bands in `order`."""
    starts = np.searchsorted(ranked, ranked ^ mask, side="left")
    counts = np.searchsorted(ranked, ranked ^ mask, side="right") - starts
    kept = [np.empty((0, 2), np.int64)]
    for low, high in _chunks(counts):
        many = counts[low:high]
        first = np.repeat(np.arange(low, high), many)
        offset = np.arange(len(first)) - np.repeat(np.cumsum(many) - many, many)
        one, two = order[first], order[np.repeat(starts[low:high], many) + offset]
        forward = one < two  # each pair comes twice
        one, two = one[forward], two[forward]
        near = np.bitwise_count(hashes[one] ^ hashes[two]) <= distance
        kept.append(np.stack([one[near], two[near]], axis=1))
    return np.concatenate(kept)


def _chunks(counts: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Ranges of rows that give about _PAIRS_AT_ONCE pairs each (a single row may give more)."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    marks = np.arange(_PAIRS_AT_ONCE, total + _PAIRS_AT_ONCE, _PAIRS_AT_ONCE)
    cuts = np.unique(np.concatenate([[0], np.searchsorted(ends, marks) + 1, [len(counts)]]))
    cuts = cuts[cuts <= len(counts)]
    return [(int(a), int(b)) for a, b in itertools.pairwise(cuts)]


def _masks(radius: int) -> list[np.uint16]:
    """All 16-bit values with at most `radius` bits set."""
    values = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    return list(values[np.bitwise_count(values) <= radius])
