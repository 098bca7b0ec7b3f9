"""What can be played with drawn characters: morphs, loops, sweeps, mixes of styles, tables."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.decode import Picture
from dataset.errors import UsageError
from models.sampling.characters import Characters, Points
from models.sampling.clips import (
    Clip,
    Frame,
    around,
    loop,
    morph,
    one_way,
    there_and_back,
)
from models.sampling.draw import SOFTWARE, grid, png_bytes, shortened, titled
from models.sampling.tables import mixing_table, sweep_table
from models.sampling.video import FPS_MAX as FPS_BY_END
from models.sampling.video import write_clip
from studio.character import Character, check_seed, drawn_from, known_labels
from studio.draw import (
    SPACES,
    UnbatchedGenerator,
    abilities,
    check_noise,
    check_psi,
    choice_named,
    draw_one,
    resolve,
)
from studio.model_source import OpenModel
from studio.recipe import amounts_of
from studio.validation import (
    FPS_MAX,
    FPS_MIN,
    FRAMES_MAX,
    MAX_CHARACTERS,
    MAX_PICTURES,
    SECONDS_MAX,
    STEPS_MAX,
    check_choice,
    check_number,
    check_whole,
)

Advance = Callable[[int], None]


def ignore(_pictures: int) -> None:
    """Does nothing: the progress of those who show none."""


@dataclasses.dataclass(frozen=True)
class DrawOptions:
    """How all pictures of a strip, sheet or film are drawn.

    Attributes:
        psi: truncation, 0 (the mean face) to 2; four decimals of it count.
        noise: "const", "none" or "random"; along a morph "random" is the first avatar's.
        space: what a morph, loop or sweep moves: "z", the latent, or "w", what it is mapped to.
        advance: called with the number of pictures that were finished since its last call; a film
            also calls it with 0 after each picture of a frame. What it raises ends the work.

    """

    psi: float = 1.0
    noise: str = "const"
    space: str = "z"
    advance: Advance = ignore


@dataclasses.dataclass(frozen=True)
class FilmOptions:
    """The files that a film is written to, .mp4 or .gif by their ends, and how long it is.

    Attributes:
        outs: all are written in one drawing.
        seconds: 0.1 to 30.
        fps: frames a second, 1 to 60, in a .gif to 50.
        back: whether a morph goes there and back, so that it closes to a loop.

    """

    outs: Sequence[Path]
    seconds: float
    fps: int = 24
    back: bool = False

    def frames(self) -> int:
        """Returns the number of frames; raises UsageError if they are too many or too quick."""
        most = min([FPS_MAX, *(FPS_BY_END.get(out.suffix.lower(), FPS_MAX) for out in self.outs)])
        rate = check_whole(self.fps, "the frames a second", low=FPS_MIN, high=most)
        length = check_number(self.seconds, "the length in seconds", low=0.1, high=SECONDS_MAX)
        frames = max(2, round(length * rate))
        if frames > FRAMES_MAX:
            raise UsageError(
                f"A film of {length:g} seconds with {rate} frames a second has {frames} frames; at "
                f"most {FRAMES_MAX} are drawn: make it shorter, or take fewer frames a second."
            )
        return frames


PLAIN = DrawOptions()


@dataclasses.dataclass(frozen=True)
class Sheet:
    """Pictures laid out as one, and what they were made from, as texts by name."""

    picture: Image.Image
    facts: dict[str, str]

    def png(self) -> bytes:
        """Returns the sheet as a PNG that says what it was made from."""
        return png_bytes(self.picture, self.facts)


def morph_strip(
    model: OpenModel, a: Character, b: Character, options: DrawOptions = PLAIN, *, steps: int = 10
) -> list[Picture]:
    """Draws the way from a to b in `steps` pictures [R,R,3], both ends among them.

    Raises UsageError for what the model cannot do or limits that are exceeded.
    """
    steps = check_whole(steps, "the number of pictures", low=2, high=STEPS_MAX)
    way, options = _morph(model, a, b, options)
    return list(_clip(model, [a], way, one_way(steps), options).frames())


def write_morph(
    model: OpenModel,
    a: Character,
    b: Character,
    film: FilmOptions,
    options: DrawOptions = PLAIN,
) -> None:
    """Writes the way from a to b as films.

    What `advance` raises ends the film, and then no file is left. Raises UsageError for what the
    model cannot do or limits that are exceeded; StoreError if a file cannot be written.
    """
    frames = film.frames()
    way, options = _morph(model, a, b, options)
    times = there_and_back(frames) if film.back else one_way(frames)
    clip = _clip(model, [a], way, times, options)
    about = facts(model, "morph", [a, b], options, space=options.space)
    write_clip(clip, film.outs, fps=film.fps, facts=about)


def write_loop(
    model: OpenModel,
    characters: Sequence[Character],
    film: FilmOptions,
    options: DrawOptions = PLAIN,
) -> None:
    """Writes films of characters that wander and come back, side by side, as `write_morph` does."""
    check_whole(len(characters), "the number of avatars", low=1, high=MAX_CHARACTERS)
    frames = film.frames()
    who, options = _checked(model, "loop", characters, options)
    way = loop(model.generator, who, space=options.space, psi=options.psi)
    clip = _clip(model, characters, way, around(frames), options)
    about = facts(model, "loop", characters, options, space=options.space)
    write_clip(clip, film.outs, fps=film.fps, facts=about)


def sweep(
    model: OpenModel, character: Character, options: DrawOptions = PLAIN, *, number: int = 0
) -> Sheet:
    """Draws a character with one number of its z or w at 20 values, side by side.

    Raises UsageError for a number that there is not, or w where the model has none.
    """
    who, options = _checked(model, "sweep", [character], options)
    space = options.space
    size = model.spec.z_dim if space == "z" else model.spec.w_dim
    number = check_whole(number, f"the number of {space}", low=0, high=size - 1)
    drawn = sweep_table(
        _drawer(model, options),
        who,
        numbers=[number],
        space=space,
        psi=options.psi,
        noise=options.noise,
    )
    about = facts(model, "sweep", [character], options, space=space, number=number)
    return Sheet(drawn, about)


def mix(
    model: OpenModel,
    rows: Sequence[Character],
    columns: Sequence[Character],
    options: DrawOptions = PLAIN,
    *,
    crossover: int = 0,
) -> Sheet:
    """Draws avatars with the coarse styles of a row's and the fine styles of a column's character.

    The layers before `crossover` are the row's; 0 crosses in the middle. The first column and row
    show the characters themselves. Raises UsageError if the model cannot mix, has no such layer,
    or too many are requested.
    """
    check_sheet(len(rows), len(columns))
    characters = [*rows, *columns]
    _, options = _checked(model, "mix", characters, options)
    layers = model.spec.w_layers
    what = f"the layer where the styles cross (0: the middle one, {layers // 2})"
    crossover = check_whole(crossover, what, low=0, high=layers - 1) or layers // 2
    drawn = mixing_table(
        _drawer(model, options),
        drawn_from(model, rows),
        drawn_from(model, columns),
        crossover=crossover,
        psi=options.psi,
        noise=options.noise,
    )
    about = facts(model, "mix", characters, options, rows=len(rows), crossover=crossover)
    return Sheet(drawn, about)


def table(
    model: OpenModel,
    row_labels: Sequence[Sequence[str]],
    seeds: Sequence[int],
    options: DrawOptions = PLAIN,
) -> Sheet:
    """Draws a table with the labels of a row down and seeds across, titled at its left.

    A column keeps its character: of its own labels, a row replaces the groups that it names, as
    `choice_named` and `resolve` do. Each picture is that of `draw_one`.
    """
    check_sheet(len(row_labels), len(seeds))
    options = _able(model, "table", options)
    choices = [choice_named(labels, model) for labels in row_labels]
    cells = [(seed, resolve(model, choice, seed)) for choice in choices for seed in seeds]
    pictures = []
    for seed, labels in cells:
        character = Character(seed, labels)
        pictures.append(draw_one(model, character, psi=options.psi, noise=options.noise))
        options.advance(1)
    titles = [
        " ".join(known_labels(labels, model.labels)).replace("_", " ") or "any"
        for labels in row_labels
    ]
    drawn = grid(np.stack(pictures), len(seeds))
    sheet = titled(drawn, titles, row_px=model.spec.resolution_px)
    about = facts(model, "table", [], options)
    about["omokage seeds"] = shortened([check_seed(seed) for seed in seeds])
    about["omokage labels"] = "; ".join(titles)
    return Sheet(sheet, about)


def facts(
    model: OpenModel,
    tool: str,
    characters: Sequence[Character],
    options: DrawOptions,
    **more: object,
) -> dict[str, str]:
    """Returns what a file was made from, as texts by name; `more` are the tool's own settings."""
    about = {
        "model": model.name,
        "generator": model.digest,
        "tool": tool,
        "seeds": ",".join(str(character.seed) for character in characters),
        "labels": "; ".join(", ".join(one.labels) or "none" for one in characters),
        "psi": f"{options.psi:g}",
        "noise": options.noise,
        **_amounts(characters),
        **{name: str(value) for name, value in more.items()},
    }
    return {"Software": SOFTWARE, **{f"omokage {name}": text for name, text in about.items()}}


