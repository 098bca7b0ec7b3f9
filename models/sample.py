"""`python -m models.sample`: draws a grid of faces with asked-for labels."""

import argparse
import io
import sys
from pathlib import Path

from dataset.store import Store
from models.entry import run_entry
from models.labels import split_names
from models.sampling import asked_labels, draw, grid, load_generator, typical_rows


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = _parser().parse_args(argv)
    return run_entry(lambda _report: sample(options), die_with_parent=None)


def sample(options: argparse.Namespace) -> dict[str, object]:
    """Draws and writes the grid; returns what was drawn."""
    generator = load_generator(options.generator)
    known = generator.spec.labels
    seeds = range(options.seed, options.seed + options.n)
    typical = typical_rows(options.generator, known)
    labels = asked_labels(split_names(options.labels), seeds, known=known, typical=typical)
    pictures = draw(generator, labels, seeds, psi=options.psi)
    sheet = io.BytesIO()
    grid(pictures, min(options.n, options.columns)).save(sheet, "PNG")
    out = Path(options.out).absolute()
    Store(out.parent).write_bytes(out.name, sheet.getvalue(), durable=False)
    print(f"{options.n} pictures in {out}", file=sys.stderr)
    return {"out": str(out), "pictures": options.n, "seed": options.seed, "psi": options.psi}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models.sample",
        description="Draws faces with a trained generator.",
        epilog="example: python -m models.sample --generator var/runs/demo/generator "
        "--labels blonde_hair,blue_eyes --n 16 --out grid.png",
    )
    add = parser.add_argument
    add("--generator", required=True, metavar="DIR", help="folder of a generator")
    add("--labels", default="", metavar="A,B", help="labels to ask for (default: as they come)")
    add("--n", type=_count, default=16, metavar="N", help="number of pictures (default: 16)")
    add("--seed", type=int, default=0, metavar="S", help="picture i uses seed S+i (default: 0)")
    add(
        "--psi",
        type=float,
        default=1.0,
        metavar="X",
        help="truncation, 1 = full variety, 0 = the mean face (default: 1)",
    )
    add("--columns", type=_count, default=8, metavar="N", help="pictures a row (default: 8)")
    add("--out", required=True, metavar="FILE", help="PNG to write")
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f'"{text}" is no number from 1 to 10000')
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
