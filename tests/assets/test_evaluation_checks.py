"""Copied faces, deaf and monotonous generators fail their checks by a real measurement."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import numpy as np
import pytest

from assets.evaluation import (
    label_verdict,
    labels_table,
    memory_verdict,
    numbers_of,
    recall_verdict,
    spread_verdict,
)
from dataset.geometry import resized
from dataset.store import Store
from models.evaluation.evaluate import evaluate
from models.evaluation.plan import protocol_for
from models.metrics.extractors import efficientnet_lite0
from tests.models.evaluation.galleries import Gallery
from tests.models.homes import SEEDS, UNSEEN, heads, write_home

TRAIN, EVAL = 100, 60
SMALL_PX = 24
KINDS = ("honest", "copier", "deaf", "monotonous", "small")

Measured = Mapping[str, Mapping[str, Any]]

pytestmark = pytest.mark.slow  # four generators are drawn from and measured


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """The evaluation of each kind, on one home."""
    home = tmp_path_factory.mktemp("home")
    manifest = write_home(home, train=TRAIN, evaluated=EVAL)
    network = efficientnet_lite0()
    unseen, labels = heads(UNSEEN, 200)
    one = np.repeat(unseen[:1], 4, axis=0)
    galleries = {
        "honest": Gallery(unseen, labels),
        "copier": Gallery(*heads(SEEDS["train"], TRAIN)),
        "deaf": Gallery(unseen, labels, deaf=True),
        "monotonous": Gallery(one, labels[:4], deaf=True),
        "small": Gallery(np.stack([resized(face, SMALL_PX) for face in unseen]), labels),
    }
    return {
        kind: evaluate(
            Store(home),
            kind,
            protocol_for(network, fakes=64, repeats=1, flips=4, psis=()),
            generator=galleries[kind],
            identity={"generator_sha256": kind},
            manifest=manifest,
            network=network,
        )
        for kind in KINDS
    }


def test_an_honest_generator_passes_all(measured: Measured) -> None:
    made = measured["honest"]
    for verdict in (memory_verdict, label_verdict, recall_verdict, spread_verdict):
        found = verdict(made)
        assert found.passed, found.description
    assert made["label_ap"] > made["label_chance"] + 0.2
    assert made["flip_success"] > 0.8


def test_copied_training_faces_fail_the_memory_check(measured: Measured) -> None:
    found = memory_verdict(measured["copier"])
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.ERROR
    assert measured["copier"]["memory_ratio"] < 0.1
    assert measured["copier"]["copied_frac"] > 0.9
    assert "repeats training faces: look at neighbours.png" in (found.description or "")


def test_a_generator_that_ignores_labels_fails_the_label_check(measured: Measured) -> None:
    found = label_verdict(measured["deaf"])
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert "of flipped labels show (limit 60%, chance 50%)" in (found.description or "")
    assert measured["deaf"]["flip_success"] == 0  # the same picture on both sides
    assert memory_verdict(measured["deaf"]).passed
    assert recall_verdict(measured["deaf"]).passed


def test_a_generator_of_one_face_fails_the_recall_check(measured: Measured) -> None:
    found = recall_verdict(measured["monotonous"])
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert "0.0% of the unseen faces lie among the fakes" in (found.description or "")


def test_a_generator_of_one_face_fails_the_spread_check(measured: Measured) -> None:
    found = spread_verdict(measured["monotonous"])
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert measured["monotonous"]["spread"] == 0
    assert 0.9 < measured["honest"]["real_spread"] < 1.1
    assert "differ from each other 0.00 times as much as unseen faces do (limit 0.78; training" in (
        found.description or ""
    )
    old = {name: value for name, value in measured["honest"].items() if "spread" not in name}
    assert "Materialise evaluation again" in (spread_verdict(old).description or "")


def test_the_recall_of_perfect_small_pictures_is_no_collapse(measured: Measured) -> None:
    found = recall_verdict(measured["small"])
    assert found.passed, found.description
    assert measured["small"]["real_recall"] > 0.5
    assert measured["small"]["recall"] > 0.5 * measured["small"]["real_recall"]


def test_an_evaluation_of_the_old_protocol_gives_no_verdict_on_variety(measured: Measured) -> None:
    new = ("real_recall", "real_precision", "resolution_px")
    old = {name: value for name, value in measured["small"].items() if name not in new}
    found = recall_verdict({**old, "recall": 0.0})
    assert not found.passed
    assert "old protocol" in (found.description or "")
    assert "Materialise evaluation again" in (found.description or "")


def test_the_honest_ones_distance_is_that_of_training_reals(measured: Measured) -> None:
    distances = {kind: made["fd_efficientnet_lite0"] for kind, made in measured.items()}
    assert min(distances, key=lambda kind: distances[kind]) in ("honest", "deaf", "copier")
    assert distances["monotonous"] > 2 * distances["honest"]
    assert measured["honest"]["real_fd"] < 1.5 * distances["honest"]


def test_labels_beside_the_features_tell_the_deaf_one(measured: Measured) -> None:
    gained = {
        kind: measured[kind]["joint_fd_efficientnet_lite0"]
        / measured[kind]["fd_efficientnet_lite0"]
        for kind in ("honest", "deaf")
    }
    assert gained["deaf"] > gained["honest"]


def test_the_table_of_labels_begins_with_what_is_lost(measured: Measured) -> None:
    made = measured["deaf"]
    lines = str(labels_table(made).value).splitlines()
    assert len(lines) == 2 + len(made["label_ap_by_label"])
    losses = {name: real - fake for name, (fake, real) in made["label_ap_by_label"].items()}
    assert lines[2].startswith(f"| {max(losses, key=lambda name: losses[name])} | ")
    assert set(numbers_of(made)) >= {"fd_efficientnet_lite0", "recall", "spread", "label_ap"}


def test_a_generator_without_labels_has_nothing_to_obey(measured: Measured) -> None:
    nothing = dict.fromkeys(("label_ap", "label_chance", "real_label_ap", "flip_success"))
    assert label_verdict({**measured["honest"], **nothing}).passed
