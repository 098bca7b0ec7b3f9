"""Faces: square crops of the blobs, in 16 shards by the sha256's first hex digit."""

import dagster as dg
from PIL import Image
from pydantic import Field

from assets.faults import plain_failures
from assets.previews import contact_sheet, inline
from assets.resources import ComputeResource, StoreResource
from assets.stopwatch import Stopwatch
from assets.tables import OWNERS, column_schema, reasons
from dataset.faces import FaceSettings, crop_shards
from dataset.schemas import FACES
from dataset.store import Store
from dataset.streams import batches

PREVIEWED = 60


class FaceConfig(dg.Config):
    """How faces are found and cut out."""

    min_side_px: int = Field(
        default=64, ge=24, description="Squares with a shorter side are dropped."
    )
    crop_px: int = Field(
        default=128, ge=64, description="Side of the stored crops; never enlarged to it."
    )
    cropped: bool = Field(
        default=False, description="The pictures are faces already: take them whole."
    )
    detector: str = Field(
        default="lbp", description="lbp: the LBP cascade; onnx: a YOLO model of your own."
    )
    mode: str = Field(
        default="thorough",
        description="How lbp searches: thorough finds most; fast takes a third of the time and "
        "sees no face whose box is below 64 px.",
    )
    onnx_path: str = Field(
        default="", description="The ONNX file, at the same path for every worker."
    )
    onnx_input_px: int = Field(
        default=640, description="Side of the square input that the model was exported with."
    )
    onnx_min_score: float = Field(
        default=0.3, description="Faces of the ONNX model with a lower score are left out."
    )
    onnx_max_iou: float = Field(
        default=0.5, description="Of two boxes that overlap more, the lower score is left out."
    )


@dg.asset(
    deps=["posts"],
    group_name="dataset",
    kinds={"opencv", "parquet"},
    owners=OWNERS,
    metadata={"dagster/column_schema": column_schema(FACES)},
)
def faces(
    config: FaceConfig, store: StoreResource, compute: ComputeResource
) -> dg.MaterializeResult:
    """Faces found on all kept pictures: box grown 1.5x, squared, cut out.

    Shards whose pictures and settings are unchanged are used again as they are.
    """
    watch = Stopwatch()
    opened = store.open()
    with plain_failures(), compute.executor() as executor:
        settings = FaceSettings(**config.model_dump())
        made = crop_shards(opened, settings, executor)
        preview = inline(_sheet(opened, made.path))
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": made.rows,
            "pictures": made.pictures,
            "pictures_without_face": made.pictures_without_face,
            "unreadable_pictures": len(made.unreadable),
            "kept": made.kept,
            "dropped": reasons(made.dropped),
            "shards_reused": made.shards_reused,
            "reused": made.shards_reused == made.shards,
            "seconds": watch.seconds,
            "path": dg.MetadataValue.path(opened.url(made.path)),
            "digest": made.digest,
            "preview": preview,
        },
        data_version=dg.DataVersion(made.digest),
    )


def _sheet(store: Store, path: str) -> Image.Image:
    """Lays out a few crops, evenly taken from the whole table."""
    crops = [
        crop
        for batch in batches(store, path, declared=FACES, columns=("crop",))
        for crop in batch["crop"].drop_null().to_pylist()
    ]
    shown = crops[:: max(1, len(crops) // PREVIEWED)][:PREVIEWED]
    pictures = []
    for crop in shown:
        with store.open(crop) as file:
            pictures.append(Image.open(file).convert("RGB"))
    return contact_sheet(pictures, columns=12, cell_px=64)
