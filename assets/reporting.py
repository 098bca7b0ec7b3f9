"""What assets report: owners, columns and their lineage, time, failures, previews, stage lines."""

import base64
import contextlib
import io
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
import pyarrow as pa
from dagster import DagsterEvent, DagsterEventType
from PIL import Image

from dataset.decode import decode
from dataset.errors import OmokageError
from dataset.progress import progress_stream
from dataset.schemas import FACES, POSTS, machine_labels_schema, manifest_schema
from dataset.store import Store, blob_path

OWNERS = ["team:avatars"]

# What holds for a table as a whole, and for single columns beside their type: by table's name.
_OF_TABLES = {
    "posts": ["one row for each (board, post_id)", "sorted by (board, post_id)"],
    "faces": ["sorted by face_id", "a face without drop_reason has a crop and its sha256"],
    "machine_labels": ["only faces whose posts have no tags", "sorted by face_id"],
    "manifest": ["sorted by face_id", "all faces of one blob stand in one split"],
}
_UNIQUE = {"faces": "face_id", "machine_labels": "face_id", "manifest": "face_id"}
_OF_COLUMNS = {
    ("posts", "md5"): ["32 hex digits"],
    ("posts", "sha256"): ["64 hex digits"],
    ("posts", "width"): ["> 0"],
    ("posts", "height"): ["> 0"],
    ("posts", "rating"): ["general, where a picture is stored"],
    ("faces", "score"): ["0 to 1"],
    ("faces", "side"): ["> 0"],
    ("faces", "pad_frac"): ["0 to 1"],
    ("faces", "sharpness"): [">= 0"],
    ("faces", "phash"): ["16 hex digits"],
    ("manifest", "split"): ["train or eval"],
    ("manifest", "labels_by"): ["board or machine"],
}


def tags_of(domain: str, *, needs: str) -> dict[str, str]:
    """Returns an asset's tags: what it is about, and what of the machine it needs most."""
    return {"domain": domain, "needs": needs}


def column_schema(schema: pa.Schema) -> dg.TableSchema:
    """Returns a table's declared columns, their meaning and what holds for them."""
    table = (schema.metadata or {}).get(b"table", b"").decode()
    columns = [
        dg.TableColumn(
            name=field.name,
            type=str(field.type),
            description=(field.metadata or {}).get(b"description", b"").decode(),
            constraints=dg.TableColumnConstraints(
                nullable=field.nullable,
                unique=_UNIQUE.get(table) == field.name,
                other=_other(table, field),
            ),
        )
        for field in schema
    ]
    constraints = dg.TableConstraints(other=_OF_TABLES.get(table, []))
    return dg.TableSchema(columns=columns, constraints=constraints)


def _other(table: str, field: pa.Field) -> list[str]:
    if table == "machine_labels" and pa.types.is_floating(field.type):
        return ["0 to 1"]  # of each label, whatever its name
    return _OF_COLUMNS.get((table, field.name), [])


# A blob is found by its sha256 and extension; `cropped` says whether a face is looked for on it.
_PICTURE = [("posts", "sha256"), ("posts", "ext"), ("posts", "cropped")]
_TAGS = ("posts", "tags_general")
# The labels are counted over the kept faces.
_COUNTED = [_TAGS, ("faces", "drop_reason"), ("faces", "board"), ("faces", "post_id")]

LABELS_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("labels", "list<string>", "names of the labels, the more frequent first"),
        dg.TableColumn("groups", "map<string, string>", "group of each label, such as hair_colour"),
        dg.TableColumn("counts", "map<string, int>", "crops with each curated tag"),
        dg.TableColumn("fractions", "map<string, float>", "the same as a part of the crops, 0-1"),
        dg.TableColumn("cut", "map<string, reason>", "tags that are no labels, and why"),
        dg.TableColumn("sided", "list<string>", "labels that tell left from right: no flips"),
    ]
)


def _lineage(made_from: dict[str, Iterable[tuple[str, str]]]) -> dg.TableColumnLineage:
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(dg.AssetKey(asset), name) for asset, name in deps]
            for column, deps in made_from.items()
        }
    )


# The ledger, which the posts come from, is no asset with columns: all of theirs are new.
POSTS_LINEAGE = _lineage({name: [] for name in POSTS.names})

FACES_LINEAGE = _lineage(
    {
        **dict.fromkeys(FACES.names, _PICTURE),  # boxes, squares, crops: seen on the picture
        "face_id": [("posts", "sha256")],
        "sha256": [("posts", "sha256")],
        "board": [("posts", "board")],
        "post_id": [("posts", "post_id")],
        # Several faces on a post with the tag solo; of near-duplicates, the first post's stays.
        "drop_reason": [*_PICTURE, _TAGS, ("posts", "board"), ("posts", "post_id")],
    }
)

