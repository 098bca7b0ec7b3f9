"""`python -m models.evaluate`: measures a generator under the pinned protocol.

`open_subject` opens what is measured: a generator's folder of any kind, and what names its weights.
"""

import argparse
import dataclasses
import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import torch

from dataset.errors import UsageError
from dataset.manifest import load_manifest
from dataset.store import Store, open_home
from models.evaluation.directions import write_directions
from models.evaluation.evaluate import evaluate
from models.evaluation.plan import (
    FAKES,
    FLIPS,
    MIN_FAKES,
    PSIS,
    REFERENCE_PX,
    REPEATS,
    TRAIN_ROWS,
    protocol_for,
)
from models.families.base import GeneratorNet
from models.io.entry_point import Report, run_entry, stop_signals
from models.io.generators import GENERATOR, TRAIN, WEIGHTS, Place, find_generator, load_generator
from models.metrics.extractors import (
    AUTO,
    EXTRACTORS,
    LITE0,
    LITE2,
    chosen_extractor,
    extractor,
    unfit_to_rank,
)
from models.registry.program import (
    ProgramGenerator,
    is_registered,
    program_sha256,
    registered_files,
)
from models.training.checkpoint import STATE, TENSORS
from models.training.distributed import held_device

WEIGHTS_VARIABLE = "OMOKAGE_EXTRACTOR_WEIGHTS"
WEIGHTS_CACHE = "cache/weights"
FOREIGN = "evaluations"  # under the home: of what lies outside, and of checkpoints, which go


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = options_of(argv)
    return run_entry(lambda report: run(options, report), die_with_parent=options.die_with_parent)


