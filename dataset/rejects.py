"""The hand-made reject list: faces that no build may use, one a line."""

import re

from dataset.errors import ConfigError, listed
from dataset.store import Store

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
            f"0123456789abcdef-0 (the name of a file under crops/):\n{listed(faults)}"
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