LABELS_LINEAGE = _lineage({column.name: _COUNTED for column in LABELS_COLUMNS.columns})


def machine_labels_lineage(labels: Sequence[str]) -> dg.TableColumnLineage:
    """Returns where the columns of a tagger's table with these labels come from."""
    seen = [("faces", "crop"), ("faces", "crop_sha256")]
    learnt_from = [*seen, ("labels", "labels"), _TAGS]  # with a tagger of ours
    taken = {name: [("faces", name)] for name in ("face_id", "crop_sha256")}
    names = machine_labels_schema(list(labels)).names
    return _lineage({**dict.fromkeys(names, learnt_from), **taken})


def manifest_lineage(labels: Sequence[str], *, by_machine: bool = True) -> dg.TableColumnLineage:
    """Returns where the columns of a manifest with these labels come from.

    by_machine: whether faces without tags get their labels from the table of a tagger.
    """
    taken = [name for name in manifest_schema([]).names if name in FACES.names]
    machine = [("machine_labels", "face_id")] if by_machine else []
    made_from: dict[str, Iterable[tuple[str, str]]] = {name: [("faces", name)] for name in taken}
    made_from["split"] = [("faces", "sha256")]
    made_from["labels_by"] = [_TAGS, *machine]
    for label in labels:
        machine = [("machine_labels", label)] if by_machine else []
        made_from[label] = [("labels", "labels"), _TAGS, *machine]
    return _lineage(made_from)


