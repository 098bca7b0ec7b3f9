"""The page: its components, its tabs, and what happens on them."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.service import Studio
from studio.web import (
    api,
    draw_tab,
    explore_tab,
    finish_tab,
    keep_tab,
    links,
    model_updates,
    play_tab,
)
from studio.web.draw_tab import DrawTab
from studio.web.explore_tab import ExploreTab
from studio.web.files import Files, Pictures
from studio.web.finish_tab import FinishTab
from studio.web.keep_tab import KeepTab
from studio.web.language import mark, menu
from studio.web.page_state import PAGE_KEPT_S, Page
from studio.web.play_tab import PlayTab


@dataclass(frozen=True)
class Parts:
    """The page's components, and what is behind them."""

    studio: Studio
    files: Files
    pictures: Pictures
    state: gr.State
    head: gr.HTML
    tabs: gr.Tabs
    draw: DrawTab
    explore: ExploreTab
    play: PlayTab
    finish: FinishTab
    keep: KeepTab
    explore_tab: gr.Tab
    keep_tab: gr.Tab

    @property
    def model_shown(self) -> list[Any]:
        """What depends on the model alone, in the order of `model_updates.follow_model`."""
        games = self.play.games
        return [
            self.head,
            self.draw.noise,
            games["table"].controls["group"],
            games["sweep"].controls["number"],
            games["mix"].controls["crossover"],
            *self.play.able,
            *self.draw.labels.components,
        ]

    @property
    def finish_all(self) -> list[Any]:
        """What shows the finished picture and how it is finished."""
        return [*self.finish.shown, *self.finish.controls]


def build_page(studio: Studio, files: Files) -> gr.Blocks:
    """Returns the page with its API; nothing is loaded or drawn before somebody opens it."""
    page = gr.Blocks(title="Omokage", analytics_enabled=False, fill_width=True)
    with page:
        state = gr.State(Page(), time_to_live=PAGE_KEPT_S)
        shelf = keep_tab.build_shelf()
        gr.HTML(menu(), elem_id="languages")
        head = gr.HTML(elem_id="head")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab(mark("tabs.draw"), id="draw", elem_id="tab-draw"):
                draw = draw_tab.build_draw_tab()
            with gr.Tab(mark("tabs.explore"), id="explore", elem_id="tab-explore") as exploring:
                explore = explore_tab.build_explore_tab()
            with gr.Tab(mark("tabs.play"), id="play", elem_id="tab-play"):
                play = play_tab.build_play_tab()
            with gr.Tab(mark("tabs.finish"), id="finish", elem_id="tab-finish"):
                finish = finish_tab.build_finish_tab()
            with gr.Tab(mark("tabs.keep"), id="keep", elem_id="tab-keep") as opened:
                keep = keep_tab.build_keep_tab(*shelf)
        parts = Parts(
            studio, files, Pictures(studio, files), state, head, tabs, draw, explore, play,
            finish, keep, exploring, opened,
        )  # fmt: skip
        api.add_endpoints(parts)  # first: a listener of the page must not take a name of theirs
        model_updates.watch_model(parts)
        for tab in (draw_tab, explore_tab, play_tab, finish_tab, keep_tab):
            tab.connect(parts)
        links.connect(parts, page)
        keep_tab.take_over_former_shelf(page)
    return page
