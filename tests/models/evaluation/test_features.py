import numpy as np
import pytest
import torch

from dataset.errors import ConfigError
from models.metrics.extractors import extractor, resized
from models.metrics.label_control import hair_labels, hair_tones, hits, tones_by_label
from tests.models.homes import LABELS, head

HEADS = np.stack([head(number)[0] for number in range(30)])
ROWS = np.array(
    [[label in head(number)[1] for label in LABELS] for number in range(30)], dtype=np.float32
)


def test_an_unknown_extractor_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match='did you mean "efficientnet_lite0"'):
        extractor("efficientnet_lit0")


def test_the_resizer_keeps_flat_pictures_flat_and_range() -> None:
    flat = torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)
    assert torch.allclose(resized(flat, 128), torch.ones(1, 3, 128, 128))


def test_hair_colours_of_the_reals_are_recognised_by_their_tones() -> None:
    hair = hair_labels(LABELS)
    assert [LABELS[column] for column in hair] == ["blonde_hair", "blue_hair", "brown_hair"]
    tones = hair_tones(HEADS)
    means = tones_by_label(tones, ROWS[:, hair])
    assert hits(tones, ROWS[:, hair], means) == 1.0
    wrong = np.roll(ROWS[:, hair], 1, axis=1)
    assert hits(tones, wrong, means) == 0.0


def test_pictures_without_a_hair_label_do_not_count() -> None:
    tones = np.zeros((2, 3))
    assert np.isnan(hits(tones, np.zeros((2, 1), dtype=np.float32), np.zeros((1, 3))))


def test_a_generator_without_hair_labels_has_no_hair_hits() -> None:
    tones, rows = np.zeros((4, 3)), np.zeros((4, 0), dtype=np.float32)
    assert np.isnan(hits(tones, rows, tones_by_label(tones, rows)))
