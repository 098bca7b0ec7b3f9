"""The SQLite file of the ledger: its tables, their versions, transactions, locks and errors.

What the tables say of posts and boards is in `crawlers.ledger`.
"""

import contextlib
import datetime as dt
import fcntl
import gzip
import os
import re
import shutil
import sqlite3
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from crawlers.cursor import Cursor
from dataset.errors import CrawlError, StoreError, UsageError
from dataset.media import Media, has_blob
from dataset.schemas import POSTS_PATH
from dataset.store import BLOBS, UNFINISHED_MOVE, Store, is_outage

FILE = "ledger.sqlite"
MARKER = f"{BLOBS}/.omokage-home"  # holds the id of the home whose ledger names the blobs
BACKUPS = "ledger-backups"  # the folder of the compressed copies, named by their time
KEPT_BACKUPS = 7
_BACKUP = re.compile(r"\d{4}-\d\d-\d\dT[\d-]+\.sqlite\.gz")
VERSION = 4
LOCK_TIMEOUT_S = 30.0
FREE_BYTES = 2**20  # with less the disk counts as full

_TABLES = """
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE boards (
    board TEXT NOT NULL,
    identity TEXT NOT NULL,            -- family@host: another board may not take the name over
    PRIMARY KEY (board, identity)
) WITHOUT ROWID;
CREATE TABLE windows (
    board TEXT NOT NULL,
    query TEXT NOT NULL,
    low INTEGER,
    high INTEGER,
    bottomed INTEGER NOT NULL,
    moved_at TEXT NOT NULL,
    PRIMARY KEY (board, query)
) WITHOUT ROWID;
CREATE TABLE posts (
    board TEXT NOT NULL,
    post_id INTEGER NOT NULL,
    query TEXT NOT NULL,               -- the search that brought it last
    state TEXT NOT NULL CHECK (state IN ('pending', 'kept', 'refused')),
    reason TEXT,                       -- why it was refused, or why it still waits
    attempts INTEGER NOT NULL DEFAULT 0,
    md5 TEXT,
    sha256 TEXT,                       -- the blob and what it is; if kept, or kept before its
    ext TEXT,                          -- record changed and it became pending again
    width INTEGER,
    height INTEGER,
    size_bytes INTEGER,
    record TEXT NOT NULL,              -- the post as JSON
    noted_at TEXT NOT NULL,
    settled_at TEXT,
    revisits INTEGER NOT NULL DEFAULT 0,
    cause TEXT,                        -- what a refusal rests on beside the post itself
    rechecked_at TEXT,                 -- when the board last showed it again; NULL: not since noted
    changed INTEGER NOT NULL DEFAULT 0, -- grows with every change of what the table of posts shows
    PRIMARY KEY (board, post_id)
);
CREATE TABLE rechecks (                -- the rolling walk through what was taken
    board TEXT NOT NULL,
    query TEXT NOT NULL,
    mark INTEGER NOT NULL,             -- ids from it on were read again in this round
    walked_at TEXT NOT NULL,           -- when a crawl last read all of its share
    PRIMARY KEY (board, query)
) WITHOUT ROWID;
CREATE INDEX posts_by_state ON posts (board, state, query, post_id);
CREATE INDEX posts_by_md5 ON posts (md5);
CREATE INDEX posts_by_sha256 ON posts (sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX posts_to_revisit ON posts (board, settled_at) WHERE reason IN ('pending', 'flagged');
CREATE INDEX posts_by_cause ON posts (board, state, reason, cause, post_id)
    WHERE state = 'refused';
CREATE UNIQUE INDEX posts_by_change ON posts (changed);
"""
# Apart from the others, so that a ledger that is older than this table gets it too.
_WAITS_TABLE = """
CREATE TABLE IF NOT EXISTS waits (
    host TEXT PRIMARY KEY,
    not_before TEXT NOT NULL,          -- UTC; no request to the host before it
    asked_s REAL NOT NULL              -- what its Retry-After said
) WITHOUT ROWID
"""
_HOME_TABLE = "CREATE TABLE IF NOT EXISTS home (id TEXT NOT NULL)"  # one row: what MARKER says
# The blobs that posts once had: a post was refused since, or its board has another picture now.
_GIVEN_UP_TABLE = (
    "CREATE TABLE IF NOT EXISTS given_up (sha256 TEXT PRIMARY KEY NOT NULL) WITHOUT ROWID"
)
_GIVEN_UP_TRIGGER = """
CREATE TRIGGER IF NOT EXISTS give_up AFTER UPDATE OF sha256 ON posts
WHEN OLD.sha256 IS NOT NULL AND OLD.sha256 IS NOT NEW.sha256
BEGIN INSERT OR IGNORE INTO given_up VALUES (OLD.sha256); END
"""
_NEXT = """
BEGIN UPDATE posts SET changed = (SELECT MAX(changed) + 1 FROM posts) WHERE rowid = NEW.rowid; END
"""
# One row: the takedown list that was applied last, and the change of a post up to which it was.
_APPLIED_TABLE = "CREATE TABLE IF NOT EXISTS applied (takedowns TEXT NOT NULL, changed INTEGER)"
_CHANGE_TRIGGERS = (
    f"CREATE TRIGGER IF NOT EXISTS note_new AFTER INSERT ON posts {_NEXT}",
    "CREATE TRIGGER IF NOT EXISTS note_change AFTER UPDATE OF state, reason, record, sha256, ext, "
    f"width, height ON posts {_NEXT}",
)


