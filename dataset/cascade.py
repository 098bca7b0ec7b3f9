"""Finds drawn faces with the LBP cascade that danbooru-utility carries: proposed, then confirmed.

The cascade is quick where it says no, and unsure where it says yes: a face gives a few windows, and
so may an ornament. So a coarse search over the whole picture only proposes places, and each place
is then looked at again, close up and in several ways (blurred, mirrored, its red alone). What most
of these find again is a face. The cascade's usual equalised histogram is left out: it costs recall.
"""

import importlib.resources
import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from dataset.decode import REDUCTIONS, Picture
from dataset.detection import (
    Cluster,
    Found,
    Windows,
    agreeing,
    box_within,
    clustered,
    mean_of,
    mirrored,
    moved,
    no_windows,
    one_a_face,
)
from dataset.geometry import halved

Grey = npt.NDArray[np.uint8]  # [H, W]

WINDOW_PX = 24  # the side of the cascade's own window: no smaller face can be found
_CLOSE_UP_PX = 48  # a proposed face's side in its close-up: twice the window, so that many fit
_CLOSE_UP_REACH = 2.0  # the close-up's side by the face's
_CLOSE_UP_STEP = 1.1
_CLOSE_UP_SIDES = (0.7, 1.5)  # the sides that are looked for there, by the proposed one
_TOLERANCE = 0.9  # a face may turn out so much smaller than the least that is looked for
_SMALL_STEP = 1.2
_SMALL_DEMAND = 2  # times the hits: small faces are rare, most of what looks like one is none


@dataclass(frozen=True)
class View:
    """One way in which the cascade is shown a picture."""

    red: bool = False  # its red channel in place of grey: skin is bright, most lines stay dark
    blurred: bool = False  # lightly: takes away paper grain, screens and the marks of JPEG
    mirrored: bool = False  # the cascade is not symmetric


PLAIN = View()


@dataclass(frozen=True)
class Search:
    """How thoroughly faces are looked for.

    A place counts as a face if `weight` x the windows that proposed it + the windows that agree
    close up are at least `hits`.
    """

    step: float  # by which the coarse search's sides grow
    proposing: tuple[View, ...]
    confirming: tuple[View, ...]
    weight: int
    hits: int
    large_px: int  # the least side of the coarse search
    goes_below: bool  # also looks for faces below large_px, with one view, _SMALL_STEP apart
    stops_early: bool  # with the first views that suffice


_CLOSE_UPS = (
    PLAIN,
    View(blurred=True, mirrored=True),
    View(red=True, mirrored=True),
    View(mirrored=True),
)
SEARCHES = {
    "fast": Search(
        step=1.21,
        proposing=_CLOSE_UPS[:1],
        confirming=_CLOSE_UPS,
        weight=0,
        hits=7,
        # Boxes come out some 6 % larger than with the cascade's usual settings: 64 px of theirs.
        large_px=68,
        goes_below=False,
        stops_early=True,
    ),
    "thorough": Search(
        step=1.1,
        proposing=_CLOSE_UPS[:3],
        confirming=_CLOSE_UPS,
        weight=4,
        hits=22,
        large_px=64,
        goes_below=True,
        stops_early=False,
    ),
}


