"""Machine-made labels: a tagger's probabilities for faces whose posts have no tags."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dataset.errors import ConfigError, SchemaError, listed
from dataset.schemas import machine_labels_schema
from dataset.store import Store
from dataset.streams import batches

DEFAULT_THRESHOLD = 0.25
_SHOWN = 10


@dataclass(frozen=True)
class MachineLabels:
    """A tagger's output: a table of `machine_labels_schema`, read by the faces' first digits.

    Raises ConfigError for a threshold outside 0 to 1.
    """

    path: str
    labels: list[str]
    threshold: float = DEFAULT_THRESHOLD  # a face has a label from this probability on

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ConfigError(
                f"the threshold of machine-made labels is {self.threshold:g}; "
                "a probability between 0 and 1 wanted"
            )

    def taggers(self, store: Store) -> list[str]:
        """Returns the digests of the taggers that wrote the table, sorted."""
        declared = machine_labels_schema(self.labels)
        found: set[str] = set()
        for batch in batches(store, self.path, declared=declared, columns=["tagger"]):
            found.update(pc.unique(batch["tagger"]).to_pylist())
        return sorted(found)

    def of_faces(
        self, store: Store, faces: pa.Table, *, digit: str
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Returns the labels of `faces` (all with that first digit) [N, L], and which have any [N].

        Raises SchemaError, naming them, for faces that stand twice, were tagged from other pixels,
        or have a probability outside 0 to 1.
        """
        declared = machine_labels_schema(self.labels)
        parts = batches(store, self.path, declared=declared, digit=digit)
        table = pa.Table.from_batches(parts, schema=declared)
        ids = table["face_id"].combine_chunks()
        rows = pc.index_in(faces["face_id"], value_set=ids)
        known = pc.is_valid(rows).to_numpy()
        found = table.take(rows.drop_null())
        probabilities = _matrix(found, self.labels)
        asked = faces.filter(pa.array(known))
        faults = _double(table) + _other_pixels(asked, found) + _out_of_range(found, probabilities)
        if faults:
            raise SchemaError(
                f"{store.url(self.path)} does not fit faces.parquet. Run the tagger again.\n"
                f"{listed(faults)}"
            )
        has = np.zeros((faces.num_rows, len(self.labels)), bool)
        has[known] = probabilities >= np.float32(self.threshold)
        return has, known


def _matrix(table: pa.Table, labels: list[str]) -> npt.NDArray[np.float32]:
    if not labels or not table.num_rows:
        return np.zeros((table.num_rows, len(labels)), np.float32)
    return np.stack([table[label].to_numpy() for label in labels], axis=1)


def _double(table: pa.Table) -> list[str]:
    counts = pc.value_counts(table["face_id"].combine_chunks())
    double = counts.field(0).filter(pc.greater(counts.field(1), 1))
    return [f"{face_id} stands twice" for face_id in double.slice(0, _SHOWN).to_pylist()]


def _other_pixels(faces: pa.Table, found: pa.Table) -> list[str]:
    other = faces.filter(pc.not_equal(faces["crop_sha256"], found["crop_sha256"]))
    ids = other["face_id"].slice(0, _SHOWN).to_pylist()
    return [f"{face_id}: crop_sha256 is of another crop" for face_id in ids]


def _out_of_range(found: pa.Table, probabilities: npt.NDArray[np.float32]) -> list[str]:
    wrong = np.argwhere(~((probabilities >= 0) & (probabilities <= 1)))[:_SHOWN].tolist()
    names = found.column_names[-probabilities.shape[1] :]
    return [
        f"{found['face_id'][row].as_py()}: {names[column]} is {probabilities[row, column]:g}; "
        "0 to 1 wanted"
        for row, column in wrong
    ]
