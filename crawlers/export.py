"""The posts table: one row for each post in the ledger, with the takedown list applied again."""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from crawlers.audit import (
    TRASH_DAYS,
    Audit,
    check_losses,
    check_orphans,
    compare,
    empty_trash,
    sweep,
)
from crawlers.ledger import BLOB_MISSING, TAKEDOWN, Ledger, Row
from crawlers.ledger_file import FILE
from crawlers.post import Post
from crawlers.sites import Site, board_names, board_takedowns, load_sites
from dataset.errors import EmptyStageError, listed
from dataset.media import Media, has_blob
from dataset.policy import Takedowns, drop_reason
from dataset.schemas import POSTS, POSTS_PATH, check_table
from dataset.store import BLOBS, Store, blob_path

BATCH = 2_000
NOT_FETCHED = "not_fetched"  # its picture waits for the next crawl


@dataclasses.dataclass(frozen=True)
class PostsTable:
    """The table that was made: `refused` counts the drop reasons and what was taken down."""

    path: str
    rows: int
    kept: int
    digest: str  # over all content but fetched_at
    refused: dict[str, int]
    requeued: int = 0  # kept posts whose blob was missing or cut short: the next crawl fetches them
    boards: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)  # kept, refused
    swept: int = 0  # files under blobs/ that no post named: now in the trash, or unfinished


def export_posts(
    store: Store,
    sites: Sequence[str],
    *,
    registry: Mapping[str, Site] | None = None,
    refetch_missing: bool = False,
    trash_orphans: bool = False,
    trash_days: int = TRASH_DAYS,
) -> PostsTable:
    """Builds `posts.parquet` from the ledger: posts of the sites' boards and of all imports.

    The rows are sorted by (board, post_id).

    The policy, the excluded tags of the board's sites and the takedown list are applied again: what
    is on the list loses its row here and its blob. A kept post whose blob is gone is queued for the
    next crawl; in a build that loses none, a blob that no post names is moved to the trash, and
    what has lain there for `trash_days` is removed. `registry` says which board a site shows
    (default: the built-in one).

    Raises EmptyStageError if there is no post to keep, ConfigError for a damaged takedown list. And
    StoreError, before anything is changed, if `blobs/` is another home's, if more blobs are missing
    than single accidents explain (refetch_missing: queue them all), or if more of them belong to no
    post (trash_orphans: move them all).
    """
    registry = load_sites() if registry is None else registry
    names = board_names(registry)
    crawled = {names.get(site, site) for site in sites}
    if not store.exists(FILE) and not store.files(BLOBS):
        raise EmptyStageError(
            f"{store.url(FILE)} is not there: crawl a site first, or import pictures"
        )
    with Ledger.of(store, refetch_missing=refetch_missing) as ledger:
        takedowns = board_takedowns(store, names, crawled=ledger.boards())
        covered = ledger.covered(takedowns)
        found = _but_taken(compare(store, ledger), covered)
        if not refetch_missing:
            check_losses(store, found)
        if not trash_orphans:
            check_orphans(store, found)
        ledger.keep_found(functools.partial(has_blob, store))
        boards = sorted(crawled.union(ledger.imports()))
        _take_down(ledger, store, covered)
        build = _Build(store, registry, lost=frozenset(found.lost))
        with build.writing() as write:
            for row in ledger.rows(boards):
                write(row, takedowns)
        ledger.requeue(build.lost, BLOB_MISSING)
        taken = {board: ledger.taken_down([board]) for board in boards}
        swept = []
        if not found.lost:  # where something is missing, nothing else is removed
            swept = sweep(store, ledger, found, all_orphans=trash_orphans)
            empty_trash(store, days=trash_days)
    refused = collections.Counter(build.refused)
    refused.update({TAKEDOWN: sum(taken.values())})
    counts = {reason: count for reason, count in sorted(refused.items()) if count}
    if not build.kept:
        raise EmptyStageError(_nothing(boards, build.rows, counts))
    return PostsTable(
        path=POSTS_PATH,
        rows=build.rows,
        kept=build.kept,
        digest=build.digest.hexdigest(),
        refused=counts,
        requeued=len(build.lost),
        boards={
            board: {
                "kept": build.kept_of[board],
                "refused": build.rows_of[board] - build.kept_of[board] + taken[board],
            }
            for board in boards
        },
        swept=len(swept),
    )