class LedgerFile:
    """The open file; a context manager. Use it from one thread.

    A file of an earlier version is brought up to this one as it is opened. Raises StoreError,
    naming the file, if it cannot be opened or is of another version.
    """

    def __init__(self, path: Path, *, clock: Callable[[], dt.datetime] | None = None) -> None:
        self.path = path
        self._clock = clock or _utc
        self._locks: list[IO[str]] = []
        try:
            self._db = sqlite3.connect(path, timeout=30.0, isolation_level=None)
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._prepare()  # FULL: a new home's id must not be lost after its marker was written
            # NORMAL may lose the last transactions at a power cut, but whole ones and in order:
            # the posts would be pending again.
            self._db.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.Error as error:
            self._db.close()
            raise self._unusable(error) from error

    @classmethod
    def of(cls, store: Store, *, refetch_missing: bool = False) -> Self:
        """Opens, or makes, the ledger of a home, and checks that `blobs/` belongs to it.

        refetch_missing: blobs that are missing are lost for good, an empty `blobs/` is right.
        Raises StoreError, before anything is changed, if `blobs/` is another home's or lacks what
        the ledger names, or if a new ledger would be made beside old blobs.
        """
        store.state.make_folder("")
        if store.exists(UNFINISHED_MOVE):  # which, resumed, removes what is not at its source
            raise StoreError(f"{store.root}: `omokage move` to here is not finished; run it again")
        if not store.state.exists(FILE) and (count := len(store.files(BLOBS))):
            raise _orphaned(store, count, f"{store.state.url(FILE)} is not there")
        ledger = cls(store.state.local(FILE))
        try:
            ledger._claim(store, refetch_missing=refetch_missing)
        except BaseException:
            ledger.close()
            raise
        return ledger

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; a crawl that only ends without this loses nothing."""
        self._db.close()
        for file in self._locks:
            file.close()
        self._locks.clear()

    def lock(self, board: str, *, timeout_s: float = LOCK_TIMEOUT_S) -> None:
        """Makes this the only crawl of a board until the ledger is closed or the process ends.

        A crawl whose parent was killed needs a moment to end; it is waited for. Raises CrawlError
        if another is still at work after `timeout_s`.
        """
        until = time.monotonic() + timeout_s
        files = [(self._lock_path(), fcntl.LOCK_SH), (self._lock_path(board), fcntl.LOCK_EX)]
        for path, kind in files:
            while (file := _locked(path, kind)) is None:
                if time.monotonic() >= until:
                    raise CrawlError(
                        f"another crawl of {board} is at work on {self.path}; wait for it or end it"
                    )
                time.sleep(0.1)
            self._locks.append(file)

    @contextlib.contextmanager
    def no_crawl(self) -> Iterator[bool]:
        """Keeps crawls from starting during the block; yields False if one is at work already."""
        file = _locked(self._lock_path(), fcntl.LOCK_EX)
        try:
            yield file is not None
        finally:
            if file is not None:
                file.close()

    def back_up(self, store: Store) -> str:
        """Writes a compressed copy to the data root; all but the newest seven go. Returns its path.

        A crawl may write meanwhile. Raises StoreError if the disk is full.
        """
        path = f"{BACKUPS}/{self._clock():%Y-%m-%dT%H-%M-%S-%f}.sqlite.gz"
        with _scratch_file(self.path) as copy:
            with contextlib.closing(sqlite3.connect(copy)) as target:
                try:
                    self._db.backup(target)
                except sqlite3.Error as error:
                    raise StoreError(f"{copy}: {self._why(error)}") from error
            # Level 1: a third larger than level 6, in a quarter of the time.
            with (
                store.writing(path) as file,
                gzip.GzipFile("", "wb", 1, file, mtime=0) as packed,
                copy.open("rb") as content,
            ):
                shutil.copyfileobj(content, packed, 2**20)
        for name in backups(store)[:-KEPT_BACKUPS]:
            # Boards are crawled side by side: the other crawl may have removed it already.
            store.remove(f"{BACKUPS}/{name}")
        return path

    def back_up_or_say(self, store: Store) -> None:
        """Backs up; if that fails, says so on stderr: what was crawled is in the ledger anyway."""
        try:
            self.back_up(store)
        except StoreError as error:
            print(f"no backup of the ledger was written: {error}", file=sys.stderr)

    def identity(self) -> str:
        """Returns the id of the home that this ledger was made for."""
        ((own,),) = self._rows("SELECT id FROM home")
        return str(own)

    def _prepare(self) -> None:
        with self._transaction():
            if not self._one("SELECT 1 FROM sqlite_master WHERE name = 'schema_version'"):
                for statement in _TABLES.split(";\n"):
                    self._do(statement)
                self._do("INSERT INTO schema_version VALUES (?)", (VERSION,))
            self._do(_WAITS_TABLE)
            self._do(_HOME_TABLE)
            self._do(_GIVEN_UP_TABLE)
            self._do(_APPLIED_TABLE)
            if not self._one("SELECT 1 FROM home"):
                self._do("INSERT INTO home VALUES (?)", (uuid.uuid4().hex,))
            row = self._one("SELECT version FROM schema_version")
            if row is not None and migrate(self._db, row[0]) != row[0]:
                row = self._one("SELECT version FROM schema_version")
        if row is None or row[0] != VERSION:
            found = row[0] if row else "none"
            raise StoreError(
                f"{self.path} is a ledger of version {found}, {VERSION} wanted; crawl into another "
                "home, or use the release of Omokage that wrote it"
            )
        for trigger in (_GIVEN_UP_TRIGGER, *_CHANGE_TRIGGERS):
            self._do(trigger)

    def _claim(self, store: Store, *, refetch_missing: bool) -> None:
        """Compares the marker of `blobs/` with the home's id; writes it where there is none.

        A home older than markers has none: its blobs must fit the ledger.
        """
        own = self.identity()
        found = _marker(store)
        if found == own:
            return
        rows = self._rows(
            "SELECT sha256, ext, width, height, size_bytes FROM posts "
            "WHERE state = 'kept' GROUP BY sha256"
        )
        is_fresh = self._one("SELECT 1 FROM posts LIMIT 1") is None
        if found is not None and (rows or store.files(BLOBS)):
            raise StoreError(
                f"{store.url(BLOBS)} with {len(store.files(BLOBS)):,} files belongs to another "
                f"home: {store.url(MARKER)} does not name {self.path}, which has {len(rows):,} "
                "blobs. Nothing was changed. Is the wrong volume mounted, or was the ledger made "
                "anew? Put together again what belongs together; if these do, remove the marker"
            )
        if is_fresh and (count := len(store.files(BLOBS))):
            raise _orphaned(store, count, f"{self.path} knows no post")
        missing = sum(not has_blob(store, Media(*row)) for row in rows)
        if is_outage(missing, len(rows)) and not refetch_missing:
            raise missing_blobs(store, missing, len(rows))
        if found is not None:  # of another home that left nothing else
            store.remove(MARKER)
        if not store.create(MARKER, f"{own}\n".encode()) and _marker(store) != own:
            raise StoreError(
                f"{store.url(BLOBS)}: another home has just taken it: {store.url(MARKER)} does not "
                f"name {self.path}. Choose another data root for this one"
            )

    def _one(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._do(query, values).fetchone()
        return row

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._do(query, values).fetchall()

    def _do(self, query: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        try:
            return self._db.execute(query, values)
        except sqlite3.Error as error:  # the disk is full, or another crawl holds the file
            raise StoreError(f"{self.path}: {self._why(error)}") from error

    def _unusable(self, error: sqlite3.Error) -> StoreError:
        return StoreError(f"{self.path} cannot be used as the ledger: {self._why(error)}")

    def _why(self, error: sqlite3.Error) -> str:
        """Returns what is wrong and what to do; a full disk also shows as a failed map or write."""
        name = getattr(error, "sqlite_errorname", "")
        is_full = shutil.disk_usage(self.path.parent).free < FREE_BYTES
        if name == "SQLITE_FULL" or (name.startswith("SQLITE_IOERR") and is_full):
            return "the disk is full; free some space and run the same command again"
        return f"{error}; run the same command again later"

    def _now(self) -> str:
        return self._clock().isoformat(timespec="milliseconds")

    def _lock_path(self, board: str = "") -> Path:
        return self.path.with_name(f"{self.path.stem}.{board}.lock" if board else f"{FILE}.lock")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All statements of a `with` block, or none."""
        self._do("BEGIN IMMEDIATE")
        try:
            yield
            self._do("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk may have ended it already
                self._db.execute("ROLLBACK")
            raise


def backups(store: Store) -> list[str]:
    """Returns the names of the backups, the newest last; other files of the folder are not ours."""
    return [name for name in store.names(BACKUPS) if _BACKUP.fullmatch(name)]


def restore(store: Store, name: str = "") -> tuple[str, str]:
    """Puts a backup in the place of the ledger; returns its path, and where the former one lies.

    name: of a backup, "" for the newest. The table of posts is removed: it may show what the backup
    does not know, and the next build makes it. Raises UsageError if there is no such backup or a
    crawl is at work, StoreError, with nothing changed, for one that is damaged.
    """
    names = backups(store)
    if not names:
        raise UsageError(f"{store.url(BACKUPS)} has no backup: crawls and imports write them")
    if name and name not in names:
        raise UsageError(f'there is no backup "{name}"; there are: {", ".join(names)}')
    chosen, path = f"{BACKUPS}/{name or names[-1]}", store.state.local(FILE)
    store.state.make_folder("")
    lock = _locked(path.with_name(f"{FILE}.lock"), fcntl.LOCK_EX)
    if lock is None:
        raise UsageError(
            f"a crawl or an import is at work in {store.state.root}; wait for it or end it"
        )
    with lock, _scratch_file(path) as copy:
        try:
            with (
                store.open(chosen) as packed,
                gzip.open(packed) as content,
                copy.open("wb") as file,
            ):
                shutil.copyfileobj(content, file, 2**20)
            LedgerFile(copy).close()
            with contextlib.closing(sqlite3.connect(copy)) as db:
                (said,) = db.execute("PRAGMA quick_check").fetchone()
        except (EOFError, gzip.BadGzipFile, zlib.error, sqlite3.Error, StoreError) as error:
            said = str(error)
        if said != "ok":
            raise StoreError(f"{store.url(chosen)} is damaged: {said}. Choose an older one")
        store.remove(POSTS_PATH)
        with copy.open("rb") as content:
            os.fsync(content.fileno())
        # The logs too, even alone: SQLite would play an old one over the restored file.
        parts = [path.with_name(f"{FILE}{suffix}") for suffix in ("", "-wal", "-shm")]
        there = [part for part in parts if part.exists()]
        former = f"{FILE}.before-{dt.datetime.now(dt.UTC):%Y-%m-%dT%H-%M-%S-%f}" if there else ""
        for part in there:
            part.replace(path.with_name(part.name.replace(FILE, former)))
        copy.replace(path)
    return chosen, former


@contextlib.contextmanager
def _scratch_file(beside: Path) -> Iterator[Path]:
    """Yields the path of a file to be made beside another; what is left of it goes at the end."""
    path = beside.with_name(f".tmp-{uuid.uuid4().hex}-{beside.name}")
    try:
        yield path
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)