class LbpDetector:
    """Finds faces at least `min_face_px` wide in one of the SEARCHES; not to be shared by threads.

    The picture is first reduced so that the smallest face just fills the cascade's window: the time
    goes with the reduced area, and what is lost is too small to be used.
    """

    def __init__(self, min_face_px: int = WINDOW_PX, mode: str = "thorough") -> None:
        if min_face_px < WINDOW_PX:
            raise ValueError(f"min_face_px is {min_face_px}; the cascade's window is {WINDOW_PX}")
        if mode not in SEARCHES:
            raise ValueError(f'mode is "{mode}"; {" or ".join(SEARCHES)} wanted')
        cv2.setNumThreads(1)  # one picture a process: the processes are the parallelism
        resource = importlib.resources.files("danbooru") / "lbpcascade_animeface.xml"
        with importlib.resources.as_file(resource) as path:
            self._cascade = cv2.CascadeClassifier(str(path))
        self._search = SEARCHES[mode]
        least = WINDOW_PX if self._search.goes_below else self._search.large_px
        self.min_face_px = max(min_face_px, least)

    @property
    def reducible_by(self) -> int:
        """How far a picture may come reduced (1, 2, 4 or 8) without a face being lost."""
        return max(by for by in REDUCTIONS if by * WINDOW_PX <= self.min_face_px)

    def find(self, picture: Picture, *, reduced_by: float = 1.0) -> list[Found]:
        """Returns the faces on an RGB picture [H, W, 3], the largest first, in its own pixels.

        A score of 0.5 is just enough: it is hits / (hits + the hits that are wanted).
        """
        height, width = picture.shape[:2]
        octaves = _Octaves(picture)
        least_px = _TOLERANCE * self.min_face_px / reduced_by
        found = []
        for place, wanted in self._proposed(octaves, reduced_by):
            face = self._confirmed(octaves, place)
            if face.hits >= wanted and face.side >= least_px:
                half = face.side / 2
                box = box_within(
                    face.x - half,
                    face.y - half,
                    face.x + half,
                    face.y + half,
                    width=width,
                    height=height,
                )
                found.append(Found(box, face.hits / (face.hits + wanted)))
        return one_a_face(found)

    def _proposed(self, octaves: "_Octaves", reduced_by: float) -> Iterator[tuple[Cluster, int]]:
        """The places with at least one window of the coarse search, each with the hits it needs."""
        search, least_px = self._search, max(self.min_face_px, self._search.large_px)
        large = _Coarse(least_px / reduced_by, math.inf, search.step, search.proposing)
        yield from ((place, search.hits) for place in clustered(self._coarse(octaves, large)))
        if self.min_face_px < least_px:
            lowest_px = self.min_face_px / reduced_by
            small = _Coarse(lowest_px, large.least_px, _SMALL_STEP, search.proposing[:1])
            demand = _SMALL_DEMAND * search.hits
            yield from ((place, demand) for place in clustered(self._coarse(octaves, small)))

    def _coarse(self, octaves: "_Octaves", coarse: "_Coarse") -> Windows:
        """The windows on the whole picture that the cascade takes for a face."""
        reduction = min(1.0, WINDOW_PX / coarse.least_px)
        end = coarse.below_px / coarse.least_px
        seen = [no_windows()]
        for view in coarse.views:
            shown = octaves.reduced(reduction, view)
            for level in _pyramid(shown, coarse.step, end):
                # One size at a time: for larger windows the cascade would halve its stride, and
                # take as long over the upper levels as over the lowest.
                raw = self._windows(level, step=2.0, smallest=WINDOW_PX, largest=WINDOW_PX)
                if len(raw):
                    own = moved(raw, 0, 0, scale=level.shape[1] / octaves.width)
                    seen.append(mirrored(own, octaves.width) if view.mirrored else own)
        return np.concatenate(seen)

    def _confirmed(self, octaves: "_Octaves", place: Cluster) -> Cluster:
        """Looks again, close up; `hits` of the returned are those of both searches."""
        close_up, left, top, scale = octaves.close_up(place)
        smallest, largest = (round(_CLOSE_UP_PX * factor) for factor in _CLOSE_UP_SIDES)
        proposed = self._search.weight * place.hits
        agreed = np.tile((place.x, place.y, place.side), (proposed, 1))
        for view in self._search.confirming:
            raw = self._windows(
                _shown(_channel(close_up, view), view),
                step=_CLOSE_UP_STEP,
                smallest=smallest,
                largest=largest,
            )
            if len(raw):
                seen = mirrored(raw, close_up.shape[1]) if view.mirrored else raw
                there = moved(seen, left, top, scale=scale)
                near = agreeing(there, place.x, place.y, place.side)
                agreed = np.concatenate([agreed, near])
            if self._search.stops_early and len(agreed) >= self._search.hits:
                break
        # The mean of all windows as they are counted: steadier than that of either search.
        return mean_of(agreed) if len(agreed) else Cluster(place.x, place.y, place.side, 0)

    def _windows(self, grey: Grey, *, step: float, smallest: int, largest: int) -> Windows:
        raw = self._cascade.detectMultiScale(
            grey,
            scaleFactor=step,
            minNeighbors=0,  # all windows: they are counted here
            minSize=(smallest, smallest),
            maxSize=(largest, largest),
        )
        if not len(raw):
            return no_windows()
        corners = np.asarray(raw, np.float64)
        side = corners[:, 2]
        return np.column_stack([corners[:, 0] + side / 2, corners[:, 1] + side / 2, side])


