"""A tiny training set of plain drawn heads, the same as arrays and as a home with a manifest."""

import dataclasses
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from PIL import Image, ImageDraw

from dataset.digests import content_digest, pixels_sha256
from dataset.manifest import CURRENT_PATH, Manifest, manifest_digest
from dataset.schemas import manifest_schema, write_table
from dataset.store import Store
from models.training.data import TrainingSet

LABELS = ("blonde_hair", "blue_hair", "brown_hair", "blue_eyes", "red_eyes")
HAIR = {"blonde_hair": "#f0d070", "blue_hair": "#4060d0", "brown_hair": "#704020"}
EYES = {"blue_eyes": "#3050e0", "red_eyes": "#d02030"}
MANIFEST_DIGEST = "ab" * 32


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    yield
    torch.set_num_threads(before)


def head(number: int) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Draws head `number` at 64 px and says its labels."""
    hair, eyes = list(HAIR)[number % 3], list(EYES)[number // 3 % 2]
    picture = Image.new("RGB", (64, 64), "#c0e0c0")
    pen = ImageDraw.Draw(picture)
    shift = number % 5 - 2
    pen.ellipse((8 + shift, 2, 56 + shift, 60), fill=HAIR[hair])
    pen.ellipse((16 + shift, 22, 48 + shift, 58), fill="#ffe0d0")
    for x in (22, 36):
        pen.ellipse((x + shift, 34, x + 7 + shift, 44), fill=EYES[eyes])
    return np.asarray(picture), [hair, eyes]


def training_set(count: int = 48) -> TrainingSet:
    """The first `count` heads as arrays."""
    heads = [head(number) for number in range(count)]
    images = np.stack([pixels.transpose(2, 0, 1) for pixels, _ in heads])
    labels = np.array([[name in names for name in LABELS] for _, names in heads], dtype=np.uint8)
    return TrainingSet(images, labels, LABELS, MANIFEST_DIGEST)


@pytest.fixture(scope="session")
def reals() -> TrainingSet:
    return training_set()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose manifest has 40 heads in train and 24 in eval."""
    root = tmp_path_factory.mktemp("home")
    write_manifest(root)
    return root


def write_manifest(
    root: Path, *, labels: Sequence[str] = LABELS, train: int = 40, evaluated: int = 24
) -> str:
    """Writes a manifest of heads as the home's newest; returns its digest.

    More in train are the same ones and new ones. Labels besides those of `head` are on every third.
    """
    store = Store(root)
    schema = manifest_schema(list(labels))
    numbers = {"eval": range(evaluated), "train": range(evaluated, evaluated + train)}
    tables = {}
    for split in ("train", "eval"):
        columns: dict[str, list[object]] = {name: [] for name in schema.names}
        for number in numbers[split]:
            pixels, names = head(number)
            if number % 3 == 0:
                names += [label for label in labels if label not in LABELS]
            content = io.BytesIO()
            Image.fromarray(pixels).save(content, "PNG")
            path = f"crops/{number}.png"
            store.write_bytes(path, content.getvalue(), durable=False)
            sha256 = pixels_sha256(pixels)
            values = {
                "face_id": f"{number:04d}",
                "crop": path,
                "crop_sha256": sha256,
                "split": split,
                "board": "drawn",
                "post_id": number,
                "sha256": sha256,
                "labels_by": "board",
            }
            for name, value in {**values, **{label: label in names for label in labels}}.items():
                columns[name].append(value)
        tables[split] = pa.table(columns, schema)
    splits = {split: content_digest(table) for split, table in tables.items()}
    digest = manifest_digest(list(labels), splits)
    folder = f"manifest/{digest}"
    for split, table in tables.items():
        write_table(store, f"{folder}/{split}.parquet", table, declared=schema)
    manifest = Manifest(
        digest=digest,
        folder=folder,
        labels=list(labels),
        train_rows=train,
        eval_rows=evaluated,
        crop_px=64,
        eval_frac=0.375,
        counts=dict.fromkeys(labels, 20),
        made_from={},
        splits=splits,
    )
    store.write_json(f"{folder}/manifest.json", dataclasses.asdict(manifest))
    store.write_json(CURRENT_PATH, {"digest": digest})
    return digest
