"""Both extractors tell real faces from spoilt, collapsed and copied ones."""

import json
from pathlib import Path

import pytest

from benchmarks import evaluate
from dataset.store import Store
from models.metrics.extractors import LITE0, LITE2
from tests.models.drawn_heads import LABELS
from tests.models.homes import write_home
from tests.models.small_generators import small_generator, write_generator

pytestmark = pytest.mark.slow  # two networks see some 300 pictures each


def test_reals_come_first_and_collapse_and_copies_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_home(tmp_path, train=80, evaluated=40)
    folder = tmp_path / "runs/one/generator"
    write_generator(folder, small_generator("dcgan64", labels=LABELS))
    (folder / "train.json").write_text(json.dumps({"images_seen": 40}))
    monkeypatch.setattr(evaluate, "SIDES_PX", (48, 64))
    lines = evaluate.table(Store(tmp_path), "runs/one", (LITE0, LITE2), count=40)[2:]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    for name in (LITE0, LITE2):
        sets = {
            (what, side): [float(cell.split()[0].strip("%")) for cell in cells if cell != "–"]
            for kind, what, side, *cells in rows
            if kind == f"`{name}`"
        }
        real, smaller = sets["training faces", "64 px"], sets["training faces", "48 px"]
        assert min(real[2:4] + smaller[2:4]) > 0.6  # precision and recall at either side
        assert smaller[0] < 2 * real[0]
        spoilt = {what: cells for (what, side), cells in sets.items() if what != "training faces"}
        copied = spoilt.pop("training faces, given back")
        assert copied[:2] == real[:2]
        assert (copied[5:], real[5] > 0.7) == ([0, 100], True)  # memory alone tells copies
        assert min(cells[0] for cells in spoilt.values()) > 2 * real[0], spoilt
        assert min(cells[1] for cells in spoilt.values()) > abs(real[1]), spoilt
        one = spoilt["one training face, again and again"]
        assert one[2:5] == [1, 0, 0]
        assert 0.9 < real[4] < 1.1
        assert spoilt["`dcgan64` after 40 pictures"][3] < 0.1
