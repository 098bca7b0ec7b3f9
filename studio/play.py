"""What can be played with drawn characters: morphs, loops, sweeps, mixes of styles, tables."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.decode import Picture
from dataset.errors import UsageError
from models.labels import Rows, label_rows
from models.sampling.clips import (
    Clip,
    Ends,
    Frame,
    Points,
    around,
    loop,
    morph,
    one_way,
    there_and_back,
)
from models.sampling.draw import grid, titled
from models.sampling.png import SOFTWARE, png_bytes, shortened
from models.sampling.tables import mixing_table, sweep_table
from models.sampling.video import FPS_MAX as FPS_BY_END
from models.sampling.video import write_clip
from studio.draw import (
    SPACES,
    UnbatchedGenerator,
    abilities,
    check_noise,
    check_psi,
    check_seed,
    choice_named,
    draw_one,
    known_labels,
    resolve,
)
from studio.model_source import OpenModel
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


@dataclasses.dataclass(frozen=True)
class Sheet:
    """Pictures laid out as one, and what they were made from, as texts by name."""

    picture: Image.Image
    facts: dict[str, str]

    def png(self) -> bytes:
        """Returns the sheet as a PNG that says what it was made from."""
        return png_bytes(self.picture, self.facts)


@dataclasses.dataclass(frozen=True)
class Character:
    """A character of a model: its seed, and all labels that it has."""

    seed: int
    labels: tuple[str, ...]


def morph_strip(
    model: OpenModel,
    a: Character,
    b: Character,
    *,
    steps: int = 10,
    space: str = "z",
    psi: float = 1.0,
    noise: str = "const",
) -> list[Picture]:
    """Draws the way from a to b in `steps` pictures [R,R,3], both ends among them.

    space: "z" moves the latent, "w" what it is mapped to. Noise "random" is a's all the way.
    Raises UsageError for what the model cannot do or limits that are exceeded.
    """
    steps = check_whole(steps, "the number of pictures", low=2, high=STEPS_MAX)
    way = _morph(model, a, b, space=space, psi=psi, noise=noise)
    return list(_clip(model, [a], way, one_way(steps), psi=psi, noise=noise).frames())


def write_morph(
    model: OpenModel,
    a: Character,
    b: Character,
    *,
    outs: Sequence[Path],
    seconds: float = 3.0,
    fps: int = 24,
    back: bool = False,
    space: str = "z",
    psi: float = 1.0,
    noise: str = "const",
    advance: Advance | None = None,
) -> None:
    """Writes the way from a to b as films, .mp4 or .gif by the ends of `outs`, in one drawing.

    back: there and back, so that the film closes to a loop. advance is called with the number of
    frames that were drawn since its last call, after every single picture, so also with 0; what
    it raises ends the film, and then no file is left. Raises UsageError for what the model cannot
    do or limits that are exceeded; StoreError if a file cannot be written.
    """
    frames = frame_count(seconds, fps, outs)
    way = _morph(model, a, b, space=space, psi=psi, noise=noise)
    times = there_and_back(frames) if back else one_way(frames)
    clip = _clip(model, [a], way, times, psi=psi, noise=noise, advance=advance)
    about = facts(model, "morph", [a, b], psi=psi, noise=noise, space=space)
    write_clip(clip, outs, fps=fps, facts=about)


def write_loop(
    model: OpenModel,
    characters: Sequence[Character],
    *,
    outs: Sequence[Path],
    seconds: float = 4.0,
    fps: int = 24,
    space: str = "z",
    psi: float = 1.0,
    noise: str = "const",
    advance: Advance | None = None,
) -> None:
    """Writes films, .mp4 or .gif, of characters that wander and come back, side by side.

    The rest is as in `write_morph`.
    """
    check_whole(len(characters), "the number of avatars", low=1, high=MAX_CHARACTERS)
    frames = frame_count(seconds, fps, outs)
    rows = _checked(model, characters, psi=psi, noise=noise)
    _check_space(model, "loop", space)
    seeds = [character.seed for character in characters]
    way = loop(model.generator, seeds, rows, space=space, psi=psi)
    clip = _clip(model, characters, way, around(frames), psi=psi, noise=noise, advance=advance)
    about = facts(model, "loop", characters, psi=psi, noise=noise, space=space)
    write_clip(clip, outs, fps=fps, facts=about)


def frame_count(seconds: object, fps: object, outs: Sequence[Path] = ()) -> int:
    """Returns the frames of a film; raises UsageError if it is too long or too quick."""
    most = min([FPS_MAX, *(FPS_BY_END.get(out.suffix.lower(), FPS_MAX) for out in outs)])
    rate = check_whole(fps, "the frames a second", low=FPS_MIN, high=most)
    length = check_number(seconds, "the length in seconds", low=0.1, high=SECONDS_MAX)
    frames = max(2, round(length * rate))
    if frames > FRAMES_MAX:
        raise UsageError(
            f"A film of {length:g} seconds with {rate} frames a second has {frames} frames; at "
            f"most {FRAMES_MAX} are drawn: make it shorter, or take fewer frames a second."
        )
    return frames


def sweep(
    model: OpenModel,
    character: Character,
    *,
    number: int = 0,
    space: str = "z",
    psi: float = 1.0,
    noise: str = "const",
    advance: Advance | None = None,
) -> Sheet:
    """Draws a character with one number of its z or w at 20 values, side by side.

    advance is called for each finished picture; what it raises ends the work. Raises UsageError for
    a number that there is not, or w where the model has none.
    """
    rows = _checked(model, [character], psi=psi, noise=noise)
    _check_space(model, "sweep", space)
    size = model.spec.z_dim if space == "z" else model.spec.w_dim
    number = check_whole(number, f"the number of {space}", low=0, high=size - 1)
    drawn = sweep_table(
        _drawer(model, advance),
        character.seed,
        rows[0],
        numbers=[number],
        space=space,
        psi=check_psi(psi),
        noise=noise,
    )
    about = facts(model, "sweep", [character], psi=psi, noise=noise, space=space, number=number)
    return Sheet(drawn, about)


def mix(
    model: OpenModel,
    rows: Sequence[Character],
    columns: Sequence[Character],
    *,
    crossover: int = 0,
    psi: float = 1.0,
    noise: str = "const",
    advance: Advance | None = None,
) -> Sheet:
    """Draws avatars with the coarse styles of a row's and the fine styles of a column's character.

    The layers before `crossover` are the row's; 0 crosses in the middle. The first column and row
    show the characters themselves. advance is as in `sweep`. Raises UsageError if the model
    cannot mix, has no such layer, or too many are requested.
    """
    reason = abilities(model)["mix"]
    if reason:
        raise UsageError(reason)
    check_sheet(len(rows), len(columns))
    both = _checked(model, [*rows, *columns], psi=psi, noise=noise)
    layers = model.spec.w_layers
    what = f"the layer where the styles cross (0: the middle one, {layers // 2})"
    crossover = check_whole(crossover, what, low=0, high=layers - 1) or layers // 2
    drawn = mixing_table(
        _drawer(model, advance),
        [character.seed for character in rows],
        [character.seed for character in columns],
        row_labels=both[: len(rows)],
        column_labels=both[len(rows) :],
        crossover=crossover,
        psi=check_psi(psi),
        noise=noise,
    )
    characters = [*rows, *columns]
    about = facts(
        model, "mix", characters, psi=psi, noise=noise, rows=len(rows), crossover=crossover
    )
    return Sheet(drawn, about)


def table(
    model: OpenModel,
    row_labels: Sequence[Sequence[str]],
    seeds: Sequence[int],
    *,
    psi: float = 1.0,
    noise: str = "const",
    advance: Advance | None = None,
) -> Sheet:
    """Draws a table with the labels of a row down and seeds across, titled at its left.

    A column keeps its character: of its own labels, a row replaces the groups that it names, as
    `choice_named` and `resolve` do. Each picture is that of `draw_one`. advance is as in `sweep`.
    """
    reason = abilities(model)["table"]
    if reason:
        raise UsageError(reason)
    check_sheet(len(row_labels), len(seeds))
    psi, noise = check_psi(psi), check_noise(model, noise)
    choices = [choice_named(labels, model) for labels in row_labels]
    cells = [(seed, resolve(model, choice, seed)) for choice in choices for seed in seeds]
    pictures = []
    for seed, labels in cells:
        pictures.append(draw_one(model, seed=seed, labels=labels, psi=psi, noise=noise))
        if advance:
            advance(1)
    titles = [
        " ".join(known_labels(labels, model.labels)).replace("_", " ") or "any"
        for labels in row_labels
    ]
    drawn = grid(np.stack(pictures), len(seeds))
    sheet = titled(drawn, titles, row_px=model.spec.resolution_px)
    about = facts(model, "table", [], psi=psi, noise=noise)
    about["omokage seeds"] = shortened([check_seed(seed) for seed in seeds])
    about["omokage labels"] = "; ".join(titles)
    return Sheet(sheet, about)


def facts(
    model: OpenModel,
    tool: str,
    characters: Sequence[Character],
    *,
    psi: float,
    noise: str,
    **more: object,
) -> dict[str, str]:
    """Returns what a file was made from, as texts by name; `more` are the tool's own settings."""
    about = {
        "model": model.name,
        "generator": model.digest,
        "tool": tool,
        "seeds": ",".join(str(character.seed) for character in characters),
        "labels": "; ".join(", ".join(one.labels) or "none" for one in characters),
        "psi": f"{check_psi(psi):g}",
        "noise": noise,
        **{name: str(value) for name, value in more.items()},
    }
    return {"Software": SOFTWARE, **{f"omokage {name}": text for name, text in about.items()}}


