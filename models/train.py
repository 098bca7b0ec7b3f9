"""`python -m models.train`: trains a generator on a manifest of the store, or resumes it."""

import argparse
import dataclasses
import json
import sys

from dataset.errors import OmokageError, UsageError
from dataset.manifest import load_manifest
from dataset.packed import pack
from dataset.store import open_home
from models.io.entry_point import Report, run_entry, stop_signals
from models.presets import PRESETS, preset
from models.training.data import TrainingSet
from models.training.distributed import rank_of_environment
from models.training.loop import CLOCKS, train
from models.training.progress_log import NoTracker, system_metrics, tracker_from_environment


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = options_of(argv)
    if options.print_config:
        return _print_config(options)
    return run_entry(lambda report: run(options, report), die_with_parent=options.die_with_parent)


def options_of(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; ends the process with the usage if it does not fit."""
    parser = _parser()
    options = parser.parse_args(argv)
    missing = [f"--{name}" for name in ("home", "out") if getattr(options, name) is None]
    if missing and not options.print_config:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    return options


def run(options: argparse.Namespace, report: Report) -> dict[str, object]:
    """Trains as the options say; returns the summary."""
    config = preset(options.preset, options.set)
    _check_inside("--out", options.out)
    _check_inside("--continue-from", options.continue_from)
    store = open_home(options.home)
    manifest = load_manifest(store, options.manifest)
    packed = pack(store, manifest, "train", resolution_px=config.resolution_px)
    data = TrainingSet(packed.images, packed.labels, tuple(manifest.labels), manifest.digest)
    tracker = tracker_from_environment() if rank_of_environment() == 0 else NoTracker()
    with stop_signals() as stop_signal, system_metrics(tracker):
        return train(
            store,
            options.out,
            config,
            data=data,
            report=report,
            tracker=tracker,
            stop_signal=stop_signal,
            continue_from=options.continue_from,
            clock=options.clock,
        )


def _print_config(options: argparse.Namespace) -> int:
    try:
        config = preset(options.preset, options.set)
    except OmokageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(dataclasses.asdict(config), indent=2))
    return 0


def _check_inside(option: str, folder: str) -> None:
    if folder.startswith("/") or ".." in folder.split("/"):
        raise UsageError(
            f'{option} is "{folder}"; a folder under the home wanted, such as runs/one'
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models.train",
        description="Trains a generator. The same command again resumes from the last checkpoint. "
        "Under torchrun, each process takes a GPU and its share of each batch.",
        epilog="examples: python -m models.train --home var --out runs/first --preset demo "
        "--set batch=16 --set total_kimg=20; torchrun --standalone --nproc-per-node 4 "
        "-m models.train --home var --out runs/big --preset omokage",
    )
    add = parser.add_argument
    add("--home", metavar="DIR", help="root of the store (OMOKAGE_HOME)")
    add("--manifest", metavar="DIGEST", help="the face set (default: the newest)")
    add("--out", metavar="RELDIR", help="folder of this training, under the home")
    add(
        "--preset",
        default="demo",
        metavar="NAME",
        help=f"settings to start from: {', '.join(PRESETS)} (default: demo)",
    )
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a setting, as often as wanted",
    )
    add(
        "--print-config",
        action="store_true",
        help="print all settings of the preset, after --set, as JSON and end",
    )
    add(
        "--continue-from",
        default="",
        metavar="RELDIR",
        help="a training of the same settings and labels, on a smaller set perhaps, to start from",
    )
    add(
        "--clock",
        choices=list(CLOCKS),
        default="wall",
        help="what max_minutes counts: time on the wall, or the processor time of this process, "
        "which other work on the machine does not shorten; CPU only (default: wall)",
    )
    add(
        "--die-with-parent",
        type=int,
        nargs="?",
        const=0,
        metavar="PID",
        help="save and end when the process that started this one has gone",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
