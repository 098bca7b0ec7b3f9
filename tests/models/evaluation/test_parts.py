"""The parts of an evaluation: axes, flips, rows, judge, thumbnails, protocol, faults in words."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dataset.errors import EmptyStageError, TrainingError, UsageError
from dataset.manifest import load_manifest
from dataset.store import Store
from dataset.vocabulary import appearance
from models.evaluation.evaluate import evaluate
from models.evaluation.feature_rows import RowFile
from models.evaluation.label_judge import JudgeConfig, fit_judge, judge_at, thumbnails
from models.evaluation.plan import (
    Protocol,
    labels_for_generator,
    protocol_for,
    reference_stats_at,
    shared_labels,
)
from models.metrics.distances import ReferenceStats, frechet_distance, statistics
from models.metrics.label_control import average_precisions, flipped_pairs
from tests.models.drawn_heads import LABELS
from tests.models.evaluation.galleries import Gallery, colours
from tests.models.homes import SEEDS, UNSEEN, heads, write_home

NAMES = ("blonde_hair", "blue_hair", "red_eyes", "hair_ornament")


def test_protocol_digest_changes_with_every_setting() -> None:
    protocol = Protocol("a", "b", input_px=128, resizer="c", judge="d")
    values: dict[str, Any] = {
        field.name: getattr(protocol, field.name) for field in dataclasses.fields(protocol)
    }

    def other(value: Any) -> Any:
        return "x" if isinstance(value, str) else (0.3,) if isinstance(value, tuple) else value + 1

    changed = [Protocol(**{**values, name: other(value)}) for name, value in values.items()]
    assert len({one.digest for one in [protocol, *changed]}) == len(changed) + 1


@pytest.mark.parametrize("rows", [5, 12, 60])
def test_the_distance_along_the_references_axes_is_the_distance(rows: int) -> None:
    rng = np.random.default_rng(rows)
    reference = statistics(rng.normal(size=(rows, 20)) @ rng.normal(size=(20, 20)))
    found = statistics(rng.normal(loc=0.5, size=(33, 20)))
    axes = ReferenceStats.of(reference)
    assert axes.distance(found) == pytest.approx(frechet_distance(reference, found))
    assert axes.distance(reference) == pytest.approx(0, abs=1e-5)


def test_the_references_statistics_are_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    reference, found = (statistics(rng.normal(size=(12, 20))) for _ in range(2))
    made = reference_stats_at(Store(tmp_path), "reference", lambda: reference)
    kept = reference_stats_at(Store(tmp_path), "reference", lambda: pytest.fail("they are there"))
    assert kept.distance(found) == made.distance(found)


def test_a_flipped_hair_colour_takes_the_others_off_and_leaves_one_without() -> None:
    rows = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0]], dtype=np.float32)
    groups = appearance().groups
    having, without = flipped_pairs(rows, NAMES, "blue_hair", groups=groups, count=40, seed=0)
    assert (having[:, 1] == 1).all()
    assert (having[:, 0] == 0).all()
    assert (without[:, 1] == 0).all()
    assert (without[:, 0] == 1).all()
    assert np.array_equal(having[:, 2:], without[:, 2:])


def test_a_flipped_ornament_changes_nothing_else() -> None:
    rows = np.array([[1, 0, 1, 0], [0, 1, 0, 1]], dtype=np.float32)
    groups = appearance().groups
    having, without = flipped_pairs(rows, NAMES, "hair_ornament", groups=groups, count=8, seed=1)
    assert (having - without == [0, 0, 0, 1]).all()


def test_rows_go_on_after_the_last_whole_chunk(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.f32", np.arange(30, dtype=np.float32).reshape(10, 3)
    RowFile(path, 10, 3, chunk=4).append(rows[:4])
    with path.open("ab") as file:
        file.write(rows[4:7].tobytes() + b"x")
    again = RowFile(path, 10, 3, chunk=4)
    assert again.done == 4
    again.append(rows[4:8])
    again.append(rows[8:])
    assert RowFile(path, 10, 3, chunk=4).done == 10  # a whole file may end in a part of a chunk
    assert np.array_equal(again.read(), rows)


def test_a_thumbnail_is_the_same_for_the_mirror_image_and_another_for_another_colour() -> None:
    images, _ = heads(UNSEEN, 4)
    plain, mirrored = thumbnails(images), thumbnails(images[:, :, ::-1])
    assert plain.shape == (4, 24 * 24 * 3)
    assert np.allclose(plain, mirrored, atol=1)
    assert np.abs(plain[0] - plain[1]).mean() > 5


def test_the_judge_tells_labels_that_it_never_saw_and_is_kept(tmp_path: Path) -> None:
    store, network, config = Store(tmp_path), colours(), JudgeConfig(iterations=20)
    parts = {}
    for split, count in (("eval", 120), ("train", 80)):
        images, labels = heads(SEEDS[split], count)
        parts[split] = (network([images]).astype(np.float32), thumbnails(images), labels)
    features, thumbs, labels = parts["eval"]
    made = judge_at(store, "judge", features=features, thumbs=thumbs, labels=labels, config=config)
    unseen = made.logits(*parts["train"][:2])
    aps, chance = average_precisions(unseen, parts["train"][2]), parts["train"][2].mean(axis=0)
    assert np.nanmean(aps) > chance.mean() + 0.4
    kept = judge_at(
        store, "judge", features=features[:0], thumbs=thumbs[:0], labels=labels[:0],
        config=config,
    )  # fmt: skip
    again = fit_judge(features, thumbs, labels, config=config)
    assert made.digest == kept.digest == again.digest


def test_labels_are_brought_into_the_generators_order_and_unknown_ones_left_out() -> None:
    rows = np.array([[1, 0, 1]], dtype=np.float32)
    known = ("c", "z", "a")
    assert shared_labels(["a", "b", "c"], known) == ["c", "a"]
    assert labels_for_generator(rows, ["a", "b", "c"], known).tolist() == [[1, 0, 1]]
    assert shared_labels(["a"], ()) == []
    with pytest.raises(UsageError, match="the generator knows x, y, and the manifest has none"):
        shared_labels(["a", "b"], ("x", "y"))


class TestFaults:
    """What cannot be measured is refused in words."""

    def refused(self, home: Path, generator: Gallery) -> dict[str, Any]:
        store, network = Store(home), colours()
        return evaluate(
            store,
            "refused",
            protocol_for(network, fakes=16, repeats=1, flips=0, psis=()),
            generator=generator,
            identity={"generator_sha256": "x"},
            manifest=load_manifest(store, None),
            network=network,
        )

    def test_pictures_that_are_no_numbers(self, tmp_path: Path) -> None:
        write_home(tmp_path, train=8, evaluated=8)
        generator = Gallery(*heads(UNSEEN, 8))
        generator.pictures[3, 0, 0, 0] = torch.nan
        with pytest.raises(TrainingError, match="of 16 pictures hold values that are not finite"):
            self.refused(tmp_path, generator)

    def test_a_split_of_two(self, tmp_path: Path) -> None:
        write_home(tmp_path, train=8, evaluated=2)
        with pytest.raises(EmptyStageError, match=r"the eval split .* has 2 pictures; 4 or more"):
            self.refused(tmp_path, Gallery(*heads(UNSEEN, 8)))


def test_a_generator_without_labels_has_no_label_scores(tmp_path: Path) -> None:
    manifest = write_home(tmp_path, train=10, evaluated=10)
    generator = Gallery(*heads(UNSEEN, 30), deaf=True)
    generator.spec = dataclasses.replace(generator.spec, labels=())
    generator.labels = generator.labels[:, :0]
    network = colours()
    made = evaluate(
        Store(tmp_path),
        "out",
        protocol_for(network, fakes=20, repeats=2, flips=4, psis=(0.5, 1.0)),
        generator=generator,
        identity={"generator_sha256": "x"},
        manifest=manifest,
        network=network,
    )
    nothing = ("label_ap", "label_ap_sigma", "real_label_ap", "flip_success", "hair_colour_hits")
    assert {made[name] for name in nothing} == {None}
    assert made["label_ap_by_label"] == made["flip_by_label"] == {}
    assert "labels_chart" not in made
    assert made["joint_fd_colours"] > made["fd_colours"] > 0
    assert [point["psi"] for point in made["truncation"]] == [0.5, 1.0]
    assert len(LABELS) == 8
