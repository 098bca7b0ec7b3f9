"""The posts table: one row for each post in the ledger, with the takedown list applied again."""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

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
from dataset import tables
from dataset.digests import ROW_DIGEST, SumDigest
from dataset.errors import EmptyStageError, SchemaError, listed
from dataset.media import Media, has_blob
from dataset.policy import EXCLUDED_TAGS, STILL_EXTS, Takedowns, drop_reason
from dataset.schemas import DIGEST, FORMER_POSTS_PATH, POSTS, POSTS_PATH, check_table
from dataset.store import BLOBS, Store, blob_path, digest_of

KEY = ("board", "post_id")
BATCH = 2_000  # rows that are held as Python objects
MERGED = 20_000  # rows of a merge
SCANNED = 65_536  # rows of a pass over few columns
# Beside the declared columns: the ledger's change that a row shows. Its digest leaves out
# fetched_at. In the schema's metadata: the rules that it was built by, and the ledger's home.
CHANGED = "_changed"
RULES, LEDGER = b"rules", b"ledger"
_STORED = POSTS.append(pa.field(CHANGED, pa.int64(), nullable=False)).append(
    pa.field(DIGEST, ROW_DIGEST, nullable=False)
)
NOT_FETCHED = "not_fetched"  # its picture waits for the next crawl


@dataclasses.dataclass(frozen=True)
class PostsTable:
    """The table that was made: `refused` counts the drop reasons and what was taken down."""

    path: str
    rows: int
    kept: int
    digest: str  # over all content but fetched_at, whatever the order of the rows
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
    """Brings the table of posts up to the ledger: posts of the sites' boards and of all imports.

    Only rows that changed since its last build are written. All are, if the policy, the excluded
    tags of the boards' sites or the boards did, and judged anew. The takedown list is applied at
    every build: what is on it loses its row here and its blob.

    A kept post whose blob is gone is queued for the next crawl; in a build that loses none, a blob
    that no post names is moved to the trash, and what has lain there for `trash_days` is removed.
    `registry` says which board a site shows (default: the built-in one).

    Raises EmptyStageError if there is no post to keep, ConfigError for a damaged takedown list. And
    StoreError, before anything is changed, if `blobs/` is another home's, if more blobs are missing
    than single accidents explain (refetch_missing: queue them all), or if more of them belong to no
    post (trash_orphans: move them all).
    """
    registry = load_sites() if registry is None else registry
    names = board_names(registry)
    crawled = {names.get(site, site) for site in sites}
    if not store.state.exists(FILE) and not store.files(BLOBS):
        raise EmptyStageError(
            f"{store.state.url(FILE)} is not there: crawl a site first, or import pictures"
        )
    with Ledger.of(store, refetch_missing=refetch_missing) as ledger:
        takedowns = board_takedowns(store, names, crawled=ledger.boards())
        entries = {name: sorted(value) for name, value in dataclasses.asdict(takedowns).items()}
        takedown_list, last = digest_of(entries), ledger.last_change()
        covered = ledger.covered(takedowns, after=ledger.applied(takedown_list))
        found = _but_taken(compare(store, ledger), covered)
        if not refetch_missing:
            check_losses(store, found)
        if not trash_orphans:
            check_orphans(store, found)
        ledger.keep_found(functools.partial(has_blob, store))
        boards = sorted(crawled.union(ledger.imports()))
        _take_down(ledger, store, covered)
        if takedowns:
            ledger.note_applied(takedown_list, last)
        requeued = ledger.requeue((Path(path).stem for path in found.lost), BLOB_MISSING)
        table = _build(store, ledger, _Judge(boards, registry, takedowns))
        taken = {board: ledger.taken_down([board]) for board in boards}
        swept = []
        if not found.lost:  # where something is missing, nothing else is removed
            swept = sweep(store, ledger, found, all_orphans=trash_orphans)
            empty_trash(store, days=trash_days)
    refused = table.refused + collections.Counter({TAKEDOWN: sum(taken.values())})
    counts = {reason: count for reason, count in sorted(refused.items()) if count}
    if not table.kept:
        raise EmptyStageError(_nothing(boards, table.rows, counts))
    return PostsTable(
        path=POSTS_PATH,
        rows=table.rows,
        kept=table.kept,
        digest=table.digest,
        refused=counts,
        requeued=requeued,
        boards={
            board: {
                "kept": table.kept_of[board],
                "refused": table.rows_of[board] - table.kept_of[board] + taken[board],
            }
            for board in boards
        },
        swept=len(swept),
    )


