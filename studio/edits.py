"""What may be done to a finished picture: cut, turned, scaled, and its colours changed."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, Self

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from dataset.decode import Picture
from dataset.errors import UsageError, nearest
from studio.validation import SIDE_MAX_PX, SIDE_MIN_PX, FaultsError, is_number, quoted

DECIMALS = 4  # of every number: the border of a crop at 4,096 px is off by 0.2 px at most
WHOLE = (0.0, 0.0, 1.0, 1.0)
RANGES = {
    "rotate": (-180.0, 180.0),
    "scale": (0.25, 4.0),
    "brightness": (0.0, 2.0),
    "contrast": (0.0, 2.0),
    "saturation": (0.0, 2.0),
    "hue": (-180.0, 180.0),
}
NAMES = ("crop", *RANGES)
MAX_TEXT = 400  # characters; all edits together take fewer than 150

_NUMBER = re.compile(r"-?[0-9]{1,6}(\.[0-9]{1,20})?")
_EDGES = ("left", "top", "right", "bottom")
_ROWS = 256  # of a picture whose hue is turned at once: in float32 4,096 px wide, 13 MB
_TURN = 360.0  # degrees
_WHITE = (255, 255, 255)
_EDGE_PX = 2  # of white about what is turned: as far as the bicubic filter sees


@dataclasses.dataclass(frozen=True)
class Edits:
    """The edits of a picture, made in the order of the fields; what is left out changes nothing.

    Numbers are rounded to 4 decimals, and a turn of -180 degrees is one of 180, so that each set
    of edits has one text, which reads back as the same edits.

    Attributes:
        crop: left, top, right, bottom of what is kept, as fractions 0 to 1 of the picture.
        rotate: degrees counter-clockwise, -180 to 180; the picture grows to hold it, corners white.
        scale: of both sides, 0.25 to 4, by Lanczos.
        brightness: 0 to 2; 0 is black.
        contrast: 0 to 2; 0 is the picture's mean grey.
        saturation: 0 to 2; 0 is grey.
        hue: degrees on the colour wheel, -180 to 180; 120 makes red green.

    Raises UsageError with all faults for values that are no numbers or out of range.

    """

    crop: tuple[float, float, float, float] = WHOLE
    rotate: float = 0.0
    scale: float = 1.0
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        faults = _crop_faults(self.crop)
        for name in RANGES:
            faults += _range_faults(name, getattr(self, name))
        if faults:
            raise FaultsError("the edits", faults)
        object.__setattr__(self, "crop", tuple(_canonical(edge) for edge in self.crop))
        for name in RANGES:
            number = _canonical(getattr(self, name))
            is_half_turn = name in ("rotate", "hue") and number == -_TURN / 2
            object.__setattr__(self, name, -number if is_half_turn else number)

    @property
    def is_identity(self) -> bool:
        """Whether the edits leave every picture as it is."""
        return self == Edits()

    def to_text(self) -> str:
        """Returns the one text of these edits, `crop=0.1,0,0.9,1;rotate=90`; "" for none."""
        texts = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                numbers = value if field.name == "crop" else (value,)
                texts.append(f"{field.name}={','.join(number_text(number) for number in numbers)}")
        return ";".join(texts)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Reads edits from what `to_text` writes; raises UsageError with every fault at once.

        The edits may stand in any order, each once.
        """
        if len(text) > MAX_TEXT:
            raise FaultsError(
                "the edits", [f"{len(text):,} characters; at most {MAX_TEXT} are read as edits"]
            )
        texts: dict[str, str] = {}
        faults = []
        for part in text.split(";") if text else []:
            name, equals, value = part.partition("=")
            if not equals:
                faults.append(f"{quoted(part)} is no edit; one such as rotate=90 is wanted")
            elif name in texts:
                faults.append(f"{quoted(name)} stands twice")
            else:
                texts[name] = value
        return cls.from_texts(texts, faults=faults)

    @classmethod
    def from_texts(cls, texts: Mapping[str, str], *, faults: list[str] | None = None) -> Self:
        """Reads edits from a text each, by name: `{"crop": "0.1,0,0.9,1", "rotate": "90"}`.

        faults: those that were found before, to be reported with the others. Raises UsageError.
        """
        found = list(faults or [])
        values: dict[str, Any] = {}
        for name, text in texts.items():
            if name not in NAMES:
                found.append(f"unknown edit {quoted(name)}{nearest(name, NAMES) or _known()}")
                continue
            numbers = [read_number(part) for part in text.split(",")]
            if name == "crop":
                value: Any = tuple(numbers)
                more = _crop_faults(value, shown_as=text)
            else:
                value = numbers[0] if len(numbers) == 1 else None
                more = _range_faults(name, value, shown_as=text)
            found += more
            values[name] = value
        if found:
            raise FaultsError("the edits", found)
        return cls(**values)