@dataclass(frozen=True)
class _Coarse:
    """A coarse search: for faces of which sides, how far apart, in which views."""

    least_px: float
    below_px: float
    step: float
    views: tuple[View, ...]


class _Octaves:
    """A picture and its halves, made on first use."""

    def __init__(self, picture: Picture) -> None:
        self._halves = [picture]
        self.height, self.width = picture.shape[:2]

    def reduced(self, scale: float, view: View) -> Grey:
        """The whole picture in a view at `scale` (0-1), its sides rounded."""
        size = (max(1, round(self.width * scale)), max(1, round(self.height * scale)))
        return _shown(_channel(_resized(self._at_least(scale), size), view), view)

    def close_up(self, place: Cluster) -> tuple[Picture, int, int, float]:
        """The picture about a place, resized so that its side is _CLOSE_UP_PX.

        Returns it with its left and top in the picture and the scale.
        """
        source = self._at_least(_CLOSE_UP_PX / place.side)
        across, down = source.shape[1] / self.width, source.shape[0] / self.height
        reach = place.side * _CLOSE_UP_REACH / 2
        left, right = _span(place.x, reach, across, source.shape[1])
        top, bottom = _span(place.y, reach, down, source.shape[0])
        scale = _CLOSE_UP_PX / (place.side * across)
        size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
        part = _resized(source[top:bottom, left:right], size)
        return part, round(left / across), round(top / down), scale * across

    def _at_least(self, scale: float) -> Picture:
        """The smallest of the halves that has at least `scale` of the picture's sides."""
        steps = max(0, math.floor(-math.log2(scale) + 1e-9))
        while len(self._halves) <= steps:
            self._halves.append(halved(self._halves[-1]))
        return self._halves[steps]


def _span(centre: float, reach: float, scale: float, length: int) -> tuple[int, int]:
    """Where a span about `centre` begins and ends in a picture at `scale`, `length` long."""
    start = min(max(round((centre - reach) * scale), 0), length - 1)
    return start, min(max(round((centre + reach) * scale), start + 1), length)


def _channel(picture: Picture, view: View) -> Grey:
    if view.red:
        return np.asarray(cv2.extractChannel(picture, 0), np.uint8)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)


def _shown(grey: Grey, view: View) -> Grey:
    blurred = cv2.GaussianBlur(grey, (3, 3), 0.8) if view.blurred else grey
    return np.asarray(cv2.flip(blurred, 1) if view.mirrored else blurred, np.uint8)


def _pyramid(grey: Grey, step: float, end: float) -> Iterator[Grey]:
    """The picture, ever smaller by `step`, as long as a window fits and it is less than `end`.

    Each is made from the last that was twice as large at least: made from the whole, the large
    faces would be sampled so thinly that they are lost.
    """
    height, width = grey.shape
    base, base_scale, scale = grey, 1.0, 1.0
    while scale < end and min(height, width) / scale >= WINDOW_PX:
        while scale / base_scale >= 2:
            base = halved(base)
            base_scale *= 2
        yield _resized(base, (round(width / scale), round(height / scale)))
        scale *= step


def _resized(picture: Picture, size: tuple[int, int]) -> Picture:
    if picture.shape[1::-1] == size:
        return picture
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR), np.uint8)
