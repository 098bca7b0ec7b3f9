"""What a home holds: how far the chain has come, what waits, and who is champion."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crawlers.export import NOT_FETCHED
from crawlers.ledger import Ledger
from crawlers.ledger_file import FILE as LEDGER
from crawlers.sites import board_names, load_sites
from dataset.labels import LABELS_PATH
from dataset.manifest import CURRENT_PATH as MANIFEST_PATH
from dataset.schemas import POSTS, ROWS_A_GROUP, batches, faces_path, posts_path, row_count
from dataset.store import Store
from dataset.takedown import CURRENT_GENERATOR as GENERATOR_PATH
from models.registry.pages import SHEET, distance_in_words, old_protocol
from models.registry.promotion import CHAMPION, TAKEDOWN
from pipeline.commands import as_typed, home_words
from pipeline.settings import Settings, tracking_client


def status_lines(settings: Settings) -> list[str]:
    """Returns a line a stage: what there is, what waits, or the command that makes it."""
    store = settings.store
    lines = [f"home       {settings.home}"]
    lines += [f"data       {settings.data}"] if settings.data != settings.home else []
    lines += [f"{name:<11}{text}" for name, text in _stages(store, settings, _next(settings))]
    return lines + champion_lines(settings)


def _next(settings: Settings) -> str:
    """Returns the command that makes what is missing: of a home without any post, the demo."""
    has_posts = settings.store.state.exists(LEDGER)
    return f"{as_typed()} run{home_words(settings)}" if has_posts else "make demo"


def _stages(store: Store, settings: Settings, following: str) -> Iterator[tuple[str, str]]:
    if store.state.exists(LEDGER):
        yield "ledger", _ledger(store, settings, following)
    for table, path in (("posts", posts_path(store)), ("faces", faces_path(store))):
        there = store.exists(path)
        yield table, f"{row_count(store, path):,} rows" if there else f"none yet: {following}"
    if store.exists(LABELS_PATH):
        labels = store.read_json(LABELS_PATH)["labels"]
        yield "labels", f"{len(labels)}: {', '.join(labels)}"
    if store.exists(MANIFEST_PATH):
        yield "manifest", store.read_json(MANIFEST_PATH)["digest"]
    if store.exists(GENERATOR_PATH):
        current = store.read_json(GENERATOR_PATH)
        kimg = f"{current['id']}, {current['images_seen'] / 1000:,.0f} kimg"
        newest = store.read_json(MANIFEST_PATH)["digest"] if store.exists(MANIFEST_PATH) else ""
        is_old = newest != current.get("manifest", newest)
        yield "generator", f"{kimg}; of an earlier manifest: {following}" if is_old else kimg
        if "evaluation" in current:
            result = store.read_json(current["evaluation"])
            metric = result["metric"]
            mark = old_protocol(result.get("resolution_px"))
            yield "evaluation", f"{metric} {result[metric]:.2f}{mark}"
        else:
            yield "evaluation", f"none yet: {following}"


def _ledger(store: Store, settings: Settings, following: str) -> str:
    """Returns how many posts the ledger has, and how many of them wait for what.

    Where OMOKAGE_SITES is set, only those count that a build of these sites takes.
    """
    kept = pending = unbuilt = 0
    with Ledger.of(store) as ledger:
        built, boards = _built(store), ledger.boards()
        if "sites" in settings.model_fields_set:
            boards_of = board_names(load_sites(settings.sites_file or None))
            enabled = {boards_of.get(site, site) for site in settings.sites}
            boards = [board for board in boards if board in enabled.union(ledger.imports())]
        for board in boards:
            pending += ledger.count(board)["pending"]
            ids = np.array(ledger.kept_ids(board), np.int64)
            kept += len(ids)
            unbuilt += len(ids) - int(np.isin(ids, built.get(board, ())).sum())
    words = f"{kept:,} posts kept"
    if unbuilt:
        words += f", {unbuilt:,} of them not in the table of posts yet: {following}"
    if pending:
        words += f"; {pending:,} pending: crawl or import again"
    return words


def _built(store: Store) -> dict[str, np.ndarray]:
    """Returns by board the numbers of the posts in the table, but those without their picture."""
    if not store.exists(path := posts_path(store)):
        return {}
    columns = ["board", "post_id", "drop_reason"]
    parts = batches(store, path, declared=POSTS, columns=columns, rows=ROWS_A_GROUP)
    table = pa.Table.from_batches(parts)
    there = pc.fill_null(pc.not_equal(table["drop_reason"], NOT_FETCHED), True)
    table = table.filter(there)
    return {
        board: table.filter(pc.equal(table["board"], board))["post_id"].to_numpy()
        for board in pc.unique(table["board"]).to_pylist()
    }


def champion_lines(settings: Settings) -> list[str]:
    """Returns who is champion and where its sample grid lies."""
    tracking = tracking_client(settings)
    holder = tracking.holder(CHAMPION) if tracking.database_exists() else None
    if holder is None:
        return [f"champion   none yet: {_next(settings)}"]
    distance = distance_in_words(holder.tags)
    return [
        f"champion   models:/{tracking.model}@{CHAMPION} is version {holder.version}"
        + (f", {distance}" if distance else ""),
        f"its grid   {settings.store.url(SHEET)}",
        *(
            [f"taken down pictures that it learnt from: {holder.tags[TAKEDOWN]}; train anew"]
            if TAKEDOWN in holder.tags
            else []
        ),
    ]


def training_lines(store: Store) -> list[str]:
    """Returns how long the newest generator was trained, and where its pictures lie."""
    from assets.charts import GROWTH  # Dagster is slow to import, and the demo has done so

    folder = store.read_json(GENERATOR_PATH)["folder"]
    facts = store.read_json(f"{folder}/generator/train.json")
    images, faces = facts["images_seen"], facts["pictures"]
    growth = f"{folder}/{GROWTH}"
    return [
        f"trained    {facts['train_seconds'] / 60:.1f} minutes, {images:,} pictures: each of the "
        f"{faces:,} faces {images / faces:.1f} times",
        *([f"growth     {store.url(growth)}"] if store.exists(growth) else []),
    ]
