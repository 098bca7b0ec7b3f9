"""All parts of one page, for those who listen to it."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.page.draw_tab import DrawTab
from studio.page.files import Files
from studio.page.finish_tab import FinishTab
from studio.page.pictures import Pictures
from studio.page.play_tab import PlayTab
from studio.studio import Studio

DRAWS_AT_ONCE = 8  # they take turns, picture by picture
FINISHES_AT_ONCE = 2
FILMS_AT_ONCE = 1


@dataclass(frozen=True)
class Parts:
    """The page's components, and what is behind them."""

    studio: Studio
    files: Files
    pictures: Pictures
    desk: gr.State
    head: gr.HTML
    tabs: gr.Tabs
    draw: DrawTab
    play: PlayTab
    finish: FinishTab

    @property
    def model_shown(self) -> list[Any]:
        """What depends on the model alone, in the order of `model_events.laid_out`."""
        games = self.play.games
        return [
            self.head,
            self.draw.noise,
            games["table"].controls["group"],
            games["sweep"].controls["number"],
            games["mix"].controls["crossover"],
            *self.play.able,
            *self.draw.slots.components,
        ]

    @property
    def finish_all(self) -> list[Any]:
        """What shows the finished picture and how it is finished."""
        return [*self.finish.shown, *self.finish.controls]


# A listener of the page is for the page: clients have endpoints of their own, with plain values.
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
AT_ONCE: dict[str, Any] = {**PRIVATE, "queue": False}
