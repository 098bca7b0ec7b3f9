"""What happens on the tab that draws."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from studio.page import draw_tab, finish_events, pills
from studio.page.bench import bench_of
from studio.page.desk import Desk, Drawn
from studio.page.draw_tab import Asked
from studio.page.model_events import followed
from studio.page.names import file_name
from studio.page.parts import AT_ONCE, DRAWS_AT_ONCE, PRIVATE, Parts
from studio.page.play_tab import pair_text
from studio.page.told import told

# On a narrow page the pictures come below the controls: they are shown as soon as they are there.
SHOW_JS = """() => {
  const grid = document.querySelector('.results');
  if (grid && window.innerWidth < 760) grid.scrollIntoView({behavior: 'smooth'});
}"""


def listen(parts: Parts) -> None:
    """Connects the tab's buttons and its grid."""
    tab = parts.draw

    @told
    def draw(desk: Desk, *values: Any) -> Iterator[list[Any]]:
        asked = Asked.of(values)
        moved, updates, picked = followed(parts, desk, asked.picked)
        avatars = parts.studio.draw(
            pills.wish_of(moved.groups, picked),
            count=asked.count,
            seed=asked.seed,
            psi=asked.psi,
            noise=asked.noise,
        )
        drawn = (
            Drawn(one.recipe, parts.pictures.avatar(one, file_name(one.recipe))) for one in avatars
        )
        for so_far in draw_tab.now_and_then(drawn):
            now = moved.with_(drawn=so_far, chosen=-1)
            yield [now, asked.seed, *draw_tab.laid_out(now), *updates]
            updates = [gr.skip()] * len(updates)

    @told
    def choose(desk: Desk, event: gr.SelectData) -> list[Any]:
        return chosen(parts, desk, int(event.index))

    @told
    def first(desk: Desk) -> list[Any]:
        now = desk.with_(first=desk.current)
        return [now, pair_text(now)]

    @told
    def second(desk: Desk) -> list[Any]:
        now = desk.with_(second=desk.current)
        return [now, pair_text(now)]

    @told
    def keep(desk: Desk) -> list[Any]:
        one = desk.current
        return [one.recipe.seed if one else gr.skip(), True, 1]

    tab.draw.click(None, js=SHOW_JS, **AT_ONCE)
    tab.draw.click(
        draw,
        [parts.desk, *tab.inputs],
        [parts.desk, tab.seed, *tab.shown, *parts.model_shown],
        concurrency_limit=DRAWS_AT_ONCE,
        concurrency_id="draw",
        trigger_mode="once",
        **PRIVATE | {"show_progress": "minimal"},
        show_progress_on=[tab.draw],
    )
    tab.grid.select(
        choose, [parts.desk], [parts.desk, tab.chosen, tab.actions, *parts.finish_all], **AT_ONCE
    )
    tab.new_seed.click(draw_tab.random_seed, [], [tab.seed], **AT_ONCE)
    tab.finish.click(lambda: gr.Tabs(selected="finish"), [], [parts.tabs], **AT_ONCE)
    tab.first.click(first, [parts.desk], [parts.desk, parts.play.pair], **AT_ONCE)
    tab.second.click(second, [parts.desk], [parts.desk, parts.play.pair], **AT_ONCE)
    tab.keep.click(keep, [parts.desk], [tab.seed, tab.lock, tab.count], **AT_ONCE)


def chosen(parts: Parts, desk: Desk, number: int) -> list[Any]:
    """Makes a drawn picture the current one, and lays it on the bench."""
    now = desk.with_(chosen=number)
    one = now.current
    if one is None:
        return [gr.skip()] * (3 + len(parts.finish_all))
    now, laid = finish_events.put_on_bench(parts, now, bench_of(one.recipe))
    return [now, draw_tab.chosen_text(now), gr.update(visible=True), *laid]
