"""`python -m models.sample`: grids, tables, morphs, loops, sweeps and mixes of a generator."""

import argparse
import contextlib
import dataclasses
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from PIL import Image

from dataset.errors import UsageError
from dataset.store import Store
from models.families.base import GeneratorNet
from models.io.entry_point import Stopped, run_entry
from models.io.generators import load_generator, typical_rows
from models.labels import Rows, label_row, label_rows, split_names
from models.sampling.characters import Characters, characters
from models.sampling.clips import (
    Clip,
    around,
    loop,
    make_clip,
    morph,
    one_way,
    there_and_back,
)
from models.sampling.draw import (
    AS_THEY_COME,
    asked_labels,
    draw,
    drawing_facts,
    grid,
    laid_out,
    png_bytes,
    require_w,
)
from models.sampling.options import COMMANDS, PROG, parser
from models.sampling.tables import label_table, mixing_table, swap_table, sweep_table
from models.sampling.video import write_clip


def main(argv: list[str] | None = None, *, prog: str = PROG, generator: str = "") -> int:
    """Runs the command; returns its exit code.

    Without a command's name it draws a grid. generator is the folder that is drawn from unless
    --generator names one.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] not in (*COMMANDS, "-h", "--help"):
        words = ["grid", *words]
    options = parser(prog, generator).parse_args(words)
    with _stopped_by_sigterm():
        try:
            return run_entry(lambda _report: _TOOLS[options.command](options), die_with_parent=None)
        except KeyboardInterrupt:
            print(_STOPPED, file=sys.stderr)
            return 128 + signal.SIGINT


_STOPPED = "stopped; no unfinished file is left"


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Raises Stopped on SIGTERM, so that it, like Ctrl-C, leaves no unfinished file.

    Outside of the main thread, which alone gets signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, _frame: FrameType | None) -> None:
        raise Stopped(signum, _STOPPED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclasses.dataclass(frozen=True)
class Source:
    """The generator of a command with the words that its options say of labels."""

    folder: str
    generator: GeneratorNet

    @property
    def known(self) -> tuple[str, ...]:
        """The labels that the generator knows."""
        return self.generator.spec.labels

    def rows(self, text: str, seeds: Sequence[int]) -> Rows:
        """Returns label rows [N,L]: those of the text, or without any the seeds' typical ones."""
        names = split_names(text)
        if names:
            return label_rows([names] * len(seeds), self.known)
        typical = typical_rows(self.folder, self.known)
        return asked_labels([], seeds, known=self.known, typical=typical)

    def characters(self, text: str, seeds: Sequence[int]) -> Characters:
        """Returns the characters of seeds with the labels of the text, as `rows`."""
        return characters(self.generator.spec, seeds, self.rows(text, seeds))


def draw_grid(options: argparse.Namespace) -> dict[str, Any]:
    """Draws and writes a grid; returns what was drawn."""
    source = _source(options)
    seeds = _seeds(options)
    labels = source.rows(options.labels, seeds)
    pictures = draw(source.generator, labels, seeds, psi=options.psi, noise=options.noise)
    sheet = grid(pictures, min(len(seeds), options.columns))
    return _write_png(options, source, sheet, seeds=seeds, labels=[options.labels])


def draw_table(options: argparse.Namespace) -> dict[str, Any]:
    """Draws and writes a table of labels and seeds; returns what was drawn."""
    source = _source(options)
    seeds = _seeds(options)
    look = {"psi": options.psi, "noise": options.noise}
    rows = [split_names(text) for text in options.row]
    swapped = split_names(options.swap)
    if bool(rows) == bool(swapped):
        raise UsageError("a table wants either --row A,B for each of its rows, or --swap A,B,C")
    if rows:
        sheet = label_table(source.generator, rows, seeds, **look)
    else:
        label_row(swapped, source.known)
        typical = typical_rows(source.folder, source.known)
        sheet = swap_table(source.generator, typical, swapped, seeds=seeds, **look)
    labels = options.row or swapped
    return _write_png(options, source, sheet, seeds=seeds, labels=labels)


def draw_morph(options: argparse.Namespace) -> dict[str, Any]:
    """Draws and writes the way between two avatars or label sets; returns what was drawn."""
    to_seed = options.seed if options.to_seed is None else options.to_seed
    to_labels = options.to_labels or options.labels
    if (to_seed, to_labels) == (options.seed, options.labels):
        raise UsageError("a morph goes nowhere: name another --to-seed or other --to-labels")
    films, strips = _by_kind(options.out)
    source = _source(options)
    seeds = range(options.seed, options.seed + options.n)
    to_seeds = range(to_seed, to_seed + options.n)
    way = morph(
        source.generator,
        source.characters(options.labels, seeds),
        source.characters(to_labels, to_seeds),
        space=options.space,
        path=options.path,
        psi=options.psi,
    )
    facts = _facts(
        options,
        source,
        seeds=[*seeds, *to_seeds],
        labels=[text or AS_THEY_COME for text in (options.labels, to_labels)],
        space=options.space,
        path=options.path or "default",
    )
    summary: dict[str, Any] = {}
    if films:
        frames = _frames(options)
        times = there_and_back(frames) if options.back else one_way(frames)
        clip = _clip(options, source.generator, seeds, way, times)
        summary |= _write_film(options, clip, films, facts)
    if strips:
        times = one_way(max(2, options.steps))
        clip = _clip(options, source.generator, seeds, way, times)
        sheet = Image.fromarray(laid_out(np.stack(list(clip.frames())), len(times)))
        for strip in strips:
            _write(strip, png_bytes(sheet, facts))
    return summary | {"out": [str(path) for path in (*films, *strips)], "seed": options.seed}


