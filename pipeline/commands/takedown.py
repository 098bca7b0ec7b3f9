"""`omokage takedown` removes pictures wherever they went; `omokage lineage` says where that is."""

import collections
import contextlib
import datetime as dt
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crawlers.ledger import TAKEDOWN as REFUSED
from crawlers.ledger import Ledger, Row, forgotten
from crawlers.ledger_file import BACKUPS, FILE
from crawlers.sites import board_names, board_takedowns, load_sites
from dataset.errors import StoreError, UsageError, listed, nearest
from dataset.policy import TAKEDOWN_FILE, add_entry, parse_takedowns, read_takedowns
from dataset.store import Store, blob_path, file_lock
from dataset.takedown import (
    RECEIPTS,
    Pictures,
    Trace,
    affected,
    alike,
    artists_of,
    caches,
    evaluations,
    find,
    manifest_rows,
    new_receipt,
    post_name,
    purge_versions,
    read_receipts,
    receipt_in_words,
    receipt_named,
    trainings,
    widened,
    write_receipt,
)
from models.registry.client import TrackingClient
from models.registry.promotion import TAKEDOWN
from models.registry.versions import (
    grids_of_reals,
    learnt_manifests,
    mark_taken,
    remove_artifact,
    taken_of,
)
from pipeline.commands import home_option
from pipeline.instance import (
    DAGSTER_YAML,
    alone_in,
    check_no_run,
    databases,
    opened_instance,
    previews_of_reals,
    repack,
    scrub_previews,
)
from pipeline.settings import Settings, read_settings, tracking_client

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

LOCK = "takedown.lock"
OLD_VERSIONS = (
    "{} has older versions of what was overwritten or removed, the pictures among them: have the "
    "bucket remove them (a lifecycle rule with NoncurrentVersionExpiration), then run omokage "
    "takedown apply again"
)
STAYING = {  # what a takedown leaves, and why
    "board": "the demo board's own pictures; from a real board only its operators remove one",
    "taggers": "taggers learnt labels from the home's faces; the next build trains another one",
}


@click.group()
def takedown() -> None:
    """Take pictures down: all that was made of them, here, in MLflow and in Dagster.

    \b
    Examples:
      omokage takedown add post danbooru/123 --note "mail of 29 November"
      omokage takedown apply --dry-run
      omokage takedown apply
      omokage takedown receipt
    """  # noqa: D301 (\b is the character by which click keeps lines apart)


@takedown.command()
@home_option
@click.argument("kind", type=click.Choice(["post", "md5", "artist"]))
@click.argument("value", metavar="SITE/N|HEX|TAG")
@click.option("--note", default="", metavar="TEXT", help="Why; it is stored behind the entry.")
def add(home: str, kind: str, value: str, note: str) -> None:
    """Put a post, a file or all works of an artist onto takedown.txt, and do nothing else.

    Example: omokage takedown add post danbooru/123
    """
    settings, store = _opened(home)
    site, names = value.partition("/")[0].lower(), _names(settings, store)
    if kind == "post" and site not in names:
        raise UsageError(
            f'"{value}": "{site}" is no site of the registry and no board of the ledger'
            f"{nearest(site, names)}"
        )
    with only_takedown(store):
        line = add_entry(store, kind, value, note)
    click.echo(f"{store.url(TAKEDOWN_FILE)}: {line}\nNow run omokage takedown apply.")


@takedown.command("apply")
@home_option
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and change nothing.")
def apply_command(home: str, *, dry_run: bool) -> None:
    """Remove all that was made of the pictures on takedown.txt, and write a receipt.

    Twice changes nothing; after a kill it resumes. Models keep their weights: their versions are
    marked, and none of these becomes champion any more.

    Example: omokage takedown apply --dry-run
    """
    settings, store = _opened(home)
    with only_takedown(store), alone_in(store), no_crawl(store) as ledger:
        check_quiet(settings)
        found = _Found.of(settings, store, ledger)
        if dry_run:
            lines = [_trace_in_words(trace) for trace in found.traces]
            click.echo("\n".join(lines) or "nothing to remove")
        elif not found.traces and not _unfinished(store):
            click.echo("nothing to remove: all that is on the list is gone")
        else:
            receipt = _applied(settings, store, ledger, found)
            click.echo("\n".join(receipt_in_words(receipt)))
        if not dry_run and store.keeps_versions():
            raise StoreError(OLD_VERSIONS.format(store.root))


