"""The tab that draws: labels as pills, how many, from which seed; and the grid."""

import random
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio.recipe import Recipe
from studio.validation import MAX_PICTURES, MAX_SEED, PSI_MAX
from studio.web import finish_tab, label_controls
from studio.web.files import file_name
from studio.web.label_controls import LabelControls
from studio.web.language import direction_name, label_name, mark, say
from studio.web.listener import listener
from studio.web.model_updates import follow_model
from studio.web.page_state import (
    AT_ONCE,
    DRAWS_AT_ONCE,
    PRIVATE,
    TELLING,
    Drawn,
    PageState,
    history_of,
)
from studio.web.play_tab import pair_text

if TYPE_CHECKING:
    from studio.web.app import Parts

NEW_SEEDS = 1_000_000  # few enough digits to be remembered
SHOWN_EVERY_S = 0.2  # of a draw: a grid that changes more often is no use to anybody
NOISES = [(mark(f"draw.noise_{name}"), name) for name in ("const", "none", "random")]

# On a narrow page the pictures come below the controls: they are shown as soon as they are there.
SHOW_JS = """() => {
  const grid = document.querySelector('.results');
  if (grid && window.innerWidth < 760) grid.scrollIntoView({behavior: 'smooth'});
}"""


@dataclass(frozen=True)
class DrawTab:
    """The tab's components."""

    labels: LabelControls
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
    explore: gr.Button
    finish: gr.Button
    first: gr.Button
    second: gr.Button
    keep: gr.Button
    same: gr.Button
    every: gr.Button

    @property
    def inputs(self) -> list[Any]:
        """The arguments of a draw, in the order of `DrawRequest`."""
        return [self.count, self.seed, self.lock, self.psi, self.noise, *self.labels.components]

    @property
    def shown(self) -> list[Any]:
        """What shows the drawn pictures and the chosen one."""
        return [self.empty, self.grid, self.chosen, self.actions, self.every]


def build_draw_tab() -> DrawTab:
    """Lays the tab out."""
    with gr.Row(elem_classes="tab-row"):
        with gr.Column(scale=5, min_width=320, elem_classes="sheet"):
            with gr.Column(elem_id="labels"):
                places = label_controls.build_label_controls()
            with gr.Column(elem_classes="numbers"):
                count = gr.Slider(
                    1, MAX_PICTURES, 8, step=1, label=mark("draw.pictures"), elem_id="count"
                )
                with gr.Row(elem_classes="seed-row"):
                    seed = gr.Number(
                        0, label=mark("draw.seed"), precision=0, minimum=0,
                        maximum=MAX_SEED, elem_id="seed", min_width=110,
                    )  # fmt: skip
                    new_seed = gr.Button(
                        mark("draw.new_seed"), size="sm", min_width=80, elem_id="new-seed"
                    )
                    lock = gr.Checkbox(
                        False, label=mark("draw.lock"), elem_id="lock", min_width=110,
                        container=False,
                    )  # fmt: skip
                psi = gr.Slider(
                    0, PSI_MAX, 1, step=0.05, label=mark("draw.variety"), elem_id="psi",
                    info=mark("draw.variety_info"),
                )  # fmt: skip
                noise = gr.Radio(
                    NOISES,
                    value="const",
                    label=mark("draw.noise"),
                    elem_classes="pills",
                    elem_id="noise",
                )
            draw = gr.Button(mark("draw.button"), variant="primary", size="lg", elem_id="draw")
        with gr.Column(scale=7, min_width=320, elem_classes="results"):
            empty = gr.HTML(
                f'<div class="empty">{mark("draw.empty")}</div>', elem_id="nothing-drawn"
            )
            grid = gr.Gallery(
                columns=4, object_fit="contain", allow_preview=False, show_label=False,
                container=False, buttons=[], visible=False, elem_id="grid", height="auto",
                interactive=False, fit_columns=False,
            )  # fmt: skip
            chosen = gr.HTML(visible=False, elem_id="chosen")
            with gr.Row(visible=False, elem_classes="actions") as actions:
                explore = gr.Button(mark("explore.button"), size="md", elem_id="explore")
                finish = gr.Button(
                    mark("draw.finish"), variant="primary", size="md", elem_id="finish"
                )
                first = gr.Button(mark("draw.first"), size="md", elem_id="as-first")
                second = gr.Button(mark("draw.second"), size="md", elem_id="as-second")
                keep = gr.Button(mark("draw.keep"), size="md", elem_id="keep")
                same = gr.Button(mark("draw.same"), size="md", elem_id="same")
            every = gr.Button(mark("draw.all"), size="md", visible=False, elem_id="all")
    return DrawTab(
        places, count, seed, new_seed, lock, psi, noise, draw, empty, grid, chosen, actions,
        explore, finish, first, second, keep, same, every,
    )  # fmt: skip


@dataclass(frozen=True)
class DrawRequest:
    """What a visitor asks for, from the values of DrawTab.inputs."""

    count: int
    seed: int
    psi: float
    noise: str
    is_kept: bool
    picked: Sequence[label_controls.Picked]

    @classmethod
    def of(cls, values: Sequence[Any]) -> "DrawRequest":
        """Reads the values; an unlocked seed is a new one."""
        count, seed, lock, psi, noise, *picked = values
        chosen = int(seed or 0) if lock else random_seed()
        return cls(int(count), chosen, float(psi), str(noise), bool(lock), picked)