class _Judge:
    """Makes rows of the table from rows of the ledger, by the rules of this build.

    rules: digest of all that a row depends on beside the ledger's own. A change of `drop_reason`
    itself must raise `version`, or rows that did not change keep their old reasons.
    """

    def __init__(
        self, boards: Sequence[str], registry: Mapping[str, Site], takedowns: Takedowns
    ) -> None:
        self.boards = boards
        self._takedowns = takedowns
        self._excluded: dict[str, set[str]] = {board: set() for board in boards}
        for site in registry.values():  # what any of a board's sites excludes
            self._excluded.setdefault(site.board, set()).update(site.excluded_tags)
        excluded = {board: sorted(self._excluded[board]) for board in boards}
        always = [sorted(EXCLUDED_TAGS), sorted(STILL_EXTS)]
        self.rules = digest_of({"version": 1, "excluded": excluded, "always": always})

    def row(self, row: Row, *, seen: int) -> dict[str, Any] | None:
        """Returns the row of a post as of the ledger's change number `seen`.

        None if it was taken down.
        """
        if (row.state, row.reason) == ("refused", TAKEDOWN):
            return None
        media, reason = row.media, row.reason
        if row.state == "pending":
            media, reason = None, NOT_FETCHED
        elif media is not None:
            excluded = self._excluded[row.post.board]
            reason = drop_reason(row.post, self._takedowns, excluded=excluded)  # stricter by now?
        values = _values(row.post, media, reason)
        digest = hashlib.blake2b(_digested(values), digest_size=ROW_DIGEST.byte_width).digest()
        return {**values, CHANGED: min(row.changed, seen), DIGEST: digest}


def _build(store: Store, ledger: Ledger, judge: _Judge) -> "_Summary":
    """Brings the table up to the ledger: by the rows that changed, or wholly under new rules.

    A table of which a file is missing or damaged is built wholly, too.
    """
    with contextlib.suppress(SchemaError):
        seen = _seen(store, ledger, judge.rules)
        if seen is not None:
            _merge_changes(store, ledger, judge, seen=seen)
            tables.purge_marked(store, POSTS_PATH)  # of a build that was killed
            tables.tidy(store, POSTS_PATH)
            return _Summary.of(store)
    _write_all(store, ledger, judge)
    store.remove(FORMER_POSTS_PATH)
    if ledger.taken_down(ledger.boards()) and tables.has_history(store, POSTS_PATH):
        tables.purge(store, POSTS_PATH)  # the version before may have what was taken down
    return _Summary.of(store)


def _seen(store: Store, ledger: Ledger, rules: str) -> int | None:
    """Returns the change of the ledger up to which the table holds all; None: build it anew.

    So it is if there is no table that can be read, if it was built by other rules, or if the ledger
    is another one, or an older copy that does not know the newest row.
    """
    if not store.exists(POSTS_PATH) or not tables.is_whole(store, POSTS_PATH):
        return None
    schema = tables.schema_of(store, POSTS_PATH)
    built_by = {RULES: rules.encode(), LEDGER: ledger.identity().encode()}
    if not built_by.items() <= (schema.metadata or {}).items():
        return None
    newest, key = 0, None
    columns = [CHANGED, "board", "post_id"]
    for batch in tables.scan(store, POSTS_PATH, columns=columns, rows=SCANNED):
        highest = pc.max(batch[CHANGED]).as_py()
        if highest is not None and highest > newest:
            at = pc.index(batch[CHANGED], highest).as_py()
            newest, key = highest, (batch["board"][at].as_py(), batch["post_id"][at].as_py())
    return newest if key is None or ledger.change_of(*key) >= newest else None


