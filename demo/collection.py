"""One collection of pictures with what a board knows of each; knows no dialect and no HTTP."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

TAG_KINDS = ("general", "character", "copyright", "artist", "meta")
RATINGS = {"g": "general", "s": "sensitive", "q": "questionable", "e": "explicit"}
# A board's clock in this collection ends here (2026-10-01T00:00:00Z), so that a seed always
# gives the same records.
EPOCH_S = 1_790_812_800
YEAR_S = 365 * 24 * 3600


class CollectionError(ValueError):
    """A collection cannot be built from what the user named; says what and where.

    `exit_code` is what a command line ends with.
    """

    exit_code = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A post: a picture's bytes and the record a board keeps of them.

    `md5`, `ext`, `width` and `height` are what the record claims; for a spoiled file the bytes
    say otherwise. `refusal` names why a careful client leaves the post or its file, or None.
    """

    post_id: int
    body: str  # name of the bytes in the collection's `Bodies`
    md5: str
    ext: str
    size_bytes: int
    width: int  # px
    height: int  # px
    rating: str  # g, s, q or e, as Danbooru writes them since 2022
    tags: Mapping[str, tuple[str, ...]]  # by kind, every kind of TAG_KINDS is there
    created_at: float  # seconds since 1970
    updated_at: float
    score: int = 0
    fav_count: int = 0
    source: str = ""
    uploader_id: int = 1
    uploader: str = "omokage"
    approver_id: int | None = None
    status: str = "active"  # active, deleted, pending or flagged
    banned: bool = False
    duration_s: float | None = None  # of an animation
    poster: str | None = None  # body to make thumbnails of, where `body` is no readable picture
    film: str | None = None  # body of the webm that Danbooru makes of an ugoira
    faces: tuple[tuple[int, int, int, int], ...] = ()  # x, y, w, h in px, where drawn
    refusal: str | None = None

    @property
    def all_tags(self) -> tuple[str, ...]:
        """Every tag of every kind, sorted as boards list them."""
        return tuple(sorted(name for kind in TAG_KINDS for name in self.tags[kind]))

    @property
    def name_hash(self) -> str:
        """What safebooru.org would name the file by: a hash in hex, and not the file's md5."""
        return hashlib.sha256(f"file name {self.md5}".encode()).hexdigest()[:40]

    @property
    def withheld(self) -> bool:
        """Whether an anonymous visitor is refused the file (Danbooru: banned posts)."""
        return self.banned


class Bodies(Protocol):
    """Where a collection's bytes lie."""

    def read(self, name: str) -> bytes:
        """The bytes called `name`; raises OSError or KeyError where they are gone."""
        ...


class FolderBodies:
    """Bytes in the files of one folder; a name is a path relative to it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, name: str) -> bytes:
        """The bytes of the file `name`."""
        return (self.root / name).read_bytes()


class ZipBodies:
    """Bytes in the members of one zip, read in place; nothing is extracted."""

    def __init__(self, path: Path) -> None:
        self._archive = zipfile.ZipFile(path)
        self._lock = threading.Lock()

    def read(self, name: str) -> bytes:
        """The bytes of the member `name`."""
        with self._lock:
            return self._archive.read(name)


class Collection:
    """Entries by ascending post id, found by id and md5, and their bytes."""

    def __init__(
        self, entries: list[Entry], bodies: Bodies, *, warnings: tuple[str, ...] = ()
    ) -> None:
        self.entries = sorted(entries, key=lambda entry: entry.post_id)
        self.warnings = warnings
        self._bodies = bodies
        self._by_id = {entry.post_id: entry for entry in self.entries}
        if len(self._by_id) != len(self.entries):
            raise CollectionError("two posts of the collection have the same id")
        # Boards keep one file an md5; of exact duplicates the first post names it.
        self._by_md5: dict[str, Entry] = {}
        for entry in self.entries:
            self._by_md5.setdefault(entry.md5, entry)
        self._by_name_hash = {entry.name_hash: entry for entry in self._by_md5.values()}
        self.tag_sets = {entry.post_id: frozenset(entry.all_tags) for entry in self.entries}
        self.tags = self._count_tags()

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def by_id(self, post_id: int) -> Entry | None:
        """The post with this id, or None."""
        return self._by_id.get(post_id)

    def by_md5(self, md5: str) -> Entry | None:
        """The first post whose record claims this md5, or None."""
        return self._by_md5.get(md5)

    def by_name_hash(self, name_hash: str) -> Entry | None:
        """The first post whose file safebooru.org would name so, or None."""
        return self._by_name_hash.get(name_hash)

    def read(self, entry: Entry) -> bytes:
        """The entry's file as it is served."""
        return self._bodies.read(entry.body)

    def read_picture(self, entry: Entry) -> bytes:
        """Bytes of a readable still picture of the entry, for thumbnails."""
        return self._bodies.read(entry.poster or entry.body)

    def read_film(self, entry: Entry) -> bytes:
        """The webm made of an ugoira; KeyError where the entry has none."""
        if entry.film is None:
            raise KeyError(f"post {entry.post_id} has no film")
        return self._bodies.read(entry.film)

    def _count_tags(self) -> dict[str, Tag]:
        kinds: dict[str, str] = {}
        counts: Counter[str] = Counter()
        for entry in self.entries:
            for kind in TAG_KINDS:
                for name in entry.tags[kind]:
                    kinds.setdefault(name, kind)
                    counts[name] += 1
        return {
            name: Tag(tag_id, name, kinds[name], counts[name])
            for tag_id, name in enumerate(sorted(counts), start=1)
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Tag:
    """A tag, its kind and on how many posts it stands."""

    tag_id: int
    name: str
    kind: str
    post_count: int


def by_kind(**tags: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Tags of each kind, sorted and without doubles; kinds not named are empty."""
    unknown = set(tags) - set(TAG_KINDS)
    if unknown:
        raise CollectionError(f"unknown tag kinds {sorted(unknown)}; there are {TAG_KINDS}")
    return {kind: tuple(sorted(set(tags.get(kind, ())))) for kind in TAG_KINDS}


def md5_of(body: bytes) -> str:
    """The md5 that boards give a file, in hex."""
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def write_atomically(path: Path, body: bytes) -> None:
    """Writes a file so that it is there wholly or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