def _locked(path: Path, kind: int) -> IO[str] | None:
    """Opens and locks a file; None if another holds it."""
    file = path.open("a")
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def missing_blobs(store: Store, missing: int, named: int) -> StoreError:
    """Returns the error of a `blobs/` that lacks so many of the blobs that the ledger names."""
    return StoreError(
        f"{store.url(BLOBS)}: {missing:,} of the {named:,} blobs that "
        f"{store.state.url(FILE)} names are missing or cut short. Nothing was changed. Is a volume "
        "not mounted, or a copy not finished? Put them back and run the same command again. If "
        "they are lost for good, build posts with refetch_missing: true in its configuration, or "
        "crawl with --refetch-missing; imports then take theirs in again"
    )


def _marker(store: Store) -> str | None:
    """Returns the id of the home that `blobs/` belongs to; None without a marker."""
    # By its size: a volume that does not answer is no volume without a marker.
    if store.size(MARKER) is None:
        return None
    return store.read_bytes(MARKER).decode(errors="replace").strip()


def _orphaned(store: Store, count: int, why: str) -> StoreError:
    return StoreError(
        f"{store.url(BLOBS)} has {count:,} files, and {why}. Nothing was changed. Put the ledger "
        "that they belong to back (`omokage ledger restore`); to begin anew, move the folder "
        "away first (`omokage import folder` takes its pictures in)"
    )


