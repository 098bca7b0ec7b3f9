"""Settings that come back: by a link that is opened, and by a PNG that is dropped on the page."""

from typing import TYPE_CHECKING, Any

import gradio as gr

from dataset.errors import OmokageError
from studio.png_metadata import recipe_of_png
from studio.recipe import KEYS, Recipe
from studio.web import draw_tab, finish_tab, label_controls
from studio.web.files import stem_of
from studio.web.language import say
from studio.web.listener import listener, shown
from studio.web.model_updates import follow_model
from studio.web.page_state import (
    AT_ONCE,
    FINISHES_AT_ONCE,
    PRIVATE,
    EditHistory,
    PageState,
    history_of,
)

if TYPE_CHECKING:
    from studio.web.app import Parts


def connect(parts: "Parts", page: gr.Blocks) -> None:
    """Has a page that opens show its model, and its link's picture; and takes dropped files."""
    back_to, slots = outputs(parts), parts.draw.labels.components

    @listener
    def opened(state: PageState, request: gr.Request) -> list[Any]:
        state, updates, _ = follow_model(parts, state, [])
        query = {name: text for name, text in request.query_params.items() if name in KEYS}
        back, came = [gr.skip()] * len(back_to), False
        if query:
            try:
                state, back = brought_back(parts, state, Recipe.from_query(query))
                came = True
            except OmokageError as error:
                gr.Warning(shown(error), title=say("errors.link"), duration=None)
        # The slots are among both: what a link picks is laid over what the model has.
        places = len(slots)
        chosen = back[-places:] if came else updates[-places:]
        return [state, *updates[:-places], *back[:-places], *chosen]

    @listener
    def dropped(state: PageState, sent: Any) -> list[Any]:
        if not sent:
            return [gr.skip()] * (2 + len(back_to))
        content, name = parts.files.sent(sent)
        recipe = recipe_of_png(content, where=name)
        if recipe is not None:
            state, back = brought_back(parts, state, recipe)
            return [state, None, *back]
        history = EditHistory(sent=parts.files.keep(content, stem_of(name)), name=stem_of(name))
        state, laid = finish_tab.show_history(parts, state, history)
        before = len(back_to) - len(slots) - len(laid)
        return [state, None, *[gr.skip()] * before, *laid, *[gr.skip()] * len(slots)]

    page.load(
        opened,
        [parts.state],
        [parts.state, *parts.model_shown[: -len(slots)], *back_to],
        **PRIVATE,
        concurrency_limit=FINISHES_AT_ONCE,
        concurrency_id="finish",
    )
    taken = parts.finish.drop.upload(
        dropped,
        [parts.state, parts.finish.drop],
        [parts.state, parts.finish.drop, *back_to],
        preprocess=False,  # the path of what was uploaded, and its name; nothing is made of it yet
        **PRIVATE,
        concurrency_limit=FINISHES_AT_ONCE,
        concurrency_id="finish",
    )
    # What was refused must not lie in the way of the next one.
    taken.failure(lambda: None, [], [parts.finish.drop], **AT_ONCE)


def outputs(parts: "Parts") -> list[Any]:
    """Returns what `brought_back` lays out, in its order."""
    tab = parts.draw
    return [
        tab.seed, tab.lock, tab.count, tab.psi, tab.noise, *tab.shown, parts.tabs,
        *parts.finish_all, *tab.labels.components,
    ]  # fmt: skip


def brought_back(parts: "Parts", state: PageState, recipe: Recipe) -> tuple[PageState, list[Any]]:
    """Makes a recipe's picture, and lays all its settings out as if they had been chosen here.

    Returns the state and the updates of all that; raises UsageError if the picture cannot be made.
    """
    history = history_of(recipe)
    assert history.recipe is not None
    state, laid = finish_tab.show_history(parts, state, history)
    state = state.with_(drawn=(parts.pictures.on_page(history.recipe),), chosen=0)
    picked = label_controls.picks_of(state.groups, recipe.labels)
    return state, [
        recipe.seed,
        True,
        1,
        recipe.psi,
        recipe.noise,
        *draw_tab.laid_out(state),
        gr.Tabs(selected="finish"),
        *laid,
        *parts.draw.labels.laid(state.groups, picked),
    ]
