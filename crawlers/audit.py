"""Whether ledger and blobs agree, and the sweep of what belongs to no post into the trash."""

import contextlib
import dataclasses
import datetime as dt
import hashlib
import heapq
import math
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from crawlers.ledger import Ledger
from crawlers.ledger_file import FILE, missing_blobs
from dataset.errors import StoreError
from dataset.store import BLOBS, Store, blob_path, is_outage, tolerated

TEMPORARY = ".tmp-"  # how the store's unfinished files begin
TRASH = "trash"  # then the day, then the file's path under the home
TRASH_DAYS = 30
HASHED = 32
FOLDERS = tuple(f"{number:02x}" for number in range(256))  # of the blobs, by their first digits
BLOBS_AT_ONCE = 100_000  # 13 µs each: of more than so many a part is looked through each time

_Facts = tuple[int, int]  # of a file: size in bytes, time of writing in ns
_OF_ALL = {"crawling", "folders"}  # what is no count of an Audit


@dataclasses.dataclass(frozen=True)
class Audit:
    """What was found under `blobs/`: counts, and the paths at fault, sorted."""

    blobs: int = 0  # whole files there
    named: int = 0  # blobs that kept posts of the ledger name
    orphans: tuple[str, ...] = ()  # no post names them
    given_up: tuple[str, ...] = ()  # those of them that a post once had: it was refused since
    temporary: tuple[str, ...] = ()  # a killed crawl did not finish them
    missing: tuple[str, ...] = ()
    wrong_size: tuple[str, ...] = ()
    wrong_sha256: tuple[str, ...] = ()  # among the newest `hashed` files
    hashed: int = 0
    crawling: bool = False  # a crawl is at work: its newest blobs are not in the ledger yet
    folders: tuple[str, ...] = FOLDERS  # that were looked through

    def joined(self, other: "Audit") -> "Audit":
        """Returns both in one: counts and paths of the two are added."""
        names = [one.name for one in dataclasses.fields(self) if one.name not in _OF_ALL]
        added = {name: getattr(self, name) + getattr(other, name) for name in names}
        return dataclasses.replace(self, **added, crawling=self.crawling or other.crawling)

    @property
    def of_a_part(self) -> str:
        """Says which part was looked through, such as ` (26 of 256 folders)`; of all, nothing."""
        whole = len(self.folders) == len(FOLDERS)
        return "" if whole else f" ({len(self.folders)} of {len(FOLDERS)} folders)"

    @property
    def lost(self) -> tuple[str, ...]:
        """The blobs that kept posts name and that are missing or cut short."""
        return self.missing + self.wrong_size


def audit(store: Store, *, hashed: int = HASHED) -> Audit:
    """Compares the files under `blobs/` with the ledger; see `compare`.

    Raises StoreError if `blobs/` is not that of the ledger's home.
    """
    if not store.state.exists(FILE) and not store.files(BLOBS):
        return Audit()
    with Ledger.of(store) as ledger:
        return compare(store, ledger, hashed=hashed)


def compare(store: Store, ledger: Ledger, *, hashed: int = 0) -> Audit:
    """Compares the files under `blobs/` with the ledger, by one listing; keeps no crawl waiting.

    Of more than BLOBS_AT_ONCE blobs it looks through a part, another one each time, so that a
    refresh of a large home costs what is new. Only the `hashed` files that were written last are
    read, and compared with their names. Folder by folder: a million blobs at once took 1.2 GB.
    """
    found = Audit(folders=_chosen(ledger.count_blobs()))
    newest: list[tuple[int, str]] = []  # when the last files with a name in the ledger were written
    for folder, there in _listed(store, found.folders):
        part, named_there = _compare_folder(store, ledger, folder, there)
        newest = heapq.nlargest(hashed, [*newest, *named_there])
        found = found.joined(part)
    return dataclasses.replace(
        found,
        given_up=tuple(sorted(path for path in found.orphans if ledger.gave_up(Path(path).stem))),
        wrong_sha256=tuple(sorted(path for _, path in newest if not _is_its_name(store, path))),
        hashed=len(newest),
    )


def _chosen(blobs: int) -> tuple[str, ...]:
    """Chooses folders by chance: whatever the rhythm of builds, each has its turn."""
    count = math.ceil(len(FOLDERS) * min(1.0, BLOBS_AT_ONCE / max(blobs, 1)))
    return tuple(sorted(random.sample(FOLDERS, count)))


def _compare_folder(
    store: Store, ledger: Ledger, folder: str, there: dict[str, _Facts]
) -> tuple[Audit, list[tuple[int, str]]]:
    with ledger.no_crawl() as quiet:  # from here on what a crawl stores is not in the listing
        pass
    temporary = {path for path in there if f"/{TEMPORARY}" in path}
    orphans = there.keys() - temporary
    named_there: list[tuple[int, str]] = []
    missing: list[str] = []
    wrong_size: list[str] = []
    named = 0
    for sha256, ext, size, is_kept in ledger.blobs(folder) if folder in FOLDERS else ():
        path = blob_path(sha256, ext)
        orphans.discard(path)
        named += is_kept
        is_whole = path in there and there[path][0] == size
        if is_whole or (is_kept and path in there):
            named_there.append((there[path][1], path))
        if is_kept and not is_whole and store.size(path) != size:  # nor stored since
            (wrong_size if path in there else missing).append(path)
    part = Audit(
        blobs=len(there) - len(temporary),
        named=named,
        orphans=tuple(sorted(orphans)),
        temporary=tuple(sorted(temporary)),
        missing=tuple(sorted(missing)),
        wrong_size=tuple(sorted(wrong_size)),
        crawling=not quiet,
    )
    return part, named_there


