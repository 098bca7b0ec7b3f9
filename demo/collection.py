"""One collection of posts and the kinds of posts a client must refuse; knows no API, no HTTP."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

TAG_KINDS = ("general", "character", "copyright", "artist", "meta")
RATINGS = {"g": "general", "s": "sensitive", "q": "questionable", "e": "explicit"}
# A board's clock in this collection ends here (2026-10-01T00:00:00Z), so a seed always
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
    differ. `refusal` is the reason why a careful client refuses the post or its file, or None.
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
    poster: str | None = None  # source of thumbnails if `body` is no readable picture
    film: str | None = None  # body of the webm that Danbooru makes of an ugoira
    faces: tuple[tuple[int, int, int, int], ...] = ()  # x, y, w, h in px, where drawn
    refusal: str | None = None

    @property
    def all_tags(self) -> tuple[str, ...]:
        """Every tag of every kind, sorted as boards list them."""
        return tuple(sorted(name for kind in TAG_KINDS for name in self.tags[kind]))

    @property
    def name_hash(self) -> str:
        """The file name on safebooru.org: a hash in hex, not the file's md5."""
        return hashlib.sha256(f"file name {self.md5}".encode()).hexdigest()[:40]

    @property
    def withheld(self) -> bool:
        """Whether an anonymous visitor is refused the file (Danbooru: banned posts)."""
        return self.banned


class Bodies(Protocol):
    """Storage of a collection's bytes."""

    def read(self, name: str) -> bytes:
        """The bytes called `name`; raises OSError or KeyError if they are missing."""
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
        """The first post with this file name on safebooru.org, or None."""
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

    def edited(self, rate: float, *, seed: str) -> Collection:
        """The collection after a share `rate` of its posts was edited; the seed says which and how.

        A post is rated, tagged, deleted or banned anew, restored, or removed as if it had never
        been. Its `refusal` stays that of the post as it was.
        """
        rng = random.Random(seed)
        general = [name for name, tag in self.tags.items() if tag.kind == "general"]
        chosen = [entry for entry in self.entries if rng.random() < rate]
        after = {entry.post_id: _edited(entry, rng, general) for entry in chosen}
        entries = [after.get(entry.post_id, entry) for entry in self.entries]
        return Collection([one for one in entries if one], self._bodies, warnings=self.warnings)

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


def _edited(entry: Entry, rng: random.Random, general: Sequence[str]) -> Entry | None:
    """A post after one edit; None: it was removed."""
    is_unsafe = entry.rating != "g" or entry.status != "active" or entry.banned
    kinds = ("rated", "tagged", "retagged", "deleted", "banned", "removed")
    kind = rng.choice(kinds + ("restored",) * 6 * is_unsafe)
    old = list(entry.tags["general"])
    new = rng.choice([name for name in general if name not in old] or ["edited"])
    if kind == "retagged" and old:
        old.remove(rng.choice(old))
    tags = {"tags": by_kind(**{**entry.tags, "general": (*old, new)})}
    changes: dict[str, dict[str, Any]] = {
        "rated": {"rating": rng.choice([one for one in RATINGS if one != entry.rating])},
        "tagged": tags,
        "retagged": tags,
        "deleted": {"status": "deleted"},
        "banned": {"banned": True},
        "restored": {"rating": "g", "status": "active", "banned": False},
        "removed": {},
    }
    edited = dataclasses.replace(entry, updated_at=entry.updated_at + 3600, **changes[kind])
    return None if kind == "removed" else edited


@dataclasses.dataclass(frozen=True, slots=True)
class Tag:
    """A tag, its kind and on how many posts have it."""

    tag_id: int
    name: str
    kind: str
    post_count: int


