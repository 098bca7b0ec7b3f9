"""Faces: square crops of the blobs, each cut out once."""

import io
from typing import Literal

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image
from pydantic import Field

from assets.reporting import (
    FACES_LINEAGE,
    OWNERS,
    Stopwatch,
    column_schema,
    contact_sheet,
    evenly,
    inline,
    plain_failures,
    reasons,
    tags_of,
)
from assets.resources import ComputeResource, StoreResource
from dataset.crops import Crops
from dataset.faces import FaceSettings, crop_faces
from dataset.schemas import FACES, batches
from dataset.store import Store

PREVIEWED = 60


class FaceConfig(dg.Config):
    """How faces are found and cut out."""

    min_side_px: int = Field(
        default=64,
        ge=24,
        le=4096,
        description="Faces whose square is smaller than so many pixels are dropped as `too_small` "
        "(24 to 4096, default 64). Set it to the side that you train at; a larger value also makes "
        "the search faster, since small faces need not be looked for.",
    )
    crop_px: int = Field(
        default=128,
        ge=64,
        le=4096,
        description="Side in pixels of the stored crops (64 to 4096, default 128). Smaller squares "
        "are stored as they are, never enlarged. Raise it for a generator of more than 128 px; all "
        "faces are then cut again.",
    )
    cropped: bool = Field(
        default=False,
        description="True: the pictures are faces already and are taken whole, without a search. "
        "False (the default) looks for faces on them.",
    )
    detector: Literal["lbp", "onnx"] = Field(
        default="lbp",
        description="Who looks for faces: `lbp` (the default), the LBP cascade that comes with the "
        "project; `onnx`, a YOLO model of your own, which `onnx_path` names.",
    )
    mode: Literal["thorough", "fast"] = Field(
        default="thorough",
        description="How `lbp` searches: `thorough` (the default) finds most; `fast` takes a third "
        "of the time and sees no face whose box is below 64 px. Means nothing to `onnx`.",
    )
    onnx_path: str = Field(
        default="",
        description="The ONNX file of detector `onnx`, at the same path for every worker. Empty "
        "(the default) with `lbp`.",
    )
    onnx_input_px: int = Field(
        default=640,
        ge=32,
        le=4096,
        description="Side in pixels of the square input that the ONNX model was exported with (32 "
        "to 4096, default 640).",
    )
    onnx_min_score: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Faces that the ONNX model is less sure of are left out (0 to 1, default 0.3). "
        "Raise it if crops show no faces, lower it if faces are missed.",
    )
    onnx_max_iou: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Of two boxes of the ONNX model that overlap by more than this part of their "
        "union, the less sure one is left out (0 to 1, default 0.5).",
    )
    judge_again: bool = Field(
        default=False,
        description="True: all faces are compared anew, and of near-duplicates the one of the "
        "first post stays. False (the default): what an earlier build has kept stays, and only the "
        "other faces are compared with it. Once a setting has changed, all are compared anew.",
    )


@dg.asset(
    deps=["posts"],
    group_name="dataset",
    kinds={"opencv", "lance"},
    owners=OWNERS,
    pool="home",
    tags=tags_of("dataset", needs="cpu"),
    metadata={
        "dagster/column_schema": column_schema(FACES),
        "dagster/column_lineage": FACES_LINEAGE,
    },
)
def faces(
    config: FaceConfig, store: StoreResource, compute: ComputeResource
) -> dg.MaterializeResult:
    """Faces found on all kept pictures: box grown 1.5x, squared, cut out.

    **From** the kept rows of `posts` and their blobs. Only new pictures are looked through.

    **Lies in** `faces.lance` (a row a face, kept or dropped and why), the crops in `crops.lance`.

    **If it is wrong:** crops without a face are named in `rejects.txt` (`omokage review` writes
    it), then build this again. Too few faces: see `dropped` below and the field `min_side_px`.
    """
    watch = Stopwatch()
    opened = store.open()
    with store.exclusive(), plain_failures(), compute.engine() as engine:
        settings = FaceSettings(**config.model_dump(exclude={"judge_again"}))
        made = crop_faces(opened, settings, engine, judge_again=config.judge_again)
        preview = inline(_sheet(opened, made.path, made.kept))
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": made.rows,
            "dagster/uri": opened.url(made.path),
            "pictures": made.pictures,
            "pictures_without_face": made.pictures_without_face,
            "unreadable_pictures": len(made.unreadable),
            "kept": made.kept,
            "dropped": reasons(made.dropped),
            "dropped_faces": made.rows - made.kept,
            "with_face_frac": round(1 - made.pictures_without_face / made.pictures, 4),
            "pictures_reused": made.pictures_reused,
            "reused": made.pictures_reused == made.pictures and not made.changed,
            "seconds": watch.seconds,
            "path": dg.MetadataValue.path(opened.url(made.path)),
            "digest": made.digest,
            "preview": preview,
        },
        data_version=dg.DataVersion(made.digest),
    )


def _sheet(store: Store, path: str, kept: int) -> Image.Image:
    """Lays out a few crops, evenly taken from the whole table."""
    columns = ("face_id", "crop")
    parts = batches(store, path, declared=FACES, columns=columns, rows=8_192)
    with_crop = (part.filter(pc.is_valid(part["crop"])) for part in parts)
    shown = pa.Table.from_pylist(list(evenly(with_crop, kept, shown=PREVIEWED)))
    pictures = [Image.open(io.BytesIO(png)) for png in Crops(store).read(shown)]
    return contact_sheet(pictures, columns=12, cell_px=64)
