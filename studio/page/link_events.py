"""Settings that come back: by a link that is opened, and by a PNG that is dropped on the page."""

from typing import Any

import gradio as gr

from dataset.errors import OmokageError
from studio.page import draw_tab, finish_events, pills
from studio.page.bench import Bench, bench_of
from studio.page.desk import Desk, Drawn
from studio.page.model_events import followed
from studio.page.names import file_name, stem_of
from studio.page.parts import AT_ONCE, FINISHES_AT_ONCE, PRIVATE, Parts
from studio.page.told import told
from studio.png_settings import recipe_of_png
from studio.recipe import KEYS, Recipe


def listen(parts: Parts, page: gr.Blocks) -> None:
    """Has a page that opens show its model, and its link's picture; and takes dropped files."""
    outputs, slots = _outputs(parts), parts.draw.slots.components

    @told
    def opened(desk: Desk, request: gr.Request) -> list[Any]:
        desk, updates, _ = followed(parts, desk, [])
        query = {name: text for name, text in request.query_params.items() if name in KEYS}
        back, came = [gr.skip()] * len(outputs), False
        if query:
            try:
                desk, back = brought_back(parts, desk, Recipe.from_query(query))
                came = True
            except OmokageError as error:
                gr.Warning(str(error), title="This link shows no picture", duration=None)
        # The slots are among both: what a link picks is laid over what the model has.
        places = len(slots)
        chosen = back[-places:] if came else updates[-places:]
        return [desk, *updates[:-places], *back[:-places], *chosen]

    @told
    def dropped(desk: Desk, sent: Any) -> list[Any]:
        if not sent:
            return [gr.skip()] * (2 + len(outputs))
        content, name = parts.files.sent(sent)
        recipe = recipe_of_png(content, where=name)
        if recipe is not None:
            desk, back = brought_back(parts, desk, recipe)
            return [desk, None, *back]
        bench = Bench(sent=parts.files.keep(content, stem_of(name)), name=stem_of(name))
        desk, laid = finish_events.put_on_bench(parts, desk, bench)
        before = len(outputs) - len(slots) - len(laid)
        return [desk, None, *[gr.skip()] * before, *laid, *[gr.skip()] * len(slots)]

    page.load(
        opened,
        [parts.desk],
        [parts.desk, *parts.model_shown[: -len(slots)], *outputs],
        **PRIVATE,
        concurrency_limit=FINISHES_AT_ONCE,
        concurrency_id="finish",
    )
    taken = parts.finish.drop.upload(
        dropped,
        [parts.desk, parts.finish.drop],
        [parts.desk, parts.finish.drop, *outputs],
        preprocess=False,  # the path of what was uploaded, and its name; nothing is made of it yet
        **PRIVATE,
        concurrency_limit=FINISHES_AT_ONCE,
        concurrency_id="finish",
    )
    # What was refused must not lie in the way of the next one.
    taken.failure(lambda: None, [], [parts.finish.drop], **AT_ONCE)


def _outputs(parts: Parts) -> list[Any]:
    tab = parts.draw
    return [
        tab.seed, tab.lock, tab.count, tab.psi, tab.noise, *tab.shown, parts.tabs,
        *parts.finish_all, *tab.slots.components,
    ]  # fmt: skip


def brought_back(parts: Parts, desk: Desk, recipe: Recipe) -> tuple[Desk, list[Any]]:
    """Makes a recipe's picture, and lays all its settings out as if they had been chosen here.

    Returns the desk and the updates of all that; raises UsageError if the picture cannot be made.
    """
    bench = bench_of(recipe)
    assert bench.recipe is not None
    desk, laid = finish_events.put_on_bench(parts, desk, bench)
    path = parts.files.keep(parts.pictures.drawn(bench.recipe), file_name(bench.recipe))
    desk = desk.with_(drawn=(Drawn(bench.recipe, path),), chosen=0)
    picked = pills.picks_of(desk.groups, recipe.labels)
    return desk, [
        recipe.seed,
        True,
        1,
        recipe.psi,
        recipe.noise,
        *draw_tab.laid_out(desk),
        gr.Tabs(selected="finish"),
        *laid,
        *parts.draw.slots.laid(desk.groups, picked),
    ]
