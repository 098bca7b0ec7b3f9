"""The tab that draws: groups of labels as pills, how many and from which seed, and the grid."""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from studio.limits import MAX_PICTURES, MAX_SEED, PSI_MAX
from studio.page import pills, slots
from studio.page.desk import Desk, Drawn
from studio.page.slots import Slots

NEW_SEEDS = 1_000_000  # few enough digits to be remembered
SHOWN_EVERY_S = 0.2  # of a draw: a grid that changes more often is no use to anybody
EMPTY = (
    '<div class="empty"><p>Nothing is drawn yet.</p><p>Choose what you like, or nothing at all, '
    "and press <b>Draw</b>.</p></div>"
)
NOISES = [("as trained", "const"), ("none", "none"), ("random", "random")]
HINT = '<p class="hint">Choose a picture to finish it, or to play with it.</p>'


@dataclass(frozen=True)
class DrawTab:
    """The tab's components."""

    slots: Slots
    count: gr.Slider
    seed: gr.Number
    new_seed: gr.Button
    lock: gr.Checkbox
    psi: gr.Slider
    noise: gr.Radio
    draw: gr.Button
    empty: gr.HTML
    grid: gr.Gallery
    chosen: gr.HTML
    actions: gr.Row
    finish: gr.Button
    first: gr.Button
    second: gr.Button
    keep: gr.Button

    @property
    def inputs(self) -> list[Any]:
        """What a draw is asked with, in the order of `Asked`."""
        return [self.count, self.seed, self.lock, self.psi, self.noise, *self.slots.components]

    @property
    def shown(self) -> list[Any]:
        """What shows the drawn pictures and the chosen one."""
        return [self.empty, self.grid, self.chosen, self.actions]


def build_draw_tab() -> DrawTab:
    """Lays the tab out."""
    with gr.Row(elem_classes="room"):
        with gr.Column(scale=5, min_width=320, elem_classes="sheet"):
            places = slots.build_slots()
            with gr.Column(elem_classes="numbers"):
                count = gr.Slider(1, MAX_PICTURES, 8, step=1, label="Pictures", elem_id="count")
                with gr.Row(elem_classes="seed-row"):
                    seed = gr.Number(
                        0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, elem_id="seed",
                        min_width=110,
                    )  # fmt: skip
                    new_seed = gr.Button("New seed", size="sm", min_width=80, elem_id="new-seed")
                    lock = gr.Checkbox(
                        False, label="Keep the seed", elem_id="lock", min_width=110,
                        container=False,
                    )  # fmt: skip
                psi = gr.Slider(
                    0, PSI_MAX, 1, step=0.05, label="Variety ψ", elem_id="psi",
                    info="1 is full variety, 0 the mean face.",
                )  # fmt: skip
                noise = gr.Radio(
                    NOISES, value="const", label="Noise", elem_classes="pills", elem_id="noise"
                )
            draw = gr.Button("Draw", variant="primary", size="lg", elem_id="draw")
        with gr.Column(scale=7, min_width=320, elem_classes="results"):
            empty = gr.HTML(EMPTY, elem_id="nothing-drawn")
            grid = gr.Gallery(
                columns=4, object_fit="contain", allow_preview=False, show_label=False,
                container=False, buttons=[], visible=False, elem_id="grid", height="auto",
                interactive=False, fit_columns=False,
            )  # fmt: skip
            chosen = gr.HTML(HINT, visible=False, elem_id="chosen")
            with gr.Row(visible=False, elem_classes="actions") as actions:
                finish = gr.Button(
                    "Finish this one", variant="primary", size="md", elem_id="finish"
                )
                first = gr.Button("Play: as first", size="md", elem_id="as-first")
                second = gr.Button("Play: as second", size="md", elem_id="as-second")
                keep = gr.Button("Keep this character", size="md", elem_id="keep")
    return DrawTab(
        places, count, seed, new_seed, lock, psi, noise, draw, empty, grid, chosen, actions,
        finish, first, second, keep,
    )  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What a visitor asks for, from the values of DrawTab.inputs."""

    count: int
    seed: int
    psi: float
    noise: str
    picked: Sequence[pills.Picked]

    @classmethod
    def of(cls, values: Sequence[Any]) -> "Asked":
        """Reads the values; an unlocked seed is a new one."""
        count, seed, lock, psi, noise, *picked = values
        chosen = int(seed or 0) if lock else random_seed()
        return cls(int(count), chosen, float(psi), str(noise), picked)


def random_seed() -> int:
    """Returns a seed that nobody chose."""
    return random.randrange(NEW_SEEDS)


def now_and_then(drawn: Iterator[Drawn]) -> Iterator[tuple[Drawn, ...]]:
    """Yields what is drawn so far: at the first picture, then at most every SHOWN_EVERY_S."""
    so_far: list[Drawn] = []
    shown, shown_at = 0, 0.0
    for one in drawn:
        so_far.append(one)
        if time.monotonic() - shown_at >= SHOWN_EVERY_S:
            shown, shown_at = len(so_far), time.monotonic()
            yield tuple(so_far)
    if shown < len(so_far):
        yield tuple(so_far)


def laid_out(desk: Desk) -> list[Any]:
    """Returns the updates of DrawTab.shown."""
    some = bool(desk.drawn)
    return [
        gr.update(visible=not some),
        gr.update(
            visible=some,
            value=[(one.path, one.caption) for one in desk.drawn],
            selected_index=desk.chosen if desk.chosen >= 0 else None,
        ),
        gr.update(visible=some, value=chosen_text(desk)),
        gr.update(visible=desk.current is not None),
    ]


def chosen_text(desk: Desk) -> str:
    """Says which picture is chosen and what it was drawn from, as HTML."""
    one = desk.current
    if one is None:
        return HINT
    labels = escape(pills.in_words(one.recipe.labels))
    return f'<p class="chosen"><b>Seed {one.recipe.seed}</b> · {labels} · ψ {one.recipe.psi:g}</p>'
