"""Digests of tables and pixels: by their content alone, whatever the order, file or machine."""

import binascii
import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_BETWEEN_CELLS = "\x1f"
_BETWEEN_ITEMS = "\x1d"  # of a list, such as tags
_EMPTY_CELL = "\x00"
_ROWS_AT_ONCE = 8_192
_ROW_BYTES = 16  # 128 bits of each row: two of 2^32 rows are taken for one with odds of 2^-64
ROW_DIGEST = pa.binary(_ROW_BYTES)
_DIGITS = 64  # of a sha256
_NO_NIBBLE = 255
_NIBBLE = np.full(256, _NO_NIBBLE, np.uint8)
_NIBBLE[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


class RowsDigest:
    """The digest of a table that comes in parts, in any order: sha256 of names and sorted rows.

    Sixteen bytes a row are kept until `hexdigest`.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._rows = bytearray()

    def update(self, part: pa.Table | pa.RecordBatch) -> None:
        """Adds rows; columns are taken by their names, lists are joined."""
        self._rows += fixed_bytes(row_digests(part, self._names), _ROW_BYTES).tobytes()

    def hexdigest(self) -> str:
        """Returns the digest (hex) of all rows so far."""
        content = hashlib.sha256(_BETWEEN_CELLS.join(self._names).encode())
        rows = np.frombuffer(self._rows, dtype=f"S{_ROW_BYTES}")
        rows.sort()  # in place: their order has no meaning
        content.update(self._rows)
        return content.hexdigest()


class SumDigest:
    """The digest of a table by the digests of its rows: whatever their order, however they came.

    Their sum is kept, 16 bytes in all.
    """

    def __init__(self) -> None:
        self._total = np.zeros(_ROW_BYTES // 8, np.uint64)
        self._rows = 0

    def update(self, digests: pa.Array) -> None:
        """Adds rows by their digests, as of `row_digests`: binary(16) [N]."""
        words = fixed_bytes(digests, _ROW_BYTES).view(np.uint64)
        self._total += words.reshape(-1, len(self._total)).sum(0, np.uint64)
        self._rows += len(digests)

    def hexdigest(self) -> str:
        """Returns the digest (hex) of all rows so far."""
        content = self._total.tobytes() + self._rows.to_bytes(8, "little")
        return hashlib.sha256(content).hexdigest()


def row_digests(part: pa.Table | pa.RecordBatch, names: Sequence[str]) -> pa.Array:
    """Returns a digest of each row by these columns: binary(16) [N]; lists are joined."""
    found = []
    for start in range(0, part.num_rows, _ROWS_AT_ONCE):
        piece = part.slice(start, _ROWS_AT_ONCE)
        cells = [_texts(piece.column(name)) for name in names]
        rows = pc.cast(pc.binary_join_element_wise(*cells, _BETWEEN_CELLS), pa.binary())
        found += [hashlib.blake2b(row, digest_size=_ROW_BYTES).digest() for row in rows.to_pylist()]
    return pa.array(found, ROW_DIGEST)


def fixed_bytes(texts: pa.Array, width: int) -> npt.NDArray[np.bytes_]:
    """Returns texts (or bytes) that all have `width` bytes: [N]; ValueError for others."""
    content = texts.cast(pa.binary(width))
    return np.frombuffer(content.buffers()[1], f"S{width}", len(texts), content.offset * width)


def bytes_of(digits: pa.Array, width: int) -> npt.NDArray[np.bytes_]:
    """Returns what texts of hex digits stand for, `width` bytes each: [N]."""
    return np.frombuffer(binascii.unhexlify(fixed_bytes(digits, 2 * width).tobytes()), f"S{width}")


def sha256_prefixes(sha256s: pa.Array) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """Returns the first 64 bits of each sha256 (64 hex digits), and where the text is one: [N]."""
    whole = pc.fill_null(pc.equal(pc.binary_length(sha256s), _DIGITS), fill_value=False)
    texts = pc.if_else(whole, sha256s, "0" * _DIGITS)
    nibbles = _NIBBLE[fixed_bytes(texts, _DIGITS).view(np.uint8).reshape(-1, _DIGITS)[:, :16]]
    right = whole.to_numpy(zero_copy_only=False) & (nibbles != _NO_NIBBLE).all(axis=1)
    pairs = (nibbles[:, ::2] << 4) | (nibbles[:, 1::2] & 15)
    return pairs.view(">u8")[:, 0].astype(np.uint64), right


def content_digest(table: pa.Table) -> str:
    """Returns the digest (hex) of a whole table."""
    digest = RowsDigest(table.column_names)
    digest.update(table)
    return digest.hexdigest()


def pixels_sha256(picture: npt.NDArray[np.uint8]) -> str:
    """Returns the sha256 (hex) of the pixels [H, W, 3]: RGB, row by row, however they are coded."""
    return hashlib.sha256(picture.tobytes()).hexdigest()


def _texts(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    if pa.types.is_list(column.type):
        whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        column = pc.binary_join(whole, _BETWEEN_ITEMS)
    return pc.fill_null(pc.cast(column, pa.string()), _EMPTY_CELL)
