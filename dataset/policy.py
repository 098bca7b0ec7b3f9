"""Which posts may be stored (safe, approved, by people, not taken down), and rejected faces."""

import dataclasses
import re
from collections.abc import Collection, Iterable
from typing import Protocol

from dataset.errors import ConfigError, UsageError, listed
from dataset.store import Store

TAKEDOWN_FILE = "takedown.txt"

# Always on; a configuration may only add to it. Spellings differ from board to board.
EXCLUDED_TAGS = frozenset(
    {
        # what must not be stored, whatever its rating
        *("loli", "lolicon", "shota", "shotacon", "toddlercon", "guro", "gore"),
        # not drawn by a person
        *("ai-generated", "ai_generated", "ai-assisted", "ai-created", "stable_diffusion"),
        *("novelai", "midjourney", "nai_diffusion"),
        # moving pictures
        *("animated", "animated_gif", "animated_png", "video", "ugoira", "flash", "webm"),
        # pages of several pictures
        *("comic", "1koma", "2koma", "3koma", "4koma", "5koma", "multiple_4koma"),
        *("silent_comic", "manga_page"),
        # without colour or not finished
        *("sketch", "rough_sketch", "lineart", "line_art", "monochrome", "greyscale"),
        *("grayscale", "partially_colored", "spot_color", "unfinished"),
        # not drawn at all
        *("photo", "photo_(medium)", "photorealistic", "cosplay_photo", "real_life"),
        *("text-only_page", "no_image"),
    }
)

# Formats that can be a still picture; what the bytes really are is checked after the download.
STILL_EXTS = frozenset({"jpg", "jpeg", "png", "webp", "gif", "avif"})

_MD5 = re.compile(r"[0-9a-f]{32}")
_POST = re.compile(r"([a-z][a-z0-9_]*)/([1-9]\d*)")


class PostFields(Protocol):
    """The fields of a post that the policy looks at."""

    @property
    def board(self) -> str: ...  # noqa: D102
    @property
    def post_id(self) -> int: ...  # noqa: D102
    @property
    def md5(self) -> str | None: ...  # noqa: D102
    @property
    def ext(self) -> str | None: ...  # noqa: D102
    @property
    def rating(self) -> str: ...  # noqa: D102
    @property
    def tags(self) -> frozenset[str]: ...  # noqa: D102
    @property
    def tags_artist(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def deleted(self) -> bool: ...  # noqa: D102
    @property
    def banned(self) -> bool: ...  # noqa: D102
    @property
    def pending(self) -> bool: ...  # noqa: D102
    @property
    def flagged(self) -> bool: ...  # noqa: D102
    @property
    def file_url(self) -> str | None: ...  # noqa: D102


@dataclasses.dataclass(frozen=True)
class Takedowns:
    """What must be taken down on request: pictures by md5, posts, all works of an artist."""

    md5s: frozenset[str] = frozenset()
    posts: frozenset[tuple[str, int]] = frozenset()
    artists: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.md5s or self.posts or self.artists)

    def cover(self, post: PostFields) -> bool:
        """Tells whether a post is on the list; artists count among all tags on flat boards."""
        return (
            post.md5 in self.md5s
            or (post.board, post.post_id) in self.posts
            or not self.artists.isdisjoint(post.tags)
        )


def read_takedowns(store: Store, path: str = TAKEDOWN_FILE) -> Takedowns:
    """Reads the takedown list of a home; a missing file is an empty list.

    A line is `md5 <32 hex digits>`, `post <site>/<number>` or `artist <tag>`; `#` begins a remark.
    Raises ConfigError with every line that is none of these: nothing may slip through unread.
    """
    if not store.exists(path):
        return Takedowns()
    text = store.read_bytes(path).decode("utf-8", "replace")
    return parse_takedowns(text.splitlines(), where=store.url(path))


def parse_takedowns(lines: Iterable[str], *, where: str) -> Takedowns:
    """Reads the lines of a takedown list; see `read_takedowns`."""
    md5s, posts, artists, faults = set(), set(), set(), []
    for number, line in enumerate(lines, start=1):
        words = line.split("#", 1)[0].lower().split()
        if not words:
            continue
        kind, value = words[0], "_".join(words[1:])
        if kind == "md5" and _MD5.fullmatch(value):
            md5s.add(value)
        elif kind == "post" and (found := _POST.fullmatch(value)):
            posts.add((found[1], int(found[2])))
        elif kind == "artist" and value:
            artists.add(value)
        else:
            faults.append(
                f'line {number}: "{line.strip()}"; "md5 <32 hex digits>", "post <site>/<number>" '
                'or "artist <tag>" wanted'
            )
    if faults:
        raise ConfigError(f"{where} is not a takedown list:\n{listed(faults)}")
    return Takedowns(frozenset(md5s), frozenset(posts), frozenset(artists))


