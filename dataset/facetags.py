"""Tags and labels of the kept faces: from their posts, or predicted by a tagger."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dataset import tables
from dataset.digests import SumDigest, row_digests, sha256_prefixes
from dataset.errors import ConfigError, EmptyStageError, SchemaError, listed
from dataset.schemas import (
    DIGEST,
    FACES,
    FACES_PATH,
    POSTS,
    POSTS_PATH,
    ROWS_WITH_TAGS,
    batches,
    faces_path,
    machine_labels_schema,
    posts_path,
)
from dataset.store import Store

NOT_CONTENT = ("fetched_at",)  # of posts: it changes with every crawl
_SHOWN = 10
_TAG_COLUMNS = ("board", "post_id", "sha256", "tags_general", "drop_reason")
_UNTAGGED = "drop_reason IS NULL AND coalesce(cardinality(tags_general), 0) = 0"
_FACE_COLUMNS = ("face_id", "board", "post_id", "sha256", "crop", "crop_sha256")

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FacePosts:
    """The posts of the kept faces, numbered by board and post_id: 20 bytes a post, no text."""

    boards: dict[str, tuple[int, Numbers]]  # number of the first post, and all post_ids, sorted
    faces: npt.NDArray[np.int32]  # [P], kept faces of each post
    blobs: npt.NDArray[np.uint64]  # [P], first 64 bits of its sha256
    faces_digest: str  # of all kept faces

    @property
    def kept(self) -> int:
        """The number of kept faces."""
        return int(self.faces.sum())

    def find(self, rows: pa.RecordBatch) -> Numbers:
        """Returns the number of each row's post by `board` and `post_id`, -1 for an unknown one."""
        found = np.full(rows.num_rows, -1, np.int64)
        names = pc.dictionary_encode(rows.column("board"))
        codes, post_ids = names.indices.to_numpy(), rows.column("post_id").to_numpy()
        for code, board in enumerate(names.dictionary.to_pylist()):
            if board not in self.boards:
                continue
            first, known = self.boards[board]
            at = np.flatnonzero(codes == code)
            places = np.minimum(np.searchsorted(known, post_ids[at]), len(known) - 1)
            right = known[places] == post_ids[at]
            found[at[right]] = first + places[right]
        return found


def kept_faces(
    store: Store, columns: tuple[str, ...], *, digit: str | None = None
) -> Iterator[pa.RecordBatch]:
    """Yields the faces that were not dropped, by batches."""
    names = [*columns, *({"drop_reason"} - set(columns))]
    path = faces_path(store)
    for batch in batches(
        store, path, declared=FACES, columns=names, digit=digit, rows=ROWS_WITH_TAGS
    ):
        kept = batch.filter(pc.is_null(batch.column("drop_reason")))
        if kept.num_rows:
            yield kept.select(list(columns))


def count_if_all_tagged(store: Store) -> int | None:
    """Returns how many faces are kept if no post is without tags, by counts alone; else None."""
    posts, faces = posts_path(store), faces_path(store)
    if not (tables.is_lance(posts) and tables.is_lance(faces)):
        return None
    if tables.count(store, posts, _UNTAGGED):
        return None
    return tables.count(store, faces, "drop_reason IS NULL")


def posts_of_faces(store: Store) -> FacePosts:
    """Reads which posts the kept faces are of, and the faces' digest.

    Raises EmptyStageError if no face is kept; SchemaError, naming them, for faces whose face_id or
    sha256 is none, that have no crop, or that give one post two pictures.
    """
    digest = SumDigest()
    columns, digested = _digested(store, faces_path(store), _FACE_COLUMNS, FACES.names)
    found: dict[str, list[tuple[Numbers, npt.NDArray[np.uint64]]]] = {}
    for batch in kept_faces(store, columns):
        digest.update(digested(batch))
        blobs = _checked_blobs(store, batch)
        names = pc.dictionary_encode(batch.column("board"))
        codes, post_ids = names.indices.to_numpy(), batch.column("post_id").to_numpy()
        for code, board in enumerate(names.dictionary.to_pylist()):
            of_board = codes == code
            found.setdefault(board, []).append((post_ids[of_board], blobs[of_board]))
    if not found:
        raise EmptyStageError(
            f"{store.url(FACES_PATH)}: no face is kept, all are dropped or there is none; its "
            "drop_reason column says why."
        )
    return _numbered(store, found, digest.hexdigest())


def tagged_posts(
    store: Store, posts: FacePosts, *, digest: SumDigest | None = None
) -> Iterator[tuple[Numbers, pa.ListArray]]:
    """Yields the posts of the kept faces, by batches: their numbers [n] and general tags [n].

    `digest` gets their rows. Raises SchemaError for faces whose post is missing, dropped since, or
    has another picture, and for a post that stands twice.
    """
    path = posts_path(store)
    columns: tuple[str, ...] = _TAG_COLUMNS
    if digest is not None:
        content = [name for name in POSTS.names if name not in NOT_CONTENT]
        columns, digested = _digested(store, path, _TAG_COLUMNS, content)
    seen = np.zeros(len(posts.faces), bool)
    for batch in batches(store, path, declared=POSTS, columns=columns, rows=ROWS_WITH_TAGS):
        numbers = posts.find(batch)
        at = np.flatnonzero(numbers >= 0)
        rows, numbers = batch.take(pa.array(at)), numbers[at]
        _check_posts(store, posts, rows, numbers=numbers, seen=seen)
        seen[numbers] = True
        if digest is not None:
            digest.update(digested(rows))
        if len(numbers):
            yield numbers, rows.column("tags_general")
    if not seen.all():
        raise SchemaError(
            f"{store.url(FACES_PATH)}: faces without a post in posts.lance. Build faces again.\n"
            f"{listed(_faces_of(store, posts, ~seen))}"
        )


