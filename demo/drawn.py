"""The drawn collection: painted by a process pool into a folder, and only once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.util
import io
import json
import multiprocessing
import multiprocessing.process
import os
import random
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from demo.collection import (
    EPOCH_S,
    REFUSALS,
    SPOILERS,
    YEAR_S,
    Collection,
    CollectionError,
    Entry,
    FolderBodies,
    Refusal,
    by_kind,
    ext_of,
    md5_of,
    write_atomically,
)
from demo.media import STILLS, encode_animation, encode_still

OnProgress = Callable[[int, int], None]

# Increase it when the encoding of the pictures changes: it invalidates the cache.
_WRITING_VERSION = 3
INDEX = "index.jsonl"
_FIRST_ID = 1_000_000
_ONE_IN = 13  # of 2,200 posts 2,000 are ordinary
_POST_EVERY_S = YEAR_S / 2400
_POSTER_SIDE_PX = 720
_ARTISTS = tuple(f"omokage_painter_{number:02}" for number in range(1, 41))
_GIVEN = ("aki", "haru", "hina", "kaho", "mio", "nagi", "rei", "rin", "sayo", "suzu", "yuki")
_FAMILY = ("asagiri", "hoshino", "kurose", "minase", "shirogane", "tachibana", "usami")
_WORKS = ("lantern_harbor", "the_clockwork_shrine", "seven_small_seas", "rooftop_observatory")
_META_NAMES = frozenset({"highres", "absurdres", "lowres", "commentary", "translated"})
_SOURCES = ("https://drawn.example/works/{}", "https://painters.example/@{artist}/{}", "")


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """One file to paint; `key` names it in the folder."""

    draws: str  # character, scenery, comic or sketch
    seed: int
    encoding: str
    spoil: str | None

    @property
    def key(self) -> str:
        """The file's name without its extension."""
        return "-".join([self.draws, str(self.seed), self.encoding, self.spoil or "whole"])


