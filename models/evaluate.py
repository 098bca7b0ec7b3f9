"""`python -m models.evaluate`: measures a generator under the pinned protocol."""

import argparse
import dataclasses
import hashlib
import io
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dataset.errors import EmptyStageError
from dataset.manifest import load_manifest
from dataset.packed import pack
from dataset.progress import Advance, progress
from dataset.store import Store, digest_of
from models.batches import local_store
from models.devices import held_device
from models.entry import Report, run_entry
from models.extractors import RESIZER, Extractor, chunks, extractor
from models.generators import TRAIN, WEIGHTS, load_generator
from models.labels import Rows, typical_labels
from models.metrics.frechet import Statistics, frechet_distance, statistics
from models.metrics.hair import hair_labels, hair_tones, hits, tones_by_label
from models.networks import GeneratorNet
from models.sampling import draw, grid

EVALUATION = "evaluation.json"  # written last: where it stands, the evaluation is whole
FAKES, REALS = "fakes.png", "reals.png"
SHOWN = 32  # pictures on fakes.png and reals.png

Pictures = npt.NDArray[np.uint8]  # [N,H,W,3], RGB


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What must be equal for two numbers to be compared; averaged (EMA) weights always."""

    extractor: str
    extractor_sha256: str
    input_px: int
    resizer: str = RESIZER
    psi: float = 1.0
    fakes: int = 10_000
    repeats: int = 3  # independent sets of fakes, for the sampling noise
    seed: int = 0
    reference: str = "eval"
    labels: str = "drawn from the reference's rows"

    @property
    def digest(self) -> str:
        """The sha256 of all of it."""
        return digest_of(dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class Reals:
    """A split: uint8 images [N,3,R,R], labels [N,L] of 0 and 1, and the labels' names."""

    images: npt.NDArray[np.uint8]
    labels: Rows
    label_names: tuple[str, ...]

    def pictures(self, rows: npt.NDArray[np.int64] | None = None) -> Iterator[Pictures]:
        """Yields chunks [n,R,R,3] of all pictures, or of those rows."""
        order = np.arange(len(self.images)) if rows is None else rows
        for some in range(0, len(order), 50):
            yield self.images[order[some : some + 50]].transpose(0, 2, 3, 1)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = _parser().parse_args(argv)
    return run_entry(lambda report: run(options, report), die_with_parent=options.die_with_parent)


def run(options: argparse.Namespace, report: Report) -> dict[str, Any]:
    """Evaluates as the options say; returns the evaluation."""
    with held_device("auto") as device:
        return _run_on(str(device), options, report)


def _run_on(device: str, options: argparse.Namespace, report: Report) -> dict[str, Any]:
    store = Store(options.home)
    manifest = load_manifest(store, options.manifest)
    network = extractor(options.extractor, device=device)
    protocol = Protocol(
        extractor=network.name,
        extractor_sha256=network.sha256,
        input_px=network.input_px,
        fakes=options.fakes,
        repeats=options.repeats,
        seed=options.seed,
    )
    folder = generator_folder(store, options.generator)
    generator = load_generator(store.url(folder), device=device)
    side = generator.spec.resolution_px
    splits = {
        split: _reals(store, manifest, split, side_px=side, known=generator.spec.labels)
        for split in ("train", "eval")
    }
    return evaluate(
        store,
        options.out,
        protocol,
        generator=generator,
        identity=identity_of(store, folder, manifest.digest, protocol),
        reals=splits["eval"],
        train_reals=splits["train"],
        network=network,
        report=report,
    )


def generator_folder(store: Store, path: str) -> str:
    """Returns `path`, or the `generator` folder in it if that is a training's folder."""
    return f"{path}/generator" if store.exists(f"{path}/generator/{TRAIN}") else path


