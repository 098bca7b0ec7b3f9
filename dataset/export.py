"""A training set with its pictures as files, for people who train elsewhere.

Parquet has a column `png` beside the manifest's columns. WebDataset has tar files of a picture
`<face_id>.png` and its facts `<face_id>.json` each.

Source: WebDataset, https://github.com/webdataset/webdataset.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dataset.crops import Crops
from dataset.errors import UsageError
from dataset.manifest import SPLITS, Manifest, read_split
from dataset.progress import progress
from dataset.store import LocalFolder, Store

FORMATS = ("parquet", "webdataset")
NOTE = "dataset.json"  # written last: without it an export is not whole
_BEGUN = ".begun.json"  # what is being written here
_ROWS_A_TAR = 5_000
_ROWS_AT_ONCE = 256


def export_set(store: Store, manifest: Manifest, to: LocalFolder, *, form: str) -> list[str]:
    """Writes a manifest's rows and crops to a folder; returns the names of the files.

    form: one of FORMATS. The same manifest gives the same bytes. An export that was stopped goes
    on. Raises UsageError if the folder holds anything else, and the errors of crops that are
    missing or damaged.
    """
    _begin(manifest, to, form=form)
    crops = Crops(store)
    written = []
    with progress("export", manifest.train_rows + manifest.eval_rows, unit="faces") as advance:
        for split in SPLITS:
            rows = read_split(store, manifest, split)
            for name, part in _files(split, rows, form=form):
                written.append(name)
                if not to.exists(name):
                    write = _write_parquet if form == "parquet" else _write_tar
                    write(to, name, part, manifest.labels, crops=crops)
                advance(part.num_rows)
    note = {"format": form, "files": written, **asdict(manifest)}
    to.write_json(NOTE, {name: value for name, value in note.items() if name != "folder"})
    to.remove(_BEGUN)
    return [*written, NOTE]


def _begin(manifest: Manifest, to: LocalFolder, *, form: str) -> None:
    begun = {"manifest": manifest.digest, "format": form}
    if to.exists(_BEGUN):
        if (found := to.read_json(_BEGUN)) != begun:
            raise UsageError(
                f"{to.url('')} has the beginning of another export ({found}); an empty folder "
                "wanted"
            )
    elif there := to.names(""):
        raise UsageError(f"{to.url('')} holds {there[0]} already; an empty folder wanted")
    else:
        to.write_json(_BEGUN, begun)


def _files(split: str, rows: pa.Table, *, form: str) -> Iterator[tuple[str, pa.Table]]:
    if form == "parquet":
        yield f"{split}.parquet", rows
        return
    for number, start in enumerate(range(0, rows.num_rows, _ROWS_A_TAR)):
        yield f"{split}-{number:06d}.tar", rows.slice(start, _ROWS_A_TAR)


def _with_crops(rows: pa.Table, crops: Crops) -> Iterator[tuple[pa.Table, list[bytes]]]:
    for start in range(0, rows.num_rows, _ROWS_AT_ONCE):
        part = rows.slice(start, _ROWS_AT_ONCE)
        yield part, crops.read(part)


def _write_parquet(
    to: LocalFolder, name: str, rows: pa.Table, _labels: list[str], *, crops: Crops
) -> None:
    schema = rows.schema.append(pa.field("png", pa.binary(), nullable=False))
    with to.writing(name) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for part, pngs in _with_crops(rows, crops):
            writer.write_table(part.append_column(schema.field("png"), pa.array(pngs, pa.binary())))


def _write_tar(
    to: LocalFolder, name: str, rows: pa.Table, labels: list[str], *, crops: Crops
) -> None:
    with to.writing(name) as file, tarfile.open(fileobj=file, mode="w") as tar:
        for part, pngs in _with_crops(rows, crops):
            for row, png in zip(part.to_pylist(), pngs, strict=True):
                facts: dict[str, Any] = {key: row[key] for key in row if key not in labels}
                facts["labels"] = [label for label in labels if row[label]]
                text = json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()
                _add(tar, f"{row['face_id']}.png", png)
                _add(tar, f"{row['face_id']}.json", text)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # without a time or an owner: the same bytes each time
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
