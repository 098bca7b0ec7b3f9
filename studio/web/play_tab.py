"""The tab that plays with two avatars: morph, sweep, mix, table and loop."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np
from PIL import Image

from dataset.decode import Picture
from dataset.errors import UsageError
from models.sampling.draw import png_bytes
from models.sampling.tables import SWEEP_STEPS
from studio.play import Advance, DrawOptions, FilmOptions, Sheet
from studio.recipe import Recipe
from studio.validation import FRAMES_MAX
from studio.web.label_controls import in_words
from studio.web.language import mark, say
from studio.web.listener import listener
from studio.web.page_state import FILMS_AT_ONCE, PRIVATE, Drawn, PageState

if TYPE_CHECKING:
    from studio.web.app import Parts

PROGRESS = gr.Progress()  # a parameter with this default is what Gradio shows
SPACES = [(mark(f"play.way_{name}"), name) for name in ("z", "w")]
STEPS_MAX = 16  # pictures of a strip
SIDE_BY_SIDE = 6  # of the last draw, in a table or a mix
SECONDS_MAX = 10
FPS_MOST = FRAMES_MAX // SECONDS_MAX
SWEEP_COLUMNS = 5  # of the pictures of a direction, which are too small in one row


@dataclass(frozen=True)
class Film:
    """Where a film is shown, and how it is downloaded."""

    shown: gr.HTML
    mp4: gr.DownloadButton
    gif: gr.DownloadButton

    @property
    def outputs(self) -> list[Any]:
        """The components that a film is laid into."""
        return [self.shown, self.mp4, self.gif]


@dataclass(frozen=True)
class Game:
    """One way to play: why it cannot be played, its buttons and controls, and where it shows."""

    name: str
    reason: gr.HTML
    play: gr.Button
    make_film: gr.Button
    controls: dict[str, Any]
    empty: gr.HTML
    shown: Any = None
    film: Film | None = None


@dataclass(frozen=True)
class PlayTab:
    """The tab's components."""

    pair: gr.HTML
    games: dict[str, Game] = field(default_factory=dict)

    @property
    def able(self) -> list[Any]:
        """What is greyed out or not, in the order of `abled`."""
        found: list[Any] = []
        for game in self.games.values():
            found += [game.reason, game.play, game.make_film]
            found += [game.controls["space"]] if "space" in game.controls else []
        return found


def build_play_tab() -> PlayTab:
    """Lays the tab out."""
    tab = PlayTab(gr.HTML(pair_text(PageState(), mark), elem_id="pair"))
    with gr.Tabs(elem_classes="games"):
        for name, (controls, play, film) in _GAMES.items():
            with gr.Tab(mark(f"play.{name}"), id=name, elem_id=f"game-{name}"):
                tab.games[name] = _game(name, controls, play=play, film=film)
    return tab


def _game(name: str, controls: Callable[[], dict[str, Any]], *, play: str, film: str) -> Game:
    """Lays out a game: what it is, its controls and buttons; and beside them where it shows."""
    with gr.Row(elem_classes="tab-row"):
        with gr.Column(scale=5, min_width=320, elem_classes="sheet"):
            gr.HTML(f'<p class="hint">{mark(f"play.about_{name}")}</p>')
            made = controls()
            reason = gr.HTML(visible=False, elem_id=f"{name}-reason")
            with gr.Row(elem_classes="actions"):
                button = gr.Button(
                    mark(play or "play.film"), variant="primary", size="md", visible=bool(play),
                    elem_id=f"{name}-play",
                )  # fmt: skip
                make = gr.Button(
                    mark(film or "play.film"), variant="secondary" if play else "primary",
                    size="md", visible=bool(film), elem_id=f"{name}-film",
                )  # fmt: skip
        with gr.Column(scale=7, min_width=320, elem_classes="results"):
            empty = gr.HTML(f'<div class="empty">{mark("play.empty")}</div>')
            shown = _strip_shown() if name == "morph" else _sheet_shown(name) if play else None
            filmed = _film(name) if film else None
    return Game(name, reason, button, make, made, empty, shown, filmed)


def _morph_controls() -> dict[str, Any]:
    steps = gr.Slider(2, STEPS_MAX, 8, step=1, label=mark("play.steps"), elem_id="steps")
    return {"space": _space("morph"), "steps": steps, **_pace("morph")}


def _sweep_controls() -> dict[str, Any]:
    number = gr.Slider(0, 1, 0, step=1, label=mark("play.number"), elem_id="number")
    return {"space": _space("sweep"), "number": number}


def _mix_controls() -> dict[str, Any]:
    layers = gr.Slider(1, 2, 1, step=1, label=mark("play.crossover"), elem_id="crossover")
    return {"crossover": layers}


