"""The tab that explores: neighbours to walk among, sliders, label strengths, a user's picture."""

import base64
import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np
from PIL import Image

from dataset.decode import Picture
from dataset.errors import UsageError
from models.sampling.draw import png_bytes
from models.sampling.inversion import STEPS
from studio.draw import abilities
from studio.explore import (
    MAP,
    MIDDLE,
    SIDE,
    VARIATIONS,
    Exploration,
    inverting,
    moved,
    neighbours,
    with_slider,
    with_strength,
)
from studio.model_source import OpenModel
from studio.recipe import Recipe
from studio.service import Inverted
from studio.web import draw_tab, keep_tab, links
from studio.web.language import direction_name, label_name, mark, say
from studio.web.listener import listener
from studio.web.page_state import (
    AT_ONCE,
    FILMS_AT_ONCE,
    PRIVATE,
    TELLING,
    PageState,
)
from studio.web.play_tab import pair_text

if TYPE_CHECKING:
    from studio.web.app import Parts

SLIDERS_MAX = 24  # of directions that are offered, the clearest ones first
LABELS_MAX = 40  # with a slider; the described models have 23
REACH = 3.0  # of a slider: standard deviations of what characters have along its direction
RADIUS = 0.4
RECEIVED_KEPT_S = 600  # a picture whose turn to be looked for does not come
ARROWS = {"left": (-1, 0), "up": (0, 1), "down": (0, -1), "right": (1, 0)}
SIGNS = {"left": "←", "up": "↑", "down": "↓", "right": "→"}


@dataclass(frozen=True)
class ExploreTab:
    """The tab's components; `sliders` and `strengths` are places for what a model has."""

    empty: gr.HTML
    reason: gr.HTML
    sliders: list[gr.Slider]
    strengths: list[gr.Slider]
    kind: gr.Radio
    radius: gr.Slider
    directions: gr.Button
    drop: gr.File
    received: gr.State
    looking: gr.HTML
    stop: gr.Button
    found: gr.State
    around: gr.Gallery
    arrows: dict[str, gr.Button]
    walk: gr.Row
    about: gr.HTML
    actions: gr.Row
    undo: gr.Button
    redo: gr.Button
    restart: gr.Button
    finish: gr.Button
    keep: gr.Button
    first: gr.Button
    second: gr.Button

    @property
    def shown(self) -> list[Any]:
        """What shows a character and its neighbours, in the order of `laid_out`."""
        return [
            self.empty, self.around, self.walk, self.about, self.actions, self.undo, self.redo,
            self.restart,
        ]  # fmt: skip

    @property
    def pulls(self) -> list[Any]:
        """The sliders with what stands above them, in the order of `slider_updates`."""
        return [self.reason, *self.sliders, *self.strengths]