@takedown.command()
@home_option
def status(home: str) -> None:
    """Say of each entry of takedown.txt whether it is applied, waits, or came back."""
    settings, store = _opened(home)
    with _ledger(store) as ledger:
        found = _Found.of(settings, store, ledger)
    receipts = read_receipts(store)
    for line, names in found.entries.items():
        before = [one for one in receipts if line in one["entries"]]
        of = set(names).union(*(one["entries"][line] for one in before))
        left = sum(not of.isdisjoint(trace.of) for trace in found.traces)
        done = any(one["done_at"] for one in before)
        state = ("came back" if done else "waits") if left else "applied" if done else "not here"
        traces = f"  {left:,} traces: run omokage takedown apply" if left else ""
        click.echo(f"{state:<10} {line}{traces}")
    for one in _unfinished(store):
        click.echo(f"unfinished {one['id']}: run omokage takedown apply again")


@takedown.command("receipt")
@home_option
@click.argument("receipt_id", default="", metavar="[ID]")
def receipt_command(home: str, receipt_id: str) -> None:
    """Print what takedowns removed, what they did not, and why: one of them, or all."""
    _, store = _opened(home)
    found = [receipt_named(store, receipt_id)] if receipt_id else read_receipts(store)
    if not found:
        raise UsageError(f"{store.url(RECEIPTS)} holds no receipt: nothing was taken down")
    click.echo("\n\n".join("\n".join(receipt_in_words(one)) for one in found))


@click.group()
def lineage() -> None:
    """Say which models saw a picture, and which pictures made a model.

    \b
    Examples:
      omokage lineage post danbooru/123
      omokage lineage version 3 --list
    """  # noqa: D301


@lineage.command("face")
@home_option
@click.argument("face_id")
def lineage_face(home: str, face_id: str) -> None:
    """Say which manifests hold a face, and which models were trained or judged on them."""
    settings, store = _opened(home)
    click.echo("\n".join(_seen_by(settings, store, lambda row: row["face_id"] == face_id)))


@lineage.command("post")
@home_option
@click.argument("post", metavar="SITE/N")
def lineage_post(home: str, post: str) -> None:
    """Say which manifests hold a post's faces, and which models were trained or judged on them."""
    settings, store = _opened(home)
    ((site, number),) = parse_takedowns([f"post {post}"], where="SITE/N").posts
    key = _names(settings, store).get(site, site), number
    click.echo("\n".join(_seen_by(settings, store, lambda r: (r["board"], r["post_id"]) == key)))


@lineage.command("version")
@home_option
@click.argument("number", metavar="N")
@click.option("--list", "as_list", is_flag=True, help="Write the face_ids, one a line.")
def lineage_version(home: str, number: str, *, as_list: bool) -> None:
    """Say which pictures made a version of the registered model.

    Example: omokage lineage version 3 --list > faces.txt
    """
    settings, store = _opened(home)
    tracking = _tracking(settings)
    learnt = {str(v.version): of for v, of in learnt_manifests(store, tracking)} if tracking else {}
    if number not in learnt:
        there = ", ".join(learnt) or "none"
        raise UsageError(
            f'there is no version "{number}" of the registered model; there is {there}'
        )
    held = {digest: list(manifest_rows(store, digest)) for digest in learnt[number]}
    faces = {r["face_id"]: r for rows in held.values() for r in rows if r["split"] == "train"}
    if as_list:
        click.echo("\n".join(sorted(faces)))
        return
    for digest, rows in held.items():
        click.echo(f"manifest   {digest}{'' if rows else ', which is not in this home'}")
    posts = {(row["board"], row["post_id"]) for row in faces.values()}
    click.echo(f"learnt from {len(faces):,} faces of {len(posts):,} posts")
    for board, count in collections.Counter(board for board, _ in posts).most_common():
        click.echo(f"board      {board} {count:,}")
    artists = [f"{name} {count:,}" for name, count in artists_of(store, posts).most_common(10)]
    click.echo(f"artists    {', '.join(artists) or 'not known'}")
    click.echo(f"taken down {taken_of(store, learnt[number]) or 'nothing of it'}")


