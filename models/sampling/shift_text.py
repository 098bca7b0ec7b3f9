"""A shift of a latent as a short text that a link can hold, and back; knows nothing of networks.

Base64 for addresses, without padding, of: VERSION (one byte), the rows R (one byte), then for each
row its scale (float16, little-endian) and its D numbers (int8, -127 to 127, times the scale). So a
number is off by at most a 254th of its row's largest one. 12 rows of 512 take 8,227 characters.
"""

import base64
import binascii

import numpy as np
import numpy.typing as npt

from dataset.errors import UsageError

Shift = npt.NDArray[np.float32]  # [R,D]

VERSION = 1
ROWS_MAX = 255
_PEAK = 127
_HEAD, _SCALE = 2, 2  # bytes before the rows, and of a row's scale


def shift_text(shift: npt.NDArray[np.floating]) -> str:
    """Returns the text of a shift [R,D]; R is 1 to 255, and numbers are at most 8 million."""
    rows, count = shift.shape
    assert 1 <= rows <= ROWS_MAX, f"{rows} rows"
    assert count, "a shift without numbers"
    values = np.asarray(shift, dtype=np.float64)
    scales = (np.abs(values).max(axis=1) / _PEAK).astype("<f2")  # [R]
    assert np.isfinite(scales).all(), "the shift is too large, or no number"
    steps = scales.astype(np.float64)[:, None]
    whole = np.divide(values, steps, out=np.zeros_like(values), where=steps > 0)
    numbers = np.rint(whole).clip(-_PEAK, _PEAK).astype(np.int8)
    parts = [scale.tobytes() + row.tobytes() for scale, row in zip(scales, numbers, strict=True)]
    content = bytes([VERSION, rows]) + b"".join(parts)
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
    if version != VERSION:
        raise UsageError(f"it is of version {version}; {VERSION} is known here")
    width, rest = divmod(len(content) - _HEAD, rows) if rows else (0, 0)
    if width <= _SCALE or rest:
        raise UsageError(f"it is cut off: {len(content)} bytes are no {rows} rows")
    packed = np.frombuffer(content, np.uint8, offset=_HEAD).reshape(rows, width)
    scales = packed[:, :_SCALE].copy().view("<f2").astype(np.float32)  # [R,1]
    numbers = packed[:, _SCALE:].view(np.int8)
    if not np.isfinite(scales).all() or (scales < 0).any() or (numbers == -_PEAK - 1).any():
        raise UsageError("it is damaged: it holds what is no number")
    return numbers.astype(np.float32) * scales
