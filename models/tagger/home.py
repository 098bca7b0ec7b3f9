"""A tagger of a home: trained on its tagged faces, scored on those held out, kept by digest."""

import dataclasses
import sys

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dataset.errors import ConfigError, EmptyStageError
from dataset.progress import progress
from dataset.store import Store, digest_of
from models.tagger.config import TaggerConfig
from models.tagger.data import HomeFaces, part_of, read_crops
from models.tagger.model import FACTS, LabelModel, Probabilities, Tagger, load
from models.tagger.report import SCORES, write_report
from models.tagger.scores import Scores, score
from models.tagger.train import MIN_ROWS, Progress, train_tagger

TAGGERS = "taggers"
MAX_HELD_OUT = 10_000  # more rows do not make an average precision noticeably surer
MAX_HELD_OUT_ONNX = 1_000  # a large model takes half a second a picture


@dataclasses.dataclass(frozen=True)
class Scored:
    """A model that was scored on held-out faces: `scores` is None if none is held out."""

    folder: str
    model: LabelModel
    scores: Scores | None
    reused: bool


def tagger_id(faces: HomeFaces, config: TaggerConfig, eval_frac: float) -> str:
    """Returns the name of a tagger: what it learnt from, and how."""
    how = digest_of({"config": config.digest, "eval_frac": eval_frac})
    return f"{faces.tagged_digest[:12]}-{how[:12]}"


def trained_tagger(
    store: Store,
    faces: HomeFaces,
    config: TaggerConfig,
    *,
    eval_frac: float = 0.1,
    threshold: float = 0.25,
    on_progress: Progress,
) -> Scored:
    """Trains on the tagged faces of the `train` split and scores on those of `eval`.

    Leaves taggers/<id>/ with weights, facts, scores and chart; a whole one of that id is loaded
    instead. Raises EmptyStageError if too few faces have tags, ConfigError for an `eval_frac` or
    `threshold` that is not between 0 and 1.
    """
    _check_part("eval_frac", eval_frac)
    _check_part("threshold", threshold)
    folder = f"{TAGGERS}/{tagger_id(faces, config, eval_frac)}"
    if store.exists(f"{folder}/{FACTS}"):
        model = load(store.url(folder), device=config.torch_device())
        print(f"already trained: {store.url(folder)}", file=sys.stderr)
        scores = stored_scores(store, folder, threshold)
        if scores is None:
            scores = evaluate_at_home(
                store, faces, model, folder, eval_frac=eval_frac, threshold=threshold
            )
        return Scored(folder, model, scores, reused=True)
    model = _train(store, faces, config, eval_frac=eval_frac, on_progress=on_progress)
    model.save(store.url(folder))
    scores = evaluate_at_home(store, faces, model, folder, eval_frac=eval_frac, threshold=threshold)
    return Scored(folder, model, scores, reused=False)


def evaluate_at_home(
    store: Store,
    faces: HomeFaces,
    model: LabelModel,
    folder: str,
    *,
    eval_frac: float = 0.1,
    threshold: float = 0.25,
    at_most: int = MAX_HELD_OUT,
) -> Scores | None:
    """Scores a model on the tagged `eval` faces, `at_most` so many, and writes the report.

    Returns None, and writes nothing, if no tagged face is held out.
    """
    held = np.flatnonzero(faces.in_split("eval", eval_frac))[:at_most]
    if not len(held):
        return None
    rows, truths = faces.tagged.take(pa.array(held)), faces.truths[held]
    with progress("held out", len(held), unit="faces") as advance:
        images = read_crops(store, rows, side_px=model.input_px, advance=advance)
    said = model.probabilities(images)
    raw: Probabilities = model.raw_probabilities(images) if isinstance(model, Tagger) else said
    scores = score(said, truths, faces.labels, raw=raw, threshold=threshold)
    write_report(store, folder, scores, probabilities=said, raw=raw, truths=truths)
    return scores


def _train(
    store: Store,
    faces: HomeFaces,
    config: TaggerConfig,
    *,
    eval_frac: float,
    on_progress: Progress,
) -> Tagger:
    # By face_id, a digest: the first so many are a fair sample, and no more are ever shown.
    most = int(config.total_kimg * 1000)
    chosen = np.flatnonzero(faces.in_split("train", eval_frac))[:most]
    if len(chosen) < MIN_ROWS:
        raise EmptyStageError(
            f"A tagger cannot be trained: {len(chosen):,} faces of the train split have tags, "
            f"{MIN_ROWS} or more are wanted. Crawl tagged posts too, or give an ONNX tagger."
        )
    rows, truths = faces.tagged.take(pa.array(chosen)), faces.truths[chosen]
    held: npt.NDArray[np.bool_] = np.array(
        [part_of(picture, config.calibration_frac) for picture in rows["sha256"].to_pylist()], bool
    )
    with progress("crops", len(chosen), unit="faces") as advance:
        images = read_crops(store, rows, side_px=config.input_px, advance=advance)
    return train_tagger(
        images,
        truths,
        label_names=faces.labels,
        config=config,
        progress=on_progress,
        calibration_rows=held,
        data_digest=faces.tagged_digest,
    )


def stored_scores(store: Store, folder: str, threshold: float) -> Scores | None:
    """Returns the scores of a report that was written for this threshold, else None."""
    path = f"{folder}/{SCORES}"
    if not store.exists(path):
        return None
    try:
        scores = Scores.from_json(store.read_json(path))
    except (TypeError, KeyError):
        print(f"{store.url(path)} is of another version: measured again", file=sys.stderr)
        return None
    return scores if scores.threshold == threshold else None


def _check_part(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"{name} is {value:g}; a number between 0 and 1 wanted")