def _amounts(characters: Sequence[Character]) -> dict[str, str]:
    """Returns what some of the characters have beside seeds and labels, as texts by name."""
    own = [amounts_of(one) | ({"latent": one.latent} if one.latent else {}) for one in characters]
    names = dict.fromkeys(name for texts in own for name in texts)
    return {name: "; ".join(texts.get(name, "none") for texts in own) for name in names}


@dataclasses.dataclass(frozen=True)
class _CountedClip(Clip):
    """A clip that counts its frames for whoever shows its progress."""

    advance: Advance = ignore

    def frames(self) -> Iterator[Frame]:
        """Draws all frames [H,W,3] in order and counts them."""
        for frame in super().frames():
            yield frame
            self.advance(1)


def _clip(
    model: OpenModel,
    characters: Sequence[Character],
    at: Callable[[float], Points],
    times: Sequence[float],
    options: DrawOptions,
) -> Clip:
    return _CountedClip(
        UnbatchedGenerator(model.generator, lambda: options.advance(0)),
        [character.seed for character in characters],
        at,
        times,
        columns=math.ceil(math.sqrt(len(characters))),
        cell_px=model.spec.resolution_px,
        psi=options.psi,
        noise=options.noise,
        advance=options.advance,
    )


def _drawer(model: OpenModel, options: DrawOptions) -> UnbatchedGenerator:
    return UnbatchedGenerator(model.generator, lambda: options.advance(1))