def options_of(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; ends the process with the usage if it does not fit."""
    return _parser().parse_args(argv)


def run(options: argparse.Namespace, report: Report) -> dict[str, Any]:
    """Evaluates as the options say; returns the evaluation. Raises Stopped when a signal came.

    The directions of a generator under the home are found too, and are stored beside its weights.
    """
    with stop_signals() as stop_signal, held_device(options.device) as device:
        store = open_home(options.home)
        manifest = load_manifest(store, options.manifest)
        subject = open_subject(store, options.generator, device=device)
        trained_on = subject.generator.spec.trained_on_features
        name = chosen_extractor(options.extractor, trained_on)
        if why := unfit_to_rank(name, trained_on):
            print(f"the distance ranks nothing: {why}", file=sys.stderr)
        network = extractor(
            name,
            device=device,
            weights=options.weights or os.environ.get(WEIGHTS_VARIABLE, ""),
            cache=store.scratch.local(WEIGHTS_CACHE),
        )
        protocol = protocol_for(
            network,
            fakes=options.fakes,
            repeats=options.repeats,
            seed=options.seed,
            reference_px=options.reference_px,
            train_rows=options.train_rows,
            flips=options.flips,
            psi=options.psi,
            psis=options.psis,
        )
        folder = f"{manifest.digest[:12]}-{protocol.digest[:12]}"
        made = evaluate(
            store,
            _out(options.out) or f"{subject.folder}/{folder}",
            protocol,
            generator=subject.generator,
            identity={
                "generator_sha256": subject.sha256,
                "config_digest": subject.config_digest,
                "manifest_digest": manifest.digest,
                "protocol_digest": protocol.digest,
            },
            manifest=manifest,
            network=network,
            report=report,
            stop_signal=stop_signal,
        )
        if not subject.files:
            return made
        directions = write_directions(
            store,
            subject.files,
            protocol,
            generator=subject.generator,
            manifest=manifest,
            network=network,
            report=report,
            stop_signal=stop_signal,
        )
        return made | {"directions": directions}


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A generator to be measured.

    Attributes:
        generator: in eval mode, on its device.
        sha256: of the file with its weights.
        config_digest: of the settings that it was trained with, "" where they are not known.
        folder: where its evaluations lie, under the home.
        files: its own folder under the home, "" for a checkpoint's, a model's, and those elsewhere.

    """

    generator: GeneratorNet
    sha256: str
    config_digest: str
    folder: str
    files: str = ""


def open_subject(store: Store, path: str, *, device: str | torch.device = "cpu") -> Subject:
    """Opens a training, a generator, a checkpoint, or a registered model's downloaded files.

    path: a folder under the home, or anywhere (absolute, or a URL). Raises UsageError if there is
    none of these, TrainingError or RegistryError for files that are damaged.
    """
    inside = _inside(store, path)
    url = store.url(inside) if inside is not None else path
    local = Path(url)
    if "://" not in url and local.is_dir() and is_registered(local):
        files = registered_files(local)
        sha256 = program_sha256(files)
        opened = ProgramGenerator(files, device=device)
        return Subject(opened, sha256, "", f"{FOREIGN}/{sha256[:12]}")
    if "://" not in url and not local.exists():
        raise UsageError(
            f"{path} is not there: a training's, generator's or checkpoint's folder is wanted, "
            "under the home or anywhere"
        )
    place = find_generator(url)
    network = load_generator(url, device=device)
    content = place.store.read_bytes(place.path(TENSORS if place.is_checkpoint else WEIGHTS))
    sha256 = hashlib.sha256(content).hexdigest()
    folder, own = f"{FOREIGN}/{sha256[:12]}", ""
    if inside is not None and not place.is_checkpoint:
        name = inside.removesuffix(f"/{GENERATOR}")
        folder = f"{name}/evaluation"
        own = f"{inside}/{place.folder}" if place.folder else inside
    return Subject(network, sha256, _config_digest(place), folder, own)


def _inside(store: Store, path: str) -> str | None:
    """Returns the path under the home, or None if it leads elsewhere."""
    if "://" not in path and not path.startswith("/"):
        return None if path.split("/")[0] in (".", "..") else path.rstrip("/")
    home = store.url("").rstrip("/") + "/"
    return path.removeprefix(home).rstrip("/") if path.startswith(home) else None


def _config_digest(place: Place) -> str:
    name = STATE if place.is_checkpoint else TRAIN
    if not place.store.exists(place.path(name)):
        return ""
    facts = place.store.read_json(place.path(name))
    return str(facts.get("config_digest", "")) if isinstance(facts, dict) else ""


def _out(folder: str) -> str:
    if folder.startswith("/") or ".." in folder.split("/"):
        raise UsageError(f'--out is "{folder}"; a folder under the home wanted, such as runs/one')
    return folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models.evaluate",
        description="Measures a generator against the eval split of a manifest. The same command "
        "again goes on where it was stopped.",
        epilog="example: python -m models.evaluate --home var --generator runs/first "
        "--fakes 1000 --repeats 3",
    )
    add = parser.add_argument
    add("--home", required=True, metavar="DIR", help="root of the store (OMOKAGE_HOME)")
    add(
        "--generator",
        required=True,
        metavar="DIR",
        help="folder of a training, generator, checkpoint or registered model, under the home or "
        "anywhere",
    )
    add("--manifest", metavar="DIGEST", help="the face set (default: the newest)")
    add(
        "--out",
        default="",
        metavar="RELDIR",
        help="folder of the evaluation, under the home (default: one of its own in the training's, "
        "named by manifest and protocol)",
    )
    add(
        "--extractor",
        default=AUTO,
        metavar="NAME",
        help=f"feature extractor: {', '.join(EXTRACTORS)}, or {AUTO}: {LITE0}, and {LITE2} for a "
        f"generator whose training saw the features of {LITE0} (default: {AUTO})",
    )
    add(
        "--weights",
        default="",
        metavar="FILE",
        help="weights of the extractor inception (default: fetched once into the home's cache)",
    )
    add("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N")
    add("--seed", type=_at_least(0), default=0, metavar="S", help="first seed (default: 0)")
    _add_number(parser, "--fakes", MIN_FAKES, FAKES, "fakes in a set")
    _add_number(parser, "--repeats", 1, REPEATS, "sets of fakes, for the sampling noise")
    _add_number(parser, "--reference-px", 16, REFERENCE_PX, "side of the reals for …_at<side>")
    _add_number(parser, "--train-rows", MIN_FAKES, TRAIN_ROWS, "training pictures, at most")
    _add_number(parser, "--flips", 0, FLIPS, "pairs a label that differ in it alone; 0: none")
    add(
        "--psi",
        type=_psi,
        default=1.0,
        metavar="P",
        help="truncation of the fakes that everything but the curve is measured on (default: 1)",
    )
    add(
        "--psis",
        type=_psis,
        default=PSIS,
        metavar="A,B",
        help="points of the truncation curve; empty: none "
        f"(default: {','.join(f'{psi:g}' for psi in PSIS)})",
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


def _add_number(
    parser: argparse.ArgumentParser, name: str, least: int, default: int, meaning: str
) -> None:
    parser.add_argument(
        name,
        type=_at_least(least),
        default=default,
        metavar="N",
        help=f"{meaning} (default: {default})",
    )


def _at_least(least: int) -> Any:
    def read(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f'"{text}" is no whole number from {least} on')
        return int(text)

    return read


def _psi(text: str) -> float:
    found = _psis(text)
    if len(found) != 1:
        raise argparse.ArgumentTypeError(f'"{text}": one number from 0 to 2 wanted')
    return found[0]


def _psis(text: str) -> tuple[float, ...]:
    parts = [part for part in text.split(",") if part.strip()]
    try:
        found = tuple(float(part) for part in parts)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'"{text}" is no list of numbers') from error
    if any(not 0 <= psi <= 2 for psi in found) or list(found) != sorted(set(found)):
        raise argparse.ArgumentTypeError(f'"{text}": rising numbers from 0 to 2 wanted')
    return found


if __name__ == "__main__":
    sys.exit(main())
