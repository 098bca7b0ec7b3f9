"""The ledger of all crawls: one SQLite file that knows every post seen and what became of it.

A page of posts and the cursor's move over it are one transaction, and a post noted there is
`pending` until it is kept or refused. So a crawl that is killed at any moment loses nothing and
does nothing twice: the next one first settles what is pending, then resumes from the cursor.
"""

import dataclasses
import datetime as dt
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from crawlers.cursor import Cursor
from crawlers.ledger_file import LedgerFile
from crawlers.post import NOT_ASKED_FOR, TAG_KINDS, Post, same_content
from crawlers.rate_limit import Wait
from crawlers.sites import Site
from dataset.errors import CrawlError
from dataset.media import Media
from dataset.policy import Takedowns

MAX_ATTEMPTS = 5  # crawls that try to fetch a picture before it is given up
BLOB_MISSING = "blob_missing"  # why a post waits whose blob was kept and has gone
IMPORTED = "import@"  # how the identity of an import begins; its posts came by no search
TAKEDOWN = "takedown"  # the reason that no later record of a post undoes
GONE = "gone_on_board"  # the reason that is undone once the board shows the post again
# What a board had not finished with is looked at again, so often and so long after the last time.
UNFINISHED = ("pending", "flagged")
MAX_REVISITS = 4
REVISIT_AFTER = dt.timedelta(days=3)
# So is what a host could not, or would not, give.
RETRY_AFTER = dt.timedelta(days=30)
BATCH = 500
_BEYOND = 2**63 - 1

_NO_BLOB = "sha256 = NULL, ext = NULL, width = NULL, height = NULL, size_bytes = NULL"
_THIS = "board = ? AND post_id = ?"
_TAKEN = "state = 'refused' AND reason = 'takedown'"
_BY_KEY = "ORDER BY board, post_id"


class Row(NamedTuple):
    """A post in the ledger: its record, state, reason and its blob.

    A pending post has a blob if it was kept until its record changed or its blob was missing.
    `changed` is greater than that of every post that changed before.
    """

    post: Post
    state: str
    reason: str | None
    media: Media | None
    changed: int


class Recheckable(NamedTuple):
    """What there is to be read again of a search: the ids from `newest` down to `last`.

    recent: ids above it are; posts: how many there are; mark, days: where the rolling walk stopped
    (None: not begun), and how long ago.
    """

    newest: int
    last: int
    recent: int
    posts: int
    mark: int | None
    days: float


