"""The options of `python -m models.sample`, a command a tool, each with an example."""

import argparse
from collections.abc import Callable

from models.families.base import CENTRES
from models.sampling.clips import PATHS, SPACES
from models.sampling.draw import NOISES
from models.sampling.tables import SWEEP_STEPS

PROG = "python -m models.sample"
COMMANDS = {
    "grid": "pictures of some seeds",
    "table": "labels down, seeds across",
    "morph": "a film, or a strip, from one avatar or label set to another",
    "loop": "a film of avatars that wander and come back",
    "sweep": "one number of the latent through its values",
    "mix": "coarse styles of some avatars, fine styles of others",
}
SEED_MAX = 2**62

Add = Callable[..., argparse.Action]


def parser(prog: str = PROG, generator: str = "") -> argparse.ArgumentParser:
    """Returns the parser of all commands; generator is the default folder, "" asks for one."""
    made = argparse.ArgumentParser(
        prog=prog,
        description="Draws with a trained generator. Without a command it draws a grid.",
        epilog=f"{prog} COMMAND --help says more, with examples.",
    )
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, purpose in COMMANDS.items():
        where = "" if generator else "--generator var/generators/ID "
        own = commands.add_parser(
            name,
            help=purpose,
            description=f"Draws {purpose}.",
            epilog="examples:\n"
            + "".join(f"  {prog} {name} {where}{words}\n" for words in _EXAMPLES[name]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _source(own, generator)
        _OPTIONS[name](own.add_argument)
    return made


_EXAMPLES = {
    "grid": (
        "--labels blonde_hair,blue_eyes --n 16 --out grid.png",
        "--seeds 3,14-17 --psi 0.7 --out chosen.png",
    ),
    "table": (
        "--row blonde_hair,blue_eyes --row black_hair --n 8 --out table.png",
        "--swap blonde_hair,black_hair,blue_hair --n 8 --out hair.png",
    ),
    "morph": (
        "--seed 3 --to-seed 7 --out morph.mp4 --out morph.gif",
        "--seed 3 --labels blonde_hair --to-labels black_hair --back --out dyed.gif",
        "--seed 3 --to-seed 7 --steps 8 --out morph.png",
    ),
    "loop": ("--n 6 --columns 3 --seconds 6 --out loop.mp4 --out loop.gif",),
    "sweep": ("--seed 3 --numbers 0,1,2 --out sweep.png",),
    "mix": ("--row-seeds 0-3 --column-seeds 10-15 --crossover 4 --out mix.png",),
}


def _source(own: argparse.ArgumentParser, generator: str) -> None:
    own.add_argument(
        "--generator",
        required=not generator,
        default=generator,
        metavar="DIR",
        help="folder of a generator, of a checkpoint or of a training"
        + (" (default: the champion's, of $OMOKAGE_HOME or of --home PATH)" if generator else ""),
    )
    own.add_argument(
        "--device", default="cpu", metavar="D", help="cpu, cuda or cuda:N (default: cpu)"
    )
    own.add_argument(
        "--psi",
        type=psi,
        default=1.0,
        metavar="X",
        help="truncation, 1 = full variety, 0 = the mean face of the labels (default: 1)",
    )
    own.add_argument(
        "--truncation-centre",
        choices=CENTRES,
        default=CENTRES[0],
        help="what --psi truncates towards: the mean w of the labels, or the global mean w_avg, as "
        "NVIDIA's code does (default: labels; without labels both are the same)",
    )
    own.add_argument(
        "--noise",
        choices=NOISES,
        default="const",
        help="noise maps: the generator's own, none, or drawn anew by each seed (default: const)",
    )


def _grid(add: Add) -> None:
    _labels(add)
    _seeds(add, n=16)
    _columns(add, 8)
    _picture(add)


def _table(add: Add) -> None:
    rows = add(
        "--row",
        action="append",
        default=[],
        metavar="A,B",
        help="labels of a row; once for each row",
    )
    add(
        "--swap",
        default="",
        metavar="A,B,C",
        help=f"instead of {rows.option_strings[0]}: a row for each of these labels, on characters "
        "that keep their other labels",
    )
    _seeds(add, n=8)
    _picture(add)


def _morph(add: Add) -> None:
    _labels(add)
    add("--to-labels", default="", metavar="A,B", help="labels at the end (default: --labels)")
    add("--seed", type=seed, default=0, metavar="S", help="avatar at the start (default: 0)")
    add(
        "--to-seed",
        type=seed,
        default=None,
        metavar="S",
        help="avatar at the end (default: --seed)",
    )
    add(
        "--n",
        type=count,
        default=1,
        metavar="N",
        help="avatars side by side; number i goes from seed S+i (default: 1)",
    )
    _columns(add, 8)
    _space(add)
    add(
        "--path",
        choices=tuple(PATHS),
        default="",
        help="straight line or arc (default: arc for normal z, else line)",
    )
    add("--back", action="store_true", help="there and back, so that the film closes to a loop")
    add("--steps", type=count, default=10, metavar="N", help="pictures of a PNG (default: 10)")
    _film(add, ends=".mp4, .gif or .png (a strip)")


def _loop(add: Add) -> None:
    _labels(add)
    _seeds(add, n=6)
    _columns(add, 3)
    _space(add)
    _film(add, ends=".mp4 or .gif")


def _sweep(add: Add) -> None:
    _labels(add)
    add("--seed", type=seed, default=0, metavar="S", help="the avatar (default: 0)")
    add(
        "--numbers",
        type=seeds,
        default=[0],
        metavar="I,J",
        help="which numbers of z or w, a row each, as 0,5 or 0-9 (default: 0)",
    )
    add(
        "--steps",
        type=count,
        default=SWEEP_STEPS,
        metavar="N",
        help=f"values of each (default: {SWEEP_STEPS})",
    )
    _space(add)
    _picture(add)


def _mix(add: Add) -> None:
    _labels(add)
    add("--row-seeds", type=seeds, default=[0, 1, 2], metavar="S", help="default: 0-2")
    add("--column-seeds", type=seeds, default=[3, 4, 5, 6, 7], metavar="S", help="default: 3-7")
    add(
        "--crossover",
        type=count,
        default=0,
        metavar="L",
        help="first layer that takes the column's style (default: the middle one)",
    )
    _picture(add)


_OPTIONS: dict[str, Callable[[Add], None]] = {
    "grid": _grid,
    "table": _table,
    "morph": _morph,
    "loop": _loop,
    "sweep": _sweep,
    "mix": _mix,
}


def _labels(add: Add) -> None:
    add("--labels", default="", metavar="A,B", help="labels to ask for (default: as they come)")


def _seeds(add: Add, *, n: int) -> None:
    add("--n", type=count, default=n, metavar="N", help=f"number of seeds (default: {n})")
    add("--seed", type=seed, default=0, metavar="S", help="picture i uses seed S+i (default: 0)")
    add("--seeds", type=seeds, default=[], metavar="S,T", help="these seeds instead: 3,14-17")


def _columns(add: Add, columns: int) -> None:
    add(
        "--columns",
        type=count,
        default=columns,
        metavar="N",
        help=f"pictures a row (default: {columns})",
    )


def _space(add: Add) -> None:
    add(
        "--space",
        choices=SPACES,
        default="z",
        help="move the latent z, or the w that it is mapped to (default: z)",
    )


def _picture(add: Add) -> None:
    add("--out", required=True, metavar="FILE", help="PNG to write")


def _film(add: Add, *, ends: str) -> None:
    add("--seconds", type=seconds, default=4.0, metavar="X", help="length (default: 4)")
    add("--fps", type=count, default=30, metavar="N", help="frames a second (default: 30)")
    add("--size", type=count, default=0, metavar="PX", help="side of a cell (default: as drawn)")
    add(
        "--out",
        action="append",
        required=True,
        metavar="FILE",
        help=f"{ends}; may be given more than once",
    )


def count(text: str) -> int:
    """Reads a number from 1 to 10000."""
    if not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f'"{text}" is no number from 1 to 10000')
    return int(text)


def seed(text: str) -> int:
    """Reads a seed."""
    if not text.isdigit() or int(text) >= SEED_MAX:
        raise argparse.ArgumentTypeError(f'"{text}" is no seed: a whole number from 0 is wanted')
    return int(text)


def psi(text: str) -> float:
    """Reads a truncation from 0 to 2."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 2:
        raise argparse.ArgumentTypeError(f'"{text}" is no truncation from 0 to 2')
    return found


def seconds(text: str) -> float:
    """Reads a film's length."""
    try:
        length = float(text)
    except ValueError:
        length = 0.0
    if not 0.1 <= length <= 600:
        raise argparse.ArgumentTypeError(f'"{text}" is no length from 0.1 to 600 seconds')
    return length


def seeds(text: str) -> list[int]:
    """Reads `3,14-17` as 3, 14, 15, 16, 17; at most 10,000."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        start = seed(first)
        end = seed(last) if dash else start
        if end < start or len(found) + end - start >= 10_000:
            raise argparse.ArgumentTypeError(
                f'"{part}" is no range of at most 10,000 numbers, such as 14-17'
            )
        found += range(start, end + 1)
    return found