def identity_of(
    store: Store, generator: str, manifest_digest: str, protocol: Protocol
) -> dict[str, Any]:
    """Returns what an evaluation is of: the digests of weights, manifest and protocol."""
    facts = store.read_json(f"{generator}/{TRAIN}")
    weights = hashlib.sha256(store.read_bytes(f"{generator}/{WEIGHTS}")).hexdigest()
    return {
        "generator_sha256": weights,
        "config_digest": facts["config_digest"],
        "manifest_digest": manifest_digest,
        "protocol_digest": protocol.digest,
    }


def evaluate(
    store: Store,
    out: str,
    protocol: Protocol,
    *,
    generator: GeneratorNet,
    identity: dict[str, Any],
    reals: Reals,
    train_reals: Reals,
    network: Extractor,
    report: Report,
) -> dict[str, Any]:
    """Measures the generator against `reals` and writes evaluation.json, fakes.png and reals.png.

    Returns at once if `out` holds an evaluation of the same identity. The distance is the mean over
    `protocol.repeats` sets of fakes, sigma their standard deviation; real_fd is the distance of as
    many training reals, the floor that a perfect generator would reach.
    """
    started = time.monotonic()
    path = f"{out}/{EVALUATION}"
    if store.exists(path):
        before: dict[str, Any] = store.read_json(path)
        if {name: before.get(name) for name in identity} == identity:
            print(f"already evaluated: {store.url(path)}", file=sys.stderr)
            return before | {"reused": True, "seconds": 0.0}
    device = next(generator.parameters()).device
    metric = f"fd_{protocol.extractor}"
    reference = _cached_statistics(store, identity, protocol, reals=reals, network=network)

    # Fakes, a set a repeat, each with labels and seeds of its own
    distances, judged = [], []
    hair = hair_labels(reals.label_names)
    real_tones, real_hair = _tones(reals, hair)
    means = tones_by_label(real_tones, real_hair)
    first: Pictures | None = None
    with progress("judge", protocol.repeats * protocol.fakes, unit="pictures") as advance:
        for repeat in range(protocol.repeats):
            start = protocol.seed + repeat * protocol.fakes
            labels = typical_labels(reals.labels, protocol.fakes, start)
            seeds = range(start, start + protocol.fakes)
            fakes = draw(generator, labels, seeds, psi=protocol.psi)
            first = fakes if first is None else first
            found = statistics(network(_counted(chunks(fakes), advance), device=device))
            distances.append(frechet_distance(found, reference))
            judged.append(hits(hair_tones(fakes), labels[:, hair], means))
            done = {"done": repeat + 1, "of": protocol.repeats, metric: distances[-1]}
            report({"progress": done})

    assert first is not None  # repeats >= 1
    _write_grid(store, f"{out}/{FAKES}", first[:SHOWN])
    _write_grid(
        store, f"{out}/{REALS}", next(reals.pictures(np.arange(min(SHOWN, len(reals.images)))))
    )
    result = {
        **identity,
        metric: float(np.mean(distances)),
        "sigma": float(np.std(distances, ddof=1)) if len(distances) > 1 else 0.0,
        "distances": distances,
        "real_fd": _floor(protocol, train_reals, reference, network=network, device=device),
        "hair_colour_hits": _finite(float(np.mean(judged))),
        "real_hair_colour_hits": _finite(hits(real_tones, real_hair, means)),
        "fakes": protocol.fakes,
        "reference_rows": reference.rows,
        "protocol": dataclasses.asdict(protocol),
        "folder": out,
        "fakes_grid": f"{out}/{FAKES}",
        "reals_grid": f"{out}/{REALS}",
    }
    store.write_json(path, result)
    return result | {"reused": False, "seconds": round(time.monotonic() - started, 2)}


def _counted(some: Iterator[Pictures], advance: Advance) -> Iterator[Pictures]:
    """Passes chunks of pictures on, and their number to the bar once each has been used."""
    for chunk in some:
        yield chunk
        advance(len(chunk))