def build_explore_tab() -> ExploreTab:
    """Lays the tab out."""
    with gr.Row(elem_classes="tab-row picture-first"):
        with gr.Column(scale=5, min_width=320, elem_classes="sheet"):
            with gr.Accordion(mark("explore.from_picture"), open=False, elem_id="from-picture"):
                gr.HTML(f'<p class="hint">{mark("explore.about_picture")}</p>')
                drop = gr.File(
                    label=mark("explore.drop"), file_types=["image"], height=150, elem_id="like"
                )
                received = gr.State(time_to_live=RECEIVED_KEPT_S)
                looking = gr.HTML(visible=False, elem_id="looking")
                stop = gr.Button(mark("explore.stop"), size="md", visible=False, elem_id="stop")
                found = gr.State()
            kind = gr.Radio(
                [(mark(f"explore.{name}"), name) for name in (MAP, VARIATIONS)],
                value=MAP, label=mark("explore.kind"), elem_classes="pills", elem_id="kind",
            )  # fmt: skip
            radius = gr.Slider(
                0.05, 1.5, RADIUS, step=0.05, label=mark("explore.radius"), elem_id="radius"
            )
            with gr.Row(elem_classes="actions"):
                directions = gr.Button(
                    mark("explore.directions"), size="md", elem_id="new-directions"
                )
            with gr.Accordion(mark("explore.sliders"), open=True, elem_id="sliders"):
                reason = gr.HTML(visible=False, elem_id="no-sliders")
                sliders = [
                    gr.Slider(-REACH, REACH, 0, step=0.1, visible=False, elem_id=f"slider-{place}")
                    for place in range(SLIDERS_MAX)
                ]
            with gr.Accordion(mark("explore.labels"), open=False, elem_id="strengths"):
                strengths = [
                    gr.Slider(0, 1, 0, step=0.05, visible=False, elem_id=f"strength-{place}")
                    for place in range(LABELS_MAX)
                ]
        with gr.Column(scale=7, min_width=320, elem_classes="results"):
            empty = gr.HTML(
                f'<div class="empty">{mark("explore.empty")}</div>', elem_id="nothing-explored"
            )
            around = gr.Gallery(
                columns=SIDE, object_fit="contain", allow_preview=False, show_label=False,
                container=False, buttons=[], visible=False, elem_id="around", height="auto",
                interactive=False, fit_columns=False,
            )  # fmt: skip
            with gr.Row(visible=False, elem_classes="actions arrows", elem_id="walk") as walk:
                arrows = {
                    name: gr.Button(
                        f"{SIGNS[name]} {mark(f'explore.{name}')}", size="md", min_width=60,
                        elem_id=f"walk-{name}",
                    )
                    for name in ARROWS
                }  # fmt: skip
            about = gr.HTML(visible=False, elem_id="explored")
            with gr.Row(visible=False, elem_classes="actions") as actions:
                undo = gr.Button(mark("finish.undo"), size="md", elem_id="explore-undo")
                redo = gr.Button(mark("finish.redo"), size="md", elem_id="explore-redo")
                restart = gr.Button(mark("explore.restart"), size="md", elem_id="explore-restart")
                finish = gr.Button(
                    mark("draw.finish"), variant="primary", size="md", elem_id="explore-finish"
                )
                keep = gr.Button(mark("draw.keep"), size="md", elem_id="explore-keep")
                first = gr.Button(mark("draw.first"), size="md", elem_id="explore-first")
                second = gr.Button(mark("draw.second"), size="md", elem_id="explore-second")
    return ExploreTab(
        empty, reason, sliders, strengths, kind, radius, directions, drop, received,
        looking, stop, found,
        around, arrows, walk, about, actions, undo, redo, restart, finish, keep, first, second,
    )  # fmt: skip


def laid_out(state: PageState) -> list[Any]:
    """Returns the updates of ExploreTab.shown."""
    one, history = state.explored, state.exploration
    there = one is not None
    return [
        gr.update(visible=not there),
        gr.update(
            visible=there,
            value=[(near.path, _caption(state, place)) for place, near in enumerate(state.around)],
            selected_index=MIDDLE if there else None,
        ),
        gr.update(visible=there),
        gr.update(visible=there, value=draw_tab.chosen_html(one) if one else ""),
        gr.update(visible=there),
        gr.update(interactive=history.can_undo),
        gr.update(interactive=history.can_redo),
        gr.update(interactive=history.can_undo),
    ]


def _caption(state: PageState, place: int) -> str:
    if place == MIDDLE:
        return say("explore.middle", about=draw_tab.caption(state.around[place]))
    return say("explore.neighbour", number=place + 1 if place < MIDDLE else place)


def slider_updates(model: OpenModel, recipe: Recipe) -> list[Any]:
    """Returns the updates of ExploreTab.pulls: a slider per direction and per label."""
    reason = abilities(model)["sliders"]
    updates = [gr.update(visible=bool(reason), value=f'<p class="reason">{escape(reason)}</p>')]
    names, amounts = _names(model), dict(recipe.sliders)
    for place in range(SLIDERS_MAX):
        if place >= len(names):
            updates.append(gr.update(visible=False))
            continue
        name = names[place]
        value = amounts.get(name, 0)
        reach = max(REACH, abs(value))  # a link may go further, and Gradio refuses what is beyond
        updates.append(
            gr.update(
                visible=True, label=direction_name(name), value=value, minimum=-reach, maximum=reach
            )
        )
    full = dict.fromkeys(recipe.labels, 1.0) | dict(recipe.strengths)
    for place in range(LABELS_MAX):
        if place >= len(model.labels):
            updates.append(gr.update(visible=False))
            continue
        label = model.labels[place]
        value = full.get(label, 0)
        updates.append(gr.update(visible=True, label=label_name(label), value=value))
    return updates


def _names(model: OpenModel) -> tuple[str, ...]:
    return () if model.directions is None else model.directions.names[:SLIDERS_MAX]


