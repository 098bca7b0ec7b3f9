"""From which code something was made."""

import functools
import hashlib
import subprocess
from pathlib import Path


@functools.cache
def code_version() -> str:
    """Returns 16 hex digits of the sha256 over this room's sources: which code trained it."""
    room = Path(__file__).parents[1]
    sha256 = hashlib.sha256()
    for path in sorted(room.rglob("*.py")):
        sha256.update(path.relative_to(room).as_posix().encode() + b"\0" + path.read_bytes())
    return sha256.hexdigest()[:16]


@functools.cache
def commit() -> str:
    """Returns the commit of the checkout that this code lies in, "" where it lies in none.

    `-dirty` behind it tells that files differ from the commit.
    """
    room = Path(__file__).parents[2]
    if not (room / ".git").exists():
        return ""
    try:
        told = subprocess.run(
            ["git", "-C", str(room), "describe", "--always", "--abbrev=40", "--dirty"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):  # no git here, or a checkout of someone else's
        return ""
    return told.stdout.strip()
