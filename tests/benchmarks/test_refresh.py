"""The benchmark of a refresh measures every stage of a home that was added to."""

import json

import pytest

from benchmarks import refresh
from benchmarks.likeness import COPIES

pytestmark = pytest.mark.slow


def test_every_stage_is_measured_after_new_posts_came_in(capfd: pytest.CaptureFixture[str]) -> None:
    beside = ["posts_sheet", "posts_kept", "faces_schema"]
    refresh.main(["--posts", "600", "--new", "40", "--tags", "12", "--stages", *beside])
    result = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (result["benchmark"], result["unit"]) == ("refresh", "s")
    made = result["stages"]["600"]
    assert list(made) == [*refresh.CHAIN, *beside]
    assert result["value"] == pytest.approx(sum(one["seconds"] for one in made.values()), abs=0.02)
    assert made["posts"]["kept"] == 640
    assert made["faces"]["cropped"] == 40  # the made-up shards stand as if they had been built
    assert made["faces"]["dropped"] == {"near_duplicate": 600 // COPIES - 1}
    assert made["manifest"]["rows"] == made["faces"]["kept"]
    assert made["posts_kept"]["passed"]
    assert made["faces_schema"]["passed"]
    assert all(one["before_mb"] <= one["peak_mb"] < 1_000 for one in made.values())
