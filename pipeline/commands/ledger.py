"""`omokage ledger`: refusals, all about one post, backups; `omokage move`: data to elsewhere."""

import contextlib
import functools
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from crawlers.ledger import GONE, MAX_ATTEMPTS, MAX_REVISITS, TAKEDOWN, Ledger
from crawlers.ledger_file import FILE, restore
from crawlers.post import NOT_ASKED_FOR, Post
from crawlers.refusals import cause_of, remedy
from crawlers.sites import Site, board_names, board_takedowns, load_sites
from dataset.errors import EmptyStageError, StoreError, UsageError, listed, nearest
from dataset.media import Media, has_blob
from dataset.policy import Takedowns
from dataset.progress import progress
from dataset.store import (
    BLOBS,
    DATA,
    HOME,
    SCRATCH,
    STATE,
    UNFINISHED_MOVE,
    Listed,
    Store,
    blob_path,
)
from pipeline.commands import home_option
from pipeline.commands.takedown import check_quiet, no_crawl, only_takedown
from pipeline.instance import alone_in, only_up
from pipeline.settings import Settings, read_settings

_LOCK_TIMEOUT_S = 3.0
_POST = re.compile(r"([a-z][a-z0-9_]*)/([1-9]\d{0,18})")
_FLAGS = ("deleted", "banned", "pending", "flagged")

board_option = click.option(
    "--board", default="", metavar="NAME", help="A board, or a site that shows it (default: all)."
)


@click.group()
def ledger() -> None:
    """Look into a home's ledger, take refusals back, restore a backup."""


@ledger.command()
@home_option
@board_option
def refusals(home: str, board: str) -> None:
    """Count the refused posts of each board by reason, and say what brings them back.

    Example: omokage ledger refusals --board danbooru
    """
    with _opened(home) as (opened, _, sites):
        found = {name: _counts(opened, name) for name in _boards(opened, sites, board)}
    for name, counts in found.items():
        click.echo(f"{name}: {sum(counts.values()):,} posts refused")
        for reason, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
            click.echo(f"  {reason:<24} {count:>9,}  {remedy(reason)}")


@ledger.command()
@click.argument("post", metavar="BOARD/ID")
@home_option
def show(post: str, home: str) -> None:
    """Say all that the ledger knows of a post.

    Example: omokage ledger show danbooru/7654321
    """
    named = _POST.fullmatch(post)
    if named is None:
        raise UsageError(f'"{post}" names no post; a board and a number wanted, as demo/12')
    with _opened(home) as (opened, store, sites):
        (board,) = _boards(opened, sites, named[1], where=post)
        row = opened.columns_of(board, int(named[2]))
        if row is None:
            raise UsageError(f"{post}: the ledger has never seen this post of {board}")
        takedowns = board_takedowns(store, board_names(sites), crawled=opened.boards())
    sites_of_board = [site for site in sites.values() if site.board == board]
    site = sites_of_board[0] if sites_of_board else None
    for name, value in _facts(row, store, takedowns, site).items():
        click.echo(f"{name:<12} {value}")


@ledger.command()
@home_option
@click.option(
    "--reason", required=True, metavar="REASON", help="As `omokage ledger refusals` has it."
)
@board_option
@click.option("--dry-run", is_flag=True, help="Only count the posts.")
def requeue(home: str, reason: str, board: str, dry_run: bool) -> None:
    """Make refused posts wait again, for the next crawl to judge by their present records.

    What was taken down stays so. Refusals whose cause has changed are judged again by every crawl,
    without this.

    Example: omokage ledger requeue --reason unavailable --board danbooru
    """
    if reason == TAKEDOWN:
        raise UsageError(f"--reason {reason}: what was taken down stays so")
    if reason == GONE:
        raise UsageError(
            f"--reason {reason}: the board does not list them; the crawls that read posts again "
            "take them once it does"
        )
    if reason == NOT_ASKED_FOR:
        raise UsageError(
            f"--reason {reason}: its search would refuse them again; crawl with --tags that they "
            "have (see `omokage ledger show`), which takes them without this"
        )
    with _opened(home) as (opened, _, sites):
        counts = {name: _counts(opened, name) for name in _boards(opened, sites, board)}
        chosen = {name: found[reason] for name, found in counts.items() if reason in found}
        if not chosen:
            known = sorted({one for found in counts.values() for one in found})
            where = f" of {board}" if board else ""
            others = nearest(reason, known) or f"; there are: {', '.join(known) or 'no refusals'}"
            raise UsageError(f"--reason {reason}: no post{where} is refused for that{others}")
        if not dry_run:
            for name in chosen:  # all of them, before any changes
                opened.lock(name, timeout_s=_LOCK_TIMEOUT_S)
            chosen = {name: opened.requeue_refused(name, reason) for name in chosen}
        imports = opened.imports()
    for name, count in chosen.items():
        would = "would be pending" if dry_run else "pending"
        click.echo(f"{name}: {count:,} {would} again; {_next_step(name, sites, imports)}")