@dataclasses.dataclass(frozen=True)
class _ToldClip(Clip):
    """A clip that tells of each frame."""

    advance: Advance = lambda _frames: None

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
    *,
    psi: float,
    noise: str,
    advance: Advance | None = None,
) -> Clip:
    tell: Advance = advance or (lambda _frames: None)
    return _ToldClip(
        UnbatchedGenerator(model.generator, lambda: tell(0)),
        [character.seed for character in characters],
        at,
        times,
        columns=math.ceil(math.sqrt(len(characters))),
        cell_px=model.spec.resolution_px,
        psi=check_psi(psi),
        noise=noise,
        advance=tell,
    )


def _drawer(model: OpenModel, advance: Advance | None) -> UnbatchedGenerator:
    return UnbatchedGenerator(model.generator, lambda: advance(1) if advance else None)


def _morph(
    model: OpenModel, a: Character, b: Character, *, space: str, psi: float, noise: str
) -> Callable[[float], Points]:
    rows = _checked(model, [a, b], psi=psi, noise=noise)
    _check_space(model, "morph", space)
    if a.seed == b.seed and np.array_equal(rows[0], rows[1]):
        raise UsageError(
            "Both ends of the morph are the same avatar: choose two that differ in seed or labels."
        )
    ends = Ends([a.seed], rows[:1], [b.seed], rows[1:])
    return morph(model.generator, ends, space=space, psi=check_psi(psi))


def _checked(model: OpenModel, characters: Sequence[Character], *, psi: float, noise: str) -> Rows:
    """Returns the label rows [N,L] of characters after checking them, psi and noise."""
    check_psi(psi)
    check_noise(model, noise)
    for character in characters:
        check_seed(character.seed)
    named = [known_labels(character.labels, model.labels) for character in characters]
    return label_rows(named, model.labels)


def _check_space(model: OpenModel, tool: str, space: str) -> None:
    check_choice(space, "the space", SPACES)
    reason = abilities(model)[f"{tool}_w"]
    if space == "w" and reason:
        raise UsageError(reason)


def check_sheet(rows: int, columns: int) -> None:
    """Raises UsageError if a sheet would have no picture, or too many."""
    if rows < 1 or columns < 1 or rows * columns > MAX_PICTURES:
        raise UsageError(
            f"{rows} rows and {columns} columns are asked for; at least one of each, and at most "
            f"{MAX_PICTURES} pictures together, are drawn."
        )
