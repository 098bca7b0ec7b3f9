"""From one decoded picture to its face crops; knows nothing of boards, shards or files."""

import dataclasses
import hashlib
import threading
from dataclasses import dataclass
from typing import Any

from dataset.cascade import WINDOW_PX, LbpDetector
from dataset.decode import Picture
from dataset.errors import ConfigError, listed
from dataset.geometry import Box, Square, centre_square, cut, square_around
from dataset.likeness import MAX_DISTANCE, phash, sharpness, thumb
from dataset.store import digest_of

_VERSION = 2  # raise it when the same picture and settings give other crops than before
_OF_THE_MERGE = ("phash_distance", "thumb_rms_max")  # these change no crop


@dataclass(frozen=True)
class FaceSettings:
    """How faces are found, cut out and dropped. Raises ConfigError for a value out of range."""

    min_side_px: int = 64  # squares with a shorter side are dropped as too_small
    crop_px: int = 128  # side of the stored crops; a smaller square is never enlarged to it
    expand: float = 1.5  # square's side by the box's: takes in the hair
    pad_frac_max: float = 0.15  # more made-up area than this is dropped as padded
    min_sharpness: float = (
        30.0  # variance of the Laplacian; 1 in 1,000 real 96 px faces is below 50
    )
    phash_distance: int = 10  # bits of 64 in which near-duplicates may differ ...
    thumb_rms_max: float = 15.0  # ... and mean difference of their colours (0-255): both must hold
    cropped: bool = False  # the pictures are faces already: taken whole, nothing is searched

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {getattr(self, name)}; {low:g} to {high:g} wanted"
            for name, (low, high) in _RANGES.items()
            if not low <= getattr(self, name) <= high
        ]
        if faults:
            raise ConfigError(f"face settings out of range:\n{listed(faults)}")

    @property
    def digest(self) -> str:
        """Digest of all settings."""
        return digest_of({"version": _VERSION, **dataclasses.asdict(self)})

    @property
    def crop_digest(self) -> str:
        """Digest of the settings that decide how crops look: what a stored shard must share."""
        values = dataclasses.asdict(self)
        cutting = {name: value for name, value in values.items() if name not in _OF_THE_MERGE}
        return digest_of({"version": _VERSION, **cutting})

    @property
    def min_face_px(self) -> int:
        """The smallest box whose square still reaches `min_side_px`."""
        return max(WINDOW_PX, int(self.min_side_px / self.expand))


_RANGES = {
    "min_side_px": (24, 4096),
    "crop_px": (24, 4096),
    "expand": (1, 4),
    "pad_frac_max": (0, 1),
    "min_sharpness": (0, 1e6),
    "phash_distance": (0, MAX_DISTANCE),
    "thumb_rms_max": (0, 255),
}


@dataclass(frozen=True)
class Face:
    """One found face: `row` has the columns of a shard; `crop` is absent if it was dropped."""

    row: dict[str, Any]
    crop: Picture | None


def faces_on(picture: Picture, sha256: str, settings: FaceSettings) -> list[Face]:
    """Finds and cuts out all faces of an RGB picture [H, W, 3], the largest first.

    A face that is too_small, padded or blurred bears its drop_reason and has no crop.
    """
    height, width = picture.shape[:2]
    if settings.cropped:
        whole = Box(0, 0, width, height)
        return [
            _face(
                picture,
                whole,
                centre_square(width=width, height=height),
                0,
                sha256=sha256,
                settings=settings,
            )
        ]
    boxes = _detector(settings.min_face_px).find(picture)
    return [
        _face(
            picture,
            box,
            square_around(box, expand=settings.expand, width=width, height=height),
            number,
            sha256=sha256,
            settings=settings,
        )
        for number, box in enumerate(boxes)
    ]


def crop_path(face_id: str) -> str:
    """Returns the path of a crop under the home."""
    return f"crops/{face_id[:2]}/{face_id}.png"


def pixels_sha256(crop: Picture) -> str:
    """Returns the sha256 (hex) of a crop's pixels: RGB, row by row, however they are coded."""
    return hashlib.sha256(crop.tobytes()).hexdigest()


def _face(
    picture: Picture,
    box: Box,
    square: Square,
    number: int,
    *,
    sha256: str,
    settings: FaceSettings,
) -> Face:
    crop = cut(picture, square, side_px=min(square.side, settings.crop_px))
    sharp = sharpness(crop)
    reason = _drop_reason(square, sharp, settings)
    face_id = f"{sha256[:16]}-{number}"
    row: dict[str, Any] = {
        "face_id": face_id,
        **dataclasses.asdict(box),
        "square_x": square.x,
        "square_y": square.y,
        "side": square.side,
        "pad_frac": square.pad_frac,
        "sharpness": sharp,
        "phash": f"{phash(crop):016x}",
        "drop_reason": reason,
    }
    if reason is not None:
        return Face(row, None)
    row |= {
        "crop": crop_path(face_id),
        "crop_sha256": pixels_sha256(crop),
        "thumb": thumb(crop),
    }
    return Face(row, crop)


def _drop_reason(square: Square, sharp: float, settings: FaceSettings) -> str | None:
    if square.side < settings.min_side_px:
        return "too_small"
    if square.pad_frac > settings.pad_frac_max:
        return "padded"
    if sharp < settings.min_sharpness:
        return "blurred"
    return None


_of_thread = threading.local()  # a cascade must not be shared between threads


def _detector(min_face_px: int) -> LbpDetector:
    held: dict[int, LbpDetector] = _of_thread.__dict__.setdefault("detectors", {})
    if min_face_px not in held:
        held[min_face_px] = LbpDetector(min_face_px)
    return held[min_face_px]
