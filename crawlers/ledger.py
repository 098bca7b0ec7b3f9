"""The ledger of all crawls: one SQLite file that knows every post seen and what became of it.

A page of posts and the cursor's move over it are one transaction, and a post noted there is
`pending` until it is kept or refused. So a crawl that is killed at any moment loses nothing and
does nothing twice: the next one first settles what is pending, then resumes from the cursor.
"""

import dataclasses
import datetime as dt
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from crawlers.cursor import Cursor
from crawlers.ledger_file import LedgerFile
from crawlers.post import TAG_KINDS, Post, same_content
from crawlers.rate_limit import Wait
from crawlers.sites import Site
from dataset.errors import CrawlError
from dataset.media import Media
from dataset.policy import Takedowns

MAX_ATTEMPTS = 5  # crawls that try to fetch a picture before it is given up
IMPORTED = "import@"  # how the identity of an import begins; its posts came by no search
TAKEDOWN = "takedown"  # the reason that no later record of a post undoes
# What a board had not finished with is looked at again, so often and so long after the last time.
UNFINISHED = ("pending", "flagged")
MAX_REVISITS = 4
REVISIT_AFTER = dt.timedelta(days=3)
BATCH = 500
_BEYOND = 2**63 - 1

_NO_BLOB = "sha256 = NULL, ext = NULL, width = NULL, height = NULL, size_bytes = NULL"
_THIS = "board = ? AND post_id = ?"
_TAKEN = "state = 'refused' AND reason = 'takedown'"


class Row(NamedTuple):
    """A post in the ledger: its record, state, reason and its blob.

    A pending post has a blob if it was kept until its record changed.
    """

    post: Post
    state: str
    reason: str | None
    media: Media | None