@ledger.command("restore")
@home_option
@click.option("--backup", default="", metavar="NAME", help="A file name (default: the newest).")
def restore_command(home: str, backup: str) -> None:
    """Put a backup in the place of the ledger; the former ledger is kept beside it.

    Each crawl and import writes a backup; the newest seven are kept.

    Example: omokage ledger restore
    """
    store = read_settings(home=home).store
    with alone_in(store):
        chosen, former = restore(store, backup)
    with Ledger(store.state.local(FILE)) as opened:
        counts = {board: opened.count(board) for board in opened.boards()}
    click.echo(f"restored from {store.url(chosen)}")
    for board, states in counts.items():
        click.echo(f"  {board}: " + ", ".join(f"{n:,} {state}" for state, n in states.items()))
    if former:
        click.echo(f"the former ledger is {store.state.url(former)}")
    click.echo("Crawl and import again: what came since is taken up. Then build posts.")


# What lies in a home's folder and is not of its data: names, and how names begin.
_LOCAL = {"board", "cache", "dagster", "evaluating", "logs", "mlflow", "packed", UNFINISHED_MOVE}
_LOCAL_FILES = ("ledger.", "quarantine")
_COPIES_AT_ONCE = 1_000


@click.command()
@home_option
@click.option("--to", required=True, metavar="URL", help="An empty folder, or s3://bucket/prefix.")
@click.option("--dry-run", is_flag=True, help="Say what would be copied, and copy nothing.")
def move(home: str, to: str, dry_run: bool) -> None:
    """Copy a home's data to another place, such as a bucket, and say how to use it there.

    Ledger, databases and locks stay where they are; nothing is removed. Stopped, the same command
    goes on. Nothing else may be at work in the home.

    Example: omokage move --to s3://bucket/omokage
    """
    settings = read_settings(home=home)
    source = settings.store
    target = Store(to if "://" in to else Path(to).expanduser().resolve())
    for one, other in ((source, target), (target, source)):
        if f"{one.url('')}/".startswith(f"{other.url('')}/"):
            raise UsageError(f"--to {to}: it and {source.root} lie in one another")
    with _quiet(settings, source):
        wanted = {one.path: one for one in source.objects("") if not _is_local(one.path)}
        there = _begun(source, target, dry_run=dry_run)
        todo = [path for path, one in wanted.items() if not _same(source, one, there.get(path))]
        size = sum(wanted[path].size for path in todo)
        words = f"{len(todo):,} of {len(wanted):,} files, {size / 1e6:,.0f} MB"
        if dry_run:
            click.echo(f"{words}, would be copied from {source.root} to {target.root}")
            return
        for path in there.keys() - wanted.keys():  # gone since the move was begun
            target.remove(path)
        with progress("move", len(todo), unit="files") as advance, ThreadPoolExecutor(16) as pool:
            for first in range(0, len(todo), _COPIES_AT_ONCE):
                part = todo[first : first + _COPIES_AT_ONCE]
                for _ in pool.map(functools.partial(_copy, source, target), part):
                    advance(1)
        sizes = {one.path: one.size for one in target.objects("")}
        if bad := [path for path, one in wanted.items() if sizes.get(path) != one.size]:
            raise StoreError(f"{target.root}: not whole; move again:\n{listed(bad)}")
        target.remove(UNFINISHED_MOVE)
    click.echo(f"copied {words}; to use it, set\n  {HOME}={settings.home}")
    if settings.state != settings.home:
        click.echo(f"  {STATE}={settings.state}")
    if settings.scratch != settings.home:
        click.echo(f"  {SCRATCH}={settings.scratch}")
    click.echo(f"  {DATA}={target.root}")
    names = sorted({path.partition("/")[0] for path in wanted})
    click.echo(f"Then these of {source.root} can be removed: {' '.join(names)}")


@contextlib.contextmanager
def _quiet(settings: Settings, store: Store) -> Iterator[None]:
    """Keeps all else out of a home; raises UsageError if something is at work."""
    with contextlib.ExitStack() as held:
        for lock in (only_takedown(store), alone_in(store), only_up(store)):
            held.enter_context(lock)
        if store.state.exists(FILE):
            held.enter_context(no_crawl(store))
        check_quiet(settings)
        yield


def _is_local(path: str) -> bool:
    top, _, below = path.partition("/")
    is_unfinished = path.rpartition("/")[2].startswith(".tmp-")
    is_file = not below and (top.startswith(_LOCAL_FILES) or top.startswith(".tmp-"))
    return top in _LOCAL or is_file or is_unfinished or path.endswith(".lock")


