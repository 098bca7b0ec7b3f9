import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset.errors import ConfigError, StoreError, TrainingError
from models.tagger.model import FACTS, WEIGHTS, Tagger, TaggerConfig, TaggerNet, load, overridden
from models.tagger.scores import score
from models.tagger.train import train_tagger, varied
from tests.models.drawn_heads import EYES, HAIR, LABELS, drawn_heads

SMALL = TaggerConfig(width=0.35, input_px=48, batch=32, total_kimg=6.4, device="cpu", threads=1)
TINY = dataclasses.replace(SMALL, width=0.1, input_px=32, total_kimg=0.2, batch=16)


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    images, labels = drawn_heads(1200, seed=1)
    return train_tagger(images, labels, label_names=LABELS, config=SMALL)


@pytest.fixture(scope="module")
def tiny() -> Tagger:
    images, labels = drawn_heads(64, seed=3)
    return train_tagger(images, labels, label_names=LABELS, config=TINY)


def test_it_learns_the_colours_of_drawn_heads_far_above_chance(tagger: Tagger) -> None:
    images, truths = drawn_heads(400, seed=2)
    found = score(
        tagger.probabilities(images), truths, LABELS, raw=tagger.raw_probabilities(images)
    )
    colours = [one for one in found.labels if one.label in {*HAIR, *EYES}]
    assert len(colours) == 7
    for one in colours:
        assert one.ap is not None
        assert one.ap > (one.frequency + 3) / 4, one
    assert found.mean_ece < 0.06
    assert tagger.facts["rows"] + tagger.facts["calibration_rows"] == 1200
    assert tagger.facts["parameters"] < 1_000_000


def test_a_saved_tagger_answers_the_same(tagger: Tagger, tmp_path: Path) -> None:
    images, _ = drawn_heads(8, seed=4, side_px=80)
    tagger.save(tmp_path)
    again = load(tmp_path)
    assert np.array_equal(again.probabilities(images), tagger.probabilities(images))
    assert (again.digest, again.label_names, again.facts) == (tagger.digest, LABELS, tagger.facts)
    assert sorted(path.name for path in tmp_path.iterdir()) == [FACTS, WEIGHTS]


def test_a_picture_gets_the_same_answer_in_any_company(tagger: Tagger) -> None:
    images, _ = drawn_heads(12, seed=5)
    alone = np.concatenate([tagger.probabilities(images[[row]]) for row in range(12)])
    assert np.allclose(tagger.probabilities(images), alone, atol=1e-4)
    assert tagger.probabilities(images[:0]).shape == (0, len(LABELS))


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(
    tiny: Tagger, tmp_path: Path
) -> None:
    images, labels = drawn_heads(64, seed=3)
    torch.manual_seed(123)  # what others did to torch's own seed does not matter
    for name, seed in (("same", 0), ("other", 1)):
        config = dataclasses.replace(TINY, seed=seed)
        train_tagger(images, labels, label_names=LABELS, config=config).save(tmp_path / name)
    tiny.save(tmp_path / "first")
    first, same, other = (
        (tmp_path / name / WEIGHTS).read_bytes() for name in ("first", "same", "other")
    )
    assert first == same != other