class Ledger(LedgerFile):
    """The ledger of one home; a context manager. Use it from one thread."""

    def admit(self, site: Site) -> None:
        """Stores which servers a board's name stands for.

        Raises CrawlError if the ledger holds another board's posts under that name.
        """
        self._admit(site.board, site.identities)

    def admit_import(self, name: str, kind: str) -> None:
        """Stores that a name stands for imported pictures of a kind (danbooru or folder).

        Raises CrawlError if the ledger holds a board's posts, or another kind's, under that name.
        """
        self._admit(name, frozenset({f"{IMPORTED}{kind}"}))

    def imports(self) -> list[str]:
        """Returns the names of all imports that were ever taken in."""
        rows = self._rows(
            "SELECT board FROM boards WHERE identity LIKE ? ORDER BY board", f"{IMPORTED}%"
        )
        return [board for (board,) in rows]

    def boards(self) -> list[str]:
        """Returns the names of all boards that were ever crawled into this ledger."""
        rows = self._rows("SELECT DISTINCT board FROM boards ORDER BY board")
        return [board for (board,) in rows]

    def cursor(self, board: str, query: str) -> Cursor:
        """Returns which ids of a search have been seen."""
        row = self._one(
            "SELECT low, high, bottomed FROM windows WHERE board = ? AND query = ?", board, query
        )
        return Cursor(row[0], row[1], bool(row[2])) if row else Cursor()

    def note_page(
        self, board: str, query: str, *, posts: Sequence[Post], cursor: Cursor
    ) -> list[Post]:
        """Stores a page and moves the cursor over it, at once or not at all.

        Returns the posts that are to be settled: new ones, and known ones whose record changed.
        """
        with self._transaction():
            to_settle = [post for post in posts if self._note(board, query, post)]
            self._do(
                "INSERT OR REPLACE INTO windows VALUES (?, ?, ?, ?, ?, ?)",
                (board, query, cursor.low, cursor.high, int(cursor.bottomed), self._now()),
            )
        return to_settle

    def note_import(self, name: str, posts: Sequence[Post]) -> None:
        """Stores imported posts, all or none; those that are new or changed are pending."""
        with self._transaction():
            for post in posts:
                self._note(name, IMPORTED, post)

    def state_of(self, post: Post) -> tuple[str | None, bool]:
        """Returns a post's state (None: unknown), and whether its record is settled as it is."""
        row = self._one(f"SELECT record, state, reason FROM posts WHERE {_THIS}", *_key(post))  # noqa: S608
        if row is None:
            return None, False
        record, state, reason = row
        return state, state != "pending" and (
            reason == TAKEDOWN or same_content(json.loads(record), post.to_record())
        )

    def revisit(self, board: str) -> int:
        """Makes pending again what the board had not finished with, once it is due.

        Due is a post refused as pending or flagged, REVISIT_AFTER after it was last looked at, and
        MAX_REVISITS times at most. Returns how many there are.
        """
        due = (self._clock() - REVISIT_AFTER).isoformat(timespec="milliseconds")
        return self._do(
            "UPDATE posts SET state = 'pending', attempts = 0, revisits = revisits + 1 "
            "WHERE board = ? AND reason IN ('pending', 'flagged') AND settled_at <= ? "
            "AND state = 'refused' AND revisits < ?",
            (board, due, MAX_REVISITS),
        ).rowcount

    def pending_queries(self, board: str) -> list[str]:
        """Returns the searches that have posts waiting to be settled."""
        rows = self._rows(
            "SELECT DISTINCT query FROM posts WHERE board = ? AND state = 'pending' ORDER BY query",
            board,
        )
        return [query for (query,) in rows]

    def highest_pending(self, board: str, query: str, *, below: int | None = None) -> int | None:
        """Returns the greatest number of a post of a search that waits, less than `below`."""
        row = self._one(
            "SELECT MAX(post_id) FROM posts WHERE board = ? AND query = ? AND state = 'pending' "
            "AND post_id < ?",
            board,
            query,
            _BEYOND if below is None else below,
        )
        return row[0] if row else None

    def pending(
        self, board: str, query: str, *, first: int = 0, below: int | None = None
    ) -> list[Post]:
        """Returns the posts of a search that wait to be settled, from `first` up to `below`."""
        rows = self._rows(
            "SELECT record FROM posts WHERE board = ? AND query = ? AND state = 'pending' "
            "AND post_id >= ? AND post_id < ? ORDER BY post_id",
            board,
            query,
            first,
            _BEYOND if below is None else below,
        )
        return [Post.from_record(json.loads(record)) for (record,) in rows]

    def renew(self, posts: Iterable[Post]) -> None:
        """Stores the present records of posts that wait."""
        with self._transaction():
            for post in posts:
                if not self._has_md5(post):
                    self._do(f"UPDATE posts SET {_NO_BLOB} WHERE {_THIS}", _key(post))  # noqa: S608
                self._do(
                    f"UPDATE posts SET md5 = ?, record = ? WHERE {_THIS}",  # noqa: S608
                    (post.md5, _json(post.to_record()), *_key(post)),
                )

    def keep(self, post: Post, media: Media) -> None:
        """Settles a post: its picture is among the blobs. What was taken down stays so."""
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
                "WHERE board = ? AND post_id = ? AND state = 'pending'",
                (reason, *_key(post)),
            )
            row = self._one(
                f"SELECT attempts FROM posts WHERE {_THIS}",  # noqa: S608
                *_key(post),
            )
        if row is None or row[0] < MAX_ATTEMPTS:
            return True
        self.refuse(post, "unavailable")
        return False

    def blob_of(self, md5: str) -> Media | None:
        """Returns the blob that some post of any board has, or had until lately, for this md5."""
        row = self._one(
            "SELECT sha256, ext, width, height, size_bytes FROM posts "
            "WHERE md5 = ? AND sha256 IS NOT NULL LIMIT 1",
            md5,
        )
        return Media(*row) if row else None

    def newest_kept(self, board: str, count: int) -> list[Media]:
        """Returns the blobs of the newest `count` kept posts of a board."""
        rows = self._db.execute(
            "SELECT sha256, ext, width, height, size_bytes FROM posts "
            "WHERE board = ? AND state = 'kept' ORDER BY post_id DESC LIMIT ?",
            (board, count),
        )
        return [Media(*row) for row in rows]

    def rows(self, boards: Sequence[str]) -> Iterator[Row]:
        """Yields all posts of `boards`, by board and post number; they may be changed meanwhile."""
        for board in sorted(set(boards)):
            last = 0
            while True:
                found = self._do(
                    "SELECT post_id, record, state, reason, sha256, ext, width, height, size_bytes "
                    "FROM posts WHERE board = ? AND post_id > ? ORDER BY post_id LIMIT ?",
                    (board, last, BATCH),
                ).fetchall()
                if not found:
                    break
                for post_id, record, state, reason, *blob in found:
                    last = post_id
                    media = Media(*blob) if blob[0] is not None else None
                    yield Row(Post.from_record(json.loads(record)), state, reason, media)

    def requeue(self, posts: Iterable[Post], reason: str) -> None:
        """Makes posts pending again, with all their attempts before them."""
        with self._transaction():
            for post in posts:
                self._do(
                    "UPDATE posts SET state = 'pending', reason = ?, attempts = 0, "  # noqa: S608
                    f"settled_at = NULL, {_NO_BLOB} WHERE {_THIS} AND state = 'kept'",
                    (reason, *_key(post)),
                )

    def blobs(self) -> Iterator[tuple[str, str, int]]:
        """Yields sha256, extension and size in bytes of every blob that a post names, once each."""
        yield from self._do(
            "SELECT sha256, ext, size_bytes FROM posts WHERE sha256 IS NOT NULL GROUP BY sha256"
        )

    def covered(self, takedowns: Takedowns) -> list[Row]:
        """Returns the posts of all boards on the takedown list, but those refused for it before."""
        if not takedowns:
            return []
        return [
            row
            for row in self.rows(self.boards())
            if not (row.state == "refused" and row.reason == TAKEDOWN) and takedowns.cover(row.post)
        ]

    def blobs_of_taken(self) -> list[Media]:
        """Returns the blobs that posts of any board have for an md5 that was taken down."""
        rows = self._rows(
            "SELECT sha256, ext, width, height, size_bytes FROM posts "  # noqa: S608
            "WHERE sha256 IS NOT NULL AND md5 IN "
            f"(SELECT md5 FROM posts WHERE {_TAKEN}) GROUP BY sha256"
        )
        return [Media(*row) for row in rows]

    def is_taken_down(self, md5: str | None) -> bool:
        """Tells whether these very bytes were taken down with a post of any board."""
        found = self._one(f"SELECT 1 FROM posts WHERE md5 = ? AND {_TAKEN} LIMIT 1", md5)  # noqa: S608
        return found is not None

    def take_down_blob(self, sha256: str) -> None:
        """Refuses, as taken down, every post of any board that has this blob."""
        self._do(
            "UPDATE posts SET state = 'refused', reason = 'takedown', settled_at = ?, "  # noqa: S608
            f"{_NO_BLOB} WHERE sha256 = ?",
            (self._now(), sha256),
        )

    def to_forget(self, takedowns: Takedowns) -> list[Row]:
        """Returns the posts that are or were taken down, and all others of the same bytes."""
        found = {_key(row.post): row for row in (*self.covered(takedowns), *self._where(_TAKEN))}
        for row in list(found.values()):
            file = row.media.sha256 if row.media else None
            for same in self._where("md5 = ? OR sha256 = ?", row.post.md5, file):
                found.setdefault(_key(same.post), same)
        return list(found.values())

    def forget(self, post: Post) -> None:
        """Refuses a post as taken down; leaves of its record what keeps it from coming back.

        What was there before does not stay in the file's free pages either.
        """
        self._do("PRAGMA secure_delete = ON")
        self._do(
            "UPDATE posts SET state = 'refused', reason = 'takedown', query = '', record = ?, "  # noqa: S608
            f"settled_at = ?, {_NO_BLOB} WHERE {_THIS}",
            (_json(forgotten(post).to_record()), self._now(), *_key(post)),
        )
        self._do("PRAGMA wal_checkpoint(TRUNCATE)")

    def taken_down(self, boards: Iterable[str]) -> int:
        """Returns how many posts of `boards` were taken down, now or ever."""
        counts = dict(
            self._rows(f"SELECT board, COUNT(*) FROM posts WHERE {_TAKEN} GROUP BY board")  # noqa: S608
        )
        return sum(counts.get(board, 0) for board in set(boards))

    def count(self, board: str) -> dict[str, int]:
        """Returns how many posts of a board are pending, kept and refused."""
        counts = "SELECT state, COUNT(*) FROM posts WHERE board = ? GROUP BY state"
        return {"pending": 0, "kept": 0, "refused": 0} | dict(self._rows(counts, board))

    def note_wait(self, wait: Wait) -> None:
        """Stores the Retry-After of a host; the longest wait of a host counts."""
        self._do(
            "INSERT INTO waits VALUES (?, ?, ?) ON CONFLICT (host) DO UPDATE SET "
            "not_before = excluded.not_before, asked_s = excluded.asked_s "
            "WHERE excluded.not_before > not_before",
            (wait.host, _moment(wait.not_before), wait.retry_after_s),
        )

    def waits(self, now: dt.datetime) -> list[Wait]:
        """Returns the waits of all hosts that are not over at `now`, and forgets the others."""
        self._do("DELETE FROM waits WHERE not_before <= ?", (_moment(now),))
        return [
            Wait(host, dt.datetime.fromisoformat(moment), asked_s)
            for host, moment, asked_s in self._rows("SELECT * FROM waits ORDER BY host")
        ]

    def _where(self, condition: str, *values: Any) -> list[Row]:
        query = (
            "SELECT record, state, reason, sha256, ext, width, height, size_bytes FROM posts "  # noqa: S608
            f"WHERE {condition} ORDER BY board, post_id"
        )
        return [
            Row(
                Post.from_record(json.loads(record)),
                state,
                reason,
                Media(*blob) if blob[0] else None,
            )
            for record, state, reason, *blob in self._rows(query, *values)
        ]

    def _admit(self, board: str, identities: frozenset[str]) -> None:
        with self._transaction():
            rows = self._rows("SELECT identity FROM boards WHERE board = ?", board)
            known = {identity for (identity,) in rows}
            if known and known.isdisjoint(identities):
                raise CrawlError(
                    f"{self.path} holds posts of {', '.join(sorted(known))} under the name "
                    f"{board}, which now stands for {', '.join(sorted(identities))}; "
                    "choose another name or another home"
                )
            for identity in identities - known:
                self._do("INSERT INTO boards VALUES (?, ?)", (board, identity))

    def _note(self, board: str, query: str, post: Post) -> bool:
        record = post.to_record()
        known = self._one(
            f"SELECT record, state, reason FROM posts WHERE {_THIS}",  # noqa: S608
            board,
            post.post_id,
        )
        if known and known[1] != "pending":
            if known[2] == TAKEDOWN or same_content(json.loads(known[0]), record):
                return False
            self._do(f"UPDATE posts SET attempts = 0, revisits = 0 WHERE {_THIS}", _key(post))  # noqa: S608
        if known and not self._has_md5(post):
            self._do(f"UPDATE posts SET {_NO_BLOB} WHERE {_THIS}", _key(post))  # noqa: S608
        self._do(
            "INSERT INTO posts (board, post_id, query, state, md5, record, noted_at) "
            "VALUES (?, ?, ?, 'pending', ?, ?, ?) ON CONFLICT (board, post_id) DO UPDATE SET "
            "query = excluded.query, state = 'pending', reason = NULL, md5 = excluded.md5, "
            "record = excluded.record",
            (board, post.post_id, query, post.md5, _json(record), self._now()),
        )
        return True

    def _has_md5(self, post: Post) -> bool:
        """Tells whether the ledger's md5 of a post is the present one: it may keep its blob."""
        row = self._one(f"SELECT md5 FROM posts WHERE {_THIS}", *_key(post))  # noqa: S608
        return row is not None and post.md5 is not None and row[0] == post.md5

    def _settle(self, post: Post, state: str, *, reason: str | None, media: Media | None) -> None:
        blob: Sequence[Any] = (None, None, None, None, None)
        if media is not None:
            blob = (media.sha256, media.ext, media.width, media.height, media.size_bytes)
        self._do(
            "UPDATE posts SET state = ?, reason = ?, sha256 = ?, ext = ?, width = ?, "  # noqa: S608
            f"height = ?, size_bytes = ?, settled_at = ? WHERE {_THIS} AND NOT ({_TAKEN})",
            (state, reason, *blob, self._now(), *_key(post)),
        )


def forgotten(post: Post) -> Post:
    """Returns what a ledger keeps of a post that was taken down: its number and md5."""
    nothing: dict[str, Any] = dict.fromkeys(_FORGOTTEN) | {f"tags_{kind}": () for kind in TAG_KINDS}
    return dataclasses.replace(post, **nothing)


_FORGOTTEN = ("ext", "width", "height", "source", "score", "created_at", "updated_at", "file_url")


def _key(post: Post) -> tuple[str, int]:
    return post.board, post.post_id


def _json(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False)


def _moment(moment: dt.datetime) -> str:
    """Writes a moment of UTC so that texts compare as moments do."""
    return moment.isoformat(timespec="microseconds")