def _utc() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


# Version 1 took two addresses of one board for two boards.
_ONE_BOARD = {
    "danbooru@safebooru.donmai.us": "danbooru",
    "danbooru@danbooru.donmai.us": "danbooru",
}


def migrate(db: sqlite3.Connection, version: int) -> int:
    """Changes the tables of a ledger of `version` step by step; returns the version they are now.

    A version that is not known is left as it is.
    """
    while step := {1: _from_1_to_2, 2: _from_2_to_3, 3: _from_3_to_4}.get(version):
        step(db)
        version += 1
    return version


def _from_1_to_2(db: sqlite3.Connection) -> None:
    """Ledgers are kept by board, not by site, and count how often a post was revisited."""
    known: dict[str, str] = dict(db.execute("SELECT site, identity FROM sites").fetchall())
    for statement in (
        "CREATE TABLE boards (board TEXT NOT NULL, identity TEXT NOT NULL, "
        "PRIMARY KEY (board, identity)) WITHOUT ROWID",
        "DROP TABLE sites",
        "ALTER TABLE windows RENAME COLUMN site TO board",
        "ALTER TABLE posts RENAME COLUMN site TO board",
        "ALTER TABLE posts ADD COLUMN revisits INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX posts_to_revisit ON posts (board, settled_at) "
        "WHERE reason IN ('pending', 'flagged')",
    ):
        db.execute(statement)
    boards = {site: _ONE_BOARD.get(identity, site) for site, identity in known.items()}
    rows = {(boards[site], identity) for site, identity in known.items()}
    db.executemany("INSERT INTO boards VALUES (?, ?)", sorted(rows))
    _join_posts(db, boards)
    _join_windows(db, boards)
    db.execute("UPDATE schema_version SET version = 2")