@pytest.mark.parametrize("file", [WEIGHTS, FACTS])
def test_a_missing_file_is_named(tiny: Tagger, tmp_path: Path, file: str) -> None:
    tiny.save(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(StoreError, match=rf"{file} is not there"):
        load(tmp_path)


def test_damaged_weights_are_refused_by_name(tiny: Tagger, tmp_path: Path) -> None:
    tiny.save(tmp_path)
    content = bytearray((tmp_path / WEIGHTS).read_bytes())
    content[-9] ^= 1
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(TrainingError, match=rf"{WEIGHTS} is damaged or of another training"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": [*LABELS[1:], "blue_hair"]}, "its labels or its input_px were changed"),
        ({"labels": "blue_hair"}, "labels is 'blue_hair', a list of names wanted"),
        ({"kind": "omokage-generator"}, '"kind": "omokage-tagger" wanted'),
        ({"version": 0}, "is of version 0, 1 wanted"),
        ({"config": {"widht": 1}}, "config.widht is unknown"),
    ],
)
def test_changed_facts_are_refused(
    tiny: Tagger, tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    tiny.save(tmp_path)
    facts = json.loads((tmp_path / FACTS).read_text())
    (tmp_path / FACTS).write_text(json.dumps(facts | changed))
    with pytest.raises(TrainingError) as caught:
        load(tmp_path)
    assert message in str(caught.value)
    assert FACTS in str(caught.value)


def test_weights_of_another_width_are_refused_by_tensor(tiny: Tagger, tmp_path: Path) -> None:
    tiny.save(tmp_path)
    facts = json.loads((tmp_path / FACTS).read_text())
    facts["config"]["width"] = 0.5
    (tmp_path / FACTS).write_text(json.dumps(facts))
    with pytest.raises(TrainingError, match=r"network.stem.weight is float32 \[4, 3, 3, 3\], "):
        load(tmp_path)


def test_arrays_that_do_not_fit_are_refused_together() -> None:
    images, labels = drawn_heads(8, seed=0)
    with pytest.raises(TrainingError) as caught:
        train_tagger(images, labels[:, :3].astype(np.uint8), label_names=["a", "a"], config=TINY)
    for message in ("labels are uint8 [8, 3]", "label names are a, a", "8 pictures; at least 16"):
        assert message in str(caught.value)
    with pytest.raises(TrainingError, match=r"pictures are uint8 \[8, 48, 48\]"):
        train_tagger(images[..., 0], labels, label_names=LABELS, config=TINY)


def test_what_progress_raises_ends_the_training() -> None:
    images, labels = drawn_heads(64, seed=3)

    def stop(payload: dict[str, object]) -> None:
        assert payload["of_images"] == 208
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_tagger(images, labels, label_names=LABELS, config=TINY, progress=stop)


def test_labels_of_one_side_switch_mirroring_off(tiny: Tagger) -> None:
    names = ("blue_hair", "hair_over_left_eye", *LABELS[2:])
    one_sided = dataclasses.replace(tiny, label_names=names)
    images, _ = drawn_heads(4, seed=6)
    mirrored = images[:, :, ::-1]
    assert np.allclose(tiny.logits(images), tiny.logits(mirrored), atol=1e-5)
    assert not np.allclose(one_sided.logits(images), one_sided.logits(mirrored), atol=1e-5)


def test_variation_keeps_grey_grey_and_a_plain_colour_its_hue() -> None:
    rng = torch.Generator().manual_seed(0)
    plain = torch.tensor([0.5, -0.2, -0.6])[None, :, None, None].expand(16, 3, 32, 32)
    config = dataclasses.replace(TINY, brightness=0.2)
    seen = varied(plain, config, rng, mirror=True)
    red, green, blue = seen.unbind(dim=1)
    assert seen.std() > 0.01
    assert torch.allclose((red - green) / (green - blue), torch.full_like(red, 7 / 4), atol=1e-3)
    grey = varied(torch.rand(8, 1, 32, 32).expand(8, 3, 32, 32), config, rng, mirror=True)
    assert torch.allclose(grey[:, 0], grey[:, 2])


def test_variation_without_any_range_changes_nothing_but_the_side() -> None:
    config = dataclasses.replace(TINY, translate_frac=0, scale_frac=0, rotate_deg=0, brightness=0)
    images = torch.rand(32, 3, 32, 32) * 2 - 1
    rng = torch.Generator().manual_seed(0)
    assert torch.allclose(varied(images, config, rng, mirror=False), images, atol=1e-5)
    seen = varied(images, config, rng, mirror=True)
    mirrored = [torch.allclose(a, b.flip(2), atol=1e-5) for a, b in zip(seen, images, strict=True)]
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(seen, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 6 < sum(mirrored) < 26


def test_the_network_has_the_parameters_that_its_page_says() -> None:
    count = sum(p.numel() for p in TaggerNet(23).parameters())
    assert count == 885_280 + 385 * 23 < 1_000_000


def test_settings_out_of_range_or_unknown_are_all_named() -> None:
    with pytest.raises(ConfigError) as caught:
        TaggerConfig(input_px=50, batch=1, device="gpu")
    for message in ("input_px is 50; a multiple of 16", "batch is 1", 'device is "gpu"'):
        assert message in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        overridden(TINY, ["bach=3", "lr=much", "flip", "flip=maybe"])
    for message in ('did you mean "batch"?', 'lr is "much", a number', '"flip" is no key=value'):
        assert message in str(caught.value)
    assert overridden(TINY, ["flip=no", "batch=8"]) == dataclasses.replace(
        TINY, flip=False, batch=8
    )


def test_settings_of_speed_do_not_change_the_digest() -> None:
    assert dataclasses.replace(TINY, threads=2).digest == TINY.digest
    assert dataclasses.replace(TINY, lr=0.1).digest != TINY.digest