def _reals(
    store: Store, manifest: Any, split: str, *, side_px: int, known: tuple[str, ...]
) -> Reals:
    """Loads a split, its label columns brought into the generator's order."""
    packed = pack(store, manifest, split, resolution_px=side_px, into=local_store(store))
    if len(packed.images) < 2:
        raise EmptyStageError(
            f"the {split} split has {len(packed.images)} pictures; 2 or more are needed to compare"
        )
    found = list(manifest.labels)
    rows = np.zeros((len(packed.images), len(known)), dtype=np.float32)
    for column, label in enumerate(known):
        if label in found:
            rows[:, column] = packed.labels[:, found.index(label)]
    return Reals(packed.images, rows, known)


def _cached_statistics(
    store: Store,
    identity: dict[str, Any],
    protocol: Protocol,
    *,
    reals: Reals,
    network: Extractor,
) -> Statistics:
    names = ("extractor", "extractor_sha256", "input_px", "resizer", "reference")
    key = {name: getattr(protocol, name) for name in names}
    key |= {"manifest": identity["manifest_digest"], "side_px": int(reals.images.shape[2])}
    path = f"cache/statistics/{digest_of(key)}.npz"
    if store.exists(path):
        with store.open(path) as file, np.load(file, allow_pickle=False) as held:
            return Statistics(held["mean"], held["covariance"], int(held["rows"]))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    made = statistics(network(reals.pictures(), device=device))
    with store.writing(path, durable=False) as file:
        np.savez(file, mean=made.mean, covariance=made.covariance, rows=np.array(made.rows))
    return made


def _floor(
    protocol: Protocol,
    train_reals: Reals,
    reference: Statistics,
    *,
    network: Extractor,
    device: torch.device,
) -> float:
    count = min(protocol.fakes, len(train_reals.images))
    order = np.random.default_rng(protocol.seed).permutation(len(train_reals.images))
    found = network(train_reals.pictures(np.sort(order[:count])), device=device)
    return frechet_distance(statistics(found), reference)


def _tones(reals: Reals, hair: list[int]) -> tuple[npt.NDArray[np.float64], Rows]:
    tones = np.concatenate([hair_tones(chunk) for chunk in reals.pictures()])
    return tones, reals.labels[:, hair]


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _write_grid(store: Store, path: str, pictures: Pictures) -> None:
    sheet = io.BytesIO()
    grid(pictures, 8).save(sheet, "PNG")
    store.write_bytes(path, sheet.getvalue(), durable=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models.evaluate",
        description="Measures a generator against the eval split of a manifest.",
        epilog="example: python -m models.evaluate --home var --generator runs/first/generator "
        "--fakes 1000 --out runs/first/evaluation",
    )
    add = parser.add_argument
    add("--home", required=True, metavar="DIR", help="root of the store (OMOKAGE_HOME)")
    add(
        "--generator",
        required=True,
        metavar="RELDIR",
        help="folder of a training or generator, under the home",
    )
    add("--manifest", metavar="DIGEST", help="the face set (default: the newest)")
    add("--out", required=True, metavar="RELDIR", help="folder of the evaluation, under the home")
    add("--extractor", default="efficientnet_lite0", metavar="NAME", help="feature extractor")
    add("--seed", type=int, default=0, metavar="S", help="first seed of the fakes (default: 0)")
    add(
        "--fakes",
        type=_at_least(2),
        default=10_000,
        metavar="N",
        help="fakes in a set (default: 10000)",
    )
    add(
        "--repeats",
        type=_at_least(1),
        default=3,
        metavar="N",
        help="sets of fakes, for the sampling noise (default: 3)",
    )
    add(
        "--die-with-parent",
        type=int,
        nargs="?",
        const=0,
        metavar="PID",
        help="end when the process that started this one has gone",
    )
    return parser


def _at_least(least: int) -> Any:
    def read(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f'"{text}" is no whole number from {least} on')
        return int(text)

    return read


if __name__ == "__main__":
    sys.exit(main())
