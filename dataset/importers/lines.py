"""Lines of large text files, compressed or not: numbered, of bounded length, read as they come."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

MAX_LINE_BYTES = 16 * 2**20

# What reading a damaged compressed file raises.
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)

_OPENERS: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}


def open_text(path: Path) -> IO[bytes]:
    """Opens a file for reading, unpacked as it is read if its name ends in .gz, .xz or .bz2."""
    opener = _OPENERS.get(path.suffix.lower())
    opened: IO[bytes] = opener(path, "rb") if opener else path.open("rb")
    return opened


def numbered_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Yields number and bytes of every line; None in place of one above MAX_LINE_BYTES."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield number, line
            continue
        while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
            pass
        yield number, None
