"""Entries without bytes, for the tests of searches and records."""

from __future__ import annotations

from typing import Any

from demo.collection import Collection, Entry, by_kind, md5_of


class NoBodies:
    """Bodies of a collection that is only searched."""

    def read(self, name: str) -> bytes:
        raise KeyError(name)


def made_entry(post_id: int, **changes: Any) -> Entry:
    fields: dict[str, Any] = {
        "post_id": post_id,
        "body": f"{post_id}.jpg",
        "md5": md5_of(str(post_id).encode()),
        "ext": "jpg",
        "size_bytes": 1000,
        "width": 600,
        "height": 800,
        "rating": "g",
        "tags": by_kind(general=("1girl",)),
        "created_at": 1_790_000_000.0,
        "updated_at": 1_790_000_000.0,
    }
    return Entry(**(fields | changes))


def made_collection(*entries: Entry) -> Collection:
    return Collection(list(entries), NoBodies())
