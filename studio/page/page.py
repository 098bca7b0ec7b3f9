"""Builds the page: its head, its three tabs, and what happens on them."""

import gradio as gr

from studio.page import (
    draw_events,
    endpoints,
    finish_events,
    link_events,
    model_events,
    play_events,
)
from studio.page.desk import KEPT_S, Desk
from studio.page.draw_tab import build_draw_tab
from studio.page.files import KEPT_S as FILES_KEPT_S
from studio.page.files import LOOK_EVERY_S, Files
from studio.page.finish_tab import build_finish_tab
from studio.page.parts import Parts
from studio.page.pictures import Pictures
from studio.page.play_tab import build_play_tab
from studio.studio import Studio


def build_page(studio: Studio, files: Files) -> gr.Blocks:
    """Returns the page with its API; nothing is loaded or drawn before somebody opens it."""
    page = gr.Blocks(
        title="Omokage",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(LOOK_EVERY_S, FILES_KEPT_S),
    )
    with page:
        desk = gr.State(Desk(), time_to_live=KEPT_S)
        head = gr.HTML(elem_id="head")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Draw", id="draw"):
                draw = build_draw_tab()
            with gr.Tab("Play", id="play"):
                play = build_play_tab()
            with gr.Tab("Finish", id="finish"):
                finish = build_finish_tab()
        parts = Parts(studio, files, Pictures(studio, files), desk, head, tabs, draw, play, finish)
        endpoints.listen(parts)  # first: a listener of the page must not take a name of theirs
        for events in (model_events, draw_events, play_events, finish_events):
            events.listen(parts)
        link_events.listen(parts, page)
    return page
