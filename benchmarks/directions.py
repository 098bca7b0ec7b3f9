"""`python -m benchmarks.directions`: a generator's directions as a table, and drawn on a sheet.

Prints the table of effects and side effects in Markdown on stderr, and one JSON line.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

from dataset.errors import UsageError
from dataset.store import Store
from models.io.generators import load_generator, typical_rows
from models.sampling.characters import characters, draw_characters
from models.sampling.directions import directions_of
from models.sampling.draw import grid, titled


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.directions", description=__doc__)
    add = parser.add_argument
    add("--generator", required=True, metavar="DIR", help="folder of an evaluated generator")
    add("--sheet", metavar="PNG", help="draw a character along each direction into this file")
    add("--seed", type=int, default=0, metavar="S", help="of that character (default: 0)")
    add("--amounts", default="-6,-4,-2,0,2,4,6", metavar="A,B", help="(default: -6,-4,-2,0,2,4,6)")
    options = parser.parse_args()
    generator = load_generator(options.generator)
    directions = directions_of(options.generator, generator)
    if directions is None:
        raise UsageError(f"{options.generator} has no directions: evaluate it first")
    print("| direction | effect | side effect |\n|---|---|---|", file=sys.stderr)
    for one in directions.found:
        print(f"| {one.name} | {one.effect:.2f} | {one.side_effect:.2f} |", file=sys.stderr)
    if options.sheet:
        amounts = [float(text) for text in options.amounts.split(",")]
        typical = typical_rows(options.generator, generator.spec.labels)
        labels = typical[[options.seed % len(typical)] * len(amounts)]
        rows = []
        for name in directions.names:
            shift = torch.stack([directions.shift([(name, amount)]) for amount in amounts])
            who = characters(generator.spec, [options.seed] * len(amounts), labels, shift=shift)
            rows.append(draw_characters(generator, who))
        titles = [name.replace("_", " ") for name in directions.names]
        sheet = grid(np.concatenate(rows), len(amounts))
        sheet = titled(sheet, titles, row_px=generator.spec.resolution_px)
        out = Path(options.sheet).absolute()
        with Store(out.parent).writing(out.name, durable=False) as file:
            sheet.save(file, "PNG")
    found = [one.facts() for one in directions.found]
    print(json.dumps({"benchmark": "directions", "value": len(found), "directions": found}))


if __name__ == "__main__":
    main()