def with_sliders(model: OpenModel, recipe: Recipe, values: Sequence[float]) -> tuple[Recipe, str]:
    """Returns a recipe as the sliders say, and which of them differ from what it had."""
    touched = []
    had = dict(recipe.sliders)
    for name, amount in zip(_names(model), values[:SLIDERS_MAX], strict=False):
        if amount != had.get(name, 0):
            recipe = with_slider(recipe, name, amount)
            touched.append(name)
    full = dict.fromkeys(recipe.labels, 1.0) | dict(recipe.strengths)
    for label, strength in zip(model.labels, values[SLIDERS_MAX:], strict=False):
        if strength != full.get(label, 0):
            recipe = with_strength(recipe, label, strength, known=model.labels)
            touched.append(label)
    return recipe, ",".join(touched)


def connect(parts: "Parts") -> None:
    """Connects the tab with what is chosen elsewhere, and its own controls."""
    _connect_beginning(parts)
    _connect_steps(parts)
    _connect_sliders(parts)
    _connect_picture(parts)
    _connect_actions(parts)


# One after the other: two steps that are drawn side by side would both go on from the same one, and
# one of them would be lost.
DRAWING: dict[str, Any] = {**PRIVATE, "concurrency_limit": 1, "concurrency_id": "explore"}


def _seen(parts: "Parts") -> list[Any]:
    """Returns the inputs of what draws an exploration: the state, and how neighbours are shown."""
    return [parts.state, parts.explore.kind, parts.explore.radius]


def _shown(parts: "Parts") -> list[Any]:
    """Returns the outputs of `_drawn`."""
    return [parts.state, *parts.explore.shown]


def _every(parts: "Parts") -> list[Any]:
    """Returns the outputs of `_drawn_with_sliders`."""
    return [*_shown(parts), *parts.explore.pulls]


def _drawn(
    parts: "Parts", state: PageState, to: Exploration, kind: str, radius: float
) -> list[Any]:
    """Draws an exploration where it is now."""
    now = _around(parts, state, to, kind, radius)
    return [now, *laid_out(now)]


def _drawn_with_sliders(
    parts: "Parts", state: PageState, to: Exploration, kind: str, radius: float
) -> list[Any]:
    """Draws an exploration where it is now, with the sliders as its character has them."""
    drawn = _drawn(parts, state, to, kind, radius)
    recipe = to.recipe
    assert recipe is not None
    return [*drawn, *slider_updates(parts.studio.model_of(recipe), recipe)]


def _recipe_of(state: PageState) -> Recipe:
    if state.exploration.recipe is None:
        raise UsageError(say("explore.none"))
    return state.exploration.recipe


def _connect_beginning(parts: "Parts") -> None:
    """Begins with the chosen picture: by the button *Explore*, and when the tab is opened first."""

    @listener
    def begin(state: PageState, kind: str, radius: float) -> list[Any]:
        if state.current is None:
            raise UsageError(say("explore.none"))
        begun = state.exploration.begun_with(state.current.recipe)
        return _drawn_with_sliders(parts, state, begun, kind, radius)

    @listener
    def begin_if_new(state: PageState, kind: str, radius: float) -> list[Any]:
        if state.current is None or state.exploration.steps:  # what is explored is not lost
            return [gr.skip()] * len(_every(parts))
        begun = Exploration.of(state.current.recipe)
        return _drawn_with_sliders(parts, state, begun, kind, radius)

    parts.explore_tab.select(begin_if_new, _seen(parts), _every(parts), **DRAWING)
    parts.draw.explore.click(begin, _seen(parts), _every(parts), **DRAWING).success(
        lambda: gr.Tabs(selected="explore"), [], [parts.tabs], **AT_ONCE
    )


