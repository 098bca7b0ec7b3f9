"""Generators of each side are held against real faces of that side, and at a common one."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.geometry import resized
from dataset.manifest import load_manifest
from dataset.store import Store
from models.evaluation.evaluate import evaluate
from models.evaluation.plan import protocol_for
from models.metrics.extractors import AUTO, LITE0, LITE2, chosen_extractor, unfit_to_rank
from tests.models.evaluation.galleries import Gallery, edges
from tests.models.homes import SIDE_PX, UNSEEN, heads, write_home

SMALL_PX, FAKES = SIDE_PX // 2, 60
Made = dict[str, Any]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("home")
    write_home(root, train=80, evaluated=60)
    return root


def measured(home: Path, side_px: int, *, common_px: int, **spec: Any) -> Made:
    """Evaluates unseen faces of a side: what a perfect generator of that side draws."""
    pictures, labels = heads(UNSEEN, 150)
    generator = Gallery(np.stack([resized(one, side_px) for one in pictures]), labels)
    generator.spec = dataclasses.replace(generator.spec, **spec)
    network, store = edges(), Store(home)
    return evaluate(
        store,
        f"{side_px}-{common_px}",
        protocol_for(
            network, fakes=FAKES, repeats=2, flips=1, psis=(0.5, 1.0), reference_px=common_px
        ),
        generator=generator,
        identity={"generator_sha256": str(side_px)},
        manifest=load_manifest(store, None),
        network=network,
    )


@pytest.fixture(scope="module")
def small(home: Path) -> Made:
    return measured(home, SMALL_PX, common_px=SIDE_PX, trained_on_features=(LITE0,))


def test_perfect_pictures_of_half_the_side_are_like_the_reals_of_that_side(small: Made) -> None:
    assert small["resolution_px"] == SMALL_PX
    assert min(small["precision"], small["recall"]) > 0.6
    assert small["fd_edges"] < 2 * small["real_fd"]
    assert abs(small["kd_edges"]) < 3 * small["kd_edges_se"]
    whole = next(point for point in small["truncation"] if point["psi"] == 1)
    assert whole["recall"] > 0.5
    assert whole["spread"] == pytest.approx(small["spread"], abs=0.1)
    assert 0.9 < small["spread"] < 1.1
    assert small["spread_sigma"] < 0.1
    assert small["label_ap"] > small["label_chance"] + 0.2


def test_what_the_smaller_side_alone_loses_is_beside_the_common_distance(small: Made) -> None:
    common, of_reals = small[f"fd_edges_at{SIDE_PX}"], small[f"real_fd_at{SIDE_PX}"]
    assert common > 3 * small["fd_edges"]
    assert 0.8 < common / of_reals < 1.25
    assert small[f"kd_edges_at{SIDE_PX}"] > 5 * small[f"kd_edges_at{SIDE_PX}_se"] > 0


def test_at_the_common_side_both_numbers_are_one(home: Path) -> None:
    made = measured(home, SIDE_PX, common_px=SIDE_PX)
    for name in ("fd_edges", "kd_edges", "real_fd"):
        assert made[f"{name}_at{SIDE_PX}"] == made[name]
    assert made[f"kd_edges_at{SIDE_PX}_se"] == made["kd_edges_se"]
    assert made["trained_on_features"] == []


def test_larger_pictures_are_reduced_for_the_common_number(home: Path) -> None:
    made = measured(home, SIDE_PX, common_px=SMALL_PX)
    assert min(made["precision"], made["recall"]) > 0.6
    common, of_reals = made[f"fd_edges_at{SMALL_PX}"], made[f"real_fd_at{SMALL_PX}"]
    assert 0.5 < common / of_reals < 2  # not reduced, it is 24 times the reals
    assert abs(made[f"kd_edges_at{SMALL_PX}"]) < 3 * made[f"kd_edges_at{SMALL_PX}_se"]
    assert made["label_ap"] > made["label_chance"] + 0.2


def test_the_reals_have_the_fakes_number_of_pictures_beside_the_fakes(small: Made) -> None:
    assert min(small["real_precision"], small["real_recall"]) > 0.6
    assert 0.9 < small["real_spread"] < 1.1


def test_a_training_that_saw_an_extractors_features_is_judged_by_another(small: Made) -> None:
    assert small["trained_on_features"] == [LITE0]
    assert chosen_extractor(AUTO, small["trained_on_features"]) == LITE2
    assert chosen_extractor(AUTO, []) == LITE0
    assert chosen_extractor(LITE0, [LITE0]) == LITE0  # measured, and ranked by nothing
    assert "--extractor efficientnet_lite2 or --extractor inception" in unfit_to_rank(
        LITE0, [LITE0]
    )
    assert unfit_to_rank(LITE2, [LITE0]) == ""
