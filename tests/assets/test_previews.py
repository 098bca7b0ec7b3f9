"""Previews stay small whatever they show, since they lie in the event log."""

import base64
import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from assets.reporting import MAX_BYTES, contact_sheet, evenly, inline


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", [(64, 64), (900, 700), (3000, 2000)])
def test_even_noise_fits_into_the_cap(size: tuple[int, int]) -> None:
    text = inline(noise(*size)).value
    assert text is not None
    assert len(text) <= MAX_BYTES
    encoded = text.split("base64,")[1].rstrip(")")
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).format == "JPEG"


def test_a_sheet_keeps_proportions_and_order() -> None:
    red, blue = Image.new("RGB", (200, 100), "red"), Image.new("RGB", (100, 200), "blue")
    sheet = contact_sheet([red, blue, red], columns=2, cell_px=40, gap_px=2)
    assert sheet.size == (2 * 42 + 2, 2 * 42 + 2)
    assert sheet.getpixel((2 + 20, 2 + 20)) == (255, 0, 0)
    assert sheet.getpixel((2 + 20, 2 + 4)) != (255, 0, 0)  # a wide one leaves paper above
    assert sheet.getpixel((44 + 20, 2 + 20)) == (0, 0, 255)
    assert sheet.getpixel((2 + 20, 44 + 20)) == (255, 0, 0)


@pytest.mark.parametrize("total", [0, 1, 5, 6, 7, 23, 60])
def test_rows_are_taken_evenly_however_the_table_comes_in_parts(total: int) -> None:
    table = pa.table({"number": pa.array(range(total), pa.int64())})
    for size in (1, 4, 100):
        taken = [row["number"] for row in evenly(table.to_batches(size), total, shown=6)]
        assert taken == list(range(total))[:: max(1, total // 6)][:6]