def _table_controls() -> dict[str, Any]:
    return {"group": gr.Radio([], label=mark("play.group"), elem_classes="pills", elem_id="group")}


def _loop_controls() -> dict[str, Any]:
    return {"space": _space("loop"), **_pace("loop")}


# By name: controls, what the button that shows pictures says, and the one that films.
_GAMES = {
    "morph": (_morph_controls, "play.strip", "play.film"),
    "sweep": (_sweep_controls, "play.do_sweep", ""),
    "mix": (_mix_controls, "play.do_mix", ""),
    "table": (_table_controls, "play.do_table", ""),
    "loop": (_loop_controls, "", "play.film"),
}


def _space(game: str) -> gr.Radio:
    return gr.Radio(
        SPACES, value="z", label=mark("play.way"), elem_classes="pills", elem_id=f"{game}-space"
    )


def _pace(game: str) -> dict[str, Any]:
    seconds = gr.Slider(
        1, SECONDS_MAX, 3, step=1, label=mark("play.seconds"), elem_id=f"{game}-seconds"
    )
    fps = gr.Slider(4, FPS_MOST, 12, step=1, label=mark("play.fps"), elem_id=f"{game}-fps")
    return {"seconds": seconds, "fps": fps}


def _strip_shown() -> gr.Gallery:
    return gr.Gallery(
        columns=4, allow_preview=False, show_label=False, container=False, buttons=[],
        visible=False, elem_id="morph-strip", interactive=False, height="auto",
        object_fit="contain", fit_columns=False,
    )  # fmt: skip


def _sheet_shown(name: str) -> gr.Image:
    return gr.Image(
        visible=False, interactive=False, show_label=False, container=False,
        buttons=["download", "fullscreen"], type="filepath", elem_id=f"{name}-shown",
        elem_classes="drawn-sheet",
    )  # fmt: skip


def _film(name: str) -> Film:
    shown = gr.HTML(visible=False, elem_id=f"{name}-filmed")
    with gr.Row(elem_classes="actions"):
        mp4 = gr.DownloadButton(mark("play.mp4"), size="md", visible=False, elem_id=f"{name}-mp4")
        gif = gr.DownloadButton(mark("play.gif"), size="md", visible=False, elem_id=f"{name}-gif")
    return Film(shown, mp4, gif)


def film_shown(mp4: str, gif: str) -> list[Any]:
    """Returns the updates of Film.outputs for the paths of a film's two files."""
    source = f"gradio_api/file={escape(mp4, quote=True)}"
    film = f'<video class="film" src="{source}" controls autoplay loop muted playsinline></video>'
    return [
        gr.update(visible=True, value=film),
        gr.update(visible=True, value=mp4),
        gr.update(visible=True, value=gif),
    ]


def abled(abilities: Mapping[str, str]) -> list[Any]:
    """Returns the updates of PlayTab.able: what a model cannot do is greyed out, with the reason.

    abilities: by name "" or a reason, as `studio.draw.abilities` says. Without W there is one way
    alone, so that there is nothing to choose.
    """
    updates: list[Any] = []
    for name, (controls, _, _) in _GAMES.items():
        reason, no_w = abilities.get(name, ""), abilities.get(f"{name}_w", "")
        text = f'<p class="reason">{say(f"play.no_{name}")}</p>' if reason else ""
        updates.append(gr.update(visible=bool(reason), value=text))
        updates += [gr.update(interactive=not reason)] * 2
        if controls in (_morph_controls, _sweep_controls, _loop_controls):
            updates.append(gr.update(visible=not (reason or no_w), value="z"))
    return updates


def pair_text(state: PageState, said: Callable[[str], str] = say) -> str:
    """Shows the two avatars that are played with, as HTML; said: `mark` while the page is built."""
    first, second = _card("first", state.first, said), _card("second", state.second, said)
    return f'<div class="pair">{first}{second}</div>'


def _card(which: str, one: Drawn | None, said: Callable[[str], str]) -> str:
    title = said(f"play.card_{which}")
    if one is None:
        return (
            f'<div class="card none"><p><b>{title}</b></p><p>{said(f"play.none_{which}")}</p></div>'
        )
    source = f"gradio_api/file={escape(one.path, quote=True)}"
    return (
        f'<div class="card"><img src="{source}" alt="{title}">'
        f"<div><p><b>{title}</b> · {say('play.seed', seed=one.recipe.seed)}</p>"
        f"<p>{escape(in_words(one.recipe.labels))}</p></div></div>"
    )


def connect(parts: "Parts") -> None:
    """Connects the buttons of all games."""
    games = parts.play.games
    _strip(parts, games["morph"])
    _morph_film(parts, games["morph"])
    _sheet(parts, games["sweep"], _swept, ("number", "space"))
    _sheet(parts, games["mix"], _mixed, ("crossover",))
    _sheet(parts, games["table"], _tabled, ("group",))
    _loop_film(parts, games["loop"])


