"""`python -m benchmarks.evaluate`: memory of an evaluation of 10,000 pictures, and its speed.

Memory: a child process evaluates dcgan64 of random weights against random pictures, once with few
fakes and once with many; the goal is an equal peak memory within a tenth.
Speed: chunks of 64 pictures go through the evaluation's own loop (drawing, features, judge, file),
through the bare extractor on ready pictures, and through bare drawing, in turns, so that whatever
else the machine does falls on all. `of_extractor` is the loop's rate over that of the extractor as
it is (64 pictures at a time), `of_features` over that of the evaluation's own way to call it (16 at
a time, channels last), `of_both` over that and bare drawing one after the other.

`--table --home var` prints the table of docs/evaluation.md instead: what the metrics say of sets of
which it is known how good they are, by both offline extractors.
"""

import argparse
import functools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.process import peak_mb, run_module
from dataset.manifest import Manifest, load_manifest
from dataset.packed import pack
from dataset.store import LocalFolder, Store
from models.evaluation.fakes import FakeSet, WorkFolder, eval_progress
from models.evaluation.feature_rows import FeatureRows, Pictures, RowExtractor
from models.evaluation.label_judge import JudgeConfig, Rows32, fit_judge, thumbnails
from models.evaluation.plan import labels_for_generator
from models.evaluation.results import Reference, joint_statistics, metrics_for_set, plain_statistics
from models.families import family_of
from models.families.base import GeneratorNet, NetworkSize
from models.io.generators import TRAIN, find_generator, load_generator
from models.labels import typical_labels
from models.metrics.distances import ReferenceStats, joint_weight, kernel_distance, standard_error
from models.metrics.extractors import LITE0, LITE2, Extractor, efficientnet_lite0, extractor
from models.metrics.neighbours import memorization, overlap, pair_distances, spread
from models.sampling.draw import CHUNK, draw

CURRENT = "generators/current.json"
LABELS = ("blonde_hair", "black_hair", "blue_eyes", "long_hair")
SIDE_PX = 64
REALS = 256
MEMORY_LIMIT = 1.1
SPEED_LIMIT = 0.9


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark and prints its line."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.table:
        store, names = Store(options.home), options.extractors
        print("\n".join(table(store, options.generator, names, count=options.count)))
        return
    if options.child:
        _evaluated(options.child)
        print(json.dumps({"peak_mb": round(peak_mb(), 1)}))
        return
    speed = _speed(options.rounds)
    print(f"speed: {speed}", file=sys.stderr)
    peaks = {}
    for fakes in options.fakes:
        peaks[fakes] = _peak_of_child(fakes, options.threads)
        print(f"{fakes:,} fakes: {peaks[fakes]:.1f} MB", file=sys.stderr)
    few, many = peaks[min(peaks)], peaks[max(peaks)]
    result = {
        "benchmark": "evaluate",
        "value": speed["loop_per_s"],
        "unit": "pictures/s",
        **speed,
        "speed_limit": SPEED_LIMIT,
        "fakes": [min(peaks), max(peaks)],
        "peak_mb": [few, many],
        "memory_ratio": round(many / few, 3),
        "memory_limit": MEMORY_LIMIT,
        "device": f"cpu x{options.threads}",
    }
    print(json.dumps(result))


def _speed(rounds: int) -> dict[str, float]:
    """Times loop, extractor and drawing in turns; rates in pictures a second of CPU time.

    CPU time, since others may share the machine; on an idle one it is the same for one thread.
    """
    network, generator = efficientnet_lite0(), _generator()
    rng = np.random.default_rng(0)
    labels = (rng.random((CHUNK, len(LABELS))) < 0.3).astype(np.float32)
    ready = draw(generator, labels, range(CHUNK))
    extract = _judged(network)
    seconds: dict[str, list[float]] = {
        name: [] for name in ("loop", "extractor", "features", "drawing")
    }
    with tempfile.TemporaryDirectory() as folder:
        work = WorkFolder(LocalFolder(folder), "work")

        def loop(number: int) -> None:
            with eval_progress(0, report=lambda _told: None, stop_signal=lambda: 0) as progress:
                fakes = FakeSet(f"set-{number}", labels, range(CHUNK))
                work.feature_rows(fakes, generator, extract, progress=progress)

        for number in range(-1, rounds):  # the first is to warm up
            took = {
                "loop": _timed(functools.partial(loop, number)),
                "extractor": _timed(lambda: network([ready])),
                "features": _timed(lambda: extract.features(ready)),
                "drawing": _timed(lambda: draw(generator, labels, range(CHUNK))),
            }
            if number >= 0:
                for name, one in took.items():
                    seconds[name].append(one)
    middle = {name: statistics.median(all_of) for name, all_of in seconds.items()}
    return {
        "loop_per_s": round(CHUNK / middle["loop"], 1),
        "extractor_per_s": round(CHUNK / middle["extractor"], 1),
        "drawing_per_s": round(CHUNK / middle["drawing"], 1),
        "features_per_s": round(CHUNK / middle["features"], 1),
        "of_extractor": round(middle["extractor"] / middle["loop"], 3),
        "of_features": round(middle["features"] / middle["loop"], 3),
        "of_both": round((middle["features"] + middle["drawing"]) / middle["loop"], 3),
    }


