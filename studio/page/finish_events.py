"""What happens on the tab that finishes: each change is seen at once, each can be taken back."""

import time
from typing import Any

import gradio as gr

from studio.page import finish_tab
from studio.page.bench import Bench
from studio.page.desk import Desk
from studio.page.finish_tab import Finished, look_of
from studio.page.names import file_name
from studio.page.parts import AT_ONCE, FINISHES_AT_ONCE, PRIVATE, Parts
from studio.page.pictures import size_of
from studio.page.pills import in_words
from studio.page.told import told

# The server knows the query alone; by which name it is reached is the browser's to say.
LINK_JS = "(link) => link.startsWith('?') ? location.origin + location.pathname + link : link"


def listen(parts: Parts) -> None:
    """Connects the controls, and undo, redo and reset."""
    tab = parts.finish
    outputs = [parts.desk, *tab.shown]

    @told
    def change(desk: Desk, *values: Any) -> list[Any]:
        if desk.bench.is_empty:
            return [gr.skip()] * len(outputs)
        bench = desk.bench.changed(look_of(values), now=time.monotonic())
        return [desk.with_(bench=bench), *finish_tab.laid_out(bench, finished(parts, bench))]

    @told
    def undo(desk: Desk) -> list[Any]:
        return _gone_to(parts, desk, desk.bench.undone())

    @told
    def redo(desk: Desk) -> list[Any]:
        return _gone_to(parts, desk, desk.bench.redone())

    @told
    def reset(desk: Desk) -> list[Any]:
        return _gone_to(parts, desk, desk.bench.reset(now=time.monotonic()))

    group: dict[str, Any] = {"concurrency_limit": FINISHES_AT_ONCE, "concurrency_id": "finish"}
    gr.on(
        [control.input for control in tab.controls],
        change,
        [parts.desk, *tab.controls],
        outputs,
        trigger_mode="always_last",  # of a slider that is dragged, the last place counts
        **PRIVATE,
        **group,
    )
    everything = [parts.desk, *parts.finish_all]
    for button, step in ((tab.undo, undo), (tab.redo, redo), (tab.reset, reset)):
        button.click(step, [parts.desk], everything, **PRIVATE, **group)
    tab.link.change(None, tab.link, tab.link, js=LINK_JS, **AT_ONCE)


def put_on_bench(parts: Parts, desk: Desk, bench: Bench) -> tuple[Desk, list[Any]]:
    """Returns the desk with a picture on its bench, and the updates of Parts.finish_all."""
    laid = finish_tab.laid_out(bench, finished(parts, bench))
    return desk.with_(bench=bench), [*laid, *finish_tab.set_to(bench.look)]


def finished(parts: Parts, bench: Bench) -> Finished | None:
    """Makes the picture of a bench and its file; None if no picture lies there."""
    if bench.is_empty:
        return None
    if bench.recipe is None:
        made = parts.pictures.sent(bench.sent, bench.name, bench.look)
        return _kept(parts, made, name=f"{bench.name}-finished.png", told=bench.name, link="")
    recipe = bench.finished()
    made = parts.pictures.drawn(recipe)
    told_of = f"seed {recipe.seed}, {in_words(recipe.labels)}, by {recipe.model.replace('/', ' ')}"
    return _kept(parts, made, name=file_name(recipe), told=told_of, link=f"?{recipe.to_query()}")


def _gone_to(parts: Parts, desk: Desk, bench: Bench) -> list[Any]:
    now, laid = put_on_bench(parts, desk, bench)
    return [now, *laid]


def _kept(parts: Parts, content: bytes, *, name: str, told: str, link: str) -> Finished:
    width, height = size_of(content)
    path = parts.files.keep(content, name)
    return Finished(path, width, height, len(content), told, link)
