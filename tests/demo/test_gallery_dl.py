"""gallery-dl, a public client, downloads from the board: the dialects are what clients expect."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demo.collection import Entry
from tests.board_fixture import RunningBoard

pytest.importorskip("gallery_dl", reason="gallery-dl comes with the dev extra")

# gallery-dl's name of the family, the path below the board's root, a search that finds what is
# ordinary, and the record's fields that name the file and its md5.
DIALECTS = {
    "danbooru": ("Danbooru", "posts?tags=rating:g+solo", "md5", "tag_string"),
    "moebooru": ("moebooru", "post?tags=rating:s+solo", "md5", "tags"),
    "gelbooru": (
        "gelbooru_v02",
        "index.php?page=post&s=list&tags=rating:general+solo",
        "md5",
        "tags",
    ),
}


def configure(family: str, root: str, into: Path) -> dict[str, Any]:
    return {
        "extractor": {
            family: {"omokage": {"root": root}},
            "base-directory": str(into / "downloads"),
            # One flat folder, files named by id: the comparison does not depend on names.
            "directory": [],
            "filename": "{id}.{extension}",
            "archive": None,
            "cookies": None,
            "sleep-request": 0,
            "postprocessors": [{"name": "metadata", "filename": "{id}.json"}],
        },
        # Mislabelled files are to arrive under their own name, byte for byte.
        "downloader": {"adjust-extensions": False, "mtime": False, "retries": 0},
        "cache": {"file": None},
    }


def is_found(entry: Entry) -> bool:
    return (
        entry.rating == "g"
        and "solo" in entry.all_tags
        and entry.status != "deleted"
        and not entry.banned
    )


@pytest.mark.parametrize("dialect", DIALECTS)
def test_gallery_dl_fetches_files_and_metadata(
    board: RunningBoard, tmp_path: Path, dialect: str
) -> None:
    family, path, md5_key, tags_key = DIALECTS[dialect]
    root = f"{board.url}/{dialect}"
    config = tmp_path / "config.json"
    config.write_text(json.dumps(configure(family, root, tmp_path)))
    command = [sys.executable, "-m", "gallery_dl", "--config-ignore", "--config", str(config)]
    ended = subprocess.run(
        [*command, f"{root}/{path}"], capture_output=True, text=True, timeout=600, check=False
    )
    expected = {entry.post_id: entry for entry in board.collection if is_found(entry)}
    # A downloader stores no empty file.
    empty = {post_id for post_id, entry in expected.items() if entry.size_bytes == 0}
    assert len(expected) > 30
    records = {
        int(file.stem): json.loads(file.read_text())
        for file in (tmp_path / "downloads").glob("*.json")
    }
    assert records.keys() - empty == expected.keys() - empty, ended.stderr
    for post_id in expected.keys() - empty:
        entry, record = expected[post_id], records[post_id]
        name, served = f"{post_id}.{entry.ext}", board.collection.read(entry)
        if entry.film and dialect == "danbooru":
            # Of an ugoira gallery-dl takes the film that Danbooru makes of it.
            name, served = f"{post_id}.webm", board.collection.read_film(entry)
        assert (tmp_path / "downloads" / name).read_bytes() == served
        assert record[md5_key] == entry.md5
        tags = record[tags_key]
        assert (tags.split() if isinstance(tags, str) else tags) == list(entry.all_tags)
        if dialect == "danbooru":
            assert record["tags_artist"] == list(entry.tags["artist"])