def _timed(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _evaluated(count: int) -> None:
    """Draws and measures `count` fakes as an evaluation does, down to the numbers."""
    network, generator = efficientnet_lite0(), _generator()
    rng = np.random.default_rng(1)
    labels = (rng.random((count, len(LABELS))) < 0.3).astype(np.float32)
    extract = _judged(network)
    with tempfile.TemporaryDirectory() as folder:
        work = WorkFolder(LocalFolder(folder), "work")
        with eval_progress(count, report=lambda _told: None, stop_signal=lambda: 0) as progress:
            fakes = work.feature_rows(
                FakeSet("fakes", labels, range(count)), generator, extract, progress=progress
            )
            reals = FeatureRows(np.concatenate([_reals(network)[0]]), network.features)
            real_labels = labels[np.arange(REALS) % count]
            weight = joint_weight(reals.features, real_labels)
            compared = Reference(
                rows=reals,
                labels=real_labels,
                train=reals,
                stats=ReferenceStats.of(plain_statistics(reals.features)),
                joint_stats=ReferenceStats.of(joint_statistics(reals, real_labels, weight)),
                common=None,
                weight=weight,
                shared=list(range(len(LABELS))),
                hair=[],
                tones=np.zeros((0, 3)),
            )
            metrics_for_set(fakes, labels, compared, neighbours=3)


def _reals(network: Extractor) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of random reals, and their pictures."""
    pictures = np.random.default_rng(2).integers(0, 256, (REALS, SIDE_PX, SIDE_PX, 3), np.uint8)
    extract = RowExtractor(network, torch.device("cpu"))
    chunks = [extract(pictures[at : at + CHUNK]) for at in range(0, REALS, CHUNK)]
    return np.concatenate(chunks), pictures


def _judged(network: Extractor) -> RowExtractor:
    rows, pictures = _reals(network)
    labels = np.random.default_rng(3).random((REALS, len(LABELS))) < 0.3
    features = rows[:, : network.features]
    judge = fit_judge(features, thumbnails(pictures), labels, config=JudgeConfig())
    return RowExtractor(network, torch.device("cpu"), judge)


def _generator() -> GeneratorNet:
    torch.manual_seed(0)
    maker = family_of("dcgan64")
    network = maker.generator(maker.spec(LABELS, NetworkSize(SIDE_PX, width=0.25)))
    return network.eval().requires_grad_(False)


SIDES_PX = (64, 96, 128)
BLUR_PX, NOISE = 1.5, 24.0  # standard deviations, of pixels and of 255 levels


def table(store: Store, generator: str, extractors: Sequence[str], *, count: int) -> list[str]:
    """Returns the table's lines: real faces, a generator, and faces spoilt in known ways.

    generator: its folder, "" for the home's newest. count: pictures of a set; copies are looked for
    among as many training faces again. All sets but the
    real faces of other sides have the generator's side. Nothing in the home changes but its packs.
    """
    folder = store.url(generator or store.read_json(CURRENT)["folder"])
    network, place = load_generator(folder), find_generator(folder)
    images_seen = place.store.read_json(place.path(TRAIN))["images_seen"]
    manifest = load_manifest(store, None)
    own_px = network.spec.resolution_px
    sides = sorted({*SIDES_PX, own_px})
    splits = {
        side: {name: _split(store, manifest, name, side) for name in ("eval", "train")}
        for side in sides
    }
    rows = splits[own_px]["eval"][1]
    labels = labels_for_generator(
        typical_labels(rows, count, 0), manifest.labels, network.spec.labels
    )
    order = np.random.default_rng(0).permutation(len(splits[own_px]["train"][0]))[: 2 * count]
    chosen, others = np.sort(order[:count]), np.sort(order[count:])
    rng = np.random.default_rng(0)
    faces = splits[own_px]["train"][0][chosen]
    noised = faces + rng.normal(scale=NOISE, size=faces.shape)
    fakes = np.concatenate(
        [draw(network, labels[at : at + CHUNK], range(at, min(at + CHUNK, count)))
         for at in range(0, count, CHUNK)]
    )  # fmt: skip
    spoilt = {
        "training faces, given back": faces,
        "training faces, blurred": np.stack([cv2.GaussianBlur(f, (0, 0), BLUR_PX) for f in faces]),
        "training faces, noised": noised.round().clip(0, 255).astype(np.uint8),
        "one training face, again and again": faces[:1],
        f"`{network.spec.family}` after {images_seen:,} pictures": fakes,
    }
    lines = [
        "| extractor | pictures | side | Fréchet | kernel ± error | precision | recall | spread "
        "| memory ratio | copied |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in extractors:
        extract = RowExtractor(extractor(name), torch.device("cpu"))
        for side in sides:
            held = _features(extract, splits[side]["eval"][0])
            reals = _features(extract, splits[side]["train"][0][chosen])
            if side != own_px:
                lines.append(_line(name, "training faces", side, reals, held=held))
                print(lines[-1], file=sys.stderr, flush=True)
                continue
            # These are looked for among the others, as if no training had seen them.
            unseen = _features(extract, splits[side]["train"][0][others])
            train = np.concatenate([reals, unseen])
            lines.append(_line(name, "training faces", side, reals, held=held, train=unseen))
            for words, pictures in spoilt.items():
                found = reals if pictures is faces else _features(extract, pictures)
                found = np.resize(found, reals.shape)  # the one face as often as the others
                lines.append(_line(name, words, side, found, held=held, train=train))
                print(lines[-1], file=sys.stderr, flush=True)
    return lines


def _split(
    store: Store, manifest: Manifest, split: str, side_px: int
) -> tuple[Pictures, npt.NDArray[np.uint8]]:
    """Returns the pictures [N,S,S,3] of a split and their labels [N,L]."""
    packed = pack(store, manifest, split, resolution_px=side_px)
    return np.ascontiguousarray(packed.images.transpose(0, 2, 3, 1)), packed.labels


def _features(extract: RowExtractor, pictures: Pictures) -> Rows32:
    chunks = range(0, len(pictures), CHUNK)
    found = [extract.features(pictures[at : at + CHUNK]) for at in chunks]
    return np.concatenate(found).astype(np.float32)


def _line(
    name: str,
    words: str,
    side_px: int,
    found: Rows32,
    *,
    held: Rows32,
    train: Rows32 | None = None,
) -> str:
    distance = ReferenceStats.of(plain_statistics(held)).distance(plain_statistics(found))
    kernel = kernel_distance(found, held)
    precision, recall, _ = overlap(held, found)
    varied, _ = spread(pair_distances(found), pair_distances(held))
    copies = "– | –"
    if train is not None:
        memory = memorization(found, train, held)
        copies = f"{memory.ratio:.2f} | {memory.copied_frac:.0%}"
    return (
        f"| `{name}` | {words} | {side_px} px | {distance:.0f} | {kernel.value:.3f} ± "
        f"{standard_error([kernel]):.3f} | {precision:.3f} | {recall:.3f} | {varied:.2f} | "
        f"{copies} |"
    )


def _peak_of_child(fakes: int, threads: int) -> float:
    arguments = ["--child", str(fakes), "--threads", str(threads)]
    return float(run_module("benchmarks.evaluate", *arguments)["peak_mb"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evaluate",
        description="Weighs and times the evaluation of a generator with random weights.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--fakes", type=int, nargs=2, default=[1000, 10_000], help="sizes to be weighed"
    )
    parser.add_argument("--rounds", type=int, default=12, help="chunks of 64 to be timed")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--table", action="store_true", help="print the table of the documentation")
    parser.add_argument("--home", default="var", help="of the table")
    parser.add_argument("--generator", default="", help="of the table: a folder; the home's newest")
    parser.add_argument("--extractors", nargs="+", default=[LITE0, LITE2], help="of the table")
    parser.add_argument("--count", type=int, default=200, help="pictures of the table's sets")
    parser.add_argument("--child", type=int, default=0, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