def _strip(parts: "Parts", game: Game) -> None:
    @listener
    def strip(state: PageState, steps: int, space: str) -> list[Any]:
        first, second = _both(state)
        pictures = parts.studio.morph_strip(first, second, steps=int(steps), space=space)
        paths = [
            (parts.files.keep(_png(one), "morph.png"), f"{number} / {len(pictures)}")
            for number, one in enumerate(pictures, 1)
        ]
        return [gr.update(visible=False), gr.update(visible=True, value=paths)]

    controls = [game.controls["steps"], game.controls["space"]]
    _played(game.play, strip, [parts.state, *controls], [game.empty, game.shown])


def _morph_film(parts: "Parts", game: Game) -> None:
    def write(state: PageState, film: FilmOptions, **drawn: Any) -> None:
        parts.studio.write_morph(*_both(state), film, **drawn)

    _filmed(parts, game, write, back=True)


def _loop_film(parts: "Parts", game: Game) -> None:
    def write(state: PageState, film: FilmOptions, **drawn: Any) -> None:
        parts.studio.write_loop([_first(state)], film, **drawn)

    _filmed(parts, game, write, back=False)


def _filmed(parts: "Parts", game: Game, write: Callable[..., None], *, back: bool) -> None:
    @listener
    def film(
        state: PageState, seconds: float, fps: float, space: str, progress: gr.Progress = PROGRESS
    ) -> list[Any]:
        mp4, gif = parts.files.films(game.name)
        options = FilmOptions([mp4, gif], seconds, int(fps), back)
        write(state, options, space=space, advance=_counted(progress, round(seconds * fps)))
        return [gr.update(visible=False), *film_shown(str(mp4), str(gif))]

    assert game.film is not None
    controls = [game.controls[name] for name in ("seconds", "fps", "space")]
    _played(game.make_film, film, [parts.state, *controls], [game.empty, *game.film.outputs])


def _sheet(
    parts: "Parts", game: Game, drawn: Callable[..., Sheet], controls: Sequence[str]
) -> None:
    @listener
    def sheet(state: PageState, *values: Any) -> list[Any]:
        path = parts.files.keep(drawn(parts, state, *values).png(), f"{game.name}.png")
        about = say("play.shown", game=say(f"play.{game.name}"))
        return [gr.update(visible=False), gr.update(visible=True, value=path, alt_text=about)]

    values = [game.controls[name] for name in controls]
    _played(game.play, sheet, [parts.state, *values], [game.empty, game.shown])


def _swept(parts: "Parts", state: PageState, number: float, space: str) -> Sheet:
    sheet = parts.studio.sweep(_first(state), number=int(number), space=space)
    return dataclasses.replace(sheet, picture=in_rows(sheet.picture, SWEEP_STEPS, SWEEP_COLUMNS))


def in_rows(row: Image.Image, count: int, columns: int) -> Image.Image:
    """Lays the last `count` square pictures of a row out in rows of `columns`."""
    side = row.height
    left = row.width - count * side  # before them stands a title
    laid = Image.new("RGB", (side * columns, side * -(-count // columns)), "white")
    for at in range(count):
        picture = row.crop((left + side * at, 0, left + side * (at + 1), side))
        laid.paste(picture, (side * (at % columns), side * (at // columns)))
    return laid


def _mixed(parts: "Parts", state: PageState, crossover: float) -> Sheet:
    return parts.studio.mix(_both(state), _side_by_side(state), crossover=int(crossover))


def _tabled(parts: "Parts", state: PageState, group: str) -> Sheet:
    rows = [[label] for one in state.groups if one.name == group for label in one.labels]
    first, *others = _side_by_side(state)
    options = DrawOptions(first.psi, first.noise)
    return parts.studio.table(rows, options, count=1 + len(others), seed=first.seed)


def _first(state: PageState) -> Recipe:
    return _there(state.first, "first").recipe


def _both(state: PageState) -> tuple[Recipe, Recipe]:
    return _first(state), _there(state.second, "second").recipe


def _there(one: Drawn | None, which: str) -> Drawn:
    if one is None:
        raise UsageError(say(f"play.lacks_{which}"))
    return one


def _side_by_side(state: PageState) -> list[Recipe]:
    if not state.drawn:
        raise UsageError(say("play.lacks_drawn"))
    return [one.recipe for one in state.drawn[:SIDE_BY_SIDE]]


def _png(picture: Picture) -> bytes:
    return png_bytes(Image.fromarray(np.ascontiguousarray(picture)), {})


def _counted(progress: gr.Progress, frames: int) -> Advance:
    drawn = 0

    def advance(more: int) -> None:
        nonlocal drawn
        drawn += more
        progress((drawn, frames), unit=say("play.frames"))

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
