"""The tab that plays with two avatars: morph, sweep, mix, table and loop."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

import gradio as gr

from studio.limits import FPS_MAX, FRAMES_MAX
from studio.page.desk import Desk, Drawn
from studio.page.pills import in_words

SPACES = [("the latent z", "z"), ("the styles W", "w")]
STEPS_MAX = 16  # pictures of a strip
SIDE_BY_SIDE = 6  # of the last draw, in a table or a mix
SECONDS_MAX = 10
SWEPT = 20  # values of a sweep
FACTS = {"morph": "Morph", "sweep": "Sweep", "mix": "Mix", "table": "Table", "loop": "Loop"}
TOLD = {
    "morph": "From the first avatar to the second, labels and all.",
    "sweep": f"The first avatar with one number of its latent swept over {SWEPT} values.",
    "mix": (
        "Coarse styles of the first and the second (rows), with the fine styles of what was drawn "
        "last (columns)."
    ),
    "table": "Each label of one group (rows) on the seeds that were drawn last (columns).",
    "loop": "A walk from the first avatar to others and back, without an end.",
}


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
    """One way to play: why it cannot be played, its button, its controls and where it shows."""

    name: str
    reason: gr.HTML
    play: gr.Button
    controls: dict[str, Any]
    shown: Any = None
    film: Film | None = None
    make_film: gr.Button | None = None

    @property
    def buttons(self) -> list[gr.Button]:
        """The buttons that are greyed out where the family cannot play it."""
        return [self.play, *([self.make_film] if self.make_film else [])]


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
            found += [game.reason, *game.buttons]
            found += [game.controls["space"]] if "space" in game.controls else []
        return found


def build_play_tab() -> PlayTab:
    """Lays the tab out."""
    tab = PlayTab(gr.HTML(pair_text(Desk()), elem_id="pair"))
    with gr.Tabs(elem_classes="games"):
        with gr.Tab("Morph", id="morph"):
            controls = {
                "space": _space("morph"),
                "steps": gr.Slider(2, STEPS_MAX, 8, step=1, label="Pictures of the strip"),
                **_pace("morph"),
            }
            tab.games["morph"] = _game("morph", controls, "Show a strip", film="Make a film")
        with gr.Tab("Sweep", id="sweep"):
            controls = {
                "space": _space("sweep"),
                "number": gr.Slider(0, 1, 0, step=1, label="Number of the latent", elem_id="number"),
            }
            tab.games["sweep"] = _game("sweep", controls, "Sweep it")
        with gr.Tab("Mix", id="mix"):
            controls = {
                "crossover": gr.Slider(
                    1, 2, 1, step=1, label="Layers from the row's avatar", elem_id="crossover"
                )
            }
            tab.games["mix"] = _game("mix", controls, "Mix them")
        with gr.Tab("Table", id="table"):
            controls = {"group": gr.Radio([], label="Group", elem_classes="pills", elem_id="group")}
            tab.games["table"] = _game("table", controls, "Draw the table")
        with gr.Tab("Loop", id="loop"):
            controls = {"space": _space("loop"), **_pace("loop")}
            tab.games["loop"] = _game("loop", controls, "", film="Make a film")
    return tab


def _space(game: str) -> gr.Radio:
    return gr.Radio(
        SPACES, value="z", label="Through", elem_classes="pills", elem_id=f"{game}-space"
    )


def _pace(game: str) -> dict[str, Any]:
    with gr.Row():
        seconds = gr.Slider(
            1, SECONDS_MAX, 3, step=1, label="Seconds", elem_id=f"{game}-seconds", min_width=140
        )
        fps = gr.Slider(
            4, min(FPS_MAX, FRAMES_MAX // SECONDS_MAX), 12, step=1, label="Frames a second",
            elem_id=f"{game}-fps", min_width=140,
        )  # fmt: skip
    return {"seconds": seconds, "fps": fps}


def _game(name: str, controls: dict[str, Any], play: str, *, film: str = "") -> Game:
    """Lays out what is below the controls of a game: reason, buttons, and where it shows."""
    gr.HTML(f'<p class="hint">{TOLD[name]}</p>')
    reason = gr.HTML(visible=False, elem_id=f"{name}-reason")
    with gr.Row(elem_classes="actions"):
        button = gr.Button(
            play or "Play", variant="primary", visible=bool(play), elem_id=f"{name}-play"
        )
        make = gr.Button(film, elem_id=f"{name}-film", variant="secondary" if play else "primary") if film else None
    strip = None
    if name == "morph":
        strip = gr.Gallery(
            columns=8, allow_preview=False, show_label=False, container=False, buttons=[],
            visible=False, elem_id="morph-strip", interactive=False, height="auto",
            object_fit="contain",
        )  # fmt: skip
    elif not film:
        strip = gr.Image(
            visible=False, interactive=False, show_label=False, container=False,
            buttons=["download", "fullscreen"], type="filepath", elem_id=f"{name}-shown",
        )  # fmt: skip
    return Game(name, reason, button, controls, strip, _film(name) if film else None, make)


def _film(name: str) -> Film:
    shown = gr.HTML(visible=False, elem_id=f"{name}-shown-film")
    with gr.Row(elem_classes="actions"):
        mp4 = gr.DownloadButton("Download MP4", visible=False, elem_id=f"{name}-mp4")
        gif = gr.DownloadButton("Download GIF", visible=False, elem_id=f"{name}-gif")
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
    """Returns the updates of PlayTab.able: a reason greys out a game, or W in it.

    abilities: by name "" or the reason, as `studio.play.abilities` says.
    """
    updates: list[Any] = []
    for name in FACTS:
        reason, no_w = abilities.get(name, ""), abilities.get(f"{name}_w", "")
        told = reason or no_w
        updates.append(
            gr.update(visible=bool(told), value=f'<p class="reason">{escape(told)}</p>')
        )
        updates += [gr.update(interactive=not reason)] * (2 if name in ("morph", "loop") else 1)
        if name in ("morph", "sweep", "loop"):
            updates.append(gr.update(interactive=not reason and not no_w, value="z" if no_w else None) if no_w else gr.update(interactive=not reason))
    return updates


def pair_text(desk: Desk) -> str:
    """Shows the two avatars that are played with, as HTML."""
    return (
        f'<div class="pair">{_card("First", desk.first)}{_card("Second", desk.second)}</div>'
    )


def _card(title: str, one: Drawn | None) -> str:
    if one is None:
        return (
            f'<div class="card none"><p><b>{title}</b></p><p>Choose a picture under <b>Draw</b> '
            f"and press <b>Play: as {title.lower()}</b>.</p></div>"
        )
    source = f"gradio_api/file={escape(one.path, quote=True)}"
    return (
        f'<div class="card"><img src="{source}" alt="The {title.lower()} avatar">'
        f"<div><p><b>{title}</b> · seed {one.recipe.seed}</p>"
        f"<p>{escape(in_words(one.recipe.labels))}</p></div></div>"
    )
