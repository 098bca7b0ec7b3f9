"""Growth: how many faces of a manifest no generator has learnt yet, and whether they are enough."""

import functools
import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from dataset.errors import ConfigError, OmokageError
from dataset.manifest import SPLITS, Manifest, load_manifest
from dataset.schemas import manifest_schema
from dataset.store import Store
from dataset.streams import batches

DEFAULT_GROW = "10%"
_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Threshold:
    """From what growth on a training is asked for: a part of the learnt faces, a number, either."""

    frac: float | None = None
    faces: int | None = None

    def reached(self, new: int, learnt: int) -> bool:
        """Tells whether so many new faces beside so many learnt ones are enough."""
        by_part = self.frac is not None and new >= self.frac * learnt
        by_number = self.faces is not None and new >= self.faces
        return new > 0 and (by_part or by_number)

    @property
    def words(self) -> str:
        """What is wanted, such as `10 % or 500 wanted`."""
        parts = [_percent(self.frac)] if self.frac is not None else []
        parts += [f"{self.faces:,}"] if self.faces is not None else []
        return f"{' or '.join(parts)} wanted"


def parse_threshold(text: str) -> Threshold:
    """Reads `10%`, `500`, or `10%,500` for either; raises ConfigError saying what is wanted."""
    parts: dict[bool, float] = {}
    for part in map(str.strip, text.split(",")):
        number = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,2})?)\s*(%?)", part)
        if number is None or float(number[1]) == 0 or ("." in number[1] and not number[2]):
            raise ConfigError(
                f'"{part}" is no growth; a part such as 10%, a number of faces such as 500, or '
                "both (10%,500: whichever comes first) wanted"
            )
        is_part = bool(number[2])
        if is_part in parts:
            raise ConfigError(f'"{text}" has two {"parts" if is_part else "numbers"}; one wanted')
        parts[is_part] = float(number[1])
    faces = parts.get(False)
    frac = parts.get(True)
    return Threshold(
        frac=None if frac is None else frac / 100, faces=None if faces is None else int(faces)
    )


@dataclass(frozen=True)
class Growth:
    """A manifest beside the one that the current generator learnt from."""

    faces: int
    learnt: int  # 0 if what was learnt is not known any more
    new: int  # not among the learnt ones
    gone: int  # learnt ones that are not there any more
    known: bool = True  # the learnt manifest is still there

    @property
    def words(self) -> str:
        """Both numbers and what lies between them, as the beginning of a sentence."""
        if not self.known:
            return (
                f"the manifest has {self.faces:,} faces, and the one that the generator learnt "
                "from is not there any more: all count as new"
            )
        gone = f", {self.gone:,} of the learnt ones are gone" if self.gone else ""
        return (
            f"the manifest has {self.faces:,} faces, {self.learnt:,} were learnt from: "
            f"{self.new:,} new ({_percent(self.new / self.learnt)} more){gone}"
        )


def growth_since(store: Store, learnt_digest: str, now: Manifest) -> Growth:
    """Compares the faces of `now` with those of the manifest that was learnt from, by face_id.

    Without the learnt manifest's tables its row count is compared; without it all faces are new.
    Raises SchemaError for a damaged table of `now`.
    """
    return _growth(store.root, learnt_digest, now.digest)


@functools.lru_cache(maxsize=4)  # by content, so it holds; a sensor asks every minute
def _growth(root: str, learnt_digest: str, digest: str) -> Growth:
    store = Store(root)
    now = load_manifest(store, digest)
    faces = now.train_rows + now.eval_rows
    try:
        learnt = load_manifest(store, learnt_digest)
    except OmokageError:  # removed by a person, or of another version of this program
        return Growth(faces, learnt=0, new=faces, gone=0, known=False)
    rows = learnt.train_rows + learnt.eval_rows
    paths = [f"{learnt.folder}/{split}.parquet" for split in SPLITS]
    if not all(map(store.exists, paths)):
        return Growth(faces, rows, new=max(0, faces - rows), gone=max(0, rows - faces))
    known, there = _face_ids(store, learnt), _face_ids(store, now)
    both = pc.sum(pc.is_in(there, value_set=known)).as_py() or 0
    return Growth(faces, rows, new=len(there) - both, gone=len(known) - both)


def _face_ids(store: Store, manifest: Manifest) -> pa.Array:
    schema = manifest_schema(manifest.labels)
    parts = [
        batch.column("face_id")
        for split in SPLITS
        for batch in batches(
            store,
            f"{manifest.folder}/{split}.parquet",
            declared=schema,
            columns=["face_id"],
            rows=_ROWS_AT_ONCE,
        )
    ]
    return pa.concat_arrays(parts) if parts else pa.array([], pa.string())


def _percent(part: float) -> str:
    number = f"{100 * part:,.2f}".rstrip("0").rstrip(".")
    return f"{number} %"