def drawn_collection(
    folder: Path,
    count: int = 2200,
    seed: int = 0,
    *,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> Collection:
    """Paints (or finds already painted) `count` posts and makes their records.

    The same painter, count and seed give the same collection, and a larger count the same posts
    and newer ones. Some 9 in 10 are ordinary; the others are the kinds of `demo.collection`, each
    of them among the first 58 posts.
    `workers` is the number of painting processes (default: the machine's cores, at most 8);
    1 paints in this process. `on_progress` is called with the numbers of finished and
    of all files; an exception of it ends the painting. The next call resumes an interrupted
    painting.

    Raises:
        CollectionError: `count` is not positive, or `folder` is a file.

    """
    if count < 1:
        raise CollectionError(f"count is {count}; a collection has at least 1 post")
    if folder.exists() and not folder.is_dir():
        raise CollectionError(f"{folder} is not a folder; the drawn pictures need one")
    assigned = _assign(count, seed)
    plans = [_plan(index, refusal, assigned, seed) for index, refusal in enumerate(assigned)]
    home = folder / "drawn" / painter_digest()[:16]
    painted = _paint_missing(
        home,
        list(dict.fromkeys(plans)),
        workers or min(os.cpu_count() or 1, 8),
        on_progress=on_progress,
    )
    ids = _post_ids(count, seed)
    entries = [
        _entry(painted[plan.key], ids[index], assigned[index], rng_name=f"{seed}:{index}")
        for index, plan in enumerate(plans)
    ]
    return Collection(entries, FolderBodies(home))


def painter_digest() -> str:
    """sha256 of the painter's source and the encoding's version."""
    spec = importlib.util.find_spec("demo.painter")
    if spec is None or spec.submodule_search_locations is None:
        raise CollectionError("the package demo.painter is not installed; nothing can be drawn")
    digest = hashlib.sha256(f"writing {_WRITING_VERSION}".encode())
    root = Path(spec.submodule_search_locations[0])
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _assign(count: int, seed: int) -> list[Refusal | None]:
    """Which posts are ordinary (None) and which are of a kind to refuse.

    A post's kind does not depend on `count`: a larger collection keeps its older posts.
    """
    kinds: list[Refusal | None] = [None] * count
    for number, index in enumerate(_refused_indices(count, seed)):
        order = list(REFUSALS)
        random.Random(f"{seed}:kinds:{number // len(order)}").shuffle(order)
        kinds[index] = order[number % len(order)]
    return kinds


def _refused_indices(count: int, seed: int) -> Iterator[int]:
    """One post in each of the first pairs, until every kind was there; then one in each 13."""
    rng = random.Random(f"{seed}:places")
    start, width = 0, 2
    while start < count:
        # The very first post is ordinary: a duplicate needs an older one to copy.
        index = start + (rng.randrange(width) if start else 1)
        if index < count:
            yield index
        start += width
        if start == 2 * len(REFUSALS):
            width = _ONE_IN


def _plan(index: int, refusal: Refusal | None, assigned: list[Refusal | None], seed: int) -> Plan:
    base = seed * 1_000_000
    if refusal is None:
        return Plan("character", base + index, _still_encoding(seed, index), None)
    if refusal.duplicate:
        model = _ordinary_before(index, assigned)
        encoding = _still_encoding(seed, model)
        if refusal.duplicate == "reencoded":
            encoding = "webp" if encoding == "jpg" else "jpg"
        return Plan("character", base + model, encoding, None)
    return Plan(refusal.draws, base + index, refusal.encoding, refusal.spoil)


def _still_encoding(seed: int, index: int) -> str:
    # As on boards: mostly jpg, some png, a few webp.
    return random.Random(f"{seed}:{index}:encoding").choices(STILLS, weights=(80, 15, 5))[0]


def _ordinary_before(index: int, assigned: list[Refusal | None]) -> int:
    return max(other for other in range(index) if assigned[other] is None)


def _post_ids(count: int, seed: int) -> list[int]:
    """Ascending ids with small gaps, as expunged posts leave them."""
    rng = random.Random(f"{seed}:ids")
    ids, last = [], _FIRST_ID
    for _ in range(count):
        last += rng.randint(1, 3)
        ids.append(last)
    return ids


def _paint_missing(
    home: Path, plans: list[Plan], workers: int, *, on_progress: OnProgress | None
) -> dict[str, dict[str, Any]]:
    """Paints what the folder's index does not have; returns what is known by plan key."""
    home.mkdir(parents=True, exist_ok=True)
    keys = {plan.key for plan in plans}
    with _folder_lock(home):
        painted = _read_index(home / INDEX, home)
        missing = [plan for plan in plans if plan.key not in painted]
        done = len(plans) - len(missing)
        if on_progress:
            on_progress(done, len(plans))
        with (
            (home / INDEX).open("a", encoding="utf-8") as index,
            contextlib.closing(_paint_all(missing, home, workers)) as rows,
        ):
            for row in rows:
                index.write(json.dumps(row) + "\n")
                index.flush()
                painted[row["key"]] = row
                done += 1
                if on_progress:
                    on_progress(done, len(plans))
    return {key: row for key, row in painted.items() if key in keys}


@contextlib.contextmanager
def _folder_lock(home: Path) -> Iterator[None]:
    """Locks a folder: one process at a time paints into it."""
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read_index(path: Path, home: Path) -> dict[str, dict[str, Any]]:
    """The rows of the index whose files have the recorded size."""
    if not path.exists():
        return {}
    sizes = {item.name: item.stat().st_size for item in os.scandir(home)}
    rows: dict[str, dict[str, Any]] = {}
    text = path.read_text(encoding="utf-8")
    if text and not text.endswith("\n"):
        # An interrupted run leaves a partial row; the next one must not continue it.
        text = text[: text.rfind("\n") + 1]
        write_atomically(path, text.encode())
    for line in text.splitlines():
        row = json.loads(line)
        beside = {row["poster"], row["film"]} - {None}
        if sizes.get(row["body"]) == row["size_bytes"] and beside <= sizes.keys():
            rows[row["key"]] = row
    return rows


def _paint_all(
    plans: list[Plan], home: Path, workers: int
) -> Generator[dict[str, Any], None, None]:
    if workers == 1 or len(plans) <= 1:
        for plan in plans:
            yield paint(plan, home)
        return
    # spawn: a fork would copy the locks of the board's running threads.
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(
        min(workers, len(plans)), mp_context=context, initializer=_init_worker
    )
    try:
        futures = [pool.submit(paint, plan, home) for plan in plans]
        for future in concurrent.futures.as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _init_worker() -> None:
    """A painting process ignores Ctrl-C and exits with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


def paint(plan: Plan, home: Path) -> dict[str, Any]:
    """Paints one plan into the folder; returns its row of the index."""
    from demo import painter  # only the painting processes need it

    draw = {
        "character": painter.draw,
        "scenery": painter.draw_scenery,
        "comic": painter.draw_comic,
        "sketch": painter.draw_sketch,
    }[plan.draws]
    drawing = draw(plan.seed)
    size, duration_s = drawing.image.size, None
    if plan.encoding in STILLS:
        body = encode_still(drawing.image, plan.encoding)
    else:
        body, size, duration_s = encode_animation(drawing.image, plan.encoding)
    if plan.spoil:
        body = SPOILERS[plan.spoil](body)
    name = f"{plan.key}.{ext_of(plan.encoding)}"
    write_atomically(home / name, body)
    film = None
    if plan.encoding == "zip":
        film = f"{plan.key}.film.webm"
        write_atomically(home / film, encode_animation(drawing.image, "webm")[0])
    faces = drawing.faces if duration_s is None else ()
    return {
        "key": plan.key,
        "body": name,
        "md5": md5_of(body),
        "size_bytes": len(body),
        "width": size[0],
        "height": size[1],
        "duration_s": duration_s,
        "tags": list(drawing.tags),
        "faces": [[round(side) for side in (face.x, face.y, face.w, face.h)] for face in faces],
        "film": film,
        "poster": _write_poster(plan, drawing.image, home),
    }


def _write_poster(plan: Plan, picture: Image.Image, home: Path) -> str | None:
    if plan.encoding in STILLS and plan.spoil is None:
        return None
    small = picture.copy()
    small.thumbnail((_POSTER_SIDE_PX, _POSTER_SIDE_PX))
    made = io.BytesIO()
    small.save(made, "JPEG", quality=85)
    name = f"{plan.key}.poster.jpg"
    write_atomically(home / name, made.getvalue())
    return name


def _entry(row: dict[str, Any], post_id: int, refusal: Refusal | None, *, rng_name: str) -> Entry:
    """The record of one painted file."""
    rng = random.Random(rng_name)
    kind = refusal or Refusal("ordinary", "crop")
    # Ids grow by 2 per post on average.
    created_at = round(EPOCH_S - YEAR_S + (post_id - _FIRST_ID) / 2 * _POST_EVERY_S, 3)
    artist = rng.choice(_ARTISTS)
    uploader_id = rng.randint(1, 30)
    md5 = md5_of(row["md5"].encode()) if kind.wrong_md5 else row["md5"]
    return Entry(
        post_id=post_id,
        body=row["body"],
        md5=md5,
        ext=kind.ext or row["body"].rpartition(".")[2],
        size_bytes=row["size_bytes"],
        width=row["width"],
        height=row["height"],
        rating=kind.rating,
        tags=_tags(row, kind, artist, rng),
        created_at=created_at,
        updated_at=round(created_at + rng.uniform(60, 30 * 86400), 3),
        score=rng.randint(-2, 60),
        fav_count=rng.randint(0, 80),
        source=rng.choice(_SOURCES).format(rng.randint(10_000, 99_999), artist=artist),
        uploader_id=uploader_id,
        uploader=f"uploader_{uploader_id:02}",
        approver_id=None if kind.status == "pending" else rng.choice([None, 3, 7]),
        status=kind.status,
        banned=kind.banned,
        duration_s=row["duration_s"],
        poster=row["poster"],
        film=row["film"],
        faces=tuple((x, y, w, h) for x, y, w, h in row["faces"]),
        refusal=refusal.name if refusal else None,
    )


def _tags(
    row: dict[str, Any], kind: Refusal, artist: str, rng: random.Random
) -> dict[str, tuple[str, ...]]:
    painted = set(row["tags"])
    meta = {name for name in painted if name in _META_NAMES} | set(kind.meta)
    if row["width"] >= 1600 or row["height"] >= 1200:
        meta.add("highres")
    general = (painted - meta - {"original"}) | set(kind.general)
    character: tuple[str, ...] = ()
    work = "original"
    if "solo" in painted and rng.random() < 0.4:
        work = rng.choice(_WORKS)
        character = (f"{rng.choice(_FAMILY)}_{rng.choice(_GIVEN)}_({work})",)
    return by_kind(
        general=tuple(general),
        character=character,
        copyright=(work,),
        artist=(artist,),
        meta=tuple(meta),
    )
