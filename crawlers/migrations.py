"""Brings a ledger of an earlier version up to the present one, in place; called in a transaction.

A step is frozen once released: what it says of boards is what was true of them in that version.
"""

import sqlite3
from collections.abc import Mapping

from crawlers.cursor import Cursor

# Version 1 took two addresses of one board for two boards.
_ONE_BOARD = {
    "danbooru@safebooru.donmai.us": "danbooru",
    "danbooru@danbooru.donmai.us": "danbooru",
}


def migrate(db: sqlite3.Connection, version: int) -> int:
    """Changes the tables of a ledger of `version` step by step; returns the version they are now.

    A version that is not known is left as it is.
    """
    if version == 1:
        _from_1_to_2(db)
        return 2
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
