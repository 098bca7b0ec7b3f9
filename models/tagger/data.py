"""What a tagger reads: a home's faces as arrays, pictures on disk, and lists of tags."""

import csv
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dataset.crops import Crops
from dataset.decode import UnreadablePicture, decode
from dataset.digests import content_digest
from dataset.errors import UsageError, listed, nearest
from dataset.facetags import count_if_all_tagged, kept_faces, posts_of_faces, tagged_posts
from dataset.geometry import centre_square, cut, resized
from dataset.labels import has_tags, label_matrix, read_labels
from dataset.manifest import split_of
from dataset.store import Store, digest_of
from dataset.vocabulary import appearance
from models.tagger.model import Images, LabelModel

EXTENSIONS = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".avif")

_COLUMNS = ["face_id", "sha256", "crop", "crop_sha256"]
_CROPS_PER_BATCH = 256
_PICTURES_PER_BATCH = 64
_NAME = "name"
_HEADERS = {_NAME, "tag", "tags", "label"}


# The faces of a home
@dataclasses.dataclass(frozen=True)
class HomeFaces:
    """The kept faces of a home, by whether their posts have tags.

    Attributes:
        labels: names in the order of labels.json.
        tagged: rows (face_id, sha256, crop, crop_sha256) by face_id.
        truths: bool [N,L], the labels of the tagged rows.
        untagged: the same columns; posts without any tag say nothing, not even what is absent.

    """

    labels: tuple[str, ...]
    tagged: pa.Table
    truths: npt.NDArray[np.bool_]
    untagged: pa.Table

    @property
    def tagged_digest(self) -> str:
        """The sha256 over the tagged crops and their labels: what a tagger learns from."""
        columns = {label: pa.array(self.truths[:, n]) for n, label in enumerate(self.labels)}
        table = self.tagged.select(["face_id", "crop_sha256"])
        for label, column in columns.items():
            table = table.append_column(f"label {label}", column)
        return digest_of({"labels": list(self.labels), "rows": content_digest(table)})

    @property
    def untagged_digest(self) -> str:
        """The sha256 over the crops that want labels."""
        return content_digest(self.untagged.select(["face_id", "crop_sha256"]))

    def in_split(self, split: str, eval_frac: float) -> npt.NDArray[np.bool_]:
        """Returns which tagged rows stand in `train` or `eval`, as in the manifest: bool [N]."""
        pictures = self.tagged["sha256"].to_pylist()
        return np.array([split_of(picture, eval_frac) == split for picture in pictures], bool)


def faces_of(store: Store) -> HomeFaces:
    """Reads faces, posts and labels of a home; raises the errors of those tables."""
    labels, _ = read_labels(store)
    posts = posts_of_faces(store)
    has = np.zeros((len(posts.faces), len(labels)), bool)  # [P,L], by post
    tagged = np.zeros(len(posts.faces), bool)
    for numbers, tags in tagged_posts(store, posts):
        has[numbers], tagged[numbers] = label_matrix(tags, labels), has_tags(tags)
    batches = list(kept_faces(store, (*_COLUMNS, "board", "post_id")))
    of_post = np.concatenate([posts.find(batch) for batch in batches])
    faces = pa.Table.from_batches(batches).select(_COLUMNS)
    order = pc.sort_indices(faces["face_id"]).to_numpy()
    tagged_places, untagged_places = order[tagged[of_post[order]]], order[~tagged[of_post[order]]]
    return HomeFaces(
        tuple(labels),
        tagged=faces.take(pa.array(tagged_places)),
        truths=has[of_post[tagged_places]],
        untagged=faces.take(pa.array(untagged_places)),
    )


def all_tagged(store: Store) -> int | None:
    """Returns the number of kept faces if all have tags, so that no tagger is needed; else None."""
    counted = count_if_all_tagged(store)
    if counted is not None:
        return counted
    faces = faces_of(store)
    return None if faces.untagged.num_rows else faces.tagged.num_rows


def part_of(sha256: str, frac: float) -> bool:
    """Tells whether a picture falls into a part of the size `frac`, whatever its split.

    By other digits of the blob's sha256 than the split, so that the two are independent.
    """
    return int(sha256[8:16], 16) < frac * 16**8


def read_crops(
    store: Store, rows: pa.Table, *, side_px: int, advance: Callable[[int], None]
) -> Images:
    """Reads all crops of `rows` at one side, [N,side,side,3]; `advance` takes how many are done.

    Raises OmokageError naming a crop that is missing, damaged, or not the one of the table.
    """
    images = np.empty((rows.num_rows, side_px, side_px, 3), np.uint8)
    place = 0
    for batch in crop_batches(store, rows, side_px=side_px):
        images[place : place + len(batch)] = batch
        place += len(batch)
        advance(len(batch))
    return images


def crop_batches(store: Store, rows: pa.Table, *, side_px: int) -> Iterator[Images]:
    """Yields the crops of `rows` in their order, [n,side,side,3]; raises as `read_crops`."""
    crops = Crops(store)
    for batch in in_batches(rows):
        yield crops_at(crops, batch, side_px=side_px)