def _connect_steps(parts: "Parts") -> None:
    """Steps to neighbours, by arrows or a click, and back; shows other neighbours."""
    tab = parts.explore

    @listener
    def see(state: PageState, kind: str, radius: float) -> list[Any]:
        if state.exploration.recipe is None:
            return [gr.skip()] * len(_shown(parts))
        return _drawn(parts, state, state.exploration, kind, radius)

    @listener
    def other_way(state: PageState, kind: str, radius: float) -> list[Any]:
        _recipe_of(state)
        return _drawn(parts, state, _turned(state.exploration), kind, radius)

    @listener
    def walk(state: PageState, kind: str, radius: float, *, right: int, up: int) -> list[Any]:
        history, recipe = state.exploration, _recipe_of(state)
        if kind == VARIATIONS:
            return taken(state, MIDDLE + right - SIDE * up, kind, radius)
        ways = {2 * history.way: radius * right, 2 * history.way + 1: radius * up}
        return _drawn(parts, state, history.stepped(moved(recipe, ways)), kind, radius)

    def taken(state: PageState, place: int, kind: str, radius: float) -> list[Any]:
        """Goes to a neighbour; raises UsageError where the character stands alone."""
        before = state.exploration
        history = before.stepped(state.around[place].recipe)
        if history is before and place != MIDDLE:
            neighbours(_recipe_of(state), kind=kind, way=before.way, radius=radius)  # says why
        if kind == VARIATIONS and history is not before:
            history = _turned(history)  # the same eight once more would only add up
        return _drawn(parts, state, history, kind, radius)

    @listener
    def take(state: PageState, kind: str, radius: float, event: gr.SelectData) -> list[Any]:
        return taken(state, int(event.index), kind, radius)

    @listener
    def undo(state: PageState, kind: str, radius: float) -> list[Any]:
        return gone(state, state.exploration.at - 1, kind, radius)

    @listener
    def redo(state: PageState, kind: str, radius: float) -> list[Any]:
        return gone(state, state.exploration.at + 1, kind, radius)

    @listener
    def restart(state: PageState, kind: str, radius: float) -> list[Any]:
        return gone(state, 0, kind, radius)

    def gone(state: PageState, at: int, kind: str, radius: float) -> list[Any]:
        _recipe_of(state)
        return _drawn_with_sliders(parts, state, state.exploration.gone_to(at), kind, radius)

    gr.on(
        [tab.kind.input, tab.radius.input], see, _seen(parts), _shown(parts),
        trigger_mode="always_last", **DRAWING,
    )  # fmt: skip
    tab.directions.click(other_way, _seen(parts), _shown(parts), **DRAWING)
    for name, (right, up) in ARROWS.items():
        step = functools.partial(walk, right=right, up=up)
        tab.arrows[name].click(step, _seen(parts), _shown(parts), **DRAWING)
    tab.around.select(take, _seen(parts), _shown(parts), **DRAWING)
    for button, way in ((tab.undo, undo), (tab.redo, redo), (tab.restart, restart)):
        button.click(way, _seen(parts), _every(parts), **DRAWING)


def _connect_sliders(parts: "Parts") -> None:
    """Moves the character along directions and labels."""
    tab = parts.explore

    @listener
    def pull(state: PageState, kind: str, radius: float, *values: float) -> list[Any]:
        recipe = state.exploration.recipe
        if recipe is None:
            return [gr.skip()] * len(_shown(parts))
        changed, touched = with_sliders(parts.studio.model_of(recipe), recipe, values)
        if not touched:
            return [gr.skip()] * len(_shown(parts))
        history = state.exploration.stepped(changed, touched=touched, now=time.monotonic())
        return _drawn(parts, state, history, kind, radius)

    sliders = [*tab.sliders, *tab.strengths]
    gr.on(
        [slider.input for slider in sliders],
        pull,
        [*_seen(parts), *sliders],
        _shown(parts),
        trigger_mode="always_last",  # of a slider that is dragged, the last place counts
        **DRAWING,
    )


