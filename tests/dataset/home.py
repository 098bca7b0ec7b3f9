"""A small home written by hand: blobs and posts as the crawler would leave them."""

import datetime
import functools
import hashlib
import io
import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from dataset.faces import FaceSettings, FacesTable, crop_faces
from dataset.manifest import SPLITS, Manifest, read_split
from dataset.schemas import FORMER_POSTS_PATH, POSTS, POSTS_PATH, write_table
from dataset.store import Store, blob_path

NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
HAIR = {"blonde_hair": (240, 214, 120), "blue_hair": (70, 110, 220), "red_hair": (200, 60, 50)}
EYES = {"green_eyes": (60, 170, 90), "brown_eyes": (130, 80, 40)}


@dataclass
class Home:
    """Collects blobs and posts; `write` makes posts.lance of them."""

    store: Store
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self,
        content: bytes,
        *,
        board: str = "demo",
        post_id: int | None = None,
        tags: Iterable[str] = ("solo",),
        drop_reason: str | None = None,
    ) -> str:
        """Stores a PNG as a blob with a post; returns its sha256."""
        sha256 = hashlib.sha256(content).hexdigest()
        self.store.write_bytes(blob_path(sha256, "png"), content, durable=False)
        empty: dict[str, Any] = {name: [] for name in POSTS.names if name.startswith("tags_")}
        self.rows.append(
            {
                **empty,
                "board": board,
                "post_id": len(self.rows) + 1 if post_id is None else post_id,
                "sha256": sha256,
                "ext": "png",
                "rating": "general",
                "tags_general": list(tags),
                "fetched_at": NOW,
                "drop_reason": drop_reason,
            }
        )
        return sha256

    def write(self, rows: Sequence[dict[str, Any]] | None = None) -> None:
        """Writes the table of posts; on an object store as older homes have it."""
        table = pa.Table.from_pylist(list(self.rows if rows is None else rows), schema=POSTS)
        path = POSTS_PATH if self.store.folder else FORMER_POSTS_PATH
        write_table(self.store, path, table, declared=POSTS)


def cropped(
    store: Store,
    settings: FaceSettings | None = None,
    *,
    threads: int = 2,
    judge_again: bool = False,
) -> FacesTable:
    """Crops the faces of a home."""
    with ThreadPoolExecutor(threads) as executor:
        return crop_faces(store, settings or FaceSettings(), executor, judge_again=judge_again)


def rows_of(store: Store, made: Manifest) -> list[dict[str, Any]]:
    """The rows of a manifest, those of train first."""
    splits = (read_split(store, made, split) for split in SPLITS)
    return [row for table in splits for row in table.to_pylist()]


def png(picture: Image.Image) -> bytes:
    """Codes a picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


@functools.cache
def portrait(seed: int, *, side: int = 240) -> Image.Image:
    """Draws a plain face that the cascade finds; hair, eyes, place and backdrop by `seed`."""
    rng = np.random.default_rng(seed)
    hair, eyes = (list(colours.values()) for colours in (HAIR, EYES))
    return _face(rng, side, hair=hair[seed % 3], eyes=eyes[seed % 2])


def portrait_tags(seed: int) -> list[str]:
    """The truth about `portrait(seed)`."""
    return [list(HAIR)[seed % 3], list(EYES)[seed % 2], "smile", "solo"]


def scenery(seed: int, *, side: int = 240) -> Image.Image:
    """Draws soft noise without a face."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (4, 4, 3), np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def _face(
    rng: np.random.Generator,
    side: int,
    *,
    hair: tuple[int, int, int],
    eyes: tuple[int, int, int],
) -> Image.Image:
    """Proportions in half-widths and half-heights of the face; drawn four times as large."""
    big = side * 4
    picture = Image.new("RGB", (big, big), tuple(rng.integers(120, 255, 3).tolist()))
    draw = ImageDraw.Draw(picture)
    for _ in range(6):
        x, y = rng.uniform(0, big, 2).tolist()
        r = float(rng.uniform(0.05, 0.2) * big)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=tuple(rng.integers(90, 255, 3).tolist()))
    cx, cy = (big * (0.5 + rng.uniform(-0.08, 0.08, 2))).tolist()
    w, h = big * 0.21, big * 0.25

    def oval(x: float, y: float, rx: float, ry: float, fill: Any) -> None:
        at = (cx + (x - rx) * w, cy + (y - ry) * h, cx + (x + rx) * w, cy + (y + ry) * h)
        draw.ellipse(at, fill=fill)

    oval(0, -0.15, 1.3, 1.25, hair)
    oval(0, 0, 1, 1, (253, 228, 212))
    dark = tuple(value // 2 for value in eyes)
    for x in (-0.48, 0.48):
        oval(x, 0.18, 0.27, 0.30, (40, 30, 40))
        oval(x, 0.20, 0.25, 0.27, (255, 255, 255))
        oval(x, 0.20, 0.21, 0.26, dark)
        oval(x, 0.28, 0.17, 0.17, eyes)
        oval(x, 0.20, 0.09, 0.12, (15, 10, 20))
        oval(x - 0.08, 0.10, 0.07, 0.07, (255, 255, 255))
    oval(0, 0.5, 0.02, 0.03, (200, 150, 140))
    oval(0, 0.72, 0.12, 0.03, (190, 80, 80))
    locks = np.linspace(-1.05, 1.05, int(rng.integers(5, 8)))
    points = [(cx + x * w, cy - h * 0.75) for x in locks]
    for (x0, y0), (x1, _) in itertools.pairwise(points):
        draw.polygon([(x0, y0), (x1, y0), ((x0 + x1) / 2, cy - h * rng.uniform(0.15, 0.3))], hair)
    draw.pieslice((cx - w, cy - h * 1.05, cx + w, cy - h * 0.2), 180, 360, fill=hair)
    return picture.resize((side, side), Image.Resampling.LANCZOS)
