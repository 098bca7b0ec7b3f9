"""Machine-made labels: the probabilities that a tagger gives to the faces without tags, a table."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dataset.crops import Crops
from dataset.digests import content_digest
from dataset.engines import Engine, map_batches
from dataset.schemas import MACHINE_LABELS_PATH, machine_labels_schema, read_table, write_table
from dataset.store import Store, digest_of
from models.tagger.data import HomeFaces, crops_at, in_batches
from models.tagger.model import LabelModel

PROVENANCE_PATH = "machine_labels.json"  # written last: while it is missing, the table is not whole


@dataclasses.dataclass(frozen=True)
class MachineLabels:
    """The table that was written: its rows, its digest, and the tagger that made it."""

    path: str
    rows: int
    digest: str
    tagger: str | None  # digest; None if no face needed it
    counts: dict[str, int]  # rows whose probability reaches the threshold, by label
    without: int  # rows that have no label at the threshold


def write_none(store: Store, labels: tuple[str, ...]) -> MachineLabels:
    """Writes the table without a row: every face has tags of its own."""
    return _write(store, labels, _table(labels, {}), tagger=None, inputs=None, threshold=0.5)


def write_machine_labels(
    store: Store,
    faces: HomeFaces,
    model: LabelModel,
    *,
    inputs: str,
    threshold: float,
    advance: Callable[[int], None],
    engine: Engine | None = None,
) -> MachineLabels:
    """Labels every untagged face and writes machine_labels.parquet, sorted by face_id.

    inputs: digest of all that the table depends on, for `standing`; threshold: for the counts only,
    the table keeps probabilities; advance: takes how many faces are done, may raise to stop;
    engine: who labels them, None this process.
    """
    found = []
    keys = in_batches(faces.untagged)
    for rows in map_batches(engine, Labeller, (store, model), keys):
        found.append(rows)
        advance(rows.num_rows)
    said = pa.concat_tables(found).sort_by("face_id").combine_chunks()
    columns: dict[str, Any] = {
        "face_id": faces.untagged["face_id"],
        "crop_sha256": faces.untagged["crop_sha256"],
        "tagger": pa.array([model.digest] * said.num_rows, pa.string()),
    }
    columns |= {label: said[label] for label in faces.labels}
    table = _table(faces.labels, columns)
    return _write(
        store, faces.labels, table, tagger=model.digest, inputs=inputs, threshold=threshold
    )


class Labeller:
    """Gives faces of a store their probabilities by a tagger, in a worker."""

    def __init__(self, settings: tuple[Store, LabelModel]) -> None:
        store, self._model = settings
        self._crops = Crops(store)

    def __call__(self, keys: pa.Table) -> pa.Table:
        """Returns face_id and a column a label for keys with face_id, crop and crop_sha256."""
        images = crops_at(self._crops, keys, side_px=self._model.input_px)
        said = self._model.probabilities(images)
        names = self._model.label_names
        columns = {name: pa.array(said[:, place]) for place, name in enumerate(names)}
        return pa.table({"face_id": keys["face_id"], **columns})


def standing(store: Store, labels: tuple[str, ...], *, inputs: str) -> pa.Table | None:
    """Returns the table if it was made from these inputs and is whole, else None."""
    if not store.exists(PROVENANCE_PATH) or not store.exists(MACHINE_LABELS_PATH):
        return None
    known = store.read_json(PROVENANCE_PATH)
    if not isinstance(known, dict) or known.get("inputs") != inputs:
        return None
    table = read_table(store, MACHINE_LABELS_PATH, declared=machine_labels_schema(list(labels)))
    return table if known.get("digest") == _digest(labels, table) else None


def summary_of(table: pa.Table, labels: tuple[str, ...], *, threshold: float) -> MachineLabels:
    """Describes a table of machine-made labels."""
    taggers = table["tagger"].unique().to_pylist()
    said = _probabilities(table, labels) >= threshold
    return MachineLabels(
        path=MACHINE_LABELS_PATH,
        rows=table.num_rows,
        digest=_digest(labels, table),
        tagger=taggers[0] if taggers else None,
        counts={label: int(said[:, place].sum()) for place, label in enumerate(labels)},
        without=int((~said.any(axis=1)).sum()),
    )


def inputs_digest(faces: HomeFaces, tagger: dict[str, Any]) -> str:
    """Returns the digest of what a table depends on; `tagger` tells which one labels, or how."""
    return digest_of(
        {
            "untagged": faces.untagged_digest,
            "tagged": faces.tagged_digest,  # holds the labels too
            "tagger": tagger,
        }
    )


def _write(
    store: Store,
    labels: tuple[str, ...],
    table: pa.Table,
    *,
    tagger: str | None,
    inputs: str | None,
    threshold: float,
) -> MachineLabels:
    store.remove(PROVENANCE_PATH)
    write_table(store, MACHINE_LABELS_PATH, table, declared=machine_labels_schema(list(labels)))
    made = summary_of(table, labels, threshold=threshold)
    provenance = {"inputs": inputs, "tagger": tagger, "digest": made.digest, "rows": made.rows}
    store.write_json(PROVENANCE_PATH, provenance)
    return made


def _table(labels: tuple[str, ...], columns: dict[str, Any]) -> pa.Table:
    schema = machine_labels_schema(list(labels))
    return pa.table({name: columns.get(name, []) for name in schema.names}, schema=schema)


def _digest(labels: tuple[str, ...], table: pa.Table) -> str:
    return digest_of({"labels": list(labels), "rows": content_digest(table)})


def _probabilities(table: pa.Table, labels: tuple[str, ...]) -> npt.NDArray[np.float32]:
    columns = [table[label].to_numpy() for label in labels]
    return np.stack(columns, axis=1) if columns else np.zeros((table.num_rows, 0), np.float32)