def _begun(source: Store, target: Store, *, dry_run: bool) -> dict[str, Listed]:
    """Returns what an earlier move of this very data left at the target, by path.

    Raises UsageError if anything else is there.
    """
    there = {one.path: one for one in target.objects("")}
    note = f"{source.url('')}\n".encode()
    if there.pop(UNFINISHED_MOVE, None) is None:
        if there:
            raise UsageError(f"--to {target.root}: there are files already; an empty place wanted")
        if not dry_run and not target.create(UNFINISHED_MOVE, note):
            raise UsageError(f"--to {target.root}: another move there has just begun")
    elif (other := target.read_bytes(UNFINISHED_MOVE)) != note:
        raise UsageError(
            f"--to {target.root}: a move from {other.decode().strip()} was begun there"
        )
    return there


def _same(source: Store, one: Listed, other: Listed | None) -> bool:
    """Tells whether a file was copied: blobs by their size, others by their md5."""
    if other is None or one.size != other.size:
        return False
    if one.path.startswith(f"{BLOBS}/"):
        return True
    if not other.md5:
        return False
    content = b"" if one.md5 else source.read_bytes(one.path)
    return (one.md5 or hashlib.md5(content, usedforsecurity=False).hexdigest()) == other.md5


def _copy(source: Store, target: Store, path: str) -> None:
    with source.open(path) as content, target.writing(path) as file:
        shutil.copyfileobj(content, file, 2**20)


def _next_step(board: str, sites: Mapping[str, Site], imports: list[str]) -> str:
    if board in imports:
        return "the next `omokage import` of this set settles them"
    names = [name for name, site in sites.items() if site.board == board]
    return f"the next crawl settles them: omokage crawl --site {names[0] if names else board}"


@contextlib.contextmanager
def _opened(home: str) -> Iterator[tuple[Ledger, Store, dict[str, Site]]]:
    """Opens the ledger of a home; with its store, and the sites of the registry."""
    settings = read_settings(home=home)
    store = settings.store
    if not store.state.exists(FILE):
        raise EmptyStageError(
            f"{store.state.url(FILE)} is not there: crawl a site first, or import pictures"
        )
    with Ledger.of(store) as opened:
        yield opened, store, load_sites(settings.sites_file or None)


def _boards(
    opened: Ledger, sites: Mapping[str, Site], name: str, *, where: str = "--board"
) -> list[str]:
    """Returns the board of a name, all boards for none."""
    known = opened.boards()
    found = board_names(sites).get(name, name)
    if name and found not in known:
        others = nearest(found, known) or f"; there are: {', '.join(known) or 'no boards'}"
        raise UsageError(f'{where}: the ledger has no board "{found}"{others}')
    return [found] if name else known


def _counts(opened: Ledger, board: str) -> dict[str, int]:
    """Returns how many posts of a board are refused, by reason."""
    counts: dict[str, int] = {}
    for reason, _, count in opened.refusals(board):
        counts[reason] = counts.get(reason, 0) + count
    return counts


def _facts(
    row: Mapping[str, Any], store: Store, takedowns: Takedowns, site: Site | None
) -> dict[str, str]:
    """Returns what is known of a post: a name and a text for each fact."""
    post = Post.from_record(json.loads(row["record"]))
    is_refused = row["state"] == "refused"
    facts = {"post": f"{post.board}/{post.post_id}", "state": row["state"]}
    if row["reason"]:
        facts["reason"] = row["reason"]
    if is_refused:
        facts["cause"] = row["cause"] or _no_cause(row["reason"], site)
        facts["remedy"] = remedy(row["reason"])
    facts |= {
        "search": row["query"] or "(all posts)",
        "attempts": f"{row['attempts']} of {MAX_ATTEMPTS} failed, since its record last changed",
        "revisits": f"{row['revisits']} of {MAX_REVISITS}",
        "noted at": row["noted_at"],
        "settled at": row["settled_at"] or "-",
        "fetched at": post.fetched_at.isoformat(),
        "rating": post.rating,
        "flags": " ".join(flag for flag in _FLAGS if getattr(post, flag)) or "-",
        "tags": " ".join(sorted(post.tags)) or "-",
        "file": post.file_url or "withheld",
        "md5": post.md5 or "withheld",
        "said to be": f"{post.ext or '?'}, {post.width or '?'} x {post.height or '?'} px",
        "blob": _blob(row, store),
        "takedown": "on the list" if takedowns.cover(post) else "not on the list",
    }
    return facts


def _no_cause(reason: str, site: Site | None) -> str:
    if reason.startswith("tag_"):
        return "the tag is excluded"
    is_known = cause_of(reason, site=site) is None
    return "the post itself" if is_known else "not known: an earlier release refused it"


def _blob(row: Mapping[str, Any], store: Store) -> str:
    if row["sha256"] is None:
        return "-"
    names = ("sha256", "ext", "width", "height", "size_bytes")
    media = Media(*(row[name] for name in names))
    is_there = "" if has_blob(store, media) else ", which is NOT there with all its bytes"
    return f"{store.url(blob_path(media.sha256, media.ext))}{is_there}"
