"""`python -m models.tag`: trains, measures and applies a tagger of faces."""

import argparse
import dataclasses
import sys
from typing import Any

from models.io.entry_point import Report, run_entry
from models.tagger import commands
from models.tagger.model import TaggerConfig
from models.tagger.onnx import LAYOUTS, RANGES

DEFAULT_THRESHOLD = 0.25
COMMANDS = {
    "train": commands.train,
    "evaluate": commands.evaluate,
    "apply": commands.apply,
    "label": commands.label,
}


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = options_of(argv)
    if options.command == "apply" and options.paths:
        return commands.apply_to_pictures(options)
    return run_entry(lambda report: run(options, report), die_with_parent=options.die_with_parent)


def options_of(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; ends the process with the usage if it does not fit."""
    return _parser().parse_args(argv)


def run(options: argparse.Namespace, report: Report) -> dict[str, Any]:
    """Does what the options say; returns the summary."""
    return COMMANDS[options.command](options, report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models.tag",
        description="Trains a tagger of faces on those with tags, measures it, and labels others.",
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, what, example in (
        ("train", "train on the tagged faces of a home", "--home var --set total_kimg=40"),
        ("evaluate", "measure on the held-out faces", "--home var --model var/taggers/ID"),
        ("apply", "label untagged faces or any pictures", "--model var/taggers/ID faces/ --json"),
        ("label", "train if need be, label every untagged face of a home", "--home var"),
    ):
        one = subparsers.add_parser(
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}.",
            epilog=f"example: python -m models.tag {name} {example}",
        )
        _add_options(one, name)
    return parser


def _add_options(parser: argparse.ArgumentParser, command: str) -> None:
    add = parser.add_argument
    home = "root of the store (OMOKAGE_HOME)"
    if command == "apply":
        add("paths", nargs="*", metavar="PATH", help="pictures or folders of cropped faces")
        add("--home", metavar="DIR", help=f"{home}; its untagged faces are labelled")
        add("--json", action="store_true", help="a JSON line for each picture, all probabilities")
    else:
        add("--home", required=True, metavar="DIR", help=home)
    if command in ("train", "label"):
        add(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="override a setting of the training, as often as wanted; all: "
            + ", ".join(field.name for field in dataclasses.fields(TaggerConfig)),
        )
    if command in ("evaluate", "apply"):
        add("--model", metavar="DIR", help="folder of a tagger of ours")
        add("--device", default="auto", metavar="NAME", help="auto, cpu or cuda (default: auto)")
    if command in ("evaluate", "apply", "label"):
        _add_onnx_options(parser)
    if command == "evaluate":
        add("--out", metavar="RELDIR", help="folder of the report, under the home")
    if command != "apply":
        add(
            "--eval-frac",
            type=_part,
            default=0.1,
            metavar="X",
            help="part of the pictures that is held out, as in the manifest (default: 0.1)",
        )
    if command in ("apply", "label"):
        add(
            "--compute",
            default="processes",
            metavar="WHERE",
            help="who labels the faces of a home: distributed:ADDRESS, ray or ray:ADDRESS, as "
            "OMOKAGE_COMPUTE; this process for anything local (default: processes)",
        )
    add(
        "--threshold",
        type=_part,
        default=DEFAULT_THRESHOLD,
        metavar="X",
        help=f"probability from which a label counts (default: {DEFAULT_THRESHOLD:g})",
    )
    add(
        "--die-with-parent",
        type=int,
        nargs="?",
        const=0,
        metavar="PID",
        help="end when the process that started this one has gone",
    )


def _add_onnx_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--onnx", metavar="FILE", help="a tagger of your own, instead of ours")
    add("--tags", metavar="FILE", help="its tags: selected_tags.csv, or a text of one a row")
    add("--input-size", type=_side, metavar="PX", help="its input's side (default: as declared)")
    add("--layout", choices=LAYOUTS, help="order of its input's sides (default: as declared)")
    ranges = "; ".join(f"{name}: {meaning}" for name, meaning in RANGES.items())
    add("--range", choices=tuple(RANGES), help=f"{ranges} (default: bgr255 for nhwc, else rgb01)")
    add("--logits", action="store_true", help="its outputs are logits, not probabilities")


def _part(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f'"{text}" is no number between 0 and 1')
    return value


def _side(text: str) -> int:
    if not text.isdigit() or not 16 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError(f'"{text}" is no whole number from 16 to 4096')
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