def apply_edits(picture: Picture, edits: Edits) -> Picture:
    """Returns a picture, uint8 [H,W,3], with its edits made in the order of their fields.

    Without edits it is the given array itself. Else, of each value v (of 0 to 255):

    - crop keeps the pixels of `crop_box`: each border at the nearest border between two pixels.
    - rotate turns about the centre. Quarter turns move pixels; other angles go through Pillow's
      bicubic filter onto the upright box of `rotated_size`, the rest of it white. The edges blend
      into the white, where Pillow's own `Image.rotate` leaves stairs.
    - scale goes through Pillow's Lanczos filter to sides of floor(scale·side + 1/2).
    - brightness, contrast and saturation are Pillow's ImageEnhance, after Haeberli and Voorhies,
      "Image Processing by Interpolation and Extrapolation" (1994): d + factor·(v - d), cut at 0
      and 255, fractions dropped. d is 0 for brightness; for contrast the mean, over all pixels and
      rounded, of their greys; for saturation each pixel's own grey, which is the luma
      0.299 R + 0.587 G + 0.114 B of ITU-R BT.601.
    - hue turns H of HSV (Smith 1978, "Color Gamut Transform Pairs"), in floating point, S and V
      as they were. Not a matrix that keeps the luma: that leaves the cube of colours, so that
      vivid hair would be cut off and fade. Here pure colours become pure colours, greys stay.

    The same picture and edits give the same bytes. Raises UsageError, before any pixel is made, if
    a side of what would be made is under 8 or over 4,096 px.
    """
    if edits.is_identity:
        return picture
    height, width = picture.shape[:2]
    planned = edited_size(width, height, edits)
    left, top, right, bottom = crop_box(width, height, edits.crop)
    image = Image.fromarray(np.ascontiguousarray(picture[top:bottom, left:right]))
    if edits.rotate:
        image = _turned(image, edits.rotate)
    if edits.scale != 1:
        image = image.resize(planned, Image.Resampling.LANCZOS)
    assert image.size == planned, f"{image.size} was made, {planned} was planned"
    for enhance, factor in (
        (ImageEnhance.Brightness, edits.brightness),
        (ImageEnhance.Contrast, edits.contrast),
        (ImageEnhance.Color, edits.saturation),
    ):
        if factor != 1:
            image = enhance(image).enhance(factor)
    made = np.array(image, np.uint8)
    return _turn_hue(made, edits.hue) if edits.hue else made


def edited_size(width: int, height: int, edits: Edits) -> tuple[int, int]:
    """Returns width and height in px that the edits make of a picture of that size.

    Raises UsageError if a side of it, or of the picture turned before it is scaled, is under 8 or
    over 4,096 px. Without edits any size is fine.
    """
    if edits.is_identity:
        return width, height
    left, top, right, bottom = crop_box(width, height, edits.crop)
    size = (right - left, bottom - top)
    if min(size) < SIDE_MIN_PX:
        there = f"crop would leave {size[0]}x{size[1]} px of {width}x{height}"
        if edits.crop == WHOLE:
            there = f"the picture is {width}x{height} px"
        raise UsageError(f"{there}; sides of at least {SIDE_MIN_PX} px are wanted")
    size = rotated_size(*size, edits.rotate)
    # A quarter turn makes no pixel more; any other of a long thin picture makes a huge one.
    if edits.rotate % 90 and max(size) > SIDE_MAX_PX:
        raise UsageError(
            f"turned by {number_text(edits.rotate)} degrees the picture would be "
            f"{size[0]}x{size[1]} px; sides of at most {SIDE_MAX_PX} px are made: crop it more, or "
            "scale it down before, as an edit of its own"
        )
    made = (math.floor(edits.scale * size[0] + 0.5), math.floor(edits.scale * size[1] + 0.5))
    if not (min(made) >= SIDE_MIN_PX and max(made) <= SIDE_MAX_PX):
        raise UsageError(
            f"the result would be {made[0]}x{made[1]} px; sides of {SIDE_MIN_PX} to {SIDE_MAX_PX} "
            f"px are made: choose another scale (it is {number_text(edits.scale)})"
        )
    return made