def _digested(
    store: Store, path: str, columns: tuple[str, ...], content: Sequence[str]
) -> tuple[tuple[str, ...], Callable[[pa.RecordBatch], pa.Array]]:
    """What to read besides these columns for the digests of rows, and what gives them.

    Tables that grow have them; of others they are made of the content.
    """
    if tables.is_lance(path) and DIGEST in tables.schema_of(store, path).names:
        return (*columns, DIGEST), lambda rows: rows.column(DIGEST)
    return tuple(dict.fromkeys((*columns, *content))), lambda rows: row_digests(rows, content)


def _checked_blobs(store: Store, faces: pa.RecordBatch) -> npt.NDArray[np.uint64]:
    """The first 64 bits of each face's sha256; SchemaError if a name or a crop is not as wanted."""
    blobs, right = sha256_prefixes(faces.column("sha256"))
    named = pc.match_substring_regex(faces.column("face_id"), "^[0-9a-f]{16}-[0-9]+$")
    with_crop = pc.and_(pc.is_valid(faces["crop"]), pc.is_valid(faces["crop_sha256"]))
    whole = pc.and_(pc.and_(named, with_crop), pa.array(right))
    faults = [
        f'{row["face_id"]}: sha256 is "{row["sha256"]}", crop is "{row["crop"]}", crop_sha256 is '
        f'"{row["crop_sha256"]}"'
        for row in faces.filter(pc.invert(whole)).slice(0, _SHOWN).to_pylist()
    ]
    if faults:
        raise SchemaError(
            f"{store.url(FACES_PATH)}: a kept face needs 16 hex digits, dash and number for a "
            f"face_id, a sha256 of 64 hex digits, and a crop. Build faces again.\n{listed(faults)}"
        )
    return blobs


def _numbered(
    store: Store,
    found: dict[str, list[tuple[Numbers, npt.NDArray[np.uint64]]]],
    digest: str,
) -> FacePosts:
    boards: dict[str, tuple[int, Numbers]] = {}
    faces, pictures = [], []
    first = 0
    for board in sorted(found):
        parts = found.pop(board)
        post_ids = np.concatenate([part[0] for part in parts])
        blobs = np.concatenate([part[1] for part in parts])
        known, at, number, count = np.unique(
            post_ids, return_index=True, return_inverse=True, return_counts=True
        )
        double = np.unique(number[blobs != blobs[at][number]])
        if len(double):
            names = [f"{board} {post_id}" for post_id in known[double].tolist()]
            raise SchemaError(
                f"{store.url(FACES_PATH)}: posts with faces of two pictures; a post stands in one "
                f"split. Build faces again.\n{listed(names)}"
            )
        boards[board] = (first, known)
        faces.append(count.astype(np.int32))
        pictures.append(blobs[at])
        first += len(known)
    return FacePosts(boards, np.concatenate(faces), np.concatenate(pictures), digest)


def _check_posts(
    store: Store,
    posts: FacePosts,
    rows: pa.RecordBatch,
    *,
    numbers: Numbers,
    seen: npt.NDArray[np.bool_],
) -> None:
    blobs, right = sha256_prefixes(rows.column("sha256"))
    first = np.zeros(len(numbers), bool)
    first[np.unique(numbers, return_index=True)[1]] = True
    double = seen[numbers] | ~first
    other = ~right | (blobs != posts.blobs[numbers])
    dropped = pc.is_valid(rows.column("drop_reason")).to_numpy(zero_copy_only=False)
    faults = [
        f"{rows['board'][row].as_py()} {rows['post_id'][row].as_py()} {what}"
        for which, what in (
            (double, "stands twice"),
            (dropped, "is dropped, but has kept faces"),
            (other & ~dropped, "has another picture than its faces"),
        )
        for row in np.flatnonzero(which)[:_SHOWN].tolist()
    ]
    if faults:
        raise SchemaError(
            f"{store.url(POSTS_PATH)} does not fit the faces. Build posts and faces again.\n"
            f"{listed(faults)}"
        )


def _faces_of(store: Store, posts: FacePosts, which: npt.NDArray[np.bool_]) -> list[str]:
    names: list[str] = []
    for batch in kept_faces(store, ("face_id", "board", "post_id")):
        lost = batch.filter(pa.array(which[posts.find(batch)]))
        names += [
            f"{row['face_id']} of {row['board']} {row['post_id']}" for row in lost.to_pylist()
        ]
    return names


DEFAULT_THRESHOLD = 0.25


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
        tagged = faces.filter(pa.array(known))
        faults = _double(table) + _other_pixels(tagged, found) + _out_of_range(found, probabilities)
        if faults:
            raise SchemaError(
                f"{store.url(self.path)} does not fit the table of faces. Run the tagger again.\n"
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