class Compared(NamedTuple):
    """What became of posts that were read again: those to be settled, and their numbers."""

    to_settle: list[Post]
    known: int
    changed: int
    new: int


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

    def state_of(
        self, post: Post, stands: Callable[[str, str | None], bool]
    ) -> tuple[str | None, bool]:
        """Returns a post's state (None: unknown), and whether its record is settled as it is.

        stands: tells of the reason and cause of a refusal whether it is as it was.
        """
        row = self._one(
            f"SELECT record, state, reason, cause FROM posts WHERE {_THIS}",  # noqa: S608
            *_key(post),
        )
        if row is None:
            return None, False
        record, state, reason, cause = row
        if reason == TAKEDOWN or state == "pending":
            return state, state != "pending"
        same = same_content(json.loads(record), post.to_record())
        return state, same and (state == "kept" or stands(reason, cause))

    def revisit(self, board: str) -> int:
        """Makes pending again what the board or a host had not finished with, once it is due.

        Due is a post refused as pending or flagged REVISIT_AFTER it was last looked at, one whose
        picture was unavailable, or forbidden by a status or robots.txt, RETRY_AFTER that; either
        MAX_REVISITS times at most. Returns how many there are.
        """
        return sum(
            self._do(
                "UPDATE posts SET state = 'pending', attempts = 0, revisits = revisits + 1 "  # noqa: S608
                f"WHERE board = ? AND {reasons} AND settled_at <= ? "
                "AND state = 'refused' AND revisits < ?",
                (board, (self._clock() - wait).isoformat(timespec="milliseconds"), MAX_REVISITS),
            ).rowcount
            for reasons, wait in (
                ("reason IN ('pending', 'flagged')", REVISIT_AFTER),
                ("reason IN ('unavailable', 'robots')", RETRY_AFTER),
                ("reason GLOB 'status_*'", RETRY_AFTER),
            )
        )

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
                    f"UPDATE posts SET md5 = ?, record = ?, rechecked_at = ? WHERE {_THIS}",  # noqa: S608
                    (post.md5, _json(post.to_record()), self._now(), *_key(post)),
                )

    def keep(self, post: Post, media: Media) -> None:
        """Settles a post: its picture is among the blobs. What was taken down stays so."""
        self._settle(post, "kept", reason=None, media=media)

    def refuse(self, post: Post, reason: str, *, cause: str | None = None) -> None:
        """Settles a post: it is not stored, for this reason; cause: what that rests on."""
        self._settle(post, "refused", reason=reason, media=None, cause=cause)

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

    def searches(self, board: str) -> list[str]:
        """Returns all searches that have brought posts of a board that are kept."""
        rows = self._rows(
            "SELECT query FROM windows WHERE board = ? AND EXISTS (SELECT 1 FROM posts WHERE "
            "posts.board = windows.board AND state = 'kept' AND posts.query = windows.query) "
            "ORDER BY query",
            board,
        )
        return [query for (query,) in rows]

    def recheckable(self, board: str, query: str, *, recheck_days: float) -> Recheckable | None:
        """Returns which ids of a search are to be read again; None if there are none yet.

        Recent are those above the newest post that the board has had for `recheck_days`. One
        without a time of posting was there when it was last changed.
        """
        cursor = self.cursor(board, query)
        kept = self._one(
            "SELECT MIN(post_id), MAX(post_id) FROM posts "
            "WHERE board = ? AND query = ? AND state = 'kept'",
            board,
            query,
        )
        ids = [one for one in (cursor.low, cursor.high, *(kept or ())) if one is not None]
        if not ids:
            return None
        first = self._clock() - dt.timedelta(days=recheck_days)
        # From the newest on, and no further than the first hit: no time has an index.
        old = self._one(
            "SELECT post_id FROM posts WHERE board = ? AND coalesce("
            "json_extract(record, '$.created_at'), json_extract(record, '$.updated_at')) <= ? "
            "ORDER BY post_id DESC LIMIT 1",
            board,
            first.isoformat(timespec="seconds"),
        )
        (posts,) = self._one(
            "SELECT COUNT(*) FROM posts WHERE board = ? AND query = ? "
            "AND state IN ('kept', 'refused', 'pending')",  # all there are, but found by the index
            board,
            query,
        ) or (0,)
        mark, walked_at = self._one(
            "SELECT mark, walked_at FROM rechecks WHERE board = ? AND query = ?", board, query
        ) or (None, None)
        since = dt.timedelta(days=1)
        if walked_at is not None:
            since = self._clock() - dt.datetime.fromisoformat(walked_at)
        days = since / dt.timedelta(days=1)
        return Recheckable(max(ids), min(ids), old[0] if old else 0, posts, mark, days)

    def highest_kept(
        self, board: str, query: str, *, first: int, below: int, most: int
    ) -> list[int]:
        """Returns the highest `most` ids of a search's kept posts from `first` up to `below`."""
        rows = self._rows(
            "SELECT post_id FROM posts WHERE board = ? AND query = ? AND state = 'kept' "
            "AND post_id >= ? AND post_id < ? ORDER BY post_id DESC LIMIT ?",
            board,
            query,
            first,
            below,
            most,
        )
        return [post_id for (post_id,) in rows]

    def compare(
        self, board: str, query: str, *, posts: Iterable[Post], new: Collection[int]
    ) -> Compared:
        """Compares posts that were read again with what is known of them; those that changed wait.

        One that is not known is noted if its id is among `new`. One that waits already is left to
        the crawl that settles it.
        """
        to_settle, known = [], 0
        with self._transaction():
            for post in posts:
                found = self._one(f"SELECT state FROM posts WHERE {_THIS}", *_key(post))  # noqa: S608
                if found == ("pending",) or (found is None and post.post_id not in new):
                    continue
                known += found is not None
                if self._note(board, query, post):
                    to_settle.append((post, found))
        added = sum(found is None for _, found in to_settle)
        settled = [post for post, _ in to_settle]
        return Compared(settled, known, len(settled) - added, added)

    def mark_gone(self, board: str, ids: Iterable[int]) -> int:
        """Refuses kept posts that their board does not have any more; returns how many."""
        with self._transaction():
            return sum(
                self._do(
                    "UPDATE posts SET state = 'refused', reason = ?, settled_at = ?, "  # noqa: S608
                    f"rechecked_at = ?, {_NO_BLOB} WHERE {_THIS} AND state = 'kept'",
                    (GONE, self._now(), self._now(), board, post_id),
                ).rowcount
                for post_id in ids
            )

    def move_mark(self, board: str, query: str, mark: int, *, is_share: bool) -> None:
        """Stores how far the rolling walk has come; `is_share`: that is all of this crawl's share.

        A crawl that is killed before leaves its days to the next one.
        """
        walked_at = self._clock() - dt.timedelta(days=0 if is_share else 1)
        self._do(
            "INSERT INTO rechecks VALUES (?, ?, ?, ?) ON CONFLICT (board, query) DO UPDATE SET "
            "mark = excluded.mark, walked_at = iif(?, excluded.walked_at, walked_at)",
            (board, query, mark, walked_at.isoformat(timespec="milliseconds"), is_share),
        )

    def ages(self, *, older_than: dt.timedelta) -> dict[str, tuple[int, int]]:
        """Returns by board how many kept posts were not seen for so long, and how many there are.

        Imports do not count: nobody can look at their posts again.
        """
        rows = self._rows(
            "SELECT board, SUM(coalesce(rechecked_at, noted_at) < ?), COUNT(*) FROM posts "
            "WHERE state = 'kept' AND board NOT IN "
            "(SELECT board FROM boards WHERE identity LIKE ?) GROUP BY board ORDER BY board",
            (self._clock() - older_than).isoformat(timespec="milliseconds"),
            f"{IMPORTED}%",
        )
        return {board: (old, kept) for board, old, kept in rows}

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
            while found := self._where(
                f"board = ? AND post_id > ? ORDER BY post_id LIMIT {BATCH}", board, last
            ):
                yield from found
                last = found[-1].post.post_id

    def changes(self, after: int) -> Iterator[Row]:
        """Yields the posts of all boards that changed after the change of this number, in order.

        One that is changed meanwhile comes again.
        """
        while found := self._where(f"changed > ? ORDER BY changed LIMIT {BATCH}", after):
            yield from found
            after = found[-1].changed

    def last_change(self) -> int:
        """Returns the number of the newest change of a post; 0 if there is none."""
        ((newest,),) = self._rows("SELECT COALESCE(MAX(changed), 0) FROM posts")
        return int(newest)

    def change_of(self, board: str, post_id: int) -> int:
        """Returns the number of a post's newest change; 0 for one that is not known."""
        row = self._one(f"SELECT changed FROM posts WHERE {_THIS}", board, post_id)  # noqa: S608
        return int(row[0]) if row else 0

    def requeue(self, sha256s: Iterable[str], reason: str) -> int:
        """Makes the kept posts of these blobs pending again, with all their attempts before them.

        They keep their sha256, so a blob that comes back is known (`keep_found`). Returns how many
        posts they are.
        """
        of_blob = "SELECT board, post_id FROM posts WHERE sha256 = ? AND state = 'kept'"
        keys = [key for sha256 in sha256s for key in self._rows(of_blob, sha256)]
        self._requeue(keys, reason)
        return len(keys)

    def requeue_missing(self, board: str, is_there: Callable[[Media], bool]) -> int:
        """Requeues the kept posts of a board whose blobs are not there; returns how many."""
        rows = self._do(
            "SELECT post_id, sha256, ext, width, height, size_bytes FROM posts "
            "WHERE board = ? AND state = 'kept'",
            (board,),
        )
        lost = [post_id for post_id, *blob in rows if not is_there(Media(*blob))]
        self._requeue(((board, post_id) for post_id in lost), BLOB_MISSING)
        return len(lost)

    def keep_found(self, is_there: Callable[[Media], bool]) -> int:
        """Keeps the posts again that wait as BLOB_MISSING if their blobs are there after all.

        Returns how many they are.
        """
        # By their boards, which an index knows: 1.6 s less among 300,000 posts.
        rows = self._rows(
            "SELECT board, post_id, sha256, ext, width, height, size_bytes FROM posts "
            "WHERE board IN (SELECT board FROM boards) AND state = 'pending' AND reason = ? "
            "AND sha256 IS NOT NULL",
            BLOB_MISSING,
        )
        found = [row[:2] for row in rows if is_there(Media(*row[2:]))]
        with self._transaction():
            for key in found:
                self._do(
                    "UPDATE posts SET state = 'kept', reason = NULL, settled_at = ? "  # noqa: S608
                    f"WHERE {_THIS} AND state = 'pending' AND reason = 'blob_missing'",
                    (self._now(), *key),
                )
        return len(found)

    def blobs(self, begins: str = "") -> Iterator[tuple[str, str, int, bool]]:
        """Yields sha256, extension, size in bytes of every blob that a post names, once each.

        And whether a kept post does: the others belong to posts that wait, and may be missing.
        begins: first digits of the sha256.
        """
        rows = self._do(
            "SELECT sha256, ext, size_bytes, MAX(state = 'kept') FROM posts "
            "WHERE sha256 IS NOT NULL AND sha256 BETWEEN ? AND ? GROUP BY sha256",
            (begins, f"{begins}g"),  # after the last digit, f
        )
        yield from ((sha256, ext, size, bool(kept)) for sha256, ext, size, kept in rows)

    def count_blobs(self) -> int:
        """Returns how many posts name a blob."""
        ((count,),) = self._rows("SELECT COUNT(*) FROM posts WHERE sha256 IS NOT NULL")
        return int(count)

    def gave_up(self, sha256: str) -> bool:
        """Tells whether a post once had the blob of this sha256 and was settled otherwise since."""
        return self._one("SELECT 1 FROM given_up WHERE sha256 = ?", sha256) is not None

    def names_blob(self, sha256: str) -> bool:
        """Tells whether a post has the blob of this sha256."""
        return self._one("SELECT 1 FROM posts WHERE sha256 = ? LIMIT 1", sha256) is not None

    def covered(self, takedowns: Takedowns, *, after: int = 0) -> list[Row]:
        """Returns the posts of all boards on the takedown list, but those refused for it before.

        after: only those that changed after the change of this number.
        """
        if not takedowns:
            return []
        return [
            row
            for row in self.changes(after)
            if not (row.state == "refused" and row.reason == TAKEDOWN) and takedowns.cover(row.post)
        ]

    def applied(self, digest: str) -> int:
        """Returns the change up to which the takedown list of this digest was applied; or 0."""
        row = self._one("SELECT changed FROM applied WHERE takedowns = ?", digest)
        return int(row[0]) if row else 0

    def note_applied(self, digest: str, changed: int) -> None:
        """Notes that the takedown list of this digest was applied up to a change, and no other."""
        with self._transaction():
            self._do("DELETE FROM applied")
            self._do("INSERT INTO applied VALUES (?, ?)", (digest, changed))

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
        with self._transaction():
            self._do(
                "UPDATE posts SET state = 'refused', reason = 'takedown', settled_at = ?, "  # noqa: S608
                f"{_NO_BLOB} WHERE sha256 = ?",
                (self._now(), sha256),
            )
            self._do("DELETE FROM given_up WHERE sha256 = ?", (sha256,))

    def to_forget(self, takedowns: Takedowns) -> list[Row]:
        """Returns the posts that are or were taken down, and all others of the same bytes."""
        found = {
            _key(row.post): row
            for row in (*self.covered(takedowns), *self._where(f"{_TAKEN} {_BY_KEY}"))
        }
        for row in list(found.values()):
            file = row.media.sha256 if row.media else None
            for same in self._where(f"md5 = ? OR sha256 = ? {_BY_KEY}", row.post.md5, file):
                found.setdefault(_key(same.post), same)
        return list(found.values())

    def forget(self, post: Post) -> None:
        """Refuses a post as taken down; leaves of its record what keeps it from coming back.

        What was there before stays in the file's free space until `repack`.
        """
        with self._transaction():
            row = self._one(f"SELECT sha256 FROM posts WHERE {_THIS}", *_key(post))  # noqa: S608
            self._do(
                "UPDATE posts SET state = 'refused', reason = 'takedown', cause = NULL, "  # noqa: S608
                f"query = '', record = ?, settled_at = ?, {_NO_BLOB} WHERE {_THIS}",
                (_json(forgotten(post).to_record()), self._now(), *_key(post)),
            )
            self._do("DELETE FROM given_up WHERE sha256 = ?", row or (None,))

    def repack(self) -> None:
        """Packs the file anew: what it forgot, and its log, are in no free space any more."""
        self._do("VACUUM")
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

    def kept_ids(self, board: str) -> list[int]:
        """Returns the numbers of the kept posts of a board."""
        rows = self._rows("SELECT post_id FROM posts WHERE board = ? AND state = 'kept'", board)
        return [post_id for (post_id,) in rows]

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

    def refusals(self, board: str) -> list[tuple[str, str | None, int]]:
        """Returns reason, cause and number of all refusals of a board."""
        return self._rows(
            "SELECT reason, cause, COUNT(*) FROM posts "
            "WHERE board = ? AND state = 'refused' GROUP BY reason, cause ORDER BY reason, cause",
            board,
        )

    def judge_again(
        self,
        board: str,
        reason: str,
        cause: str | None,
        judge: Callable[[Post, str], tuple[str | None, str | None]],
        *,
        query: str | None = None,
        ids: tuple[int, int] | None = None,
    ) -> int:
        """Judges the posts refused for a reason and cause by their records; returns how many wait.

        judge: makes the present reason and cause of a post and its search; with reason None the
        post waits. query: the search that they are of from now on; ids: the first and last of them.
        What was taken down stays so.
        """
        last, highest = (ids[0] - 1, ids[1]) if ids else (0, _BEYOND)
        waiting = 0
        while True:
            with self._transaction():
                rows = self._rows(
                    "SELECT post_id, query, record FROM posts "
                    "WHERE board = ? AND state = 'refused' AND reason = ? AND reason != 'takedown' "
                    "AND cause IS ? AND post_id > ? AND post_id <= ? ORDER BY post_id LIMIT ?",
                    *(board, reason, cause, last, highest, BATCH),
                )
                for post_id, old, record in rows:
                    last = post_id
                    reason_now, cause_now = judge(Post.from_record(json.loads(record)), old)
                    self._do(
                        "UPDATE posts SET state = ?, reason = ?, cause = ?, query = ?, "  # noqa: S608
                        f"attempts = 0 WHERE {_THIS}",
                        (
                            *("refused" if reason_now else "pending", reason_now, cause_now),
                            *(old if query is None else query, board, post_id),
                        ),
                    )
                    waiting += reason_now is None
            if len(rows) < BATCH:
                return waiting

    def requeue_refused(self, board: str, reason: str) -> int:
        """Makes the posts refused for a reason pending, with all attempts before them.

        Returns how many; never what was taken down.
        """
        return self._do(
            "UPDATE posts SET state = 'pending', attempts = 0, revisits = 0 "
            "WHERE board = ? AND state = 'refused' AND reason = ? AND reason != 'takedown'",
            (board, reason),
        ).rowcount

    def columns_of(self, board: str, post_id: int) -> dict[str, Any] | None:
        """Returns all that the ledger has of a post, by column; None if it has never seen it."""
        found = self._do(f"SELECT * FROM posts WHERE {_THIS}", (board, post_id))  # noqa: S608
        names = [name for name, *_ in found.description]
        row = found.fetchone()
        return None if row is None else dict(zip(names, row, strict=True))

    def _where(self, condition: str, *values: Any) -> list[Row]:
        query = (
            "SELECT record, state, reason, changed, sha256, ext, width, height, size_bytes "  # noqa: S608
            f"FROM posts WHERE {condition}"
        )
        return [
            Row(
                Post.from_record(json.loads(record)),
                state,
                reason,
                Media(*blob) if blob[0] else None,
                changed,
            )
            for record, state, reason, changed, *blob in self._rows(query, *values)
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
            f"SELECT record, state, reason, query FROM posts WHERE {_THIS}",  # noqa: S608
            board,
            post.post_id,
        )
        if known:
            self._do(f"UPDATE posts SET rechecked_at = ? WHERE {_THIS}", (self._now(), *_key(post)))  # noqa: S608
        if known and known[1] != "pending":
            old = json.loads(known[0])
            if old.get("file_url") and record["file_url"] and _is_settled_anywhere(*known[1:3]):
                old["file_url"] = record["file_url"]
            is_same = known[2] != GONE and same_content(old, record)
            # That one search did not want a post says nothing about another.
            of_other = known[2] == NOT_ASKED_FOR and known[3] != query
            if known[2] == TAKEDOWN or (is_same and not of_other):
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

    def _requeue(self, keys: Iterable[tuple[str, int]], reason: str) -> None:
        with self._transaction():
            for key in keys:
                self._do(
                    "UPDATE posts SET state = 'pending', reason = ?, attempts = 0, "  # noqa: S608
                    f"settled_at = NULL WHERE {_THIS} AND state = 'kept'",
                    (reason, *key),
                )

    def _has_md5(self, post: Post) -> bool:
        """Tells whether the ledger's md5 of a post is the present one: it may keep its blob."""
        row = self._one(f"SELECT md5 FROM posts WHERE {_THIS}", *_key(post))  # noqa: S608
        return row is not None and post.md5 is not None and row[0] == post.md5

    def _settle(
        self,
        post: Post,
        state: str,
        *,
        reason: str | None,
        media: Media | None,
        cause: str | None = None,
    ) -> None:
        blob: Sequence[Any] = (None, None, None, None, None)
        if media is not None:
            blob = (media.sha256, media.ext, media.width, media.height, media.size_bytes)
        self._do(
            "UPDATE posts SET state = ?, reason = ?, cause = ?, sha256 = ?, ext = ?, width = ?, "  # noqa: S608
            f"height = ?, size_bytes = ?, settled_at = ? WHERE {_THIS} AND NOT ({_TAKEN})",
            (state, reason, cause, *blob, self._now(), *_key(post)),
        )


def forgotten(post: Post) -> Post:
    """Returns what a ledger keeps of a post that was taken down: its number and md5."""
    nothing: dict[str, Any] = dict.fromkeys(_FORGOTTEN) | {f"tags_{kind}": () for kind in TAG_KINDS}
    return dataclasses.replace(post, **nothing)


_FORGOTTEN = ("ext", "width", "height", "source", "score", "created_at", "updated_at", "file_url")


def _is_settled_anywhere(state: str, reason: str | None) -> bool:
    """Tells whether it is all the same where the board has the picture now.

    That of a kept post is here. Of one that was refused by its record, or by the bytes of its md5,
    another address tells nothing; but it may be one that is allowed, or that answers.
    """
    by_address = ("host", "robots", "gone", "unavailable")
    return state == "kept" or not (reason in by_address or (reason or "").startswith("status_"))


def _key(post: Post) -> tuple[str, int]:
    return post.board, post.post_id


def _json(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False)


def _moment(moment: dt.datetime) -> str:
    """Writes a moment of UTC so that texts compare as moments do."""
    return moment.isoformat(timespec="microseconds")
