import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from dataset.errors import TrainingError, UsageError
from models.io.generators import load_generator, typical_rows
from models.labels import label_row, names_of, split_names, typical_labels
from models.sampling.draw import asked_labels, draw, grid, latents
from models.sampling.tables import label_table
from models.training.data import TrainingSet
from tests.models.conftest import LABELS
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


def changed(folder: Path, to: Path, **tensors: Any) -> str:
    for name in ("spec.json", "typical_labels.json"):
        (to / name).write_bytes((folder / name).read_bytes())
    held = safetensors.torch.load((folder / "generator.safetensors").read_bytes())
    for name, tensor in tensors.items():
        key = name.replace("__", ".")
        if tensor is None:
            del held[key]
        else:
            held[key] = tensor
    (to / "generator.safetensors").write_bytes(safetensors.torch.save(held))
    return str(to)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"up3__bias": None}, "up3.bias is missing"),
        ({"up9__bias": torch.zeros(3)}, "up9.bias is unknown"),
        ({"up3__bias": torch.zeros(4)}, r"up3.bias is float32 \[4\], float32 \[3\] wanted"),
        ({"up3__bias": torch.zeros(3, dtype=torch.float16)}, r"up3.bias is float16 \[3\]"),
        ({"up3__bias": torch.full((3,), torch.nan)}, "up3.bias holds numbers that are not finite"),
    ],
)
def test_weights_that_do_not_fit_the_spec_are_named(
    folder: Path, tmp_path: Path, tensors: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        load_generator(changed(folder, tmp_path, **tensors))
    assert "generator.safetensors" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"\xff" * 64, None])
def test_a_file_that_is_no_safetensors_is_refused(
    folder: Path, tmp_path: Path, content: bytes | None
) -> None:
    changed(folder, tmp_path)
    path = tmp_path / "generator.safetensors"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(TrainingError, match=r"generator\.safetensors is no whole safetensors file"):
        load_generator(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 1e9}, "width is 1000000000.0, a number above 0 and up to 16 wanted"),
        ({"z_dist": "cauchy"}, "z_dist is 'cauchy', one of normal, uniform wanted"),
        ({"labels": ["a", "a"]}, "a list of up to 10,000 different names wanted"),
        ({"z_dmi": 3}, '"z_dmi" is unknown; did you mean "z_dim"?'),
    ],
)
def test_a_spec_that_describes_no_generator_is_refused(
    folder: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    changed(folder, tmp_path)
    spec = json.loads((folder / "spec.json").read_text())
    (tmp_path / "spec.json").write_text(json.dumps(spec | change))
    with pytest.raises(TrainingError) as caught:
        load_generator(str(tmp_path))
    assert message in str(caught.value)
    assert "spec.json" in str(caught.value)


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