def in_batches(rows: pa.Table) -> Iterator[pa.Table]:
    """Yields rows of faces in tables as large as their crops are held in memory."""
    for batch in rows.to_batches(max_chunksize=_CROPS_PER_BATCH):
        yield pa.Table.from_batches([batch])


def crops_at(crops: Crops, rows: pa.Table, *, side_px: int) -> Images:
    """Returns the crops of `rows` at one side, [n,side,side,3]; raises as `read_crops`."""
    return np.stack([resized(pixels, side_px) for pixels in crops.pixels(rows)])


# Pictures anywhere on disk
@dataclasses.dataclass(frozen=True)
class Tagged:
    """One picture: probabilities by label, or the fault why there are none."""

    file: str
    probabilities: dict[str, float]
    fault: str | None = None

    def labels(self, threshold: float) -> list[str]:
        """Returns the labels at or above the threshold, the surest first."""
        sure = [(p, name) for name, p in self.probabilities.items() if p >= threshold]
        return [name for _, name in sorted(sure, key=lambda one: (-one[0], one[1]))]


def picture_files(paths: Sequence[Path]) -> list[Path]:
    """Returns files as they are named and all pictures below folders, sorted by name.

    Raises UsageError naming a path that is not there, or a folder without pictures.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS)
            if not inside:
                raise UsageError(f"{path} holds no picture; {' '.join(EXTENSIONS)} are read")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UsageError(f"{path} is not there; a picture or a folder of pictures wanted")
    return found


def tag_pictures(model: LabelModel, files: Sequence[Path]) -> Iterator[Tagged]:
    """Yields a result for each file in its order; one that cannot be read bears its fault.

    Pictures are taken for faces already cropped: of one that is not square, the middle square.
    """
    for start in range(0, len(files), _PICTURES_PER_BATCH):
        some = files[start : start + _PICTURES_PER_BATCH]
        squares, faults = [], {}
        for file in some:
            try:
                picture = decode(file.read_bytes(), where=str(file))
            except (UnreadablePicture, OSError) as error:
                faults[file] = str(error)
                continue
            square = centre_square(width=picture.shape[1], height=picture.shape[0])
            squares.append(cut(picture, square, side_px=model.input_px))
        said = iter(model.probabilities(np.stack(squares)).tolist() if squares else [])
        for file in some:
            if file in faults:
                yield Tagged(str(file), {}, faults[file])
            else:
                row = [round(p, 6) for p in next(said)]
                yield Tagged(str(file), dict(zip(model.label_names, row, strict=True)))


# The tag list of a user's tagger
def read_tags(path: Path) -> list[str]:
    """Returns the tags of a list in the order of the model's outputs, with underscores.

    A .csv with a column `name` (`tag_id,name,category,count`, as WD taggers have it), a CSV without
    a header, whose first column counts, or a text file of one tag a row; empty rows are passed
    over. Raises UsageError naming the file, and the row where there is one.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not a file; a list of tags, one a row, wanted")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error}") from error
    found = _of_csv(text, path) if path.suffix.lower() == ".csv" else _of_text(text)
    if not found:
        raise UsageError(f"{path} holds no tag; one a row wanted")
    return found


def columns_of_labels(tags: Sequence[str], labels: Sequence[str], *, where: str) -> list[list[int]]:
    """Returns for each label the columns of its tags: itself, its aliases, what implies it.

    So `very_long_hair` counts for `long_hair`. Raises UsageError naming each label without a tag.
    """
    meaning = appearance().meaning
    columns: dict[str, list[int]] = {label: [] for label in labels}
    for column, tag in enumerate(tags):
        for meant in {tag, *meaning.get(tag, ())} & columns.keys():
            columns[meant].append(column)
    faults = [f'"{name}"{nearest(name, tags)}' for name, found in columns.items() if not found]
    if faults:
        raise UsageError(
            f"{where} has no tag for {len(faults)} of {len(columns)} labels; a tagger that knows "
            f"them all is wanted:\n{listed(faults)}"
        )
    return list(columns.values())


def _of_text(text: str) -> list[str]:
    return [_normal(line) for line in text.splitlines() if line.strip()]


def _of_csv(text: str, path: Path) -> list[str]:
    rows = csv.reader(text.splitlines())
    found: list[str] = []
    column = 0
    for row in rows:
        if not any(cell.strip() for cell in row):
            continue
        if not found and (named := _named(row)) is not None:
            column = named
            continue
        if len(row) <= column or not row[column].strip():
            raise UsageError(
                f"{path}, line {rows.line_num}: no tag in column {column + 1}; found {row}"
            )
        found.append(_normal(row[column]))
    return found


def _named(row: Sequence[str]) -> int | None:
    """The column that a header names as that of the tags; None if the row is no header."""
    names = [cell.strip().lower() for cell in row]
    return next((place for place, name in enumerate(names) if name in _HEADERS), None)


def _normal(tag: str) -> str:
    return tag.strip().lower().replace(" ", "_")
