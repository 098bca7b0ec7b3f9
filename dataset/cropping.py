"""From one decoded picture to its face crops; knows nothing of boards, tables or files."""

import dataclasses
import threading
from dataclasses import dataclass
from typing import Any

from dataset.cascade import SEARCHES, WINDOW_PX, LbpDetector
from dataset.decode import Picture, Reduced, decode, decode_reduced
from dataset.detection import Detector, scaled
from dataset.digests import pixels_sha256
from dataset.duplicates import MAX_DISTANCE, phash, reduced, sharpness, thumb
from dataset.errors import ConfigError, listed
from dataset.geometry import Box, Square, centre_square, cut, square_around
from dataset.store import digest_of
from dataset.yolo import OnnxDetector, model_sha256

DETECTORS = ("lbp", "onnx")

# Raise it when the same picture and settings give other crops than before. It was not raised for
# the conversion of ICC profiles: a home made before keeps the few crops that would look different.
_VERSION = 4
# These change no crop.
_OF_THE_MERGE = ("phash_distance", "thumb_rms_max", "picture_distance", "picture_rms_max")


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
    picture_distance: int = 6  # the same for whole pictures, so that a copy is found ...
    picture_rms_max: float = 8.0  # ... even where the face's box was found a little elsewhere
    cropped: bool = False  # the pictures are faces already: taken whole, nothing is searched
    detector: str = "lbp"  # or "onnx": a model of the user's own
    mode: str = "thorough"  # of lbp; or "fast": several times as quick, no face below 64 px
    onnx_path: str = ""  # the model's file, where every worker finds it
    onnx_input_px: int = 640  # side of the square input that it was exported with
    onnx_min_score: float = 0.3
    onnx_max_iou: float = 0.5  # of two boxes that overlap more, the lower score is left out

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {getattr(self, name)}; {low:g} to {high:g} wanted"
            for name, (low, high) in _RANGES.items()
            if not low <= getattr(self, name) <= high
        ]
        faults += [
            f'{name} is "{getattr(self, name)}"; {" or ".join(known)} wanted'
            for name, known in (("detector", DETECTORS), ("mode", tuple(SEARCHES)))
            if getattr(self, name) not in known
        ]
        if self.detector == "onnx" and not self.onnx_path:
            faults.append('onnx_path is ""; detector "onnx" wants the path of an ONNX file')
        if faults:
            raise ConfigError(f"face settings out of range:\n{listed(faults)}")

    @property
    def digest(self) -> str:
        """Digest of all settings."""
        return digest_of({"version": _VERSION, **self._values()})

    @property
    def crop_digest(self) -> str:
        """Digest of the settings that decide how crops look: what stored crops must share."""
        values = self._values()
        cutting = {name: value for name, value in values.items() if name not in _OF_THE_MERGE}
        return digest_of({"version": _VERSION, **cutting})

    def _values(self) -> dict[str, Any]:
        """The settings that count: a model by its content, and only those of the detector."""
        values = dataclasses.asdict(self)
        if self.detector == "onnx":
            del values["mode"]
            values["onnx_path"] = model_sha256(self.onnx_path)
            return values
        return {name: value for name, value in values.items() if not name.startswith("onnx_")}

    @property
    def min_face_px(self) -> int:
        """The smallest box whose square still reaches `min_side_px`."""
        return max(WINDOW_PX, int(self.min_side_px / self.expand))


_Place = tuple[Box, Square, float | None]  # with the detector's score

_RANGES = {
    "min_side_px": (24, 4096),
    "crop_px": (24, 4096),
    "expand": (1, 4),
    "pad_frac_max": (0, 1),
    "min_sharpness": (0, 1e6),
    "phash_distance": (0, MAX_DISTANCE),
    "thumb_rms_max": (0, 255),
    "picture_distance": (0, MAX_DISTANCE),
    "picture_rms_max": (0, 255),
    "onnx_input_px": (32, 4096),
    "onnx_min_score": (0, 1),
    "onnx_max_iou": (0, 1),
}


@dataclass(frozen=True)
class Face:
    """One found face: its `row` of the table of crops; `crop` is absent if it was dropped."""

    row: dict[str, Any]
    crop: Picture | None


