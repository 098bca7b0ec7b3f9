"""The small picture of a training's losses is drawn from its ticks, and stays small."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assets.charts import curves_chart, curves_png, read_ticks
from dataset.store import Store

SMALL_BYTES = 40_000


def ticks(count: int) -> list[dict[str, float]]:
    rng = np.random.default_rng(0)
    falling = ({"d_labels": 1 / (n + 1), "g_labels": 2 / (n + 1)} for n in range(count))
    return [
        {"images_seen": 1000 * (n + 1), "d": rng.random(), "g": rng.random(), **labels}
        for n, labels in enumerate(falling)
    ]


@pytest.mark.parametrize("count", [0, 1, 40, 20_000])
def test_any_number_of_ticks_gives_one_small_picture(count: int) -> None:
    drawn = curves_png(ticks(count))
    assert len(drawn) < SMALL_BYTES
    with Image.open(io.BytesIO(drawn)) as picture:
        assert picture.size == (720, 232)


def test_other_losses_give_another_picture() -> None:
    many = ticks(20)
    assert curves_png(many) == curves_png(many)
    assert curves_png(many) != curves_png([{**tick, "g": 3.0} for tick in many])


def test_a_training_that_told_nothing_has_an_empty_chart(tmp_path: Path) -> None:
    assert read_ticks(Store(tmp_path), "generators/a") == []
    assert "data:image/png" in str(curves_chart(Store(tmp_path), "generators/a").value)


def test_ticks_are_read_in_their_order(tmp_path: Path) -> None:
    store = Store(tmp_path)
    content = "".join(f"{json.dumps(tick)}\n" for tick in ticks(3)).encode()
    store.write_bytes("generators/a/progress.jsonl", content)
    assert read_ticks(store, "generators/a") == ticks(3)
