"""The labels' chart is legible, small, and says what is above chance."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from assets.charts import labels_chart, labels_png, lift
from assets.reporting import MAX_BYTES
from dataset.labels import Cut, LabelsFile
from dataset.vocabulary import appearance


def labels_file(count: int, *, crops: int = 5000) -> LabelsFile:
    """A file of `count` labels and thirty tags that were cut, one of them too frequent."""
    rng = np.random.default_rng(0)
    names = sorted(appearance().groups, key=len, reverse=True)[: count + 30]
    has = rng.random((crops, len(names))) < np.linspace(0.55, 0.02, len(names))
    counts = dict(zip(names, has.sum(axis=0).tolist(), strict=True))
    labels = names[1 : count + 1]
    rows = has[:, 1 : count + 1].astype(np.int64)
    cut = {name: Cut("too_rare", "", 1, []) for name in names if name not in labels}
    cut[names[0]] = Cut("too_frequent", "", 1, [])
    return LabelsFile(
        labels=labels,
        groups={label: appearance().groups[label] for label in labels},
        counts=counts,
        fractions={name: count / crops for name, count in counts.items()},
        seen_as={},
        together=(rows.T @ rows).tolist(),
        cut=cut,
        sided=[],
        crops=crops,
        untagged=0,
        settings={"min_frac": 0.05, "max_frac": 0.5, "count": count},
        vocabulary="",
        faces="",
        warning=None,
    )


@pytest.mark.parametrize("count", [1, 23, 40])
def test_chart_is_a_picture_small_enough_for_the_event_log(count: int) -> None:
    text = labels_chart(labels_file(count)).value
    assert isinstance(text, str)
    assert 3_000 < len(text) <= MAX_BYTES
    content = re.fullmatch(r"!\[labels\]\(data:image/png;base64,(.*)\)", text)
    assert content is not None
    picture = Image.open(io.BytesIO(base64.b64decode(content[1])))
    assert picture.format == "PNG"
    assert picture.width > 900


def test_cut_tags_are_grey_and_labels_are_not() -> None:
    picture = Image.open(io.BytesIO(labels_png(labels_file(23)))).convert("RGB")
    left = np.asarray(picture)[:, : picture.width // 3].reshape(-1, 3).astype(int)
    grey = (np.abs(left - (0xC4, 0xC1, 0xBA)).max(axis=1) <= 3).sum()
    blue = (np.abs(left - (0x5B, 0x6F, 0xB5)).max(axis=1) <= 3).sum()
    assert blue > 4000
    assert grey > 1000


def test_lift_compares_with_chance() -> None:
    together = np.array([[50, 25, 0], [25, 50, 50], [0, 50, 50]])
    found = lift(together, 100)
    assert np.isnan(found.diagonal()).all()
    assert (found[0, 1], found[0, 2], found[1, 2]) == (1.0, 0.0, 2.0)