def crop_box(
    width: int, height: int, crop: tuple[float, float, float, float]
) -> tuple[int, int, int, int]:
    """Returns left, top, right and bottom in px of a crop by fractions: floor(f·side + 1/2).

    The pixels from left to before right are kept. Two crops that share a border neither overlap
    nor leave a pixel out between them.
    """
    left, right = (math.floor(edge * width + 0.5) for edge in crop[::2])
    top, bottom = (math.floor(edge * height + 0.5) for edge in crop[1::2])
    return left, top, right, bottom


def rotated_size(width: int, height: int, degrees: float) -> tuple[int, int]:
    """Returns width and height of the upright box that holds a turned picture, in whole px.

    Its sides are w·|cos| + h·|sin| and w·|sin| + h·|cos|, a fraction of a pixel rounded up.
    """
    if degrees % 180 == 0:
        return width, height
    if degrees % 90 == 0:
        return height, width
    cos, sin = (abs(part) for part in _cos_sin(degrees))
    sides = (width * cos + height * sin, width * sin + height * cos)
    # 9 decimals: what floating point adds to a whole number is no fraction of a pixel
    across, down = (math.ceil(round(side, 9)) for side in sides)
    return across, down


def number_text(number: float) -> str:
    """Returns a number with at most 4 decimals and no needless zero: 0.5, 90, -12.25."""
    text = f"{number:.{DECIMALS}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def read_number(text: str) -> float | None:
    """Returns the number that a text such as `-12.25` is; None for any other way to write one."""
    return float(text) if _NUMBER.fullmatch(text) else None


def _turned(image: Image.Image, degrees: float) -> Image.Image:
    if degrees % 90 == 0:
        return image.rotate(degrees, expand=True)
    width, height = rotated_size(*image.size, degrees)
    cos, sin = _cos_sin(degrees)
    edged = ImageOps.expand(image, _EDGE_PX, fill=_WHITE)
    # From a place in the result to one in the picture: turned back about the two centres. The y
    # axis points down, so that this is clockwise.
    from_x = edged.width / 2 - cos * width / 2 + sin * height / 2
    from_y = edged.height / 2 - sin * width / 2 - cos * height / 2
    return edged.transform(
        (width, height),
        Image.Transform.AFFINE,
        (cos, -sin, from_x, sin, cos, from_y),
        Image.Resampling.BICUBIC,
        fillcolor=_WHITE,
    )


def _cos_sin(degrees: float) -> tuple[float, float]:
    return math.cos(math.radians(degrees)), math.sin(math.radians(degrees))


def _turn_hue(picture: Picture, degrees: float) -> Picture:
    made = np.empty_like(picture)
    for top in range(0, len(picture), _ROWS):
        rows = picture[top : top + _ROWS].astype(np.float32) / np.float32(255)
        hsv = cv2.cvtColor(rows, cv2.COLOR_RGB2HSV)  # H in degrees, S and V of 0 to 1
        hsv[..., 0] = np.mod(hsv[..., 0] + np.float32(degrees), np.float32(_TURN))
        turned = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * np.float32(255)
        made[top : top + _ROWS] = np.clip(np.rint(turned), 0, 255).astype(np.uint8)
    return made


def _canonical(number: float) -> float:
    return round(float(number), DECIMALS) + 0.0  # -0.0 + 0.0 is 0.0


def _crop_faults(crop: object, *, shown_as: object = None) -> list[str]:
    there = quoted(crop if shown_as is None else shown_as)
    wanted = "left,top,right,bottom as fractions of 0 to 1 are wanted, such as 0.1,0,0.9,1"
    if not isinstance(crop, tuple | list) or len(crop) != len(_EDGES):
        return [f"crop is {there}; {wanted}"]
    if not all(is_number(edge) and 0 <= edge <= 1 for edge in crop):
        return [f"crop is {there}; {wanted}"]
    left, top, right, bottom = (_canonical(edge) for edge in crop)
    if left >= right or top >= bottom:
        return [f"crop is {there}, which keeps nothing: left before right and top before bottom"]
    return []


def _range_faults(name: str, value: Any, *, shown_as: object = None) -> list[str]:
    low, high = RANGES[name]
    if is_number(value) and low <= value <= high:
        return []
    there = quoted(value if shown_as is None else shown_as)
    return [f"{name} is {there}; a number of {low:g} to {high:g} is wanted"]


def _known() -> str:
    return f"; there are {', '.join(NAMES)}"