def _morph(
    model: OpenModel, a: Character, b: Character, options: DrawOptions
) -> tuple[Callable[[float], Points], DrawOptions]:
    _, options = _checked(model, "morph", [a, b], options)
    if a == b:
        raise UsageError(
            "Both ends of the morph are the same avatar: choose two that differ in seed or labels."
        )
    ends = (drawn_from(model, [end]) for end in (a, b))
    return morph(model.generator, *ends, space=options.space, psi=options.psi), options


def _checked(
    model: OpenModel, tool: str, who: Sequence[Character], options: DrawOptions
) -> tuple[Characters, DrawOptions]:
    """Returns what characters are drawn from, and the options with psi as it is drawn."""
    options = _able(model, tool, options)
    return drawn_from(model, who), options


def _able(model: OpenModel, tool: str, options: DrawOptions) -> DrawOptions:
    """Returns the options with psi as it is drawn; raises UsageError for what cannot be drawn."""
    check_choice(options.space, "the space", SPACES)
    able = abilities(model)
    reason = able[tool] or (able.get(f"{tool}_w") if options.space == "w" else "")
    if reason:
        raise UsageError(reason)
    psi, noise = check_psi(options.psi), check_noise(model, options.noise)
    return dataclasses.replace(options, psi=psi, noise=noise)


def check_sheet(rows: int, columns: int) -> None:
    """Raises UsageError if a sheet would have no picture, or too many."""
    if rows < 1 or columns < 1 or rows * columns > MAX_PICTURES:
        raise UsageError(
            f"{rows} rows and {columns} columns are asked for; at least one of each, and at most "
            f"{MAX_PICTURES} pictures together, are drawn."
        )
