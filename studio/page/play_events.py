"""What happens on the tab that plays: a game takes the two avatars and shows what comes of it."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from dataset.decode import Picture
from dataset.errors import UsageError
from models.sampling.png import png_bytes
from studio.page.desk import Desk, Drawn
from studio.page.parts import FILMS_AT_ONCE, PRIVATE, Parts
from studio.page.play_tab import SIDE_BY_SIDE, Game, film_shown
from studio.page.told import told
from studio.play import Sheet
from studio.recipe import Recipe

Advance = Callable[[int], None]
PROGRESS = gr.Progress()  # a parameter with this default is what Gradio shows


def listen(parts: Parts) -> None:
    """Connects the buttons of all games."""
    games = parts.play.games
    _strip(parts, games["morph"])
    _morph_film(parts, games["morph"])
    _sheet(parts, games["sweep"], _swept, ("number", "space"))
    _sheet(parts, games["mix"], _mixed, ("crossover",))
    _sheet(parts, games["table"], _tabled, ("group",))
    _loop_film(parts, games["loop"])


def _strip(parts: Parts, game: Game) -> None:
    @told
    def strip(desk: Desk, steps: int, space: str) -> list[Any]:
        first, second = _both(desk)
        pictures = parts.studio.morph_strip(first, second, steps=int(steps), space=space)
        paths = [parts.files.keep(_png(one), "morph.png") for one in pictures]
        return [gr.update(visible=False), gr.update(visible=True, value=paths)]

    controls = [game.controls["steps"], game.controls["space"]]
    _played(game.play, strip, [parts.desk, *controls], [game.empty, game.shown])


def _morph_film(parts: Parts, game: Game) -> None:
    @told
    def film(
        desk: Desk, seconds: float, fps: float, space: str, progress: gr.Progress = PROGRESS
    ) -> list[Any]:
        first, second = _both(desk)
        mp4, gif = parts.files.films("morph")
        parts.studio.write_morph(
            first,
            second,
            outs=[mp4, gif],
            seconds=seconds,
            fps=int(fps),
            back=True,
            space=space,
            advance=_counted(progress, round(seconds * fps)),
        )
        return [gr.update(visible=False), *film_shown(str(mp4), str(gif))]

    _filmed(parts, game, film)


def _loop_film(parts: Parts, game: Game) -> None:
    @told
    def film(
        desk: Desk, seconds: float, fps: float, space: str, progress: gr.Progress = PROGRESS
    ) -> list[Any]:
        mp4, gif = parts.files.films("loop")
        parts.studio.write_loop(
            [_first(desk)],
            outs=[mp4, gif],
            seconds=seconds,
            fps=int(fps),
            space=space,
            advance=_counted(progress, round(seconds * fps)),
        )
        return [gr.update(visible=False), *film_shown(str(mp4), str(gif))]

    _filmed(parts, game, film)


def _filmed(parts: Parts, game: Game, film: Callable[..., Any]) -> None:
    assert game.film is not None
    controls = [game.controls[name] for name in ("seconds", "fps", "space")]
    _played(game.make_film, film, [parts.desk, *controls], [game.empty, *game.film.outputs])


def _sheet(parts: Parts, game: Game, drawn: Callable[..., Sheet], controls: Sequence[str]) -> None:
    @told
    def sheet(desk: Desk, *values: Any) -> list[Any]:
        path = parts.files.keep(drawn(parts, desk, *values).png(), f"{game.name}.png")
        return [gr.update(visible=False), gr.update(visible=True, value=path)]

    values = [game.controls[name] for name in controls]
    _played(game.play, sheet, [parts.desk, *values], [game.empty, game.shown])


def _swept(parts: Parts, desk: Desk, number: float, space: str) -> Sheet:
    return parts.studio.sweep(_first(desk), number=int(number), space=space)


def _mixed(parts: Parts, desk: Desk, crossover: float) -> Sheet:
    return parts.studio.mix(_both(desk), _side_by_side(desk), crossover=int(crossover))


def _tabled(parts: Parts, desk: Desk, group: str) -> Sheet:
    rows = [[label] for one in desk.groups if one.name == group for label in one.labels]
    columns = _side_by_side(desk)
    return parts.studio.table(
        rows,
        count=len(columns),
        seed=columns[0].seed,
        psi=columns[0].psi,
        noise=columns[0].noise,
    )


def _first(desk: Desk) -> Recipe:
    return _there(desk.first, "first").recipe


def _both(desk: Desk) -> tuple[Recipe, Recipe]:
    return _first(desk), _there(desk.second, "second").recipe


def _there(one: Drawn | None, which: str) -> Drawn:
    if one is None:
        raise UsageError(
            f'There is no {which} avatar yet: choose a picture under "Draw", and press '
            f'"Play: as {which}".'
        )
    return one


def _side_by_side(desk: Desk) -> list[Recipe]:
    if not desk.drawn:
        raise UsageError('Nothing is drawn yet: draw some pictures under "Draw" first.')
    return [one.recipe for one in desk.drawn[:SIDE_BY_SIDE]]


def _png(picture: Picture) -> bytes:
    return png_bytes(Image.fromarray(np.ascontiguousarray(picture)), {})


def _counted(progress: gr.Progress, frames: int) -> Advance:
    drawn = 0

    def advance(more: int) -> None:
        nonlocal drawn
        drawn += more
        progress((drawn, frames), unit="frames")

    return advance


def _played(
    button: gr.Button, play: Callable[..., Any], inputs: list[Any], outputs: list[Any]
) -> None:
    button.click(
        play,
        inputs,
        outputs,
        concurrency_limit=FILMS_AT_ONCE,
        concurrency_id="film",
        trigger_mode="once",
        **PRIVATE | {"show_progress": "full"},
        show_progress_on=[button],
    )
