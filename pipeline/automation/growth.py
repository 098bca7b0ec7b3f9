"""Growth: how many faces of a manifest the current generator has not learnt from."""

import functools
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from dataset.errors import OmokageError
from dataset.manifest import SPLITS, Manifest, load_manifest
from dataset.schemas import manifest_schema
from dataset.store import Store
from dataset.streams import batches
from pipeline.automation.threshold import percent

_ROWS_AT_ONCE = 65_536


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
            f"{self.new:,} new ({percent(self.new / self.learnt)} more){gone}"
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