def draw_loop(options: argparse.Namespace) -> dict[str, Any]:
    """Draws and writes a closed walk of each cell; returns what was drawn."""
    films, strips = _by_kind(options.out)
    if strips:
        raise UsageError(f"{strips[0].name}: a loop moves; .mp4 or .gif wanted")
    source = _source(options)
    seeds = _seeds(options)
    who = source.characters(options.labels, seeds)
    way = loop(source.generator, who, space=options.space, psi=options.psi)
    clip = _clip(options, source.generator, seeds, way, around(_frames(options)))
    facts = _facts(options, source, seeds=seeds, labels=[options.labels], space=options.space)
    summary = _write_film(options, clip, films, facts)
    return summary | {"out": [str(path) for path in films], "seed": seeds[0]}


def draw_sweep(options: argparse.Namespace) -> dict[str, Any]:
    """Draws and writes an avatar with some numbers swept; returns what was drawn."""
    source = _source(options)
    sheet = sweep_table(
        source.generator,
        source.characters(options.labels, [options.seed]),
        numbers=options.numbers,
        space=options.space,
        steps=options.steps,
        psi=options.psi,
        noise=options.noise,
    )
    return _write_png(
        options,
        source,
        sheet,
        seeds=[options.seed],
        labels=[options.labels],
        space=options.space,
        numbers=",".join(map(str, options.numbers)),
    )


def draw_mix(options: argparse.Namespace) -> dict[str, Any]:
    """Draws and writes a table of mixed styles; returns what was drawn."""
    source = _source(options)
    rows, columns = options.row_seeds, options.column_seeds
    sheet = mixing_table(
        source.generator,
        source.characters(options.labels, rows),
        source.characters(options.labels, columns),
        crossover=options.crossover,
        psi=options.psi,
        noise=options.noise,
    )
    crossover = options.crossover or source.generator.spec.w_layers // 2
    return _write_png(
        options,
        source,
        sheet,
        seeds=[*rows, *columns],
        labels=[options.labels],
        crossover=crossover,
    )


_TOOLS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "grid": draw_grid,
    "table": draw_table,
    "morph": draw_morph,
    "loop": draw_loop,
    "sweep": draw_sweep,
    "mix": draw_mix,
}


def _source(options: argparse.Namespace) -> Source:
    device = options.device
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f'--device "{device}": {str(error).splitlines()[0]}') from error
    generator = load_generator(options.generator, device=device)
    if options.truncation_centre != generator.truncation_centre:
        require_w(generator.spec, f"--truncation-centre {options.truncation_centre}")
        generator.truncation_centre = options.truncation_centre
    return Source(options.generator, generator)


def _seeds(options: argparse.Namespace) -> Sequence[int]:
    return options.seeds or range(options.seed, options.seed + options.n)


def _frames(options: argparse.Namespace) -> int:
    return max(2, round(float(options.seconds) * int(options.fps)))


def _by_kind(outs: Sequence[str]) -> tuple[list[Path], list[Path]]:
    paths = [Path(out).absolute() for out in outs]
    strips = [path for path in paths if path.suffix.lower() == ".png"]
    return [path for path in paths if path not in strips], strips


def _clip(
    options: argparse.Namespace,
    generator: GeneratorNet,
    seeds: Sequence[int],
    at: Any,
    times: Sequence[float],
) -> Clip:
    return make_clip(
        generator,
        seeds,
        at,
        times,
        columns=options.columns,
        cell_px=options.size,
        psi=options.psi,
        noise=options.noise,
    )


def _facts(
    options: argparse.Namespace,
    source: Source,
    *,
    seeds: Sequence[int],
    labels: Sequence[str],
    **more: object,
) -> dict[str, str]:
    centre = source.generator.truncation_centre
    if centre != GeneratorNet.truncation_centre:  # else the bytes stay what they were before it
        more["truncation centre"] = centre
    return drawing_facts(
        source.generator,
        tool=options.command,
        seeds=seeds,
        labels=labels,
        psi=options.psi,
        noise=options.noise,
        **more,
    )


def _write_png(
    options: argparse.Namespace,
    source: Source,
    sheet: Image.Image,
    *,
    seeds: Sequence[int],
    labels: Sequence[str],
    **more: object,
) -> dict[str, Any]:
    out = Path(options.out).absolute()
    _write(out, png_bytes(sheet, _facts(options, source, seeds=seeds, labels=labels, **more)))
    count = len(seeds)
    return {"out": str(out), "pictures": count, "seed": seeds[0], "psi": options.psi}


def _write(out: Path, content: bytes) -> None:
    Store(out.parent).write_bytes(out.name, content, durable=False)
    print(f"written: {out}", file=sys.stderr)


def _write_film(
    options: argparse.Namespace, clip: Clip, films: Sequence[Path], facts: dict[str, str]
) -> dict[str, Any]:
    write_clip(clip, films, fps=options.fps, facts=facts)
    for film in films:
        print(f"written: {film}", file=sys.stderr)
    return {"frames": len(clip.times), "fps": options.fps, "size": list(clip.size)}


if __name__ == "__main__":
    sys.exit(main())
