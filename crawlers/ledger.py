"""The ledger of all crawls: one SQLite file that knows every post seen and what became of it.

A page of posts and the window's move over it are one transaction, and a post noted there is
`pending` until it is kept or refused. So a crawl that is killed at any moment loses nothing and
does nothing twice: the next one first settles what is pending, then goes on from the window.
"""

import datetime as dt
import fcntl
import json
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

from crawlers.post import Post, same_picture_and_words
from crawlers.sites import Site
from crawlers.waits import Wait
from crawlers.window import Window
from dataset.errors import CrawlError, StoreError
from dataset.media import Media
from dataset.policy import Takedowns
from dataset.store import Store

FILE = "ledger.sqlite"
VERSION = 1
MAX_ATTEMPTS = 5  # crawls that try to fetch a picture before it is given up
BATCH = 500
PATIENCE_S = 30.0
FREE_BYTES = 2**20  # with less the disk counts as full
_BEYOND = 2**63 - 1

_TABLES = """
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE sites (
    site TEXT PRIMARY KEY,
    identity TEXT NOT NULL             -- family@host: another board may not take the name over
) WITHOUT ROWID;
CREATE TABLE windows (
    site TEXT NOT NULL,
    query TEXT NOT NULL,
    low INTEGER,
    high INTEGER,
    bottomed INTEGER NOT NULL,
    moved_at TEXT NOT NULL,
    PRIMARY KEY (site, query)
) WITHOUT ROWID;
CREATE TABLE posts (
    site TEXT NOT NULL,
    post_id INTEGER NOT NULL,
    query TEXT NOT NULL,               -- the search that brought it last
    state TEXT NOT NULL CHECK (state IN ('pending', 'kept', 'refused')),
    reason TEXT,                       -- why it was refused, or why it still waits
    attempts INTEGER NOT NULL DEFAULT 0,
    md5 TEXT,
    sha256 TEXT,                       -- the blob and what it is; only if kept
    ext TEXT,
    width INTEGER,
    height INTEGER,
    size_bytes INTEGER,
    record TEXT NOT NULL,              -- the post as JSON
    noted_at TEXT NOT NULL,
    settled_at TEXT,
    PRIMARY KEY (site, post_id)
);
CREATE INDEX posts_by_state ON posts (site, state, query, post_id);
CREATE INDEX posts_by_md5 ON posts (md5);
CREATE INDEX posts_by_sha256 ON posts (sha256) WHERE sha256 IS NOT NULL;
"""
# Apart from the others, so that a ledger that is older than this table gets it too.
_WAITS_TABLE = """
CREATE TABLE IF NOT EXISTS waits (
    host TEXT PRIMARY KEY,
    not_before TEXT NOT NULL,          -- UTC; nothing may be asked of the host before it
    asked_s REAL NOT NULL              -- what its Retry-After said
) WITHOUT ROWID
"""


class Row(NamedTuple):
    """A post in the ledger: its record, state, reason and, if kept, its blob."""

    post: Post
    state: str
    reason: str | None
    media: Media | None


