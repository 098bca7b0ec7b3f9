from pathlib import Path

import numpy as np
import pytest
import torch

from dataset.errors import UsageError
from models.io.generators import load_generator, typical_rows
from models.labels import label_row, names_of, split_names, typical_labels
from models.sampling.draw import asked_labels, draw, grid, latents
from models.sampling.tables import label_table
from models.training.data import TrainingSet
from tests.models.homes import LABELS
from tests.models.trainings import trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, reals: TrainingSet) -> Path:
    home = tmp_path_factory.mktemp("sampling")
    trained(home, reals)
    return home / "run/generator"


def test_a_picture_depends_on_its_seed_not_on_its_batch(folder: Path) -> None:
    generator = load_generator(str(folder))
    labels = np.tile(label_row(["blonde_hair"], LABELS), (5, 1))
    together = draw(generator, labels, range(10, 15))
    alone = draw(generator, labels[:1], [13])
    assert together.shape == (5, 64, 64, 3)
    assert np.array_equal(together[3], alone[0])
    assert not np.array_equal(together[3], together[4])
    assert torch.equal(latents([7, 8], 5)[1], latents([8], 5)[0])


def test_uniform_latents_lie_in_0_to_1() -> None:
    z = latents(range(50), 20, "uniform")
    assert 0 <= z.min() < 0.1 < 0.9 < z.max() <= 1


@pytest.mark.parametrize(
    ("labels", "psi", "message"),
    [((2, 4), 1.0, r"labels are \[2, 4\]; \[2, 5\] wanted"), ((2, 5), 2.5, "psi is 2.5")],
)
def test_draw_refuses_what_does_not_fit(
    folder: Path, labels: tuple[int, int], psi: float, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        draw(load_generator(str(folder)), np.zeros(labels, dtype=np.float32), [0, 1], psi=psi)


def test_an_unknown_label_is_answered_with_the_nearest() -> None:
    assert split_names(" blonde hair, ,red_eyes") == ["blonde_hair", "red_eyes"]
    row = label_row(["blonde_hair", "red_eyes"], LABELS)
    assert names_of(row, LABELS) == ["blonde_hair", "red_eyes"]
    with pytest.raises(UsageError, match='unknown label "blond_hair"; did you mean "blonde_hair"'):
        label_row(["blond_hair"], LABELS)


def test_typical_labels_are_real_rows(folder: Path, reals: TrainingSet) -> None:
    real = {tuple(row) for row in reals.labels.tolist()}
    rows = typical_labels(reals.labels, 100, seed=1)
    assert {tuple(row) for row in rows.tolist()} <= real
    assert np.array_equal(rows, typical_labels(reals.labels, 100, seed=1))
    kept = typical_rows(str(folder), LABELS)
    assert {tuple(row) for row in kept.tolist()} <= real
    rows = asked_labels([], [3, 300], known=LABELS, typical=kept)
    assert np.array_equal(rows, kept[[3, 300 % len(kept)]])


def test_grid_lays_out_row_by_row() -> None:
    images = np.stack([np.full((4, 4, 3), value, dtype=np.uint8) for value in (10, 20, 30)])
    sheet = np.asarray(grid(images, 2))
    assert sheet.shape == (8, 8, 3)
    assert [sheet[y, x, 0] for y, x in ((0, 0), (0, 4), (4, 0), (4, 4))] == [10, 20, 30, 255]


def test_label_table_has_a_titled_row_for_each_wish(folder: Path) -> None:
    generator = load_generator(str(folder))
    wishes = [["blonde_hair"], ["blue_hair"]]
    bare = label_table(generator, wishes, [0, 1, 2], titles=[])
    assert bare.size == (3 * 64, 2 * 64)
    titled = label_table(generator, wishes, [0, 1, 2])
    assert titled.width > bare.width
    assert np.array_equal(np.asarray(titled)[:, -3 * 64 :], np.asarray(bare))