def by_kind(**tags: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Tags of each kind, sorted and without duplicates; missing kinds are empty."""
    unknown = set(tags) - set(TAG_KINDS)
    if unknown:
        raise CollectionError(f"unknown tag kinds {sorted(unknown)}; there are {TAG_KINDS}")
    return {kind: tuple(sorted(set(tags.get(kind, ())))) for kind in TAG_KINDS}


def md5_of(body: bytes) -> str:
    """The md5 that boards give a file, in hex."""
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def write_atomically(path: Path, body: bytes) -> None:
    """Writes a file atomically: fsync, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


_ERROR_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Not available</title></head>\n"
    b"<body><h1>This picture is not available at the moment.</h1></body></html>\n"
)

Stage = Literal["record", "file", "crop"]


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """A kind of post that gives no face, and the stage at which a client can know.

    `stage`: `record` before any download, `file` by the bytes, `crop` only when faces are
    looked for (such a post is valid and is downloaded).
    """

    name: str
    stage: Stage
    draws: Literal["character", "scenery", "comic", "sketch"] = "character"
    encoding: str = "jpg"  # one of demo.media.STILLS or ANIMATIONS
    ext: str | None = None  # what the record claims, None = what the encoding is
    rating: str = "g"
    status: str = "active"
    banned: bool = False
    general: tuple[str, ...] = ()
    meta: tuple[str, ...] = ()
    spoil: str | None = None  # one of SPOILERS
    wrong_md5: bool = False
    duplicate: Literal["exact", "reencoded"] | None = None


REFUSALS = (
    # The pictures are harmless: only the record's rating or tag is to be refused.
    Refusal("rating_sensitive", "record", rating="s"),
    Refusal("rating_questionable", "record", rating="q"),
    Refusal("rating_explicit", "record", rating="e"),
    Refusal("deleted", "record", status="deleted"),
    Refusal("banned", "record", banned=True),
    Refusal("pending", "record", status="pending"),
    Refusal("flagged", "record", status="flagged"),
    Refusal("comic", "record", draws="comic", general=("comic",)),
    Refusal("4koma", "record", draws="comic", general=("4koma", "comic")),
    Refusal("sketch", "record", draws="sketch", general=("sketch",)),
    Refusal("lineart", "record", draws="sketch", general=("lineart", "monochrome")),
    Refusal("greyscale", "record", draws="sketch", general=("greyscale", "monochrome")),
    Refusal("photo", "record", draws="scenery", general=("photo_(medium)",)),
    Refusal("ai_generated", "record", meta=("ai-generated",)),
    Refusal("animated_gif", "record", encoding="gif", meta=("animated", "animated_gif")),
    Refusal("animated_webp", "record", encoding="animated_webp", meta=("animated",)),
    Refusal("video_mp4", "record", encoding="mp4", meta=("animated", "video")),
    Refusal("video_webm", "record", encoding="webm", meta=("animated", "video")),
    Refusal("ugoira", "record", encoding="zip", meta=("animated", "ugoira")),
    # Only the extension shows the animation, no tag.
    Refusal("untagged_gif", "record", encoding="gif"),
    Refusal("truncated_jpg", "file", spoil="truncate"),
    Refusal("truncated_png", "file", encoding="png", spoil="truncate"),
    Refusal("empty", "file", spoil="empty"),
    Refusal("png_named_jpg", "file", encoding="png", ext="jpg"),
    Refusal("html_named_png", "file", encoding="png", spoil="error_page"),
    Refusal("wrong_md5", "file", wrong_md5=True),
    Refusal("no_face", "crop", draws="scenery"),
    Refusal("exact_duplicate", "crop", duplicate="exact"),
    Refusal("reencoded_duplicate", "crop", duplicate="reencoded"),
)

SPOILERS: dict[str, Callable[[bytes], bytes]] = {
    "truncate": lambda body: body[: len(body) * 6 // 10],
    "empty": lambda _: b"",
    "error_page": lambda _: _ERROR_PAGE,
}


def ext_of(encoding: str) -> str:
    """The file name's extension of an encoding."""
    return "webp" if encoding == "animated_webp" else encoding