@dataclass(frozen=True)
class _Found:
    """All that is still there of what is on the list."""

    entries: dict[str, list[str]]  # a line of the list: names of the posts that it covers
    rows: list[Row]  # of the ledger
    pictures: Pictures
    manifests: dict[str, set[str]]  # that hold or held them, with the posts' names
    traces: list[Trace]  # in the order in which they are removed
    versions: list["ModelVersion"]  # that learnt from those manifests

    @classmethod
    def of(cls, settings: Settings, store: Store, ledger: Ledger) -> "_Found":
        """Looks through ledger, files, tables, event log and registry; changes nothing."""
        names = _names(settings, store)
        takedowns = board_takedowns(store, names)
        rows = ledger.to_forget(takedowns)
        posts = {(row.post.board, row.post.post_id) for row in rows} | takedowns.posts
        md5s = {row.post.md5 for row in rows if row.post.md5} | takedowns.md5s
        first = sorted(rows, key=_name, reverse=True)  # of several posts of a file one names it
        files = {row.media.sha256: _name(row) for row in first if row.media}
        pictures = widened(store, Pictures(frozenset(posts), frozenset(md5s), files))
        named = {blob_path(sha256, ext) for sha256, ext, *_ in ledger.blobs()}
        traces = [*find(store, pictures, named=named), *_records(ledger, rows)]
        manifests, tracking = affected(store, pictures), _tracking(settings)
        versions: list[ModelVersion] = []
        marks: list[Trace] = []
        if traces:  # what may show the pictures goes while it is still known that they were here
            of = frozenset(name for trace in traces for name in trace.of)
            grids = _grids(store, tracking, manifests, of) if tracking else ()
            traces = [
                *_copies(store, of),
                *grids,
                *_previews(settings, of),
                *caches(store, of),
                *traces,
            ]
        for version, digests in learnt_manifests(store, tracking) if tracking else ():
            if manifests.keys() & digests:
                versions.append(version)
                marks += _marks(store, tracking, version, digests, manifests)
        entries = _entries(store, names, rows)
        return cls(entries, rows, pictures, manifests, [*traces, *marks], versions)


def _applied(settings: Settings, store: Store, ledger: Ledger, found: _Found) -> dict[str, Any]:
    """Removes what was found and returns the receipt, which is written before and after that.

    Raises StoreError if something is still there at the end; the receipt stays unfinished then.
    """
    receipt = (_unfinished(store) or [new_receipt()])[-1]
    _join(receipt["removed"], (trace.to_json() for trace in found.traces))
    _join(receipt["models"], _models(store, found))
    _join(receipt["pictures"], ({"post": _name(row), "md5": row.post.md5} for row in found.rows))
    _join(receipt["alike"], alike(store, found.pictures))
    receipt["entries"] |= found.entries
    write_receipt(store, receipt)
    for (
        row
    ) in found.rows:  # with these the list keeps the files out, whatever becomes of the ledger
        if row.post.md5 and row.post.md5 not in read_takedowns(store).md5s:
            line = add_entry(store, "md5", row.post.md5, f"of {_name(row)}, by takedown apply")
            receipt["entries"][line.partition("  #")[0]] = [_name(row), f"md5 {row.post.md5}"]
    refused = []
    for trace in found.traces:
        if why := trace.mend():
            refused.append({**trace.to_json(), "why": why})
    purge_versions(store)
    for path in databases(settings.dagster_home):  # all: a killed takedown may have changed others
        repack(path)
    ledger.repack()
    kept = {one["path"] for one in refused}
    again = _Found.of(settings, store, ledger).traces
    if left := [_trace_in_words(trace) for trace in again if trace.path not in kept]:
        raise StoreError(f"the takedown is not finished; still there is:\n{listed(left)}")
    ledger.back_up(store)
    receipt["removed"] = [one for one in receipt["removed"] if one["path"] not in kept]
    receipt["not_removed"] = [*refused, *_staying(settings, store)]
    receipt["done_at"] = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    write_receipt(store, receipt)
    return receipt


