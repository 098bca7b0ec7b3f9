"""Takes a user's own pictures in: through the gates of a crawl, into the same ledger and blobs.

A batch of posts is noted as pending in one transaction, and each is kept or refused once its
picture was looked at. So an import that is killed at any moment loses nothing: the next one goes
quickly over what is settled, and settles the rest.
"""

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from crawlers.boards.record import now
from crawlers.ledger import TAKEDOWN, Ledger
from crawlers.ledger_file import FILE
from crawlers.post import TAG_KINDS, Post
from crawlers.refusals import cause_of, stands
from crawlers.sites import Site, board_names, board_takedowns, load_sites
from dataset.errors import EmptyStageError, SchemaError, UsageError, listed
from dataset.importers.files import UNREADABLE, Files, read
from dataset.importers.records import SHOWN_FAULTS, Entry, Fault, FaultLog, Read
from dataset.media import MAX_BYTES, Media, MediaRefused, check_media, has_blob, sniff
from dataset.policy import Takedowns, drop_reason
from dataset.progress import progress
from dataset.store import Store, blob_path

FOLDER = "imports"  # of the lists of faults, under the home
UNRATED = "unrated"
WRONG_MD5 = "wrong_md5"
NO_FILE = "no_file"
DUPLICATE = "duplicate"
REPACKED_HINT = (
    "if these are the originals, packed anew by an optimiser as in the Danbooru dumps, say "
    "--repacked: width and height are compared instead; smaller copies: --resized"
)

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_BATCH = 64
_BATCH_BYTES = 64_000_000  # of pictures that are in memory at once
_THREADS = min(4, os.cpu_count() or 1)  # decoding and fsync both leave the interpreter's lock
_LOCK_TIMEOUT_S = 3.0
# What a post has as its entry says it.
_AS_SAID = ("score", "created_at", "updated_at", "deleted", "banned", "pending", "flagged")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """What a user says of a set.

    name: it goes by in the tables; kind: danbooru or folder; rating: of pictures without one (None:
    those are refused); cropped: they are faces already; resized: they are copies of the pictures
    whose md5 the records have; repacked: they are those, but may be packed anew, so that width and
    height tell instead of the md5; limit: records to look at (0: all); dry_run: store nothing.
    """

    name: str
    kind: str
    rating: str | None = None
    cropped: bool = False
    resized: bool = False
    repacked: bool = False
    limit: int = 0
    dry_run: bool = False


@dataclasses.dataclass(frozen=True)
class ImportSummary:
    """What an import did.

    kept: posts that are new or changed; known: settled before and unchanged, `known_kept` of them
    kept; refused and skipped by reason: skipped posts are not in the ledger; faults: records or
    files that could not be used, `shown` the first of them, `faults_path` all of them.
    """

    name: str
    kind: str
    seen: int
    kept: int
    known: int
    known_kept: int
    refused: dict[str, int]
    skipped: dict[str, int]
    faults: int
    shown: list[str]
    faults_path: str | None
    bytes: int
    seconds: float
    dry_run: bool


def take_in(
    store: Store,
    files: Files,
    records: Iterable[Read],
    *,
    settings: ImportSettings,
    expected: int = 0,
    registry: Mapping[str, Site] | None = None,
) -> ImportSummary:
    """Takes the pictures of `files` in that `records` tell of; nothing twice, however often.

    expected: how many records there are, for progress; registry: the sites, whose names an import
    may not have (default: the built-in ones). Raises UsageError for a name that cannot be used,
    CrawlError if another import of that name is at work, ConfigError for a damaged takedown list,
    StoreError if the store fails; what was taken in until then stays.
    """
    names = board_names(load_sites() if registry is None else registry)
    _check_name(settings.name, names)
    with contextlib.ExitStack() as stack:
        ledger = None
        if not settings.dry_run:
            ledger = stack.enter_context(Ledger.of(store))
            ledger.admit_import(settings.name, settings.kind)
            ledger.lock(settings.name, timeout_s=_LOCK_TIMEOUT_S)
        elif store.state.exists(FILE):
            ledger = stack.enter_context(Ledger.of(store))
        known = [settings.name, *(ledger.boards() if ledger else [])]
        takedowns = board_takedowns(store, names, crawled=known)
        taking = _Import(
            store,
            files,
            settings,
            ledger=ledger,
            takedowns=takedowns,
            faults=FaultLog(stack.enter_context(tempfile.TemporaryFile())),
            pool=stack.enter_context(ThreadPoolExecutor(_THREADS)),
        )
        made = taking.run(records, expected=expected)
        if ledger and not settings.dry_run:
            ledger.back_up_or_say(store)
        return made