def faces_in(content: bytes, sha256: str, settings: FaceSettings, *, where: str) -> list[Face]:
    """Finds and cuts out all faces of a coded picture, the largest first; see `faces_on`.

    A JPEG is decoded at a fraction as far as the detector loses nothing by it, and whole only if a
    crop needs more pixels than that gives. Raises UnreadablePicture, naming `where`.
    """
    by = 1 if settings.cropped else detector_of(settings).reducible_by
    seen = decode_reduced(content, where=where, by=by)
    squares = _squares(seen, settings)
    if not seen.whole and not all(_suffices(seen, square, settings) for _, square, _ in squares):
        whole = decode(content, where=where)
        seen = Reduced(whole, seen.width, seen.height)
    return _faces(seen, squares, sha256, settings=settings)


def faces_on(picture: Picture, sha256: str, settings: FaceSettings) -> list[Face]:
    """Finds and cuts out all faces of an RGB picture [H, W, 3], the largest first.

    A face that is too_small, padded or blurred has its drop_reason and has no crop.
    """
    seen = Reduced(picture, width=picture.shape[1], height=picture.shape[0])
    return _faces(seen, _squares(seen, settings), sha256, settings=settings)


def detector_of(settings: FaceSettings) -> Detector:
    """Returns this thread's detector for the settings."""
    detectors: dict[FaceSettings, Detector] = _of_thread.__dict__.setdefault("detectors", {})
    if settings not in detectors:
        detectors[settings] = _new_detector(settings)
    return detectors[settings]


def _squares(seen: Reduced, settings: FaceSettings) -> list[_Place]:
    """The faces' boxes and squares, in pixels of the whole picture, and scores."""
    width, height = seen.width, seen.height
    if settings.cropped:
        square = centre_square(width=width, height=height)
        return [(Box(0, 0, width, height), square, None)]
    down, across = height / seen.picture.shape[0], width / seen.picture.shape[1]
    found = detector_of(settings).find(seen.picture, reduced_by=max(across, down))
    boxes = [scaled(one.box, across, down, width=width, height=height) for one in found]
    return [
        (box, square_around(box, expand=settings.expand, width=width, height=height), one.score)
        for box, one in zip(boxes, found, strict=True)
    ]


def _suffices(seen: Reduced, square: Square, settings: FaceSettings) -> bool:
    """Tells whether the square has as many pixels in the reduced picture as its crop will."""
    return _reduced_to(seen, square).side >= min(square.side, settings.crop_px)


def _reduced_to(seen: Reduced, square: Square) -> Square:
    """The square in pixels of the reduced picture."""
    height, width = seen.picture.shape[:2]
    scale = width / seen.width if square.side <= seen.width else height / seen.height
    return Square(
        round(square.x * width / seen.width),
        round(square.y * height / seen.height),
        max(1, round(square.side * scale)),
        square.pad_frac,
    )


def _faces(
    seen: Reduced, squares: list[_Place], sha256: str, *, settings: FaceSettings
) -> list[Face]:
    faces = [
        _face(seen, place, number, sha256=sha256, settings=settings)
        for number, place in enumerate(squares)
    ]
    cut_out = [face for face in faces if face.crop is not None]
    if cut_out:
        of_picture = _of_picture(seen)
        for face in cut_out:
            face.row.update(of_picture)
    return faces


def _of_picture(seen: Reduced) -> dict[str, Any]:
    """What the whole picture is recognised by: its sides, hash and small copy."""
    small = reduced(seen.picture)
    return {
        "picture_width": seen.width,
        "picture_height": seen.height,
        "picture_phash": f"{phash(small):016x}",
        "picture_thumb": thumb(small),
    }


def crop_path(face_id: str) -> str:
    """Returns the name of a crop: its path in homes that kept a file for each."""
    return f"crops/{face_id[:2]}/{face_id}.png"


def _face(
    seen: Reduced, place: _Place, number: int, *, sha256: str, settings: FaceSettings
) -> Face:
    box, square, score = place
    part = square if seen.whole else _reduced_to(seen, square)
    crop = cut(seen.picture, part, side_px=min(square.side, settings.crop_px))
    sharp = sharpness(crop)
    reason = _drop_reason(square, sharp, settings)
    face_id = f"{sha256[:16]}-{number}"
    row: dict[str, Any] = {
        "face_id": face_id,
        **dataclasses.asdict(box),
        "score": score,
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


_of_thread = threading.local()  # a detector must not be shared between threads


def _new_detector(settings: FaceSettings) -> Detector:
    if settings.detector == "onnx":
        return OnnxDetector(
            settings.onnx_path,
            input_px=settings.onnx_input_px,
            min_score=settings.onnx_min_score,
            max_iou=settings.onnx_max_iou,
        )
    return LbpDetector(settings.min_face_px, settings.mode)
