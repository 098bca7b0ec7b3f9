"""`python -m models.evaluate`: measures a generator under the pinned protocol."""

import sys

from models.entry import run_entry
from models.evaluation.command import options_of, run


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = options_of(argv)
    return run_entry(lambda report: run(options, report), die_with_parent=options.die_with_parent)


if __name__ == "__main__":
    sys.exit(main())