def add_entry(store: Store, kind: str, value: str, note: str = "") -> str:
    """Adds a line to the takedown list, atomically, and returns it.

    Raises ConfigError if the line is none or the list is damaged, UsageError if the list has it.
    """
    there = store.read_bytes(TAKEDOWN_FILE).decode() if store.exists(TAKEDOWN_FILE) else ""
    before = parse_takedowns(there.splitlines(), where=store.url(TAKEDOWN_FILE))
    line = f"{kind} {' '.join(value.split())}"
    if "#" in line:
        raise UsageError(f'"{line}": a "#" begins a remark in {TAKEDOWN_FILE}; give it by --note')
    added = parse_takedowns([line], where="this entry")
    known = (before.md5s & added.md5s) | (before.artists & added.artists)
    if known or before.posts & added.posts or not added:
        raise UsageError(f'{store.url(TAKEDOWN_FILE)} has "{line}" already')
    line += f"  # {' '.join(note.split())}" if note.strip() else ""
    begun = f"{there}\n" if there and not there.endswith("\n") else there
    store.write_bytes(TAKEDOWN_FILE, f"{begun}{line}\n".encode())
    return line


def drop_reason(
    post: PostFields, takedowns: Takedowns, *, excluded: Collection[str] = ()
) -> str | None:
    """Returns why a post may not be stored, None if it may; `excluded` adds to EXCLUDED_TAGS.

    Reasons: takedown, deleted, banned, pending, flagged, rating, tag_<tag>, format, withheld.
    """
    if takedowns.cover(post):
        return "takedown"
    for flag in ("deleted", "banned", "pending", "flagged"):
        if getattr(post, flag):
            return flag
    if post.rating != "general":
        return "rating"
    found = sorted(post.tags & EXCLUDED_TAGS) or sorted(post.tags.intersection(excluded))
    if found:
        return f"tag_{found[0]}"
    if post.ext is not None and post.ext not in STILL_EXTS:
        return "format"
    if post.md5 is None or post.file_url is None:
        return "withheld"
    return None


REJECTS_PATH = "rejects.txt"
FACE_ID = r"[0-9a-f]{16}-\d+"


def read_rejects(store: Store) -> list[str]:
    """Returns the face_ids of the list, in its order; [] if there is none.

    A line is a face_id or the path of a crop, `#` begins a comment. Raises ConfigError naming the
    lines that are neither.
    """
    faults, found = [], []
    for number, line in enumerate(reject_lines(store), start=1):
        named = id_of_line(line)
        if named and not re.fullmatch(FACE_ID, named):
            faults.append(f'line {number}: "{named}" is no face_id')
        elif named:
            found.append(named)
    if faults:
        raise ConfigError(
            f"{store.url(REJECTS_PATH)}: one face_id a line wanted, such as "
            f"0123456789abcdef-0 (the name of a crop):\n{listed(faults)}"
        )
    return found


def reject_lines(store: Store) -> list[str]:
    """Returns the list's lines with their comments; [] if there is none."""
    if not store.exists(REJECTS_PATH):
        return []
    return store.read_bytes(REJECTS_PATH).decode(errors="replace").splitlines()


def id_of_line(line: str) -> str:
    """Returns what a line names, without comment, folder and ending; empty for a mere comment."""
    return re.sub(r"^.*/|\.png$", "", line.split("#")[0].strip())


def change_rejects(store: Store, *, add: list[str], remove: list[str]) -> tuple[int, int]:
    """Adds and removes faces, atomically; returns how many were added and removed.

    Other lines stay as they are, and so does the comment of a line that is removed.
    """
    lines = reject_lines(store)
    known = set(read_rejects(store))
    kept = [line if id_of_line(line) not in remove else _comment(line) for line in lines]
    kept = [line for line, old in zip(kept, lines, strict=True) if line or line == old]
    new = [face_id for face_id in dict.fromkeys(add) if face_id not in known]
    gone = known & set(remove)
    if new or gone:
        text = "".join(f"{line}\n" for line in [*kept, *new])
        store.write_bytes(REJECTS_PATH, text.encode())
    return len(new), len(gone)


def _comment(line: str) -> str:
    _, mark, comment = line.partition("#")
    return f"#{comment}" if mark else ""