def check_losses(store: Store, found: Audit) -> None:
    """Raises StoreError if more blobs are lost than single accidents explain."""
    if is_outage(len(found.lost), found.named):
        raise missing_blobs(store, len(found.lost), found.named)


def check_orphans(store: Store, found: Audit) -> None:
    """Raises StoreError if more blobs belong to no post, now or ever, than killed crawls leave."""
    strange = len(found.orphans) - len(found.given_up)
    if not found.crawling and strange > tolerated(found.blobs):
        raise StoreError(
            f"{store.url(BLOBS)}: {strange:,} of {found.blobs:,} files belong to no post of "
            f"{store.state.url(FILE)}, more than {tolerated(found.blobs):,}. Nothing was changed. "
            "Is the ledger an older copy? Put the newer one back, or crawl and import again, which "
            f"takes them up; to move them to {TRASH}/, build posts with trash_orphans: true in its "
            "configuration"
        )


def sweep(
    store: Store, ledger: Ledger, found: Audit | None = None, *, all_orphans: bool = False
) -> list[str]:
    """Moves files under `blobs/` that no post names to the trash, and removes unfinished ones.

    found: what a comparison said just before (default: one is made). Of those that were given up,
    one time moves no more than `tolerated` says; of the others so many are an error, StoreError,
    but for `all_orphans`. Returns the paths of all that went. While a crawl is at work nothing is
    done: it writes a blob before it tells the ledger.
    """
    found = found or compare(store, ledger)
    if not all_orphans:
        check_orphans(store, found)
    given_up = found.given_up[: tolerated(found.blobs)]
    strange = set(found.orphans).difference(found.given_up)
    with ledger.no_crawl() as quiet:
        if not quiet:
            return []
        day = f"{dt.datetime.now(dt.UTC):%Y-%m-%d}"
        # A crawl that has ended since the comparison may have taken one of them up.
        orphans = [path for path in (*given_up, *strange) if not ledger.names_blob(Path(path).stem)]
        for path in orphans:
            store.move(path, f"{TRASH}/{day}/{path}")
        for path in found.temporary:
            store.remove(path)
    return sorted([*orphans, *found.temporary])


def empty_trash(store: Store, *, days: int = TRASH_DAYS) -> list[str]:
    """Removes what was moved to the trash more than `days` days ago; returns the folders."""
    last = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=days)
    old = [day for day in store.names(TRASH) if (moved := _day(day)) is not None and moved < last]
    for day in old:
        store.remove(f"{TRASH}/{day}")
    return [f"{TRASH}/{day}" for day in old]


def _day(name: str) -> dt.date | None:
    try:
        return dt.date.fromisoformat(name)
    except ValueError:  # nothing of ours
        return None


def _listed(store: Store, chosen: Sequence[str]) -> Iterator[tuple[str, dict[str, _Facts]]]:
    """Yields the chosen folders of the blobs and what else lies in `blobs/`, with their files."""
    if store.folder is None and len(chosen) == len(FOLDERS):
        # By one listing: 256 of few objects take 256 requests.
        found: dict[str, dict[str, _Facts]] = {folder: {} for folder in FOLDERS}
        for path, size, written in _objects(store, BLOBS, deep=True):
            folder, slash, _ = path.removeprefix(f"{BLOBS}/").partition("/")
            found.setdefault(folder if slash else "", {})[path] = (size, written)
        yield from sorted(found.items())
        return
    for folder in sorted({*chosen, *_folders(store)} - {*FOLDERS}.difference(chosen)):
        yield folder, {path: (size, written) for path, size, written in _files(store, folder)}


def _objects(store: Store, place: str, *, deep: bool) -> Iterator[tuple[str, int, int]]:
    for one in store.objects(place, deep=deep):
        name = one.path.rpartition("/")[2]
        if name.startswith(TEMPORARY) or not name.startswith("."):
            yield one.path, one.size, one.written_ns


def _folders(store: Store) -> list[str]:
    """Names what lies directly in `blobs/`; "" stands for the files among it."""
    if store.folder is None:
        return ["", *store.names(BLOBS)]
    with _readable(top := store.folder.local(BLOBS)):
        names = [entry.name for entry in os.scandir(top) if entry.is_dir()] if top.is_dir() else []
    return ["", *(name for name in names if name != "lost+found")]  # the file system's own


def _files(store: Store, folder: str) -> Iterator[tuple[str, int, int]]:
    """Yields path under the home, size in bytes and time of writing of the files below a folder.

    folder: of `blobs/`; "": those directly in it. Unfinished ones too, but not other hidden ones,
    as the marker.
    """
    if store.folder is None:
        yield from _objects(store, f"{BLOBS}/{folder}".rstrip("/"), deep=bool(folder))
        return
    top = store.folder.local(BLOBS)
    start = len(str(top.parent)) + 1
    # A folder of two digits may be a link to another disk.
    folders = [str(top / folder)] if (top / folder).is_dir() else []
    while folders:
        # Texts, not Paths: 100,000 blobs lie in nearly as many folders.
        with _readable(top), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=len(entry.name) == len("ab")):
                    if folder and entry.name != "lost+found":
                        folders.append(entry.path)
                elif entry.name.startswith(TEMPORARY) or not entry.name.startswith("."):
                    with contextlib.suppress(FileNotFoundError):  # a crawl has just named it
                        status = entry.stat()
                        yield entry.path[start:], status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def _readable(top: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{error.filename or top} cannot be read: {error.strerror}") from error


def _is_its_name(store: Store, path: str) -> bool:
    return hashlib.sha256(store.read_bytes(path)).hexdigest() == Path(path).stem