def _kept_character(state: PageState, request: DrawRequest) -> Recipe | None:
    """Returns the recipe of the picture whose seed is kept: what was explored of it stays too.

    That is the chosen picture, or one of the last draw, which chooses none.
    """
    if not request.is_kept:
        return None
    for one in (state.current, *state.drawn):
        if one is not None and (one.recipe.seed, one.recipe.model) == (request.seed, state.shown):
            return one.recipe
    return None


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


def laid_out(state: PageState) -> list[Any]:
    """Returns the updates of DrawTab.shown."""
    some = bool(state.drawn)
    return [
        gr.update(visible=not some),
        gr.update(
            visible=some,
            value=[(one.path, caption(one)) for one in state.drawn],
            selected_index=state.chosen if state.chosen >= 0 else None,
        ),
        gr.update(visible=some, value=chosen_text(state)),
        gr.update(visible=state.current is not None),
        gr.update(visible=len(state.drawn) > 1),
    ]


def caption(one: Drawn) -> str:
    """Returns what a picture shows, in words: its text for those who do not see it."""
    return say(
        "draw.caption",
        seed=one.recipe.seed,
        labels=label_controls.in_words(one.recipe.labels),
    )


def chosen_text(state: PageState) -> str:
    """Says which picture is chosen and what it was drawn from, as HTML."""
    one = state.current
    if one is None:
        return f'<p class="hint">{say("draw.hint")}</p>'
    return chosen_html(one)


def chosen_html(one: Drawn) -> str:
    """Says what a picture was drawn from, as HTML."""
    labels = escape(label_controls.in_words(one.recipe.labels))
    said = say(
        "draw.chosen",
        seed=one.recipe.seed,
        labels=labels,
        psi=f"{one.recipe.psi:g}",
        side=one.side,
    )
    beyond = beyond_seed(one.recipe)
    return f'<p class="chosen">{said}</p>' + (
        f'<p class="hint">{escape(beyond)}</p>' if beyond else ""
    )


def beyond_seed(recipe: Recipe) -> str:
    """Says what a character is made from besides seed and labels; "" if there is nothing."""
    said = [f"{direction_name(name)} {amount:+g}" for name, amount in recipe.sliders]
    said += [f"{label_name(name)} {amount:.0%}" for name, amount in recipe.strengths]
    if recipe.variations:
        said.append(say("explore.varied", count=len(recipe.variations)))
    if recipe.latent:
        said.append(say("explore.found"))
    return " · ".join(said)


def connect(parts: "Parts") -> None:
    """Connects the tab's buttons and its grid."""
    tab = parts.draw

    @listener
    def draw(state: PageState, *values: Any) -> Generator[list[Any], PageState, None]:
        request = DrawRequest.of(values)
        moved, updates, picked = follow_model(parts, state, request.picked)
        avatars = parts.studio.draw(
            label_controls.choice_of(moved.groups, picked),
            count=request.count,
            seed=request.seed,
            psi=request.psi,
            noise=request.noise,
            like=_kept_character(moved, request),
        )
        drawn = (
            Drawn(
                one.recipe,
                parts.pictures.avatar(one, file_name(one.recipe)),
                one.picture.shape[0],
            )
            for one in avatars
        )
        now = moved.with_(chosen=-1)
        for so_far in now_and_then(drawn):
            now = now.with_(drawn=so_far)
            now = yield [now, request.seed, *laid_out(now), *updates]
            updates = [gr.skip()] * len(updates)

    @listener
    def choose(state: PageState, event: gr.SelectData) -> list[Any]:
        return chosen(parts, state, int(event.index))

    @listener
    def first(state: PageState) -> list[Any]:
        now = state.with_(first=state.current)
        if state.current:
            gr.Info(say("draw.is_first", seed=state.current.recipe.seed), title=say("tabs.play"))
        return [now, pair_text(now)]

    @listener
    def second(state: PageState) -> list[Any]:
        now = state.with_(second=state.current)
        if state.current:
            gr.Info(say("draw.is_second", seed=state.current.recipe.seed), title=say("tabs.play"))
        return [now, pair_text(now)]

    @listener
    def same(state: PageState) -> list[Any]:
        one = state.current
        return [one.recipe.seed if one else gr.skip(), True, 1]

    tab.draw.click(None, js=SHOW_JS, **AT_ONCE)
    tab.draw.click(
        draw,
        [parts.state, *tab.inputs],
        [parts.state, tab.seed, *tab.shown, *parts.model_shown],
        concurrency_limit=DRAWS_AT_ONCE,
        concurrency_id="draw",
        trigger_mode="once",
        **PRIVATE | {"show_progress": "minimal"},
        show_progress_on=[tab.draw],
    )
    tab.grid.select(
        choose, [parts.state], [parts.state, tab.chosen, tab.actions, *parts.finish_all], **AT_ONCE
    )
    tab.new_seed.click(random_seed, [], [tab.seed], **AT_ONCE)
    tab.finish.click(lambda: gr.Tabs(selected="finish"), [], [parts.tabs], **AT_ONCE)
    tab.first.click(first, [parts.state], [parts.state, parts.play.pair], **TELLING)
    tab.second.click(second, [parts.state], [parts.state, parts.play.pair], **TELLING)
    tab.same.click(same, [parts.state], [tab.seed, tab.lock, tab.count], **AT_ONCE)


def chosen(parts: "Parts", state: PageState, number: int) -> list[Any]:
    """Makes a drawn picture the current one, and lays it on the history."""
    now = state.with_(chosen=number)
    one = now.current
    if one is None:
        return [gr.skip()] * (3 + len(parts.finish_all))
    now, laid = finish_tab.show_history(parts, now, history_of(one.recipe))
    return [now, chosen_text(now), gr.update(visible=True), *laid]
