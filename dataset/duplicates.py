"""Near duplicates: hash, colour thumbnail and sharpness of a crop, and an index of the hashes.

Drawn faces share their layout, so that a coarse hash alone takes distinct ones for the same. It
only proposes pairs; the colour thumbnails decide (docs/duplicates.md has the figures).

Memory stays small however alike the pictures are: near hashes are looked up among those that are
kept, pairs come in pieces, and the thumbnails are read where they are compared.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from dataset.decode import Picture
from dataset.geometry import halved

Thumbs = npt.NDArray[np.uint8]  # [N, THUMB_BYTES]

THUMB_PX = 16
THUMB_BYTES = THUMB_PX * THUMB_PX * 3
COARSE_CELLS = 4  # of 8x8 thumb pixels each
GREY_CHROMA = 2.0  # a copy whose pixels differ less between their channels has no colour
BRIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)
# The brightness of two copies differs by at most so much of their colours' mean difference:
# |Σ w·d| <= |w|·|d| for each pixel, and the mean is over its three channels.
BRIGHTNESS_GAIN = float(np.sqrt(3 * np.square(BRIGHTNESS).sum()))
_HASHED_PX = 32
_SMALL_PX = 64


def sharpness(crop: Picture) -> float:
    """Returns the variance of the Laplacian of the grey crop [S, S, 3]; about 0 for a smear."""
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())


def phash(picture: Picture) -> int:
    """Returns ImageHash's 64-bit perceptual hash of a picture [H, W, 3].

    The picture is averaged down before: 0.06 ms instead of 0.15 with Pillow's filter, and as good.
    """
    import imagehash  # not there on a machine that only trains

    grey = cv2.cvtColor(_averaged(picture, _HASHED_PX), cv2.COLOR_RGB2GRAY)
    bits = imagehash.phash(Image.fromarray(grey)).hash
    return int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big")


def thumb(picture: Picture) -> bytes:
    """Returns the picture [H, W, 3] as THUMB_PX² RGB pixels, row by row."""
    return _averaged(picture, THUMB_PX).tobytes()


def reduced(picture: Picture) -> Picture:
    """Returns a whole picture squeezed to a small square, so that it is read only once.

    Halved first as often as that leaves enough: averaging fractions of pixels takes 1 ms at 0.8 MP.
    """
    while min(picture.shape[:2]) >= 4 * _SMALL_PX:
        picture = halved(picture)
    return _averaged(picture, _SMALL_PX)


def thumb_distance(first: Thumbs, second: Thumbs) -> npt.NDArray[np.float64]:
    """Returns the root of the mean squared difference (0-255) of each pair [P, THUMB_BYTES].

    Where one of the two has no colour, only their brightness is compared: a grey copy is one.
    """
    one, two = _pixels(first), _pixels(second)
    squared: npt.NDArray[np.float64] = np.square(one - two).mean(axis=(1, 2), dtype=np.float64)
    grey = without_colour(first) | without_colour(second)
    if grey.any():
        bright = np.square((one[grey] - two[grey]) @ BRIGHTNESS)
        squared[grey] = bright.mean(axis=1, dtype=np.float64)
    return np.sqrt(squared)


def without_colour(thumbs: Thumbs) -> npt.NDArray[np.bool_]:
    """Tells which of the copies [N, THUMB_BYTES] are grey."""
    # Channel by channel: numpy takes 30 times as long for the extremes along an axis of three.
    red, green, blue = np.moveaxis(thumbs.reshape(len(thumbs), THUMB_PX**2, 3), 2, 0)
    most, least = np.maximum(red, green), np.minimum(red, green)
    chroma = np.maximum(most, blue) - np.minimum(least, blue)
    grey: npt.NDArray[np.bool_] = chroma.mean(axis=1) < GREY_CHROMA
    return grey


def coarse(thumbs: Thumbs) -> npt.NDArray[np.uint8]:
    """Returns the mean brightness of COARSE_CELLS parts of each copy: [N, COARSE_CELLS]."""
    half = THUMB_PX // 2
    bright = (_pixels(thumbs) @ BRIGHTNESS).reshape(len(thumbs), 2, half, 2, half)
    cells = np.rint(bright.mean(axis=(2, 4)))
    return np.asarray(cells.reshape(len(thumbs), COARSE_CELLS), np.uint8)


def _pixels(thumbs: Thumbs) -> npt.NDArray[np.float32]:
    return thumbs.reshape(len(thumbs), THUMB_PX**2, 3).astype(np.float32)


def _averaged(picture: Picture, side_px: int) -> Picture:
    small = cv2.resize(picture, (side_px, side_px), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
Pairs = npt.NDArray[np.int64]  # [P, 2]
Mask = npt.NDArray[np.bool_]

MAX_DISTANCE = 11  # of the hash: above, a 16-bit band has to be looked up in too many variants
_BANDS = 4
_BLOCK = 256  # rows that are compared with those before, then with each other; more of them ...
_GROWTH = 16  # ... where so many times as many are before them
_SCANNED = 2_048  # hashes that are compared one by one: looking up 548 variants takes longer
_QUERIES_AT_ONCE = 128
_PAIRS_AT_ONCE = 2**15
_THUMBS_AT_ONCE = 2**12  # pairs whose copies are read together: 12 µs a copy, 30 by 256 ones
_COMPARED_AT_ONCE = 2**8


class HashIndex:
    """Finds all of its hashes [N] that differ from a query hash in few bits.

    Exact: of four 16-bit bands at least one differs in at most distance // 4 bits, so looking up
    each band in all its variants that far away finds every pair.
    """

    def __init__(self, hashes: Hashes) -> None:
        self._hashes = hashes
        self._orders = []
        self._starts = []
        if len(hashes) <= _SCANNED:
            return
        for band in range(_BANDS):
            part = _band(hashes, band)
            self._orders.append(np.argsort(part, kind="stable").astype(np.int32))
            counts = np.bincount(part, minlength=1 << 16)
            self._starts.append(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))

    def near(self, queries: Hashes, distance: int) -> Iterator[Pairs]:
        """Yields each pair (place in the index, place in `queries` [M]) once, piece by piece.

        distance: 0 to MAX_DISTANCE bits. A piece comes of about _PAIRS_AT_ONCE comparisons.
        """
        if not 0 <= distance <= MAX_DISTANCE:
            raise ValueError(f"distance is {distance}; 0 to {MAX_DISTANCE} wanted")
        for first in range(0, len(queries), _QUERIES_AT_ONCE):
            for pairs in self._near(queries[first : first + _QUERIES_AT_ONCE], distance):
                pairs[:, 1] += first
                yield pairs

    def _near(self, queries: Hashes, distance: int) -> Iterator[Pairs]:
        if not self._orders:
            near = np.bitwise_count(self._hashes[:, np.newaxis] ^ queries) <= distance
            yield np.argwhere(near)
            return
        masks = _masks(distance // _BANDS)
        for band in range(_BANDS):
            keys = (_band(queries, band)[:, None] ^ masks).ravel()
            starts = self._starts[band][keys]
            counts = self._starts[band][keys.astype(np.int32) + 1] - starts
            for low, high in _pieces(counts):
                many = counts[low:high]
                entry = np.repeat(np.arange(low, high), many)
                offset = np.arange(len(entry)) - np.repeat(np.cumsum(many) - many, many)
                members = self._orders[band][starts[entry] + offset]
                pairs = self._matching(
                    members, queries, entry // len(masks), distance=distance, to=band
                )
                if len(pairs):
                    yield pairs

    def _matching(
        self,
        members: npt.NDArray[np.int32],
        queries: Hashes,
        rows: Rows,
        *,
        distance: int,
        to: int,
    ) -> Pairs:
        """The near pairs among these, less those that a band before `to` has given already."""
        differing = self._hashes[members] ^ queries[rows]
        near = np.bitwise_count(differing) <= distance
        members, rows, differing = members[near], rows[near], differing[near]
        new = np.ones(len(members), bool)
        for band in range(to):
            new &= np.bitwise_count(_band(differing, band)) > distance // _BANDS
        return np.stack([members[new].astype(np.int64), rows[new]], axis=1)


class Copies:
    """Small colour copies [N] by row number, which are read where their coarse cells are near.

    cells: of all rows, as of `coarse`, [N, COARSE_CELLS]; read: returns the copies of rows.
    """

    def __init__(self, cells: npt.NDArray[np.uint8], read: Callable[[Rows], Thumbs]) -> None:
        self._cells = cells
        self._read = read

    def alike(self, pairs: Pairs, rms_max: float) -> Mask:
        """Tells which pairs of rows [P, 2] differ by at most `rms_max` (0-255) in colour."""
        alike = np.zeros(len(pairs), bool)
        possible = np.flatnonzero(self._may_be_alike(pairs, rms_max))
        for start in range(0, len(possible), _THUMBS_AT_ONCE):
            part = possible[start : start + _THUMBS_AT_ONCE]
            rows, inside = np.unique(pairs[part], return_inverse=True)
            thumbs = self._read(rows)
            for first in range(0, len(part), _COMPARED_AT_ONCE):
                one, two = inside.reshape(-1, 2)[first : first + _COMPARED_AT_ONCE].T
                near = thumb_distance(thumbs[one], thumbs[two]) <= rms_max
                alike[part[first : first + _COMPARED_AT_ONCE]] = near
        return alike

    def _may_be_alike(self, pairs: Pairs, rms_max: float) -> Mask:
        """Leaves out those whose parts differ too much in brightness: never one that is alike."""
        difference = self._cells[pairs[:, 0]].astype(np.float32) - self._cells[pairs[:, 1]]
        limit = BRIGHTNESS_GAIN * rms_max + 1  # each mean is rounded by at most a half
        possible: Mask = np.square(difference).mean(axis=1) <= limit**2
        return possible


@dataclass(frozen=True)
class Rule:
    """When two rows show the same: near hashes propose a pair, `alike` decides."""

    hashes: Hashes  # [N]
    distance: int
    alike: Callable[[Pairs], Mask]  # of rows, the earlier first


def repeats(rules: Sequence[Rule], *, standing: int = 0) -> Rows:
    """Returns the earlier row that each row repeats, which does not itself repeat one: [N].

    -1 for a row that repeats none. By any of the rules, all of which have N hashes. The order of
    the rows decides what stays; the first `standing` rows do by what is known of them: they are
    compared with the others alone.
    """
    rows = np.arange(len(rules[0].hashes))
    origins = np.full(len(rows), -1, np.int64)
    _drop_repeats(rules, origins, rows[:standing], rows[standing:])
    _judge(rules, origins, rows[standing:])
    return origins


def _judge(rules: Sequence[Rule], origins: Rows, rows: Rows) -> None:
    """Notes what the rows repeat of those before them.

    Block by block: those that repeat a row of an earlier block, then those within the block. Blocks
    grow with what is before them, so that all indexes together take a small multiple of the rows.
    """
    if len(rows) <= _BLOCK:
        left = rows[origins[rows] < 0]
        _drop_later(origins, [pairs for rule in rules for pairs in _alike_pairs(rule, left)])
        return
    start = 0
    while start < len(rows):
        block = rows[start : start + max(_BLOCK, start // _GROWTH)]
        _drop_repeats(rules, origins, rows[:start][origins[rows[:start]] < 0], block)
        _judge(rules, origins, block[origins[block] < 0])
        start += len(block)


def _drop_repeats(rules: Sequence[Rule], origins: Rows, kept: Rows, later: Rows) -> None:
    """Notes which of the later rows repeat a kept one.

    The nearest are looked for first: most copies differ in few bits, and those take 4 look-ups a
    row instead of 548.
    """
    if not len(kept) or not len(later):
        return
    indexes = [(rule, HashIndex(rule.hashes[kept])) for rule in rules]
    for nearer in range(_BANDS - 1, MAX_DISTANCE + 1, _BANDS):
        for rule, index in indexes:
            if nearer - rule.distance >= _BANDS:
                continue
            left = later[origins[later] < 0]
            for places in index.near(rule.hashes[left], min(nearer, rule.distance)):
                pairs = np.stack([kept[places[:, 0]], left[places[:, 1]]], axis=1)
                earlier, repeated = pairs[rule.alike(pairs)].T
                origins[repeated] = earlier


def _alike_pairs(rule: Rule, rows: Rows) -> Iterator[Pairs]:
    """The pairs (earlier row, later row) that show the same, of these rows."""
    for places in HashIndex(rule.hashes[rows]).near(rule.hashes[rows], rule.distance):
        pairs = rows[places[places[:, 0] < places[:, 1]]]
        yield pairs[rule.alike(pairs)]


def _drop_later(origins: Rows, found: list[Pairs]) -> None:
    if not found:
        return
    pairs = np.concatenate(found)
    for earlier, later in pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))].tolist():
        if origins[earlier] < 0 and origins[later] < 0:
            origins[later] = earlier


def _band(hashes: Hashes, band: int) -> npt.NDArray[np.uint16]:
    return (hashes >> np.uint64(16 * band)).astype(np.uint16)


def _pieces(counts: npt.NDArray[np.int32]) -> Iterator[tuple[int, int]]:
    """Ranges of entries that give about _PAIRS_AT_ONCE pairs each (a single one may give more)."""
    ends = np.cumsum(counts, dtype=np.int64)
    low, done = 0, 0
    while low < len(counts) and done < ends[-1]:
        high = max(low + 1, int(np.searchsorted(ends, done + _PAIRS_AT_ONCE, side="right")))
        yield low, high
        low, done = high, int(ends[high - 1])


def _masks(radius: int) -> npt.NDArray[np.uint16]:
    """All 16-bit values with at most `radius` bits set."""
    values = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    return values[np.bitwise_count(values) <= radius]
