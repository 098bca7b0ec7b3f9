"""Writes the measured part of docs/comparison.md from the comparisons of a home.

`python -m benchmarks.comparison_page --home var-faces` takes the newest comparison of each built-in
set that the page has marks for, puts its report between these marks, `<!-- SET -->` and
`<!-- end of SET -->`, its pictures into docs/images/comparison/ and its figures into
benchmarks/results/. The last line on stdout is JSON.
"""

import argparse
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.process import REPOSITORY
from dataset.errors import EmptyStageError, OmokageError, UsageError
from dataset.store import Store
from models.comparison.report import CURVES, GRIDS, markdown
from models.comparison.sets import SETS

PAGE = "docs/comparison.md"
IMAGES = "images/comparison"  # from the page's folder
RESULTS = "results.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        written = write_page(Store(options.home), Path(options.to))
    except OmokageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps({"page": PAGE, "best": written}), flush=True)
    return 0


def write_page(home: Store, root: Path) -> dict[str, str | None]:
    """Fills the page below `root`; returns the best entrant of each set that was found.

    Raises EmptyStageError if the home holds no comparison of a set, UsageError if the page has no
    place for any.
    """
    there = newest(home)
    if not there:
        raise EmptyStageError(f"{home.root} holds no comparison of one set that has ended")
    text = (root / PAGE).read_text()
    found = {name: one for name, one in there.items() if _marks(name)[0] in text}
    if not found:
        raise UsageError(f"{PAGE} has no <!-- SET --> for a report of {', '.join(sorted(there))}")
    page, results = Store((root / PAGE).parent), Store(root / "benchmarks" / "results")
    for name, (folder, result) in sorted(found.items()):
        pictures = {}
        for picture in (CURVES, GRIDS):
            if home.exists(f"{folder}/{picture}"):
                pictures[picture] = f"{IMAGES}/{name}-{picture}"
                page.write_bytes(pictures[picture], home.read_bytes(f"{folder}/{picture}"))
        text = filled(text, name, markdown(result, pictures=pictures))
        machine = f"cpu x1 of {os.cpu_count()} ({platform.machine()})"
        results.write_json(f"comparison-{name}.json", {**result, "machine": machine})
    page.write_bytes(Path(PAGE).name, text.encode())
    return {name: result["best"] for name, (_, result) in sorted(found.items())}


def newest(home: Store) -> dict[str, tuple[str, dict[str, Any]]]:
    """Returns folder and results of the newest comparison of each set by itself."""
    by_set: dict[str, tuple[str, dict[str, Any]]] = {}
    for folder in sorted(_folders(home), key=lambda one: _written(home, one)):
        result = home.read_json(f"{folder}/{RESULTS}")
        sets = result["plan"]["sets"]
        if len(sets) == 1 and len(result["entrants"]) == len(SETS.get(sets[0], ())):
            by_set[sets[0]] = (folder, result)
    return by_set


def filled(text: str, name: str, report: str) -> str:
    """Returns the page with the report between the marks of that name."""
    marks = _marks(name)
    pattern = re.compile(f"{re.escape(marks[0])}.*?{re.escape(marks[1])}", re.DOTALL)
    if not pattern.search(text):
        raise UsageError(f"{PAGE} has no {marks[1]} after {marks[0]}")
    return pattern.sub(lambda _: f"{marks[0]}\n{report}{marks[1]}", text, count=1)


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name} -->", f"<!-- end of {name} -->"


def _folders(home: Store) -> Iterable[str]:
    names = home.names("comparisons")
    return [f"comparisons/{n}" for n in names if home.exists(f"comparisons/{n}/{RESULTS}")]


def _written(home: Store, folder: str) -> float:
    return home.state.local(f"{folder}/{RESULTS}").stat().st_mtime


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.comparison_page",
        description=(__doc__ or "").splitlines()[0],
    )
    add = parser.add_argument
    add("--home", required=True, metavar="DIR", help="a local home with comparisons")
    add("--to", default=str(REPOSITORY), metavar="DIR", help="the repository (default: this one)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
