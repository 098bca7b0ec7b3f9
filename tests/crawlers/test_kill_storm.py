"""A crawl killed at random points ends like one that nobody disturbed."""

from pathlib import Path

import pytest

from crawlers.export import export_posts
from dataset.store import Store
from tests.crawlers.kill_storm import differences, storm

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("family", "kills"), [("danbooru", 2), ("moebooru", 2), ("gelbooru02", 2)])
def test_a_crawl_killed_at_random_points_ends_like_an_undisturbed_one(
    tmp_path: Path, family: str, kills: int
) -> None:
    made = storm(tmp_path, kills=kills, seed=7, family=family, say=lambda _text: None)
    assert made.differences == []
    assert made.kills == kills

    homes = {name: tmp_path / name for name in ("undisturbed", "killed")}
    blob = next((homes["killed"] / "blobs").rglob("*.png"))
    blob.write_bytes(b"other")
    tables = {
        name: export_posts(Store(home), ["demo", "demo_moebooru", "demo_gelbooru"])
        for name, home in homes.items()
    }
    found = " ".join(differences(homes, tables, made.posts))
    assert "the digests of the tables differ" in found  # the comparison sees what it is to see
    assert "posts are left without their pictures" in found


def test_refreshes_of_an_edited_board_killed_at_random_points_end_like_undisturbed_ones(
    tmp_path: Path,
) -> None:
    made = storm(tmp_path, kills=50, seed=7, family="danbooru", say=lambda _text: None, edits=True)
    assert made.differences == []
    assert made.kills == 50
