"""Homes of drawn heads: manifests of plain or of varied ones, and a home made by the stages."""

import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, ImageDraw

from dataset.cropping import FaceSettings
from dataset.digests import content_digest, pixels_sha256
from dataset.faces import crop_faces
from dataset.labels import LabelSettings, choose_labels
from dataset.manifest import CURRENT_PATH, Manifest, manifest_digest
from dataset.schemas import manifest_schema, write_table
from dataset.store import Store
from models.training.data import TrainingSet
from tests.dataset.home import Home
from tests.models import drawn_heads

LABELS = ("blonde_hair", "blue_hair", "brown_hair", "blue_eyes", "red_eyes")
HAIR = {"blonde_hair": "#f0d070", "blue_hair": "#4060d0", "brown_hair": "#704020"}
EYES = {"blue_eyes": "#3050e0", "red_eyes": "#d02030"}
MANIFEST_DIGEST = "ab" * 32
SIDE_PX = 48  # of varied heads
SEEDS = {"train": 1, "eval": 2}  # of varied heads
UNSEEN = 3  # seed of varied heads that are in no split


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


def heads(seed: int, count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Returns varied heads [N,S,S,3] and their labels [N,L]; SEEDS has those of the splits."""
    return drawn_heads.drawn_heads(count, seed=seed, side_px=SIDE_PX)


def write_manifest(
    root: Path, *, labels: Sequence[str] = LABELS, train: int = 40, evaluated: int = 24
) -> str:
    """Writes a manifest of plain heads as the home's newest; returns its digest.

    More in train are the same ones and new ones. Labels besides those of `head` are on every third.
    """

    def row(number: int) -> Row:
        pixels, names = head(number)
        more = [label for label in labels if label not in LABELS] if number % 3 == 0 else []
        return f"{number:04d}", number, pixels, [*names, *more]

    splits = {
        "train": map(row, range(evaluated, evaluated + train)),
        "eval": map(row, range(evaluated)),
    }
    return _write(root, labels, splits, crop_px=64, eval_frac=0.375).digest


def write_home(root: Path, *, train: int, evaluated: int) -> Manifest:
    """Writes a manifest of varied heads as the home's newest."""

    def rows(split: str, count: int) -> Iterable[Row]:
        for number, (pixels, has) in enumerate(zip(*heads(SEEDS[split], count), strict=True)):
            names = [name for name, one in zip(drawn_heads.LABELS, has, strict=True) if one]
            yield f"{split}{number:05d}", number, pixels, names

    splits = {"train": rows("train", train), "eval": rows("eval", evaluated)}
    return _write(root, drawn_heads.LABELS, splits, crop_px=SIDE_PX, eval_frac=0.4)


Row = tuple[str, int, npt.NDArray[np.uint8], list[str]]  # face_id, post_id, pixels, labels


def _write(
    root: Path,
    labels: Sequence[str],
    rows: Mapping[str, Iterable[Row]],
    *,
    crop_px: int,
    eval_frac: float,
) -> Manifest:
    store, schema = Store(root), manifest_schema(list(labels))
    tables = {}
    for split, heads_of_split in rows.items():
        columns: dict[str, list[object]] = {name: [] for name in schema.names}
        for face_id, post_id, pixels, names in heads_of_split:
            path = f"crops/{face_id}.png"
            store.write_bytes(path, _png(pixels), durable=False)
            sha256 = pixels_sha256(pixels)
            values: dict[str, object] = {
                "face_id": face_id,
                "crop": path,
                "crop_sha256": sha256,
                "split": split,
                "board": "drawn",
                "post_id": post_id,
                "sha256": sha256,
                "labels_by": "board",
                **{label: label in names for label in labels},
            }
            for name, column in columns.items():
                column.append(values.get(name))
        tables[split] = pa.table(columns, schema)
    digests = {split: content_digest(table) for split, table in tables.items()}
    digest = manifest_digest(list(labels), digests)
    folder = f"manifest/{digest}"
    for split, table in tables.items():
        write_table(store, f"{folder}/{split}.parquet", table, declared=schema)
    manifest = Manifest(
        digest=digest,
        folder=folder,
        labels=list(labels),
        train_rows=tables["train"].num_rows,
        eval_rows=tables["eval"].num_rows,
        crop_px=crop_px,
        eval_frac=eval_frac,
        counts=dict.fromkeys(labels, 20),
        made_from={},
        splits=digests,
    )
    store.write_json(f"{folder}/manifest.json", dataclasses.asdict(manifest))
    store.write_json(CURRENT_PATH, {"digest": digest})
    return manifest


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def make_home(root: Path, *, tagged: int, untagged: int, side_px: int = 48) -> Store:
    """Makes posts, faces and labels by the stages: the first `tagged` posts alone have tags."""
    images, labels = drawn_heads.drawn_heads(tagged + untagged, seed=7, side_px=side_px)
    home = Home(Store(str(root)))
    for row, (image, has) in enumerate(zip(images, labels, strict=True)):
        tags = ["solo", *(name for name, one in zip(drawn_heads.LABELS, has, strict=True) if one)]
        home.add(_png(image), tags=tags if row < tagged else ())
    home.write()
    # Drawn heads are all alike: none may fall for the others' sake.
    settings = FaceSettings(
        cropped=True, min_side_px=24, min_sharpness=0, phash_distance=0, thumb_rms_max=0
    )
    with ThreadPoolExecutor(2) as executor:
        crop_faces(home.store, settings, executor)
    choose_labels(home.store, LabelSettings(min_frac=0.02, max_frac=0.9))
    return home.store
