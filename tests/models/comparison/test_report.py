"""Reports in words: the order, the columns, and what is said of faults and of real pictures."""

from typing import Any

from models.comparison.report import CURVES, GRIDS, markdown, ranked, results, stands, table

PLAN = {
    "budget_text": "5 minutes of training each",
    "seed": 0,
    "manifest": "ab" * 32,
    "train_rows": 7209,
    "eval_rows": 782,
}


def outcome(name: str, distance: float, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "state": "measured",
        "preset": f"{name}-small",
        "own": [],
        "images_seen": 73_184,
        "minutes": 5.01,
        "device": "cpu",
        "parameters": 328_835,
        "resolution_px": 64,
        "reference_px": 64,
        "metric": "fd_x",
        "extractor": "x",
        "distance": distance,
        "distance_at128": distance,
        "real_fd_at128": 20.0,
        "sigma": 2.04,
        "fakes": 1000,
        "repeats": 3,
        "protocol_digest": "p",
        "curve": [{"images_seen": 5000, "minutes": 1.0, "score": 900.0}],
        **more,
    }


FAILED = {
    "name": "wgan",
    "state": "failed",
    "fault": "step 9: the loss d is nan;\nTry smaller lr_g",
    "preset": "srresnet-small",
    "own": ["loss=wgan"],
    "images_seen": 640,
    "curve": [],
}


def test_the_best_comes_first_and_the_failed_last() -> None:
    rows = [FAILED, outcome("b", 20.0), outcome("a", 100.0), outcome("c", 3.0)]
    assert [one["name"] for one in ranked(rows)] == ["c", "b", "a", "wgan"]
    assert results(PLAN, rows)["best"] == "c"
    assert results(PLAN, [FAILED])["best"] is None


def test_a_row_has_its_figures_and_no_column_is_empty() -> None:
    figures = {
        "kernel_distance": 1.4567,
        "recall": 0.25,
        "spread": 0.934,
        "hair_colour_hits": 0.581,
    }
    made = table([outcome("a", 512.34, **figures), FAILED])
    head, _, first, second = made.splitlines()
    assert head == (
        "| entrant | what differs | side | pictures seen | minutes | `fd_x` | kernel distance "
        "| recall | spread | hair | parameters of G |"
    )
    assert first == (
        "| **a** | `a-small` | 64 px | 73,184 | 5.0 | 512.3 ± 2.0 | 1.457 | 0.250 | 0.934 | 58% "
        "| 328,835 |"
    )
    assert second == (
        "| **wgan** | `srresnet-small`, `loss=wgan` | – | 640 | – | failed | – | – | – | – | – |"
    )


def test_the_one_preset_of_all_is_not_repeated() -> None:
    rows = [
        outcome("a", 1.0, preset="p", own=["batch=4"]),
        outcome("b", 2.0, preset="p", own=["batch=8"]),
    ]
    assert "`p`" not in table(rows)
    assert "| `batch=4` |" in table(rows)


def test_the_report_tells_what_was_done_and_what_failed_why() -> None:
    rows = [outcome("a", 500.0, real_fd=20.2), outcome("b", 400.0, real_fd=24.8), FAILED]
    page = markdown(results(PLAN, rows))
    assert page.startswith("3 entrants, 5 minutes of training each on cpu, seed 0, on the manifest")
    assert "7,209 faces to learn from and 782 to be measured against" in page
    assert "Real training pictures reach a distance of 20 to 25." in page
    assert "- **wgan** failed: step 9: the loss d is nan; Try smaller lr_g" in page
    assert f"]({CURVES})" in page
    assert f"]({GRIDS})" in page
    assert "Not all" not in page


def test_pictures_that_are_not_there_are_not_shown() -> None:
    page = markdown(results(PLAN, [outcome("a", 5.0)]), pictures={GRIDS: "images/one-grids.jpg"})
    assert "(images/one-grids.jpg)" in page
    assert CURVES not in page


def test_distances_by_other_protocols_are_marked_and_rank_nothing() -> None:
    rows = [outcome("b", 6.0, protocol_digest="q"), outcome("a", 5.0)]
    made = results(PLAN, rows)
    assert made["best"] is None
    assert [one["name"] for one in made["entrants"]] == ["b", "a"]
    assert "**Not ranked.** Not all were measured by one protocol" in markdown(made)


def test_sides_of_one_kind_rank_by_their_own_and_others_at_128_with_their_reals() -> None:
    small = outcome("small", 20.0, distance_at128=420.0, real_fd_at128=365.0)
    large = outcome("large", 90.0, resolution_px=128, distance_at128=90.0, real_fd_at128=116.0)
    smaller = outcome("other", 30.0, distance_at128=400.0, real_fd_at128=365.0)
    assert [one["name"] for one in ranked([smaller, small])] == ["small", "other"]
    assert "at128" not in table([smaller, small])
    made = results(PLAN, [small, smaller, large])
    assert [one["name"] for one in made["entrants"]] == ["large", "other", "small"]
    page = markdown(made)
    assert "| `fd_x` | `fd_x_at128` |" in page
    assert "| 20.0 ± 2.0 | 420.0 (reals 365) |" in page
    assert "`fd_x_at128` is that to the eval split at 128 px" in page


def test_an_extractor_that_a_training_saw_ranks_nothing_and_the_way_out_is_named() -> None:
    rows = [outcome("b", 6.0), outcome("a", 5.0, trained_on_features=["x"])]
    made = results(PLAN, rows)
    assert made["best"] is None
    assert [one["name"] for one in made["entrants"]] == ["b", "a"]
    page = markdown(made)
    assert "**Not ranked.** a: its training saw the features of x" in page
    assert "evaluate with --extractor efficientnet_lite2 or --extractor inception for all" in page
    rows = [outcome("b", 6.0), outcome("a", 5.0, trained_on_features=["another"])]
    assert results(PLAN, rows)["best"] == "a"


def test_outcomes_of_the_old_protocol_are_ranked_among_themselves_and_marked() -> None:
    rows = [outcome("b", 6.0, resolution_px=128), outcome("a", 5.0)]
    for one in rows:
        del one["distance_at128"], one["extractor"]
    made = results(PLAN, rows)
    assert made["best"] == "a"
    page = markdown(made)
    assert "**Old protocol:** the eval split had 128 px" in page
    assert "own side" not in page


def test_an_entrant_is_measured_again_by_other_options() -> None:
    one = outcome("a", 5.0, asked={"fakes": 8, "repeats": 2, "extractor": "auto"})
    assert stands(one, fakes=8, repeats=2, extractor="auto", psi=1.0)
    assert not stands(one, fakes=8, repeats=2, extractor="efficientnet_lite2", psi=1.0)
    assert not stands(one, fakes=8, repeats=2, extractor="auto", psi=0.5)


def test_a_truncation_is_named_beside_the_figures() -> None:
    assert "1,000 fakes of 3 sets each, drawn with psi 0.5;" in markdown(
        results(PLAN, [outcome("a", 5.0, psi=0.5)])
    )
    assert "psi" not in markdown(results(PLAN, [outcome("a", 5.0, psi=1.0)]))


def test_a_report_of_failures_alone_has_no_pictures() -> None:
    page = markdown(results(PLAN, [FAILED, FAILED]))
    assert "![" not in page
    assert page.count("failed:") == 2
