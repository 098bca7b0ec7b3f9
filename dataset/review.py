"""Contact sheets of the faces that are most likely none, and the rejections that come back.

How suspicious a face is: for each of the signs below, p is the part of all kept faces that is at
least as odd; the suspicion is the sum of -log10 p. So a sign that all faces share says nothing,
and one that a face has as one in a thousand adds 3. A sign with p <= 0.05 is named as a reason.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageDraw, ImageFont

from dataset.crops import CROPS, CROPS_PATH, Crops, face_keys, key_places
from dataset.duplicates import THUMB_BYTES, THUMB_PX
from dataset.errors import EmptyStageError, SchemaError, UsageError, listed, nearest
from dataset.policy import FACE_ID, change_rejects, id_of_line, read_rejects
from dataset.progress import progress
from dataset.schemas import FACES, FACES_PATH, batches, faces_path
from dataset.store import Store

FOLDER = "review"
CSV_PATH = f"{FOLDER}/review.csv"
HEAD = ("face_id", "page", "row", "column", "suspicion", "reasons")
COLUMNS, ROWS = 12, 8
LETTERS = "ABCDEFGH"
REASON_P = 0.05

SIGNS = {
    "low_score": "the detector was not sure",
    "blurred": "little detail in the crop",
    "small": "a small square",
    "small_part": "a small part of its picture",
    "shape": "a box that is far from square",
    "padded": "a part of the square lies outside the picture",
    "crowded": "many faces on the picture",
    "colour": "the middle of the crop has unusual colours",
}

_CELL_PX, _GAP_PX, _CAPTION_PX, _EDGE_PX = 112, 4, 14, 20
_PAPER, _INK = (250, 249, 246), (40, 36, 44)
_CELL = re.compile(r"(\d+):([A-Za-z])(\d+)")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Review:
    """What `write_review` made."""

    faces: int
    shown: int
    pages: list[str]  # paths under the home


@dataclass(frozen=True)
class Kept:
    """The kept faces: their rows [N], and each sign's value, greater for odder ones [N]."""

    rows: pa.Table  # face_id, crop and crop_sha256 among others
    signs: dict[str, Floats]

    @property
    def face_ids(self) -> list[str]:
        """The faces' ids [N]."""
        return list(self.rows["face_id"].to_pylist())