def _records(ledger: Ledger, rows: list[Row]) -> Iterator[Trace]:
    for row in rows:
        if row.media or row.reason != REFUSED or row.post != forgotten(row.post):
            forget = functools.partial(ledger.forget, row.post)
            yield Trace(FILE, f"record of {_name(row)}", frozenset({_name(row)}), mend=forget)


def _copies(store: Store, of: frozenset[str]) -> Iterator[Trace]:
    """Backups of the ledger, and former ledgers that a backup replaced: they have the records."""
    paths = [f"{BACKUPS}/{name}" for name in store.names(BACKUPS)]
    former = [name for name in store.state.names("") if name.startswith(f"{FILE}.before-")]
    for root, path in [*((store, one) for one in paths), *((store.state, one) for one in former)]:
        remove = functools.partial(root.remove, path)
        yield Trace(path, "copy of the ledger", of, mend=remove)


def _grids(
    store: Store, tracking: TrackingClient, manifests: Mapping[str, set[str]], of: frozenset[str]
) -> Iterator[Trace]:
    for run, path in grids_of_reals(store, tracking, manifests):
        remove = functools.partial(remove_artifact, tracking, run, path)
        yield Trace(f"MLflow run {run}: {path}", "grid of real faces", of, mend=remove)


def _previews(settings: Settings, of: frozenset[str]) -> Iterator[Trace]:
    today = dt.datetime.now(dt.UTC).date().isoformat()
    words = f"(a takedown of {today} removed this preview)"
    for path in databases(settings.dagster_home):
        if count := previews_of_reals(path):
            here = Path(settings.state)
            where = path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path)
            scrub = functools.partial(scrub_previews, path, words)
            yield Trace(where, "previews in Dagster's event log", of, count, scrub)


def _marks(
    store: Store,
    tracking: TrackingClient | None,
    version: "ModelVersion",
    digests: list[str],
    manifests: Mapping[str, set[str]],
) -> Iterator[Trace]:
    """Yields the mark that a version lacks; it is made once the manifests' rows are removed."""
    assert tracking is not None

    def mend() -> None:
        mark_taken(tracking, version, taken_of(store, digests))

    if not version.tags.get(TAKEDOWN) or version.tags[TAKEDOWN] != taken_of(store, digests):
        names = frozenset(name for digest in digests for name in manifests.get(digest, ()))
        yield Trace(f"version {version.version}", "unmarked version", names, mend=mend)


def _models(store: Store, found: _Found) -> Iterator[dict[str, Any]]:
    """What learnt from the pictures, as a receipt lists it."""
    for folder, digests in sorted(trainings(store).items()):
        of = {name for digest in digests for name in found.manifests.get(digest, ())}
        if of:
            yield Trace(folder, "training", frozenset(of)).to_json()
    for version in found.versions:
        yield Trace(f"version {version.version}", "registered model", frozenset()).to_json()


def _staying(settings: Settings, store: Store) -> Iterator[dict[str, Any]]:
    if store.keeps_versions():
        why = OLD_VERSIONS.format("")
        yield {**Trace(store.root, "old versions", frozenset()).to_json(), "why": why}
    for folder, why in STAYING.items():
        if store.files(folder) or store.state.files(folder):
            yield {**Trace(folder, "folder", frozenset()).to_json(), "why": why}
    if _has_instance(settings) and not databases(settings.dagster_home):
        why = "Dagster's event log is not in this home: remove its previews by its own means"
        yield {**Trace("dagster", "previews", frozenset()).to_json(), "why": why}


