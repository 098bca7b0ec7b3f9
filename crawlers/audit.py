"""Whether ledger and blobs agree, and the sweep of what a killed crawl left behind."""

import dataclasses
import hashlib
import heapq
import os
from collections.abc import Iterator
from pathlib import Path

from crawlers.ledger import Ledger
from crawlers.ledger_file import FILE
from dataset.store import Store, blob_path

FOLDER = "blobs"
TEMPORARY = ".tmp-"  # how the store's unfinished files begin
HASHED = 32


@dataclasses.dataclass(frozen=True)
class Audit:
    """What was found under `blobs/`: counts, and the paths at fault, sorted."""

    blobs: int = 0  # whole files there
    named: int = 0  # blobs that posts of the ledger name
    orphans: tuple[str, ...] = ()  # no post names them
    temporary: tuple[str, ...] = ()  # a killed crawl did not finish them
    missing: tuple[str, ...] = ()
    wrong_size: tuple[str, ...] = ()
    wrong_sha256: tuple[str, ...] = ()  # among the newest `hashed` files
    hashed: int = 0
    crawling: bool = False  # a crawl is at work: its newest blobs are not in the ledger yet


def audit(store: Store, *, hashed: int = HASHED) -> Audit:
    """Compares the files under `blobs/` with the ledger, by one listing.

    Only the `hashed` files that were written last are read, and compared with their names.
    """
    if not store.exists(FILE):
        return _compared(store, {}, hashed=hashed, crawling=False)
    with Ledger.of(store) as ledger, ledger.no_crawl() as quiet:
        wanted = {blob_path(sha256, ext): size for sha256, ext, size in ledger.blobs()}
        return _compared(store, wanted, hashed=hashed, crawling=not quiet)


def sweep(store: Store, ledger: Ledger) -> list[str]:
    """Removes files under `blobs/` that no post names, and unfinished ones; returns their paths.

    While a crawl is at work nothing is removed: it writes a blob before it tells the ledger.
    """
    with ledger.no_crawl() as quiet:
        if not quiet:
            return []
        named = {blob_path(sha256, ext) for sha256, ext, _ in ledger.blobs()}
        left = sorted(path for path, _ in _files(store) if path not in named)
        for path in left:
            store.remove(path)
    return left


def _compared(store: Store, wanted: dict[str, int], *, hashed: int, crawling: bool) -> Audit:
    there = dict(_files(store))
    temporary = {path for path in there if f"/{TEMPORARY}" in path}
    orphans = there.keys() - wanted.keys() - temporary
    whole = there.keys() & wanted.keys()
    looked_at = heapq.nlargest(hashed, whole, key=lambda path: there[path].st_mtime_ns)
    return Audit(
        blobs=len(there) - len(temporary),
        named=len(wanted),
        orphans=tuple(sorted(orphans)),
        temporary=tuple(sorted(temporary)),
        missing=tuple(sorted(wanted.keys() - there.keys())),
        wrong_size=tuple(sorted(path for path in whole if there[path].st_size != wanted[path])),
        wrong_sha256=tuple(sorted(path for path in looked_at if not _is_its_name(store, path))),
        hashed=len(looked_at),
        crawling=crawling,
    )


def _files(store: Store) -> Iterator[tuple[str, os.stat_result]]:
    """Yields path under the home and status of all files below `blobs/`, unfinished ones too."""
    top = store.local(FOLDER)
    start = len(str(top.parent)) + 1
    folders = [str(top)] if top.is_dir() else []
    while folders:
        # Texts, not Paths: 100,000 blobs lie in nearly as many folders.
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    yield entry.path[start:], entry.stat(follow_symlinks=False)


def _is_its_name(store: Store, path: str) -> bool:
    return hashlib.sha256(store.read_bytes(path)).hexdigest() == Path(path).stem