class Ledger:
    """The ledger of one home; a context manager. Use it from one thread.

    Raises StoreError, naming the file, if it cannot be opened or is of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._hold: IO[str] | None = None
        try:
            self._db = sqlite3.connect(path, timeout=30.0, isolation_level=None)
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            # NORMAL may lose the last transactions at a power cut, but whole ones and in order:
            # the posts would be pending again.
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._prepare()
        except sqlite3.Error as error:
            self._db.close()
            raise self._unusable(error) from error

    @classmethod
    def of(cls, store: Store) -> "Ledger":
        """Opens, or makes, the ledger of a home."""
        store.make_folder("")
        return cls(store.local(FILE))

    def __enter__(self) -> "Ledger":
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
        if self._hold is not None:
            self._hold.close()

    def hold(self, site: str, *, patience_s: float = PATIENCE_S) -> None:
        """Makes this the only crawl of a site until the ledger is closed or the process ends.

        A crawl whose parent was killed needs a moment to end; it is waited for. Raises CrawlError
        if another is still at work after `patience_s`.
        """
        hold = self.path.with_name(f"{self.path.stem}.{site}.lock").open("a")
        until = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() < until:
                    time.sleep(0.1)
                    continue
                hold.close()
                raise CrawlError(
                    f"another crawl of {site} is at work on {self.path}; wait for it or end it"
                ) from error
            self._hold = hold
            return

    def admit(self, site: Site) -> None:
        """Writes down which board a site's name stands for.

        Raises CrawlError if the ledger holds another board's posts under that name.
        """
        with self._transaction():
            known = self._one("SELECT identity FROM sites WHERE site = ?", site.name)
            if known is None:
                self._do("INSERT INTO sites VALUES (?, ?)", (site.name, site.identity))
            elif known[0] != site.identity:
                raise CrawlError(
                    f"{self.path} holds posts of {known[0]} under the name {site.name}, which now "
                    f"stands for {site.identity}; choose another name or another home"
                )

    def window(self, site: str, query: str) -> Window:
        """Returns which ids of a search have been seen."""
        row = self._one(
            "SELECT low, high, bottomed FROM windows WHERE site = ? AND query = ?", site, query
        )
        return Window(row[0], row[1], bool(row[2])) if row else Window()

    def note_page(
        self, site: str, query: str, *, posts: Sequence[Post], window: Window
    ) -> list[Post]:
        """Writes down a page and moves the window over it, at once or not at all.

        Returns the posts that are to be settled: new ones, and known ones whose record changed.
        """
        with self._transaction():
            to_settle = [post for post in posts if self._note(site, query, post)]
            self._do(
                "INSERT OR REPLACE INTO windows VALUES (?, ?, ?, ?, ?, ?)",
                (site, query, window.low, window.high, int(window.bottomed), _now()),
            )
        return to_settle

    def pending_queries(self, site: str) -> list[str]:
        """Returns the searches that have posts waiting to be settled."""
        rows = self._rows(
            "SELECT DISTINCT query FROM posts WHERE site = ? AND state = 'pending' ORDER BY query",
            site,
        )
        return [query for (query,) in rows]

    def highest_pending(self, site: str, query: str, *, below: int | None = None) -> int | None:
        """Returns the greatest number of a post of a search that waits, less than `below`."""
        row = self._one(
            "SELECT MAX(post_id) FROM posts WHERE site = ? AND query = ? AND state = 'pending' "
            "AND post_id < ?",
            site,
            query,
            _BEYOND if below is None else below,
        )
        return row[0] if row else None

    def pending(
        self, site: str, query: str, *, first: int = 0, below: int | None = None
    ) -> list[Post]:
        """Returns the posts of a search that wait to be settled, from `first` up to `below`."""
        rows = self._rows(
            "SELECT record FROM posts WHERE site = ? AND query = ? AND state = 'pending' "
            "AND post_id >= ? AND post_id < ? ORDER BY post_id",
            site,
            query,
            first,
            _BEYOND if below is None else below,
        )
        return [Post.from_record(json.loads(record)) for (record,) in rows]

    def renew(self, posts: Iterable[Post]) -> None:
        """Writes down the present records of posts that wait."""
        with self._transaction():
            for post in posts:
                self._do(
                    "UPDATE posts SET md5 = ?, record = ? WHERE site = ? AND post_id = ?",
                    (post.md5, _json(post.to_record()), post.board, post.post_id),
                )

    def keep(self, post: Post, media: Media) -> None:
        """Settles a post: its picture is among the blobs."""
        self._settle(post, "kept", reason=None, media=media)

    def refuse(self, post: Post, reason: str) -> None:
        """Settles a post: it is not stored, for this reason."""
        self._settle(post, "refused", reason=reason, media=None)

    def postpone(self, post: Post, reason: str) -> bool:
        """Leaves a post whose picture could not be fetched to the next crawl.

        Returns False, and refuses it as `unavailable`, after the last of MAX_ATTEMPTS.
        """
        with self._transaction():
            self._do(
                "UPDATE posts SET attempts = attempts + 1, reason = ? "
                "WHERE site = ? AND post_id = ? AND state = 'pending'",
                (reason, post.board, post.post_id),
            )
            row = self._one(
                "SELECT attempts FROM posts WHERE site = ? AND post_id = ?",
                post.board,
                post.post_id,
            )
        if row is None or row[0] < MAX_ATTEMPTS:
            return True
        self.refuse(post, "unavailable")
        return False

    def blob_of(self, md5: str) -> Media | None:
        """Returns the blob that a kept post of any board has for this md5."""
        row = self._one(
            "SELECT sha256, ext, width, height, size_bytes FROM posts "
            "WHERE md5 = ? AND state = 'kept' LIMIT 1",
            md5,
        )
        return Media(*row) if row else None

    def newest_kept(self, site: str, count: int) -> list[Media]:
        """Returns the blobs of the newest `count` kept posts of a site."""
        rows = self._db.execute(
            "SELECT sha256, ext, width, height, size_bytes FROM posts "
            "WHERE site = ? AND state = 'kept' ORDER BY post_id DESC LIMIT ?",
            (site, count),
        )
        return [Media(*row) for row in rows]

    def rows(self, sites: Sequence[str]) -> Iterator[Row]:
        """Yields all posts of `sites`, by site and post number; they may be changed meanwhile."""
        for site in sorted(set(sites)):
            last = 0
            while True:
                found = self._do(
                    "SELECT post_id, record, state, reason, sha256, ext, width, height, size_bytes "
                    "FROM posts WHERE site = ? AND post_id > ? ORDER BY post_id LIMIT ?",
                    (site, last, BATCH),
                ).fetchall()
                if not found:
                    break
                for post_id, record, state, reason, *blob in found:
                    last = post_id
                    media = Media(*blob) if state == "kept" else None
                    yield Row(Post.from_record(json.loads(record)), state, reason, media)

    def requeue(self, posts: Iterable[Post], reason: str) -> None:
        """Makes posts pending again, with all their attempts before them."""
        with self._transaction():
            for post in posts:
                self._do(
                    "UPDATE posts SET state = 'pending', reason = ?, attempts = 0, sha256 = NULL, "
                    "ext = NULL, width = NULL, height = NULL, size_bytes = NULL, settled_at = NULL "
                    "WHERE site = ? AND post_id = ?",
                    (reason, post.board, post.post_id),
                )

    def covered(self, takedowns: Takedowns) -> list[Row]:
        """Returns the posts of all sites on the takedown list, but those refused for it before."""
        if not takedowns:
            return []
        sites = [site for (site,) in self._rows("SELECT site FROM sites")]
        return [
            row
            for row in self.rows(sites)
            if row.reason != "takedown" and takedowns.cover(row.post)
        ]

    def is_taken_down(self, md5: str | None) -> bool:
        """Tells whether these very bytes were taken down with a post of any board."""
        found = self._one("SELECT 1 FROM posts WHERE md5 = ? AND reason = 'takedown' LIMIT 1", md5)
        return found is not None

    def take_down_blob(self, sha256: str) -> None:
        """Refuses, as taken down, every post of any site that has this blob."""
        self._do(
            "UPDATE posts SET state = 'refused', reason = 'takedown', sha256 = NULL, ext = NULL, "
            "width = NULL, height = NULL, size_bytes = NULL, settled_at = ? WHERE sha256 = ?",
            (_now(), sha256),
        )

    def sites_of_reason(self, reason: str) -> list[str]:
        """Returns the site of every post that is refused for `reason`."""
        rows = self._do("SELECT site FROM posts WHERE state = 'refused' AND reason = ?", (reason,))
        return [site for (site,) in rows]

    def count(self, site: str) -> dict[str, int]:
        """Returns how many posts of a site are pending, kept and refused."""
        rows = self._do("SELECT state, COUNT(*) FROM posts WHERE site = ? GROUP BY state", (site,))
        return {"pending": 0, "kept": 0, "refused": 0} | dict(rows.fetchall())

    def note_wait(self, wait: Wait) -> None:
        """Writes down that a host asked us to wait; the longest wait of a host counts."""
        self._do(
            "INSERT INTO waits VALUES (?, ?, ?) ON CONFLICT (host) DO UPDATE SET "
            "not_before = excluded.not_before, asked_s = excluded.asked_s "
            "WHERE excluded.not_before > not_before",
            (wait.host, _moment(wait.not_before), wait.asked_s),
        )

    def waits(self, now: dt.datetime) -> list[Wait]:
        """Returns the waits of all hosts that are not over at `now`, and forgets the others."""
        self._do("DELETE FROM waits WHERE not_before <= ?", (_moment(now),))
        return [
            Wait(host, dt.datetime.fromisoformat(moment), asked_s)
            for host, moment, asked_s in self._rows("SELECT * FROM waits ORDER BY host")
        ]

    def _note(self, site: str, query: str, post: Post) -> bool:
        record = post.to_record()
        known = self._one(
            "SELECT record, state FROM posts WHERE site = ? AND post_id = ?", site, post.post_id
        )
        if known and known[1] != "pending" and same_picture_and_words(json.loads(known[0]), record):
            return False
        self._do(
            "INSERT INTO posts (site, post_id, query, state, md5, record, noted_at) "
            "VALUES (?, ?, ?, 'pending', ?, ?, ?) ON CONFLICT (site, post_id) DO UPDATE SET "
            "query = excluded.query, state = 'pending', reason = NULL, md5 = excluded.md5, "
            "record = excluded.record",
            (site, post.post_id, query, post.md5, _json(record), _now()),
        )
        return True

    def _settle(self, post: Post, state: str, *, reason: str | None, media: Media | None) -> None:
        blob: Sequence[Any] = (None, None, None, None, None)
        if media is not None:
            blob = (media.sha256, media.ext, media.width, media.height, media.size_bytes)
        self._do(
            "UPDATE posts SET state = ?, reason = ?, sha256 = ?, ext = ?, width = ?, height = ?, "
            "size_bytes = ?, settled_at = ? WHERE site = ? AND post_id = ?",
            (state, reason, *blob, _now(), post.board, post.post_id),
        )

    def _prepare(self) -> None:
        with self._transaction():
            if not self._one("SELECT 1 FROM sqlite_master WHERE name = 'schema_version'"):
                for statement in _TABLES.split(";\n"):
                    self._do(statement)
                self._do("INSERT INTO schema_version VALUES (?)", (VERSION,))
            self._do(_WAITS_TABLE)
            row = self._one("SELECT version FROM schema_version")
        if row is None or row[0] != VERSION:
            found = row[0] if row else "none"
            raise StoreError(
                f"{self.path} is a ledger of version {found}, {VERSION} wanted; crawl into another "
                "home, or use the release of Omokage that wrote it"
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
        no_room = shutil.disk_usage(self.path.parent).free < FREE_BYTES
        if name == "SQLITE_FULL" or (name.startswith("SQLITE_IOERR") and no_room):
            return "the disk is full; free some space and run the same command again"
        return f"{error}; run the same command again later"

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._db)


class _Transaction:
    """All statements of a `with` block, or none."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


def _json(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False)


def _moment(moment: dt.datetime) -> str:
    """Writes a moment of UTC so that texts compare as moments do."""
    return moment.isoformat(timespec="microseconds")


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
