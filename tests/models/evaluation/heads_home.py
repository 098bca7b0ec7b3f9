"""A home whose manifest holds drawn heads, no two of them alike, and other heads besides."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from dataset.digests import content_digest, pixels_sha256
from dataset.manifest import CURRENT_PATH, Manifest, manifest_digest
from dataset.schemas import manifest_schema, write_table
from dataset.store import Store
from tests.models.drawn_heads import LABELS, drawn_heads

SIDE_PX = 48
SEEDS = {"train": 1, "eval": 2}
UNSEEN = 3  # seed of heads that are in no split


def write_home(root: Path, *, train: int, evaluated: int) -> Manifest:
    """Writes a manifest of so many heads as the home's newest."""
    store, schema = Store(root), manifest_schema(list(LABELS))
    counts = {"train": train, "eval": evaluated}
    tables = {}
    for split, count in counts.items():
        images, labels = drawn_heads(count, seed=SEEDS[split], side_px=SIDE_PX)
        columns: dict[str, list[object]] = {name: [] for name in schema.names}
        for number, (pixels, has) in enumerate(zip(images, labels, strict=True)):
            content = io.BytesIO()
            Image.fromarray(pixels).save(content, "PNG")
            path = f"crops/{split}-{number}.png"
            store.write_bytes(path, content.getvalue(), durable=False)
            sha256 = pixels_sha256(pixels)
            values: dict[str, object] = {
                "face_id": f"{split}{number:05d}",
                "crop": path,
                "crop_sha256": sha256,
                "split": split,
                "board": "drawn",
                "post_id": number,
                "sha256": sha256,
                "labels_by": "board",
                **{name: bool(one) for name, one in zip(LABELS, has, strict=True)},
            }
            for name, column in columns.items():
                column.append(values.get(name))
        tables[split] = pa.table(columns, schema)
    splits = {split: content_digest(table) for split, table in tables.items()}
    digest = manifest_digest(list(LABELS), splits)
    for split, table in tables.items():
        write_table(store, f"manifest/{digest}/{split}.parquet", table, declared=schema)
    manifest = Manifest(
        digest=digest,
        folder=f"manifest/{digest}",
        labels=list(LABELS),
        train_rows=train,
        eval_rows=evaluated,
        crop_px=SIDE_PX,
        eval_frac=0.4,
        counts=dict.fromkeys(LABELS, 20),
        made_from={},
        splits=splits,
    )
    store.write_json(f"{manifest.folder}/manifest.json", dataclasses.asdict(manifest))
    store.write_json(CURRENT_PATH, {"digest": digest})
    return manifest


def heads(seed: int, count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Returns heads [N,S,S,3] and their labels [N,L]; SEEDS has those of the splits."""
    return drawn_heads(count, seed=seed, side_px=SIDE_PX)