def write_review(store: Store, *, pages: int) -> Review:
    """Writes the sheets of the most suspicious kept faces and `review.csv`; pages 0: of all.

    An earlier review is replaced. Raises EmptyStageError if no face is kept.
    """
    kept = read_kept(store)
    suspicion, parts = suspicions(kept.signs)
    face_ids, crops = kept.face_ids, Crops(store)
    order = in_order(face_ids, suspicion)
    shown = order[: pages * ROWS * COLUMNS] if pages else order
    store.remove(CSV_PATH)  # first, so that a cell is never looked up in another review's sheets
    store.remove(FOLDER)
    rows, paths = [], []
    with progress("review", -(-len(shown) // (ROWS * COLUMNS)), unit="pages") as advance:
        for page, faces in enumerate(_pages(shown), start=1):
            captions = [face_ids[face] for face in faces]
            pictures = crops.pixels(kept.rows.take(faces))
            sheet = contact_page(list(map(Image.fromarray, pictures)), captions)
            paths.append(f"{FOLDER}/page-{page:04d}.png")
            _save(store, paths[-1], sheet)
            for place, face in enumerate(faces):
                row, column = divmod(place, COLUMNS)
                reasons = ";".join(reasons_of(parts, face))
                said = f"{suspicion[face]:.3f}"
                rows.append((face_ids[face], page, LETTERS[row], column + 1, said, reasons))
            advance(1)
    store.write_bytes(CSV_PATH, _csv(rows).encode())
    return Review(len(face_ids), len(shown), paths)


def read_kept(store: Store) -> Kept:
    """Reads the kept faces and their signs from the tables of faces and crops."""
    columns = (
        "face_id", "sha256", "w", "h", "score", "side", "pad_frac", "sharpness", "crop",
        "crop_sha256", "drop_reason",
    )  # fmt: skip
    table = pa.Table.from_batches(
        list(batches(store, faces_path(store), declared=FACES, columns=columns)),
        schema=pa.schema([FACES.field(name) for name in columns]),
    )
    faces = table.filter(pc.is_null(table["drop_reason"])).sort_by("face_id")
    if not faces.num_rows:
        raise EmptyStageError(f"{store.url(FACES_PATH)}: no face is kept, so none can be looked at")
    colour, part = _of_crops(store, faces)
    return Kept(faces, _signs(faces, _unusual(colour), part))


def suspicions(signs: dict[str, Floats]) -> tuple[Floats, dict[str, Floats]]:
    """Returns each face's suspicion [N], and for each sign the part p (0-1) [N]; NaN has p 1."""
    parts = {name: _part_as_odd(values) for name, values in signs.items()}
    total: Floats = np.sum([-np.log10(part) for part in parts.values()], axis=0)
    return total, parts


def reasons_of(parts: dict[str, Floats], face: int) -> list[str]:
    """Returns the signs that are rare for this face, the rarest first."""
    rare = [(float(part[face]), name) for name, part in parts.items() if part[face] <= REASON_P]
    return [name for _, name in sorted(rare)]


def in_order(face_ids: Sequence[str], suspicion: Floats) -> list[int]:
    """Returns the places of the faces, the most suspicious first, equals by face_id."""
    rounded = np.round(suspicion, 9).tolist()
    return sorted(range(len(face_ids)), key=lambda face: (-rounded[face], face_ids[face]))


def contact_page(crops: Sequence[Image.Image], captions: Sequence[str]) -> Image.Image:
    """Lays up to ROWS x COLUMNS crops into a grid with captions: rows A to H, columns 1 to 12."""
    step_x, step_y = _CELL_PX + _GAP_PX, _CELL_PX + _CAPTION_PX + _GAP_PX
    rows = -(-len(crops) // COLUMNS)
    page = Image.new("RGB", (_EDGE_PX + COLUMNS * step_x, _EDGE_PX + rows * step_y), _PAPER)
    draw = ImageDraw.Draw(page)
    font, edge_font = ImageFont.load_default(10), ImageFont.load_default(14)
    for column in range(COLUMNS):
        middle = _EDGE_PX + column * step_x + _CELL_PX // 2
        draw.text((middle, 2), str(column + 1), _INK, font=edge_font, anchor="ma")
    for row in range(rows):
        middle = _EDGE_PX + row * step_y + _CELL_PX // 2
        draw.text((4, middle), LETTERS[row], _INK, font=edge_font, anchor="lm")
    for place, (crop, caption) in enumerate(zip(crops, captions, strict=True)):
        row, column = divmod(place, COLUMNS)
        left, top = _EDGE_PX + column * step_x, _EDGE_PX + row * step_y
        page.paste(crop.convert("RGB").resize((_CELL_PX, _CELL_PX)), (left, top))
        draw.text((left + _CELL_PX // 2, top + _CELL_PX + 1), caption, _INK, font=font, anchor="ma")
    return page


def reject(store: Store, names: Sequence[str], *, where: str = "") -> int:
    """Puts faces onto the reject list; returns how many are new on it.

    names: face_ids, paths of crops, or cells of the last review such as `3:B7`. Raises UsageError,
    naming all that are unknown with the nearest ids, and changes nothing then.
    """
    known = _column(store, "face_id")
    return change_rejects(store, add=_resolved(store, names, known, where=where), remove=[])[0]


def unreject(store: Store, names: Sequence[str], *, where: str = "") -> int:
    """Takes faces off the reject list again; returns how many. Raises UsageError as `reject`."""
    listed_ids = read_rejects(store)
    return change_rejects(store, add=[], remove=_resolved(store, names, listed_ids, where=where))[1]


def _resolved(store: Store, names: Sequence[str], known: Sequence[str], *, where: str) -> list[str]:
    cells = _cells(store) if any(_CELL.fullmatch(name) for name in names) else {}
    there = set(known)
    found, faults = [], []
    for name in names:
        cell = _CELL.fullmatch(name)
        face_id = cells.get(_cell(cell), "") if cell else id_of_line(name)
        if face_id in there:
            found.append(face_id)
        elif cell:
            faults.append(_no_cell(name, face_id))
        else:
            faults.append(f'"{name}" is no known face{_nearest_face(face_id, known)}')
    if faults:
        begin = f"{where}: " if where else ""
        raise UsageError(
            f"{begin}{len(faults)} of {len(names)} faces are unknown; nothing was changed:\n"
            f"{listed(faults)}"
        )
    return found


def _no_cell(name: str, face_id: str) -> str:
    if face_id:
        return f'"{name}" is {face_id}, which is not there (any more)'
    return f'"{name}" is no cell of the last review ({CSV_PATH}), such as 3:B7'


def _nearest_face(face_id: str, known: Sequence[str]) -> str:
    """The nearest of the ids that begin or end alike: to compare with all takes seconds."""
    near = [one for one in known if one[:4] == face_id[:4] or one[8:] == face_id[8:]]
    if not re.fullmatch(FACE_ID, face_id) and not near:
        return "; 16 hex digits, dash and number wanted"
    return nearest(face_id, near)


def _cells(store: Store) -> dict[tuple[int, str, int], str]:
    """The faces of the last review by page, row and column."""
    if not store.exists(CSV_PATH):
        raise UsageError(f"{store.url(CSV_PATH)} is not there: run `omokage review` first")
    reader = csv.DictReader(io.StringIO(store.read_bytes(CSV_PATH).decode(errors="replace")))
    if tuple(reader.fieldnames or ()) != HEAD:
        raise SchemaError(
            f"{store.url(CSV_PATH)}: the columns are {', '.join(reader.fieldnames or ())}; "
            f"{', '.join(HEAD)} wanted. Run `omokage review` again."
        )
    found = {}
    for number, row in enumerate(reader, start=2):
        page, column = row["page"] or "", row["column"] or ""
        if not page.isdecimal() or not column.isdecimal():
            raise SchemaError(
                f'{store.url(CSV_PATH)}, line {number}: page is "{page}", column is "{column}"; '
                "numbers wanted. Run `omokage review` again."
            )
        found[int(page), row["row"], int(column)] = row["face_id"]
    return found


def _cell(match: re.Match[str]) -> tuple[int, str, int]:
    return int(match[1]), match[2].upper(), int(match[3])


def _column(store: Store, name: str) -> list[str]:
    return [
        value
        for batch in batches(store, faces_path(store), declared=FACES, columns=(name,))
        for value in batch[name].to_pylist()
    ]


def _of_crops(store: Store, faces: pa.Table) -> tuple[Floats, Floats]:
    """Of these faces: mean colour of the middle [N, 3], and the box's part of its picture [N]."""
    ids = face_keys(faces["face_id"])  # sorted
    colours, parts = np.full((len(ids), 3), np.nan), np.full(len(ids), np.nan)
    columns = ("face_id", "w", "h", "thumb", "picture_width", "picture_height")
    for batch in batches(store, CROPS_PATH, declared=CROPS, columns=columns):
        places = key_places(ids, face_keys(batch["face_id"]))
        at = np.flatnonzero(places >= 0)
        rows, places = batch.take(pa.array(at)), places[at]
        colours[places] = _middle_colours(rows["thumb"])
        w, h, width, height = (
            _floats(rows[name]) for name in ("w", "h", "picture_width", "picture_height")
        )
        parts[places] = w * h / (width * height)
    if lacking := int(np.isnan(parts).sum()):
        raise SchemaError(
            f"{store.url(CROPS_PATH)} lacks {lacking:,} of {len(ids):,} kept faces. Build faces "
            "again."
        )
    return colours, parts


def _middle_colours(thumbs: pa.Array) -> Floats:
    blank = bytes(THUMB_BYTES)
    joined = b"".join(thumb or blank for thumb in thumbs.to_pylist())
    pixels = np.frombuffer(joined, np.uint8).reshape(len(thumbs), THUMB_PX, THUMB_PX, 3)
    quarter = THUMB_PX // 4
    middle = pixels[:, quarter:-quarter, quarter:-quarter]
    return np.asarray(middle.mean(axis=(1, 2)), np.float64)


def _signs(faces: pa.Table, unusual: Floats, part: Floats) -> dict[str, Floats]:
    _, picture, count = np.unique(
        faces["sha256"].to_numpy(), return_inverse=True, return_counts=True
    )
    values = {
        "low_score": -_floats(faces["score"]),
        "blurred": -_floats(faces["sharpness"]),
        "small": -_floats(faces["side"]),
        "small_part": -part,
        "shape": np.abs(np.log(_floats(faces["w"]) / _floats(faces["h"]))),
        "padded": _floats(faces["pad_frac"]),
        "crowded": count[picture].astype(np.float64),
        "colour": unusual,
    }
    assert set(values) == set(SIGNS)
    return values


def _unusual(colours: Floats) -> Floats:
    """How far each colour [N, 3] is from the usual one, in usual distances of each channel."""
    away = np.abs(colours - np.median(colours, axis=0))
    usual = np.maximum(np.median(away, axis=0), 1.0)
    return np.asarray((away / usual).max(axis=1), np.float64)


def _part_as_odd(values: Floats) -> Floats:
    """The part (0-1) of all values that are at least as great as each; NaN is never odd."""
    filled = np.where(np.isnan(values), -np.inf, values)
    smaller = np.searchsorted(np.sort(filled), filled, side="left")
    return np.asarray((len(values) - smaller) / len(values), np.float64)


def _floats(column: pa.Array | pa.ChunkedArray) -> Floats:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(pc.cast(whole, pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _pages(shown: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(shown), ROWS * COLUMNS):
        yield shown[start : start + ROWS * COLUMNS]


def _save(store: Store, path: str, sheet: Image.Image) -> None:
    with store.writing(path, durable=False) as file:
        sheet.save(file, "PNG")


def _csv(rows: list[tuple[str, int, str, int, str, str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEAD)
    writer.writerows(rows)
    return text.getvalue()
