"""`python -m benchmarks.inversion`: how near inverted pictures come, and how long each takes.

A generator's own pictures, of seeds that the search never tries, and faces of the home's eval split
that neither the generator nor the judge of labels saw: that is fitted to the rest of the split, on
features that no training saw. Counts seconds on the wall and of the processor; the latter are the
better figure on a machine that does other work too.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.process import peak_mb
from dataset.manifest import load_manifest
from dataset.packed import pack
from dataset.store import Store
from models.evaluation.feature_rows import RowExtractor
from models.evaluation.label_judge import Judge, JudgeConfig, fit_judge, thumbnails
from models.families.base import GeneratorNet
from models.io.generators import load_generator, typical_rows
from models.labels import Rows, label_rows, names_of, typical_labels
from models.metrics.extractors import AUTO, chosen_extractor, extractor
from models.metrics.label_control import hair_labels
from models.sampling.characters import draw_characters
from models.sampling.draw import Pictures, draw, grid
from models.sampling.inversion import STEPS, Inversion, between, invert

DISTANCE_MAX, SECONDS_MAX, HAIR_MIN = 0.05, 60.0, 0.7
FIRST_SEED = 90_000  # of the generator's own pictures


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """A picture, what was found, what that draws [R,R,3], and the seconds that it took."""

    picture: Pictures
    point: Inversion
    drawn: Pictures
    seconds: float
    cpu_s: float


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark and prints its line."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    generator = load_generator(options.generator)
    typical = typical_rows(options.generator, generator.spec.labels)
    result = {
        "benchmark": "inversion",
        "steps": options.steps,
        "family": generator.spec.family,
        "side_px": generator.spec.resolution_px,
        **(_own(generator, typical, options) if options.own else {}),
        **(_reals(generator, typical, options) if options.reals else {}),
        "limits": {"distance": DISTANCE_MAX, "seconds": SECONDS_MAX, "hair": HAIR_MIN},
        "peak_mb": round(peak_mb(), 1),
        "device": f"cpu x{options.threads}",
    }
    print(json.dumps(result))


def _own(generator: GeneratorNet, typical: Rows, options: argparse.Namespace) -> dict[str, Any]:
    rows = typical_labels(typical, options.own, FIRST_SEED)
    pictures = draw(generator, rows, range(FIRST_SEED, FIRST_SEED + options.own))
    found = _inverted(generator, pictures, typical, options, title="own")
    far = np.array([one.point.distance for one in found])
    guessed = [(one.point.labels[0] == row).mean() for one, row in zip(found, rows, strict=True)]
    return {
        "own": len(found),
        "distance_median": round(float(np.median(far)), 4),
        "distance_max": round(float(far.max()), 4),
        "near_enough": int((far <= DISTANCE_MAX).sum()),
        "distance_of_two_fakes": round(float(between(pictures[:-1], pictures[1:]).mean()), 3),
        "labels_right": round(float(np.mean(guessed)), 3),
        **_seconds(found),
    }


def _reals(generator: GeneratorNet, typical: Rows, options: argparse.Namespace) -> dict[str, Any]:
    store = Store(options.home)
    manifest = load_manifest(store, None)
    side = generator.spec.resolution_px
    packed = pack(store, manifest, "eval", resolution_px=side)
    chosen = np.linspace(0, len(packed.images) - 1, options.reals).astype(int)
    others = np.setdiff1d(np.arange(len(packed.images)), chosen)
    faces = np.ascontiguousarray(np.asarray(packed.images).transpose(0, 2, 3, 1))
    name = chosen_extractor(AUTO, generator.spec.trained_on_features)
    rows = RowExtractor(extractor(name), torch.device("cpu"))
    features = rows.features(faces[others]).astype(np.float32)
    judge = fit_judge(
        features, thumbnails(faces[others]), packed.labels[others], config=JudgeConfig()
    )
    found = _inverted(generator, faces[chosen], typical, options, title="real")
    drawn = np.stack([one.drawn for one in found])
    hair = hair_labels(manifest.labels)
    wanted, seen = (
        _logits(judge, rows, pictures)[:, hair].argmax(axis=1)
        for pictures in (faces[chosen], drawn)
    )
    tagged = packed.labels[chosen][:, hair]
    has_one = tagged.sum(axis=1) == 1
    far = [one.point.distance for one in found]
    edited = _other_hair(generator, found, [manifest.labels[column] for column in hair])
    turned = _logits(judge, rows, np.stack([picture for picture, _ in edited]))[:, hair]
    return {
        "reals": len(found),
        "judge": name,
        "hair_agreement": round(float((wanted == seen).mean()), 3),
        "hair_of_reals_as_tagged": round(
            float((tagged.argmax(axis=1) == wanted)[has_one].mean()), 3
        ),
        "hair_as_tagged": round(float((tagged.argmax(axis=1) == seen)[has_one].mean()), 3),
        "hair_edited": round(
            float(np.mean(turned.argmax(axis=1) == [colour for _, colour in edited])), 3
        ),
        "real_distance_median": round(float(np.median(far)), 3),
        "real_distance_max": round(float(np.max(far)), 3),
        "distance_of_two_reals": round(
            float(between(faces[chosen][:-1], faces[chosen][1:]).mean()), 3
        ),
        **{f"real_{key}": value for key, value in _seconds(found).items()},
    }


def _other_hair(
    generator: GeneratorNet, found: Sequence[Found], colours: Sequence[str]
) -> list[tuple[Pictures, int]]:
    """Draws what was found with another hair colour, and says which: the next that G knows."""
    known = generator.spec.labels
    able = [colour for colour in colours if colour in known]
    edited = []
    for place, one in enumerate(found):
        has = names_of(one.point.labels[0], known)
        colour = next(c for c in able[place % len(able) :] + able if c not in has)
        row = label_rows([[*(name for name in has if name not in able), colour]], known)
        who = dataclasses.replace(one.point, labels=row).character(generator.spec)
        edited.append((draw_characters(generator, who)[0], colours.index(colour)))
    return edited


def _inverted(
    generator: GeneratorNet,
    pictures: Pictures,
    typical: Rows,
    options: argparse.Namespace,
    *,
    title: str,
) -> list[Found]:
    found = []
    for number, picture in enumerate(pictures):
        started, cpu_started = time.perf_counter(), time.process_time()
        point = invert(generator, picture, typical, steps=options.steps)
        seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
        drawn = draw_characters(generator, point.character(generator.spec))[0]
        found.append(Found(picture, point, drawn, seconds, cpu_s))
        print(
            f"{title} {number + 1} of {len(pictures)}: distance {point.distance:.4f}, "
            f"{seconds:.1f} s, {cpu_s:.1f} s of the processor",
            file=sys.stderr,
            flush=True,
        )
    if options.sheets and found:
        pairs = np.stack([picture for one in found for picture in (one.picture, one.drawn)])
        grid(pairs, 10).save(Path(options.sheets) / f"{title}.png")
    return found


def _seconds(found: Sequence[Found]) -> dict[str, float]:
    return {
        "seconds_median": round(float(np.median([one.seconds for one in found])), 2),
        "seconds_max": round(max(one.seconds for one in found), 2),
        "cpu_s_median": round(float(np.median([one.cpu_s for one in found])), 2),
        "cpu_s_max": round(max(one.cpu_s for one in found), 2),
    }


def _logits(judge: Judge, rows: RowExtractor, pictures: Pictures) -> npt.NDArray[np.float32]:
    return judge.logits(rows.features(pictures).astype(np.float32), thumbnails(pictures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.inversion",
        description="Inverts a generator's own pictures and real faces.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--generator", required=True, help="folder of a trained generator")
    parser.add_argument("--home", default="var", help="home whose newest face set has real faces")
    parser.add_argument("--own", type=int, default=50, help="pictures of the generator's own")
    parser.add_argument("--reals", type=int, default=20, help="faces of the eval split")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of each inversion")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--sheets", default="", help="folder for sheets of pictures in pairs")
    return parser


if __name__ == "__main__":
    main()
