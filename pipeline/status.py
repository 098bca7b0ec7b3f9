"""What a home holds: how far the chain has come, and who is champion."""

from collections.abc import Iterator

import pyarrow.parquet as pq

from assets.charts import GROWTH
from assets.generator import CURRENT as GENERATOR_PATH
from dataset.labels import LABELS_PATH
from dataset.manifest import CURRENT_PATH as MANIFEST_PATH
from dataset.schemas import FACES_PATH, POSTS_PATH
from dataset.store import Store
from models.registry.pages import SHEET, distance_in_words, old_protocol
from models.registry.promotion import CHAMPION, TAKEDOWN
from pipeline.build import resources
from pipeline.settings import Settings


def status_lines(settings: Settings) -> list[str]:
    """Returns a line a stage: what there is, or the command that makes it."""
    store = Store(settings.home)
    lines = [f"home       {settings.home}"]
    lines += [f"{name:<11}{text}" for name, text in _stages(store)]
    return lines + champion_lines(settings)


def _stages(store: Store) -> Iterator[tuple[str, str]]:
    for table, path in (("posts", POSTS_PATH), ("faces", FACES_PATH)):
        yield table, f"{_rows(store, path):,} rows" if store.exists(path) else "none yet: make demo"
    if store.exists(LABELS_PATH):
        labels = store.read_json(LABELS_PATH)["labels"]
        yield "labels", f"{len(labels)}: {', '.join(labels)}"
    if store.exists(MANIFEST_PATH):
        yield "manifest", store.read_json(MANIFEST_PATH)["digest"]
    if store.exists(GENERATOR_PATH):
        current = store.read_json(GENERATOR_PATH)
        yield "generator", f"{current['id']}, {current['images_seen'] / 1000:,.0f} kimg"
        if "evaluation" in current:
            result = store.read_json(current["evaluation"])
            metric = result["metric"]
            mark = old_protocol(result.get("resolution_px"))
            yield "evaluation", f"{metric} {result[metric]:.2f}{mark}"


def _rows(store: Store, path: str) -> int:
    with store.open(path) as file:
        return int(pq.read_metadata(file).num_rows)


def champion_lines(settings: Settings) -> list[str]:
    """Returns who is champion and where its sample grid lies."""
    tracking = resources(settings)["tracking"].open()
    if settings.tracking_uri.startswith("sqlite:///") and not tracking.database_exists():
        return ["champion   none yet: make demo"]
    holder = tracking.holder(CHAMPION)
    if holder is None:
        return ["champion   none yet: make demo"]
    distance = distance_in_words(holder.tags)
    return [
        f"champion   models:/{tracking.model}@{CHAMPION} is version {holder.version}"
        + (f", {distance}" if distance else ""),
        f"its grid   {Store(settings.home).url(SHEET)}",
        *(
            [f"taken down pictures that it learnt from: {holder.tags[TAKEDOWN]}; train anew"]
            if TAKEDOWN in holder.tags
            else []
        ),
    ]


def training_lines(store: Store) -> list[str]:
    """Returns how long the newest generator was trained, and where its pictures lie."""
    folder = store.read_json(GENERATOR_PATH)["folder"]
    facts = store.read_json(f"{folder}/generator/train.json")
    images, faces = facts["images_seen"], facts["pictures"]
    growth = f"{folder}/{GROWTH}"
    return [
        f"trained    {facts['train_seconds'] / 60:.1f} minutes, {images:,} pictures: each of the "
        f"{faces:,} faces {images / faces:.1f} times",
        *([f"growth     {store.url(growth)}"] if store.exists(growth) else []),
    ]