def check_outcome(made: ImportSummary, *, strict: bool = False) -> None:
    """Raises EmptyStageError if nothing could be taken, SchemaError for faults if `strict`."""
    if not made.kept + made.known_kept:
        raise EmptyStageError(_nothing(made))
    if strict and made.faults:
        raise SchemaError(
            f"{made.faults:,} records or files of {made.name} have faults, and --strict asks for "
            f"none; the others were taken in:\n{listed(made.shown, shown=SHOWN_FAULTS)}"
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _Loaded:
    """A picture on its way: its post, its bytes if they were read already, where it came from."""

    entry: Entry
    post: Post
    content: bytes | None
    ext: str | None  # that the bytes must have


class _Import:
    """One import from its records to its summary."""

    def __init__(
        self,
        store: Store,
        files: Files,
        settings: ImportSettings,
        *,
        ledger: Ledger | None,
        takedowns: Takedowns,
        faults: FaultLog,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._store, self._files, self._settings = store, files, settings
        self._ledger, self._takedowns = ledger, takedowns
        self._faults, self._pool = faults, pool
        self._writes = ledger is not None and not settings.dry_run
        self._met: set[int] = set()
        self._seen = self._kept = self._bytes = 0
        self._refused, self._skipped, self._known = (collections.Counter[str]() for _ in range(3))

    def run(self, records: Iterable[Read], *, expected: int) -> ImportSummary:
        """Takes all records in, a batch at a time."""
        settings = self._settings
        started = time.monotonic()
        limit = settings.limit or None
        total = min(expected, limit) if expected and limit else expected
        with progress(f"import {settings.name}", total, unit="records") as advance:
            for batch, looked_at in self._batches(itertools.islice(records, limit)):
                self._batch(batch)
                advance(looked_at)
        path = f"{FOLDER}/{settings.name}-faults.jsonl"
        if self._writes:
            self._faults.write(self._store, path)
        return ImportSummary(
            name=settings.name,
            kind=settings.kind,
            seen=self._seen,
            kept=self._kept,
            known=sum(self._known.values()),
            known_kept=self._known["kept"],
            refused=dict(sorted(self._refused.items())),
            skipped=dict(sorted(self._skipped.items())),
            faults=self._faults.count,
            shown=self._faults.shown,
            faults_path=path if self._writes and self._faults.count else None,
            bytes=self._bytes,
            seconds=round(time.monotonic() - started, 2),
            dry_run=settings.dry_run,
        )

    def _batches(self, records: Iterable[Read]) -> Iterator[tuple[list[Entry], int]]:
        """Yields entries whose pictures are to be looked at, and how many records that took."""
        batch: list[Entry] = []
        size = looked_at = 0
        for record in records:
            looked_at += 1
            self._seen += 1
            if (size_bytes := self._size(record)) is not None:
                assert isinstance(record, Entry)
                batch.append(record)
                size += size_bytes
            if len(batch) >= _BATCH or size >= _BATCH_BYTES or looked_at >= 100 * _BATCH:
                yield batch, looked_at
                batch, size, looked_at = [], 0, 0
        yield batch, looked_at

    def _size(self, record: Read) -> int | None:
        """Returns the size of a record's picture; None, and counts why, if it is not to be read."""
        if isinstance(record, Fault):
            self._faults.add(record)
        elif record.file is None:
            self._skipped[NO_FILE] += 1
        elif record.rating is None and self._settings.rating is None:
            self._refused[UNRATED] += 1
        elif (size_bytes := self._files.size(record.file)) is None:
            self._faults.add(Fault(record.place, "file", f'"{record.file}" is not there any more'))
        elif size_bytes > MAX_BYTES:
            self._refused["too_large"] += 1
            found = f'"{record.file}" is of {size_bytes:,} bytes; at most {MAX_BYTES:,} are taken'
            self._faults.add(Fault(record.place, "file", found))
        else:
            return size_bytes
        return None

    def _batch(self, entries: list[Entry]) -> None:
        """Notes the posts of a batch, judges those that are not settled, and settles them."""
        todo = [one for one in self._pool.map(self._load, entries) if self._is_to_do(one)]
        pictures = [one for one in todo if isinstance(one, _Loaded)]
        if self._writes:
            assert self._ledger is not None
            self._ledger.note_import(self._settings.name, [one.post for one in pictures])
        to_check = []
        for one in pictures:
            reason, media = self._judged(one)
            if reason is None and media is None:
                to_check.append(one)
            else:
                self._settle(one, reason, media)
        for one, found in zip(to_check, self._pool.map(self._check, to_check), strict=True):
            if isinstance(found, Media):
                self._bytes += found.size_bytes
                self._settle(one, None, found)
            elif isinstance(found, MediaRefused):
                text = f'"{one.entry.file}" is refused as {found.reason}: {found.detail}'
                text += f" ({REPACKED_HINT})" if found.reason == WRONG_MD5 else ""
                self._faults.add(Fault(one.entry.place, "file", text))
                self._settle(one, found.reason, None)
            else:  # it stays pending: the next import tries it again
                self._faults.add(found)

    def _load(self, entry: Entry) -> _Loaded | Fault:
        """Makes the post of an entry; reads its picture only if the post is known by its bytes."""
        settings = self._settings
        is_original = not (settings.resized or settings.repacked)
        if entry.post_id is not None and entry.md5 is not None and is_original:
            post = self._post(entry, entry.post_id, md5=entry.md5, ext=entry.ext)
            return _Loaded(entry, post, None, entry.ext)
        content = self._read(entry)
        if isinstance(content, Fault):
            return content
        assert entry.file is not None
        number = entry.post_id or _number_of(content)
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        said = entry.ext if settings.repacked else None
        # People's own files often have a wrong extension: what the bytes are is what counts.
        ext = said or sniff(content) or entry.file.rpartition(".")[2].lower()
        return _Loaded(entry, self._post(entry, number, md5=md5, ext=ext), content, said)

    def _post(self, entry: Entry, number: int, *, md5: str, ext: str | None) -> Post:
        said: dict[str, Any] = {field: getattr(entry, field) for field in _AS_SAID}
        said |= {f"tags_{kind}": entry.tags.get(kind, ()) for kind in TAG_KINDS}
        return Post(
            board=self._settings.name,
            post_id=number,
            md5=md5,
            ext=ext,
            width=None,
            height=None,
            rating=entry.rating or self._settings.rating or UNRATED,
            **said,
            source=entry.source or f"{self._files.name}/{entry.file}",
            fetched_at=now(),
            file_url=f"import:{self._settings.name}",
            cropped=self._settings.cropped,
        )

    def _is_to_do(self, one: _Loaded | Fault) -> bool:
        """Tells whether a picture is to be settled; counts it otherwise."""
        if isinstance(one, Fault):
            self._faults.add(one)
            return False
        if one.post.post_id in self._met:
            self._skipped[DUPLICATE] += 1
            return False
        self._met.add(one.post.post_id)
        if self._ledger is None:
            return True
        state, settled = self._ledger.state_of(one.post, stands)
        if state is None or not settled or (state == "kept" and self._is_taken_down(one)):
            return True
        self._known[state] += 1
        return False

    def _is_taken_down(self, one: _Loaded) -> bool:
        """Tells whether a post is on the takedown list, or its original's bytes ever were."""
        originals = {one.entry.md5, one.post.md5} - {None}
        if self._takedowns.cover(one.post) or not originals.isdisjoint(self._takedowns.md5s):
            return True
        return self._ledger is not None and any(map(self._ledger.is_taken_down, originals))

    def _judged(self, one: _Loaded) -> tuple[str | None, Media | None]:
        """Returns why a post is refused, or the blob that is there already; neither: look at it."""
        if self._is_taken_down(one):
            return TAKEDOWN, None
        reason = drop_reason(one.post, self._takedowns)
        if reason is not None or self._ledger is None:
            return reason, None
        assert one.post.md5 is not None
        known = self._ledger.blob_of(one.post.md5)
        if known is None or not self._is_right_size(known, one):
            return None, None
        return None, known if has_blob(self._store, known) else None

    def _check(self, one: _Loaded) -> Media | MediaRefused | Fault:
        """Passes a picture through the gate and stores its blob; runs in a thread."""
        content = one.content if one.content is not None else self._read(one.entry)
        if isinstance(content, Fault):
            return content
        assert one.post.md5 is not None
        try:
            media = check_media(content, md5=one.post.md5, ext=one.ext)
        except MediaRefused as refused:
            return refused
        if not self._is_right_size(media, one):
            said = f"{one.entry.width}x{one.entry.height}"
            return MediaRefused(
                "wrong_size", f"{media.width}x{media.height}, the record says {said}"
            )
        if self._writes and not has_blob(self._store, media):
            self._store.write_bytes(blob_path(media.sha256, media.ext), content)
        return media

    def _is_right_size(self, media: Media, one: _Loaded) -> bool:
        """Tells whether a picture that was packed anew has the width and height of its record."""
        if not self._settings.repacked or one.post.md5 == one.entry.md5:
            return True
        return (media.width, media.height) == (one.entry.width, one.entry.height)

    def _read(self, entry: Entry) -> bytes | Fault:
        assert entry.file is not None
        try:
            return read(self._files, entry.file, greatest=MAX_BYTES)
        except UNREADABLE as error:
            return Fault(entry.place, "file", f'"{entry.file}" cannot be read: {error}')

    def _settle(self, one: _Loaded, reason: str | None, media: Media | None) -> None:
        if reason is not None:
            self._refused[reason] += 1
            if self._ledger is not None and self._writes:
                self._ledger.refuse(one.post, reason, cause=cause_of(reason))
        else:
            self._kept += 1
            if self._ledger is not None and self._writes:
                assert media is not None
                self._ledger.keep(one.post, media)


def _number_of(content: bytes) -> int:
    """Returns the number of a picture that has none: the first 60 bits of its sha256."""
    return int(hashlib.sha256(content).hexdigest()[:15], 16) or 1


def _check_name(name: str, names: Mapping[str, str]) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f'--name: "{name}" is no name; small letters, digits and _ wanted, a letter first'
        )
    if name in names:
        raise UsageError(
            f'--name: "{name}" is a site or board of the registry, whose posts are crawled; '
            "choose another name"
        )


def _nothing(made: ImportSummary) -> str:
    if not made.seen:
        return f"{made.name}: there is no picture in it"
    counts = {**made.refused, **made.skipped}
    lines = [f"{reason}: {count:,}" for reason, count in sorted(counts.items())]
    if made.faults:
        lines += [f"{made.faults:,} with faults:", *made.shown]
    text = f"none of the {made.seen:,} records of {made.name} could be taken in:\n"
    text += listed(lines, shown=SHOWN_FAULTS + len(counts) + 1)
    if made.refused.get(UNRATED):
        text += (
            "\nThey say nothing of their rating, and only safe pictures are stored. If you know "
            "that all of them are safe, say --rating general."
        )
    return text
