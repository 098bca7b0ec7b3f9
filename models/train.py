"""`python -m models.train`: trains a generator on a manifest of the store, or goes on with it."""

import argparse
import sys

from dataset.manifest import load_manifest
from dataset.packed import pack
from dataset.store import Store
from models.batches import local_store
from models.config import PRESETS, preset
from models.entry import Report, run_entry, stop_signals
from models.loop import TrainingSet, train
from models.tracking import tracker_from_environment


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = _parser().parse_args(argv)
    return run_entry(lambda report: run(options, report), die_with_parent=options.die_with_parent)


def run(options: argparse.Namespace, report: Report) -> dict[str, object]:
    """Trains as the options say; returns the summary."""
    config = preset(options.preset, options.set)
    store = Store(options.home)
    manifest = load_manifest(store, options.manifest)
    packed = pack(
        store, manifest, "train", resolution_px=config.resolution_px, into=local_store(store)
    )
    data = TrainingSet(packed.images, packed.labels, tuple(manifest.labels), manifest.digest)
    with stop_signals() as stop_signal:
        return train(
            store,
            options.out,
            config,
            data=data,
            report=report,
            tracker=tracker_from_environment(),
            stop_signal=stop_signal,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models.train",
        description="Trains a generator. The same command again goes on from the last checkpoint.",
        epilog="example: python -m models.train --home var --out runs/first --preset demo "
        "--set batch=16 --set total_kimg=20",
    )
    add = parser.add_argument
    add("--home", required=True, metavar="DIR", help="root of the store (OMOKAGE_HOME)")
    add("--manifest", metavar="DIGEST", help="the face set (default: the newest)")
    add("--out", required=True, metavar="RELDIR", help="folder of this training, under the home")
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