class _Build:
    """Collects rows into batches, writes them, counts and digests them."""

    def __init__(self, store: Store, registry: Mapping[str, Site], *, lost: frozenset[str]) -> None:
        self._store = store
        self._lost = lost  # paths of blobs that are missing or cut short
        self._excluded: dict[str, set[str]] = {}  # by board: what any of its sites excludes
        for site in registry.values():
            self._excluded.setdefault(site.board, set()).update(site.excluded_tags)
        self._batch: list[dict[str, Any]] = []
        self.rows = 0
        self.kept = 0
        self.refused: collections.Counter[str] = collections.Counter()
        self.rows_of: collections.Counter[str] = collections.Counter()  # by board
        self.kept_of: collections.Counter[str] = collections.Counter()
        self.lost: list[Post] = []
        self.digest = hashlib.sha256()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Any]:
        """Yields the function that adds a row; the table is there when the block has ended."""
        with (
            self._store.writing(POSTS_PATH) as file,
            pq.ParquetWriter(file, POSTS, compression="zstd") as writer,
        ):

            def write(row: Row, takedowns: Takedowns) -> None:
                self._add(row, takedowns)
                if len(self._batch) >= BATCH:
                    self._flush(writer)

            yield write
            self._flush(writer)

    def _add(self, row: Row, takedowns: Takedowns) -> None:
        if row.reason == TAKEDOWN and row.state == "refused":
            return
        media, reason = row.media, row.reason
        if row.state == "pending":
            media, reason = None, NOT_FETCHED
        elif media is not None and blob_path(media.sha256, media.ext) in self._lost:
            self.lost.append(row.post)
            media, reason = None, NOT_FETCHED
        elif media is not None:
            excluded = self._excluded.get(row.post.board, ())
            reason = drop_reason(row.post, takedowns, excluded=excluded)  # stricter by now, perhaps
        values = _values(row.post, media, reason)
        self._batch.append(values)
        self.digest.update(_digested(values))
        self.rows += 1
        self.rows_of[row.post.board] += 1
        if reason is None:
            self.kept += 1
            self.kept_of[row.post.board] += 1
        else:
            self.refused[reason] += 1

    def _flush(self, writer: pq.ParquetWriter) -> None:
        table = pa.Table.from_pylist(self._batch, schema=POSTS)
        check_table(table, POSTS, where=self._store.url(POSTS_PATH))
        writer.write_table(table)
        self._batch.clear()


def _but_taken(found: Audit, covered: Sequence[Row]) -> Audit:
    """Returns what was found without losses on the takedown list, by which those blobs went.

    A killed takedown, or an older ledger put back after one, still names them.
    """
    kept = [row.media for row in covered if row.media and row.state == "kept"]
    taken = {blob_path(media.sha256, media.ext) for media in kept}
    missing, wrong_size = (
        tuple(path for path in paths if path not in taken)
        for paths in (found.missing, found.wrong_size)
    )
    named = found.named - len(taken)
    return dataclasses.replace(found, named=named, missing=missing, wrong_size=wrong_size)


def _take_down(ledger: Ledger, store: Store, covered: Sequence[Row]) -> None:
    """Removes the blobs on the takedown list, whoever else posted the same bytes; marks the rows.

    The file goes first: killed in between, the next build finds the row and does it again.
    """
    for row in covered:
        if row.media is not None:
            _remove_blob(ledger, store, row.media)
        ledger.refuse(row.post, TAKEDOWN)
    for media in ledger.blobs_of_taken():  # the same bytes, brought by a post that is not listed
        _remove_blob(ledger, store, media)


def _remove_blob(ledger: Ledger, store: Store, media: Media) -> None:
    store.remove(blob_path(media.sha256, media.ext))
    ledger.take_down_blob(media.sha256)


def _values(post: Post, media: Media | None, reason: str | None) -> dict[str, Any]:
    values = {name: getattr(post, name) for name in POSTS.names if hasattr(post, name)}
    values.update(sha256=None, drop_reason=reason)
    if media is not None:
        values.update(sha256=media.sha256, ext=media.ext, width=media.width, height=media.height)
    return values


def _digested(values: dict[str, Any]) -> bytes:
    content = {key: value for key, value in values.items() if key != "fetched_at"}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return f"{text}\n".encode()


def _nothing(boards: Sequence[str], rows: int, refused: dict[str, int]) -> str:
    where = ", ".join(boards)
    if taken := refused.get(TAKEDOWN, 0) if not rows else 0:
        return f"all {taken:,} posts of {where} were taken down: crawl or import others"
    if not rows:
        return f"the ledger has no post of {where}: crawl a site first, or import pictures"
    reasons = listed([f"{reason}: {count:,}" for reason, count in refused.items()])
    text = f"none of the {rows:,} posts of {where} may be used:\n{reasons}"
    return f"{text}\nThe next crawl or import fetches them." if NOT_FETCHED in refused else text
