"""`python -m benchmarks.tagger`: how well the tagger does on a real labelled set, and how fast.

The set is a zip with pictures and a tags.csv of columns file, hair, eyes (default:
`faces_labelled.zip` of the real material). It is split by the pictures' sha256, as a manifest is;
the last 80 % train and calibrate, the first 20 % are only measured on. One JSON line goes to stdout
and, with --out, into a file; the table goes to stderr.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dataset.decode import decode
from dataset.errors import OmokageError, UsageError
from dataset.manifest import split_of
from dataset.progress import progress
from models.tagger.data import part_of
from models.tagger.home import chart, table
from models.tagger.model import TaggerConfig, at_side, overridden
from models.tagger.scores import score
from models.tagger.train import train_tagger

EVAL_FRAC = 0.2
COLUMNS = ("hair", "eyes")


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark and prints its line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        result = run(options)
    except OmokageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    line = json.dumps(result)
    if options.out:
        Path(options.out).write_text(f"{json.dumps(result, indent=1)}\n")
    print(line)
    return 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Trains and measures; returns the result."""
    config = overridden(TaggerConfig(), options.set)
    images, labels, names, pictures = read_set(Path(options.set_file), side_px=config.input_px)
    held_out = np.array([split_of(one, EVAL_FRAC) == "eval" for one in pictures])
    calibrating = np.array([part_of(one, config.calibration_frac) for one in pictures])
    began, cpu_began = time.monotonic(), time.process_time()
    with progress("train", 0, unit="pictures") as advance:
        seen = 0

        def tick(payload: dict[str, Any]) -> None:
            nonlocal seen
            advance(payload["images_seen"] - seen)
            seen = payload["images_seen"]

        tagger = train_tagger(
            images[~held_out],
            labels[~held_out],
            label_names=names,
            config=config,
            progress=tick,
            calibration_rows=calibrating[~held_out],
        )
    seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu_began
    shown = images[held_out]
    tagger.probabilities(shown[:64])  # warms up
    began = time.monotonic()
    said = tagger.probabilities(shown)
    tagging_s = time.monotonic() - began
    raw = tagger.raw_probabilities(shown)
    scores = score(said, labels[held_out], names, raw=raw)
    print(table(scores), file=sys.stderr)
    if options.chart:
        png = chart(scores, probabilities=said, raw=raw, truths=labels[held_out])
        if png is not None:
            Path(options.chart).write_bytes(png)
    return {
        "benchmark": "tagger",
        "mean_ap": _rounded(scores.mean_ap),
        "mean_frequency": _rounded(scores.mean_frequency),
        "least_ap_over_frequency": _rounded(
            min(one.ap / one.frequency for one in scores.labels if one.ap is not None)
        ),
        "ece": _rounded(scores.mean_ece),
        "ece_before_calibration": _rounded(scores.mean_raw_ece),
        "labels": {
            one.label: {
                name: _rounded(getattr(one, name))
                for name in ("ap", "frequency", "ece", "raw_ece", "precision", "recall")
            }
            for one in scores.labels
        },
        "threshold": scores.threshold,
        "train_rows": tagger.facts["rows"],
        "calibration_rows": tagger.facts["calibration_rows"],
        "held_out_rows": scores.rows,
        "parameters": tagger.facts["parameters"],
        "images_seen": tagger.facts["images_seen"],
        "precision_of_training": tagger.facts["precision"],
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "train_pictures_per_s": round(tagger.facts["images_seen"] / seconds, 1),
        "tag_pictures_per_s": round(scores.rows / tagging_s, 1),
        "settings": options.set,
        "device": _device(tagger.facts["device"]),
    }


def read_set(
    path: Path, *, side_px: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], list[str], list[str]]:
    """Returns pictures [N,side,side,3], labels [N,L], label names, and the pictures' sha256s.

    Raises UsageError if the zip or its tags.csv is not there or not as described.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not there; give a labelled set with --set-file")
    with zipfile.ZipFile(path) as held:
        tables = [name for name in held.namelist() if name.endswith("tags.csv")]
        if not tables:
            raise UsageError(f"{path} holds no tags.csv")
        with io.TextIOWrapper(held.open(tables[0]), "utf-8") as text:
            rows = list(csv.DictReader(text))
        if not rows or any(column not in rows[0] for column in ("file", *COLUMNS)):
            raise UsageError(f"{path}: tags.csv wants the columns file, {', '.join(COLUMNS)}")
        images = np.empty((len(rows), side_px, side_px, 3), np.uint8)
        pictures = []
        folder = next(name for name in held.namelist() if name.endswith(rows[0]["file"]))
        folder = folder.removesuffix(rows[0]["file"])
        for place, row in enumerate(rows):
            content = held.read(f"{folder}{row['file']}")
            pictures.append(hashlib.sha256(content).hexdigest())
            images[place] = at_side(decode(content, where=row["file"])[None], side_px)[0]
    tagged = [[row[column].replace(" ", "_") for column in COLUMNS] for row in rows]
    names = [name for kind in zip(*tagged, strict=True) for name in sorted(set(kind))]
    labels = np.array([[name in tags for name in names] for tags in tagged])
    return images, labels, names, pictures


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _device(name: str) -> str:
    return f"cpu x{torch.get_num_threads()} of {os.cpu_count()}" if name == "cpu" else name


def _parser() -> argparse.ArgumentParser:
    real = Path(os.environ.get("OMOKAGE_REAL_DATA", "../shared/data"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tagger", description=__doc__)
    add = parser.add_argument
    add("--set-file", default=str(real / "faces_labelled.zip"), metavar="ZIP", help="the set")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the training")
    add("--out", metavar="FILE", help="write the result here too, as JSON")
    add("--chart", metavar="FILE", help="write the chart here, as PNG")
    return parser


if __name__ == "__main__":
    sys.exit(main())
