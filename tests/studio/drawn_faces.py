"""Faces by the painter with their hair, as square pictures of any size."""

import functools

import numpy as np
import numpy.typing as npt
from PIL import Image

from demo.painter import draw

FIRST_SEED = 9000


@functools.cache
def drawn_face(number: int, side_px: int) -> npt.NDArray[np.uint8]:
    """Returns face `number` with its hair, uint8 [S,S,3]; not to be written to."""
    drawing = draw(FIRST_SEED + number)
    face, whole = drawing.faces[0], drawing.image.convert("RGB")
    side = min(int(1.5 * max(face.w, face.h)), *whole.size)
    left = min(max(0, face.x + face.w // 2 - side // 2), whole.width - side)
    top = min(max(0, face.y + face.h // 2 - side // 2), whole.height - side)
    square = whole.crop((left, top, left + side, top + side))
    picture = np.array(square.resize((side_px, side_px), Image.Resampling.LANCZOS))
    picture.setflags(write=False)
    return picture