def _from_2_to_3(db: sqlite3.Connection) -> None:
    """Posts are read again after they were taken; refusals have a cause, unknown for older ones."""
    for statement in (
        "ALTER TABLE posts ADD COLUMN cause TEXT",
        "ALTER TABLE posts ADD COLUMN rechecked_at TEXT",
        "CREATE INDEX posts_by_cause ON posts (board, state, reason, cause, post_id) "
        "WHERE state = 'refused'",
        "CREATE TABLE rechecks (board TEXT NOT NULL, query TEXT NOT NULL, mark INTEGER NOT NULL, "
        "walked_at TEXT NOT NULL, PRIMARY KEY (board, query)) WITHOUT ROWID",
        "UPDATE schema_version SET version = 3",
    ):
        db.execute(statement)


def _from_3_to_4(db: sqlite3.Connection) -> None:
    """The table of posts takes over the rows that changed since its last build."""
    for statement in (
        "ALTER TABLE posts ADD COLUMN changed INTEGER NOT NULL DEFAULT 0",
        "UPDATE posts SET changed = rowid",
        "CREATE UNIQUE INDEX posts_by_change ON posts (changed)",
        "UPDATE schema_version SET version = 4",
    ):
        db.execute(statement)


def _join_posts(db: sqlite3.Connection, boards: Mapping[str, str]) -> None:
    """Puts posts under their board; of one seen as two, the one read last stays.

    One that was taken down stays before any other.
    """
    for board in sorted(set(boards.values())):
        names = [site for site, merged in boards.items() if merged == board]
        if names == [board]:
            continue
        among = f"({', '.join('?' * len(names))})"
        rank = (
            "({0}.reason IS 'takedown', json_extract({0}.record, '$.fetched_at'), {0}.board)".format
        )
        db.execute(
            f"DELETE FROM posts WHERE board IN {among} AND EXISTS (SELECT 1 FROM posts AS other "  # noqa: S608
            f"WHERE other.board IN {among} AND other.post_id = posts.post_id "
            f"AND {rank('other')} > {rank('posts')})",
            [*names, *names],
        )
        db.execute(
            "UPDATE posts SET board = ?, record = json_set(record, '$.board', ?) "  # noqa: S608
            f"WHERE board IN {among}",
            [board, board, *names],
        )


def _join_windows(db: sqlite3.Connection, boards: Mapping[str, str]) -> None:
    """Puts windows under their board; of two over one search that do not meet, the upper stays.

    What was seen below it is listed once more, and known by then.
    """
    rows = db.execute("SELECT board, query, low, high, bottomed, moved_at FROM windows").fetchall()
    merged: dict[tuple[str, str], tuple[Cursor, str]] = {}
    for site, query, low, high, bottomed, moved_at in rows:
        key = (boards.get(site, site), query)
        cursor = Cursor(low, high, bool(bottomed))
        if key in merged:
            other, other_at = merged[key]
            cursor, moved_at = cursor.merged(other), max(moved_at, other_at)
        merged[key] = (cursor, moved_at)
    db.execute("DELETE FROM windows")
    db.executemany(
        "INSERT INTO windows VALUES (?, ?, ?, ?, ?, ?)",
        [
            (board, query, cursor.low, cursor.high, int(cursor.bottomed), moved_at)
            for (board, query), (cursor, moved_at) in merged.items()
        ],
    )