def materialised(
    instance: dg.DagsterInstance, run: dg.DagsterRun, key: dg.AssetKey, *, newest: bool = True
) -> Mapping[str, Any] | None:
    """Returns the metadata of the materialisation of an asset that a stage of `run` goes on from.

    It is that of the run, or of the one that it is a re-execution of; otherwise, with `newest`, the
    newest there is. So a stage never takes what another run has made in the meantime. None: there
    is none.
    """
    ancestor: dg.DagsterRun | None = run
    while ancestor is not None:
        log = instance.all_logs(ancestor.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        made = (entry.asset_materialization for entry in reversed(log))
        if found := next((one for one in made if one and one.asset_key == key), None):
            return _values(found)
        ancestor = instance.get_run_by_id(ancestor.get_parent_run_id() or "")
    event = instance.get_latest_materialization_event(key) if newest else None
    return _values(event.asset_materialization) if event and event.asset_materialization else None


def _values(made: dg.AssetMaterialization) -> dict[str, Any]:
    return {name: value.value for name, value in made.metadata.items()}


def reasons(counts: Mapping[str, int]) -> dg.MarkdownMetadataValue:
    """Returns what was dropped or refused as a Markdown table, the most frequent reason first."""
    if not counts:
        return dg.MetadataValue.md("none")
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rows = "\n".join(f"| {reason} | {count:,} |" for reason, count in ordered)
    return dg.MetadataValue.md(f"| reason | count |\n| --- | ---: |\n{rows}")


def boards_table(counts: Mapping[str, Mapping[str, int]]) -> dg.MarkdownMetadataValue:
    """Returns how many posts of each board were kept and refused as a Markdown table."""
    rows = [
        f"| {board} | {found['kept']:,} | {found['refused']:,} |"
        for board, found in sorted(counts.items())
    ]
    heading = ["| board | kept | refused |", "| --- | ---: | ---: |"]
    return dg.MetadataValue.md("\n".join(heading + rows))


class Stopwatch:
    """How long a stage took, from the making of this."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since it was made, to a tenth."""
        return round(time.monotonic() - self._began, 1)


@contextlib.contextmanager
def plain_failures() -> Iterator[None]:
    """Raises dagster.Failure with the text of an OmokageError that the block raises."""
    try:
        yield
    except OmokageError as error:
        raise dg.Failure(
            description=str(error), metadata={"kind": type(error).__name__}, allow_retries=False
        ) from error


# The inline pictures that show no real face: charts, and what a generator drew. Any other is taken
# out of the event log by a takedown.
DRAWN = {"chart", "curves", "fakes_preview", "grids", "growth", "labels_chart", "truncation_chart"}
DRAWN_STEPS = {
    "generator",
    "champion",
    "ask_the_gate",
    "roll_back",
    "draw_sheet",
}  # their `preview`

MAX_BYTES = 100_000  # inline pictures cost four times their size in the instance's database
PAPER = (250, 249, 246)


def contact_sheet(
    pictures: Sequence[Image.Image], *, columns: int, cell_px: int = 96, gap_px: int = 4
) -> Image.Image:
    """Lays pictures into a grid of square cells, each fitted into its cell; needs at least one."""
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    step = cell_px + gap_px
    sheet = Image.new("RGB", (columns * step + gap_px, rows * step + gap_px), PAPER)
    for number, picture in enumerate(pictures):
        fitted = picture.convert("RGB")
        fitted.thumbnail((cell_px, cell_px), Image.Resampling.LANCZOS)
        row, column = divmod(number, columns)
        left = gap_px + column * step + (cell_px - fitted.width) // 2
        top = gap_px + row * step + (cell_px - fitted.height) // 2
        sheet.paste(fitted, (left, top))
    return sheet


def evenly(parts: Iterable[pa.RecordBatch], total: int, *, shown: int) -> list[dict[str, Any]]:
    """Returns `shown` of the `total` rows of all parts, evenly taken; all if they are fewer."""
    step = max(1, total // shown)
    rows: list[dict[str, Any]] = []
    first = 0
    for part in parts:
        rows += part.take(
            pa.array(range(-first % step, part.num_rows, step), pa.int64())
        ).to_pylist()
        first += part.num_rows
    return rows[:shown]


def blob_sheet(store: Store, blobs: Sequence[tuple[str, str]], *, columns: int) -> Image.Image:
    """Lays out the blobs of these sha256s and extensions; an empty cell if there are none."""
    pictures = []
    for sha256, ext in blobs:
        path = blob_path(sha256, ext)
        pictures.append(Image.fromarray(decode(store.read_bytes(path), where=path)))
    return contact_sheet(pictures or [Image.new("RGB", (96, 96), PAPER)], columns=columns)


def inline(picture: Image.Image, *, max_bytes: int = MAX_BYTES) -> dg.MarkdownMetadataValue:
    """Returns the picture as Markdown with the JPEG inside, at most max_bytes long.

    Quality goes down first, then size, until it fits.
    """
    shown = picture.convert("RGB")
    while True:
        for quality in (88, 75, 60):
            text = _markdown(shown, quality)
            if len(text) <= max_bytes:
                return dg.MetadataValue.md(text)
        shown = shown.resize((shown.width * 3 // 4, shown.height * 3 // 4))


def _markdown(picture: Image.Image, quality: int) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, optimize=True)
    return f"![preview](data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()})"


class StageLines(logging.Handler):
    """Prints `▶ faces`, then `✔ faces 12.3 s  kept 1,912, …`; warnings and failures whole."""

    def __init__(self, steps: frozenset[str]) -> None:
        super().__init__()
        self._steps = steps  # those of assets; checks are steps too, and only talk when they fail
        self._began: dict[str, float] = {}
        self._facts: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Says what an event of a run means for a person at a terminal."""
        event: DagsterEvent | None = getattr(record, "dagster_event", None)
        if event is None:
            if record.levelno >= logging.WARNING:
                _say(f"  ! {getattr(record, 'dagster_meta', {}).get('orig_message', '')}")
            return
        step = event.step_key or ""
        if event.event_type == DagsterEventType.STEP_START:
            self._began[step] = time.monotonic()
            if _op(step) in self._steps:
                _say(f"▶ {step.replace('__', '/')}")
        elif event.event_type == DagsterEventType.ASSET_MATERIALIZATION:
            self._facts[step] = facts(event)
        elif event.event_type == DagsterEventType.ASSET_CHECK_EVALUATION:
            evaluation = event.asset_check_evaluation_data
            if not evaluation.passed:
                _say(f"  ! {evaluation.check_name}: {evaluation.description}")
        elif event.event_type == DagsterEventType.STEP_SUCCESS and _op(step) in self._steps:
            took = time.monotonic() - self._began[step]
            _say(f"✔ {step.replace('__', '/')}  {took:.1f} s  {self._facts.get(step, '')}")


def _op(step: str) -> str:
    """Returns the name of the step's op: `entrant` of `entrant[02_omokage]`."""
    return step.partition("[")[0]


def facts(event: DagsterEvent) -> str:
    """Returns the counts of a materialisation as `kept 1,912, dropped 40, digest 0123456789ab`."""
    parts = []
    for name, value in event.step_materialization_data.materialization.metadata.items():
        shown = value.value
        if name == "digest":
            parts.append(f"digest {str(shown)[:12]}")
        elif name == "reused" and shown:
            parts.append("reused: nothing had changed")
        elif isinstance(value, dg.IntMetadataValue):
            parts.append(f"{name.removeprefix('dagster/').replace('_', ' ')} {shown:,}")
    return ", ".join(parts)


def stage_lines(steps: frozenset[str]) -> dg.LoggerDefinition:
    """Returns a logger for the asset steps of these names; it talks where progress is shown."""

    @dg.logger({}, description="One line when a stage begins and one when it ends.")
    def stages(_context: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("omokage.stages", logging.DEBUG)
        logger.addHandler(StageLines(steps))
        return logger

    return stages


def _say(line: str) -> None:
    stream = progress_stream()
    if stream is not None:
        print(line, file=stream, flush=True)