def _connect_picture(parts: "Parts") -> None:
    """Looks for the character of a user's picture, shows how far that is, and stops it."""
    tab = parts.explore

    @listener
    def receive(sent: Any) -> list[Any]:
        received = parts.files.sent(sent)
        parts.files.forget(sent)
        return [received, None]

    @listener
    def like(received: tuple[bytes, str] | None) -> Iterator[list[Any]]:
        if received is None:  # an earlier turn took what was sent last
            return
        yield [None, _looking(0, None), gr.update(visible=True), None]
        content, name = received
        preview: Picture | None = None
        inverted: Inverted | None = None
        for step in inverting(parts.studio, content, name):
            if isinstance(step, Inverted):
                inverted = step
                continue
            if step[1] is not None:
                preview = step[1]
            # At each step: only between two of them can Gradio stop this. The button each time too:
            # the end of one that was stopped before may just have hidden it.
            yield [gr.skip(), _looking(step[0], preview), gr.update(visible=True), gr.skip()]
        assert inverted is not None
        if inverted.notice:
            gr.Info(escape(inverted.notice), title=say("tabs.explore"))
        yield [gr.skip(), _found(inverted), gr.update(visible=False), inverted.recipe]

    @listener
    def found(state: PageState, kind: str, radius: float, recipe: Recipe | None) -> list[Any]:
        if recipe is None:  # it was stopped, which Gradio calls a success too
            return [gr.skip()] * (len(_every(parts)) + 1)
        begun = Exploration.of(recipe)
        return [*_drawn_with_sliders(parts, state, begun, kind, radius), None]

    looking = [tab.received, tab.looking, tab.stop]
    # Read at once and not in its turn: equal pictures of two visitors are one file, and a turn that
    # never comes would leave the face there.
    received = tab.drop.upload(
        receive,
        [tab.drop],
        [tab.received, tab.drop],
        preprocess=False,  # the path of what was uploaded, and its name
        trigger_mode="multiple",  # else the next one is dropped while a stop is under way
        **AT_ONCE,
    )
    received.failure(lambda: None, [], [tab.drop], **AT_ONCE)
    sent = received.success(
        like,
        [tab.received],
        [*looking, tab.found],
        trigger_mode="multiple",
        **PRIVATE,
        concurrency_limit=FILMS_AT_ONCE,
        concurrency_id="film",
    )
    over = [None, gr.update(visible=False), gr.update(visible=False)]
    sent.failure(lambda: over, [], looking, **TELLING)
    # With the page as it is then: a visitor may have drawn and chosen others meanwhile.
    sent.success(found, [*_seen(parts), tab.found], [*_every(parts), tab.found], **DRAWING)
    tab.stop.click(lambda: over, [], looking, cancels=[sent], **PRIVATE, queue=False)


def _connect_actions(parts: "Parts") -> None:
    """Hands the character to the other tabs."""
    tab = parts.explore

    @listener
    def finish(state: PageState) -> list[Any]:
        now, back = links.brought_back(parts, state, _recipe_of(state))
        return [now, *back]

    @listener
    def keep(state: PageState, shelf: object) -> list[str]:
        return keep_tab.keep_one(shelf, _recipe_of(state))

    @listener
    def play(state: PageState, *, which: str) -> list[Any]:
        recipe = _recipe_of(state)
        now = state.with_(**{which: state.explored})
        gr.Info(say(f"draw.is_{which}", seed=recipe.seed), title=say("tabs.play"))
        return [now, pair_text(now)]

    tab.finish.click(finish, [parts.state], [parts.state, *links.outputs(parts)], **DRAWING)
    keep_tab.keep_on_click(parts, tab.keep, keep)
    for button, which in ((tab.first, "first"), (tab.second, "second")):
        button.click(
            functools.partial(play, which=which), [parts.state], [parts.state, parts.play.pair],
            **TELLING,
        )  # fmt: skip


def _turned(history: Exploration) -> Exploration:
    """Returns an exploration with two other directions of its map, and other variations."""
    return dataclasses.replace(history, way=history.way + 1)


def _around(
    parts: "Parts", state: PageState, history: Exploration, kind: str, radius: float
) -> PageState:
    """Returns the state with an exploration, and its character's neighbours drawn."""
    recipe = history.recipe
    assert recipe is not None
    try:
        near = neighbours(recipe, kind=kind, way=history.way, radius=radius)
    except UsageError:  # at the edge the character stands alone, and a step says why
        near = [recipe] * (SIDE * SIDE)
    around = tuple(parts.pictures.on_page(one) for one in near)
    return state.with_(exploration=history, around=around)


def _looking(step: int, preview: Picture | None) -> Any:
    """Returns the update that shows how far the search for a picture is."""
    picture = _inline(preview, say("explore.preview")) if preview is not None else ""
    said = say("explore.looking")
    done = f'value="{step}" ' if step else ""  # without one it moves to and fro
    bar = f'<progress max="{STEPS}" {done}aria-label="{said}"></progress>'
    return gr.update(visible=True, value=f'<p class="hint">{said}</p>{bar}{picture}')


def _found(found: Inverted) -> Any:
    given = _inline(found.face, say("explore.given"))
    return gr.update(visible=True, value=f'<p class="hint">{say("explore.given")}</p>{given}')


def _inline(picture: Picture, alt: str) -> str:
    """Returns a picture within the page itself: of what is uploaded no file is made."""
    content = png_bytes(Image.fromarray(np.ascontiguousarray(picture)), {})
    data = base64.b64encode(content).decode()
    return f'<img class="preview" src="data:image/png;base64,{data}" alt="{escape(alt)}">'
