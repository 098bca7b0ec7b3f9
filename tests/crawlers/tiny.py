"""A board of tiny pictures, made in memory: quick to serve, quick to check."""

import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from demo.collection import Collection, Entry, by_kind, md5_of
from tests.demo.tiny_posts import InMemory, made_entry


def tiny_picture(number: int) -> bytes:
    """A PNG of 16x16 pixels that no other number gives."""
    pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def tiny_entry(number: int, body: bytes, **changes: Any) -> Entry:
    fields: dict[str, Any] = {
        "body": f"{number}.png",
        "md5": md5_of(body),
        "ext": "png",
        "size_bytes": len(body),
        "width": 16,
        "height": 16,
        "tags": by_kind(general=("1girl", "solo"), artist=(f"painter_{number % 7}",)),
        "created_at": 1_790_000_000.0 + number,
        "updated_at": 1_790_000_000.0 + number,
    }
    return made_entry(number, **(fields | changes))


def tiny_collection(
    numbers: Iterable[int], changes: Mapping[int, Mapping[str, Any]] | None = None
) -> Collection:
    """A collection of whole pictures; `changes` of records by post number."""
    bodies = {f"{number}.png": tiny_picture(number) for number in numbers}
    entries = [
        tiny_entry(number, bodies[f"{number}.png"], **(changes or {}).get(number, {}))
        for number in (int(name.removesuffix(".png")) for name in bodies)
    ]
    return Collection(entries, InMemory(bodies))


def mixed_collection(count: int) -> Collection:
    """Of `count` posts, one in ten is refused by its record or its file, one in ten a duplicate."""
    numbers = range(1, count + 1)
    bodies = {f"{number}.png": tiny_picture(number) for number in numbers}
    changes: dict[int, dict[str, Any]] = {}
    for number in numbers:
        if number % 10 == 3:
            changes[number] = {"rating": "s"}
        elif number % 40 == 7:
            changes[number] = {"md5": md5_of(f"{number}".encode())}  # not that of its file
        elif number % 40 == 17:
            bodies[f"{number}.png"] = bodies[f"{number}.png"][:-40]
            changes[number] = {"poster": "1.png"}  # thumbnails are made of a whole picture
        elif number % 10 == 9:
            bodies[f"{number}.png"] = bodies[f"{number - 1}.png"]
    entries = [
        tiny_entry(number, bodies[f"{number}.png"], **changes.get(number, {})) for number in numbers
    ]
    return Collection(entries, InMemory(bodies))