def _entries(store: Store, names: Mapping[str, str], rows: list[Row]) -> dict[str, list[str]]:
    """The names of the posts that each line of the list covers, also by their bytes."""
    text = store.read_bytes(TAKEDOWN_FILE).decode() if store.exists(TAKEDOWN_FILE) else ""
    found = {}
    for line in filter(None, (" ".join(one.split("#")[0].split()) for one in text.splitlines())):
        entry = parse_takedowns([line], where=TAKEDOWN_FILE)
        of_boards = frozenset((names.get(site, site), number) for site, number in entry.posts)
        entry = replace(entry, posts=of_boards)
        covered = [row for row in rows if entry.cover(row.post)]
        md5s = {row.post.md5 for row in covered} - {None}
        same = [row for row in rows if row.post.md5 in md5s]
        named = {_name(row) for row in [*covered, *same]}
        named |= {post_name(*key) for key in entry.posts} | {f"md5 {md5}" for md5 in entry.md5s}
        found[line] = sorted(named)
    return found


def _seen_by(settings: Settings, store: Store, is_it: Any) -> Iterator[str]:
    """Yields what holds, learnt from or was judged on the rows that `is_it` takes."""
    held = {}
    for digest in store.names("manifest"):
        rows = [row for row in manifest_rows(store, digest) if is_it(row)]
        if rows:
            held[digest] = rows
            splits = ", ".join(sorted({row["split"] for row in rows}))
            taken = " (taken down)" if any(row["taken"] for row in rows) else ""
            yield f"manifest   {digest}  {splits}: {len(rows):,} of its faces{taken}"
    for folder, digests in sorted(trainings(store).items()):
        if held.keys() & digests:
            yield f"training   {folder}"
    if tracking := _tracking(settings):
        for version, digests in learnt_manifests(store, tracking):
            if held.keys() & digests:
                yield f"version    {version.version} of {tracking.model}"
    for path, digest in sorted(evaluations(store).items()):
        if digest in held:
            yield f"evaluation {path}"
    if not held:
        yield "no manifest under this home holds it"


def _opened(home: str) -> tuple[Settings, Store]:
    settings = read_settings(home=home)
    return settings, settings.store


def _ledger(store: Store) -> Ledger:
    if not store.state.exists(FILE):
        raise UsageError(
            f"{store.state.url(FILE)} is not there: nothing was crawled or imported here"
        )
    return Ledger.of(store)


@contextlib.contextmanager
def no_crawl(store: Store) -> Iterator[Ledger]:
    """Yields the ledger, and keeps crawls out; raises UsageError if one is at work."""
    with _ledger(store) as ledger, ledger.no_crawl() as quiet:
        if not quiet:
            raise UsageError(
                f"a crawl or an import is at work in {store.state.root}; wait for it or end it"
            )
        yield ledger


def only_takedown(store: Store) -> contextlib.AbstractContextManager[None]:
    """Keeps a second takedown out of a home; raises UsageError if one is at work."""
    busy = UsageError(f"another takedown is at work in {store.state.root}; wait for it")
    return file_lock(store.state.local(LOCK), timeout_s=0, busy=busy)


def _has_instance(settings: Settings) -> bool:
    return (Path(settings.dagster_home) / DAGSTER_YAML).exists()


def check_quiet(settings: Settings) -> None:
    """Raises UsageError if a run of Dagster is at work: it would write what is being removed."""
    if _has_instance(settings):
        with opened_instance(settings.dagster_home) as instance:
            check_no_run(instance)


def _names(settings: Settings, store: Store) -> dict[str, str]:
    """The board of each name that a post may be given by."""
    names = dict(board_names(load_sites(settings.sites_file or None)))
    if store.state.exists(FILE):
        with Ledger.of(store) as ledger:
            names = {board: board for board in ledger.boards()} | names
    return names


def _tracking(settings: Settings) -> TrackingClient | None:
    tracking = tracking_client(settings)
    return tracking if tracking.database_exists() else None


def _unfinished(store: Store) -> list[dict[str, Any]]:
    return [receipt for receipt in read_receipts(store) if receipt["done_at"] is None]


def _join(known: list[Any], more: Iterable[Any]) -> None:
    known += [one for one in more if one not in known]


def _name(row: Row) -> str:
    return post_name(row.post.board, row.post.post_id)


def _trace_in_words(trace: Trace) -> str:
    return f"{trace.what} x{trace.count}  {trace.path}  ({', '.join(sorted(trace.of))})"