def _write_all(store: Store, ledger: Ledger, judge: _Judge) -> None:
    seen = ledger.last_change()  # what changes from now on comes again in the next build

    def parts() -> Iterator[pa.RecordBatch]:
        held: list[dict[str, Any]] = []
        for row in ledger.rows(judge.boards):
            if values := judge.row(row, seen=seen):
                held.append(values)
            if len(held) >= BATCH:
                yield from _table(store, held).to_batches()
                held = []
        yield from _table(store, held).to_batches()

    built_by = {**POSTS.metadata, RULES: judge.rules, LEDGER: ledger.identity()}
    tables.write(store, POSTS_PATH, parts(), schema=_STORED.with_metadata(built_by))


def _merge_changes(store: Store, ledger: Ledger, judge: _Judge, *, seen: int) -> None:
    """Merges page by page, so that a build that is killed goes on from its last page."""
    last = ledger.last_change()
    changes = itertools.takewhile(lambda row: row.changed <= last, ledger.changes(seen))
    while rows := list(itertools.islice(changes, MERGED)):
        # A crawl may change a row meanwhile, which then comes twice.
        newest = {(row.post.board, row.post.post_id): row for row in rows}
        ours = {key: row for key, row in newest.items() if key[0] in judge.boards}
        values = {key: judge.row(row, seen=last) for key, row in ours.items()}
        # Before the others, which move `seen` on: killed in between, it is done again.
        _delete(store, [key for key, row in values.items() if row is None])
        if kept := list(filter(None, values.values())):
            tables.merge(store, POSTS_PATH, _table(store, kept), key=KEY)


def _delete(store: Store, keys: Sequence[tuple[str, int]]) -> None:
    """Deletes rows of what was taken down, from the files of earlier versions too."""
    if keys:
        tables.mark(store, POSTS_PATH)
    for board, of_board in itertools.groupby(sorted(keys), key=operator.itemgetter(0)):
        numbers = ", ".join(str(post_id) for _, post_id in of_board)
        tables.delete(store, POSTS_PATH, f"board = '{board}' AND post_id IN ({numbers})")
    tables.purge_marked(store, POSTS_PATH)


def _table(store: Store, rows: list[dict[str, Any]]) -> pa.Table:
    table = pa.Table.from_pylist(rows, schema=_STORED)
    check_table(table, POSTS, where=store.url(POSTS_PATH))
    return table


@dataclasses.dataclass(frozen=True)
class _Summary:
    """What the table holds, by one pass over three small columns."""

    rows_of: collections.Counter[str]  # by board
    kept_of: collections.Counter[str]
    refused: collections.Counter[str]  # by reason
    digest: str

    @property
    def rows(self) -> int:
        return self.rows_of.total()

    @property
    def kept(self) -> int:
        return self.kept_of.total()

    @classmethod
    def of(cls, store: Store) -> "_Summary":
        rows_of: collections.Counter[str] = collections.Counter()
        refused: collections.Counter[str] = collections.Counter()
        kept_of: collections.Counter[str] = collections.Counter()
        digest = SumDigest()
        columns = ["board", "drop_reason", DIGEST]
        for batch in tables.scan(store, POSTS_PATH, columns=columns, rows=SCANNED):
            rows_of.update(_counted(batch["board"]))
            refused.update(_counted(batch["drop_reason"].drop_null()))
            kept_of.update(_counted(batch["board"].filter(pc.is_null(batch["drop_reason"]))))
            digest.update(batch[DIGEST])
        return cls(rows_of, kept_of, refused, digest.hexdigest())


def _counted(texts: pa.Array) -> dict[str, int]:
    return {one["values"]: one["counts"] for one in pc.value_counts(texts).to_pylist()}


def _but_taken(found: Audit, covered: Sequence[Row]) -> Audit:
    """Returns what was found without losses on the takedown list, by which those blobs went.

    A killed takedown, or an older ledger put back after one, still names them.
    """
    kept = [row.media for row in covered if row.media and row.state == "kept"]
    looked = {*found.folders}
    there = [media for media in kept if media.sha256[:2] in looked]
    taken = {blob_path(media.sha256, media.ext) for media in there}
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
