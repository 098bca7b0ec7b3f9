"""What one visitor's page knows: the model it shows, what was drawn, the edit history."""

import dataclasses
import threading
from dataclasses import dataclass, field
from typing import Any

from studio.draw import Group
from studio.edits import Edits
from studio.explore import MIDDLE, Exploration
from studio.recipe import Recipe

ONE_STEP_S = 1.0  # a slider that is dragged changes all the time: that is one step, not forty
STEPS_MAX = 200


@dataclass(frozen=True)
class Finishing:
    """How a picture is finished: first made larger, then edited."""

    upscale: int = 1
    denoise: int = -1
    edits: Edits = field(default_factory=Edits)

    def differs_in(self, other: "Finishing") -> str:
        """Names what differs from another finishing, "" if nothing does."""
        own, others = self._flat(), other._flat()
        return ",".join(name for name in own if own[name] != others[name])

    def _flat(self) -> dict[str, object]:
        rest = {"upscale": self.upscale, "denoise": self.denoise}
        edges = dict(zip(("left", "top", "right", "bottom"), self.edits.crop, strict=True))
        return {**rest, **edges, **{k: v for k, v in vars(self.edits).items() if k != "crop"}}


@dataclass(frozen=True)
class EditHistory:
    """One picture with its steps: a drawn one by its recipe, or an uploaded one by its path.

    Attributes:
        recipe: what it was drawn from, without what is done to it here; None for an uploaded one.
        sent: path of an uploaded picture that says nothing of how it was drawn, else "".
        name: what the download of an uploaded one is called, without its ending.
        steps: the finishings so far; `at` is the one that is seen, those behind it can be redone.
        touched, touched_at: what was changed last, and when, s.

    """

    recipe: Recipe | None = None
    sent: str = ""
    name: str = ""
    steps: tuple[Finishing, ...] = field(default_factory=lambda: (Finishing(),))
    at: int = 0
    touched: str = ""
    touched_at: float = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether no picture lies there."""
        return self.recipe is None and not self.sent

    @property
    def finishing(self) -> Finishing:
        """The finishing that is seen."""
        return self.steps[self.at]

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back."""
        return self.at > 0

    @property
    def can_redo(self) -> bool:
        """Whether a step was taken back."""
        return self.at < len(self.steps) - 1

    def changed(self, finishing: Finishing, *, now: float) -> "EditHistory":
        """Returns the history with a further step; those that were taken back are forgotten.

        Changes of one and the same thing within ONE_STEP_S of each other are one step.
        """
        touched = finishing.differs_in(self.finishing)
        if not touched:
            return self
        goes_on = touched == self.touched and now - self.touched_at < ONE_STEP_S and self.at > 0
        before = self.steps[: self.at] if goes_on else self.steps[: self.at + 1]
        steps = (*before, finishing)[-STEPS_MAX:]
        return dataclasses.replace(
            self, steps=steps, at=len(steps) - 1, touched=touched, touched_at=now
        )

    def undone(self) -> "EditHistory":
        """Returns the history one step back."""
        return dataclasses.replace(self, at=max(0, self.at - 1), touched="")

    def redone(self) -> "EditHistory":
        """Returns the history one step on."""
        return dataclasses.replace(self, at=min(len(self.steps) - 1, self.at + 1), touched="")

    def reset(self, *, now: float) -> "EditHistory":
        """Returns the history with the picture as it was; that can be undone too."""
        return dataclasses.replace(self.changed(Finishing(), now=now), touched="")

    def finished(self) -> Recipe:
        """Returns the recipe of what is seen; for drawn pictures only."""
        assert self.recipe is not None, "an uploaded picture has no recipe"
        finishing = self.finishing
        return dataclasses.replace(
            self.recipe, upscale=finishing.upscale, denoise=finishing.denoise, edits=finishing.edits
        )


def history_of(recipe: Recipe) -> EditHistory:
    """Starts the history of a recipe's picture; what the recipe does to it is its one step."""
    finishing = Finishing(recipe.upscale, recipe.denoise, recipe.edits)
    plain = dataclasses.replace(recipe, upscale=1, denoise=-1, edits=Edits())
    steps = (Finishing(),) if finishing == Finishing() else (Finishing(), finishing)
    return EditHistory(recipe=plain, steps=steps, at=len(steps) - 1)


DRAWS_AT_ONCE = 8  # they take turns, picture by picture
FINISHES_AT_ONCE = 2
FILMS_AT_ONCE = 1
# A listener of the page is for the page: clients have endpoints of their own, with plain values.
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
AT_ONCE: dict[str, Any] = {**PRIVATE, "queue": False}
# Only what goes through the queue can show a message that is no error.
TELLING: dict[str, Any] = {**PRIVATE, "concurrency_limit": None}
PAGE_KEPT_S = 6 * 3600  # a page that nobody touches for so long begins anew


@dataclass(frozen=True)
class Drawn:
    """A picture on the page: its recipe, the path of its PNG, and as what size it was drawn, px."""

    recipe: Recipe
    path: str
    side: int


@dataclass(frozen=True)
class PageState:
    """One visitor's page.

    Attributes:
        shown: key of the model whose groups are laid out, "" before there is any.
        head: the head's text, so that it is sent only when it changes.
        groups: the groups that are laid out.
        drawn: the last draw, in order.
        chosen: number of the chosen one of them, -1 for none.
        first, second: what is played with.
        history: what is finished.
        shelf: the kept pictures as they were drawn last; the shelf itself is in the browser.
        taken: number of the chosen one of them, -1 for none.
        exploration: what is explored, with its steps.
        around: its character as it is seen, and the neighbours, row by row.

    """

    shown: str = ""
    head: str = ""
    groups: tuple[Group, ...] = ()
    drawn: tuple[Drawn, ...] = ()
    chosen: int = -1
    first: Drawn | None = None
    second: Drawn | None = None
    history: EditHistory = field(default_factory=EditHistory)
    shelf: tuple[Drawn, ...] = ()
    taken: int = -1
    exploration: Exploration = field(default_factory=Exploration)
    around: tuple[Drawn, ...] = ()

    @property
    def explored(self) -> Drawn | None:
        """The character that is explored, as it is seen."""
        return self.around[MIDDLE] if self.around else None

    @property
    def on_shelf(self) -> Drawn | None:
        """The chosen picture of the shelf."""
        return self.shelf[self.taken] if 0 <= self.taken < len(self.shelf) else None

    @property
    def current(self) -> Drawn | None:
        """The chosen picture."""
        return self.drawn[self.chosen] if 0 <= self.chosen < len(self.drawn) else None

    def with_(self, **changes: object) -> "PageState":
        """Returns the state with some things changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


@dataclass
class Page:
    """What Gradio keeps of a page: its state, which listeners that overlap change together.

    Gradio gives each listener what it kept at its start and keeps what comes back as it is: of two
    at once, the one that ended last undid what the other had done.
    """

    now: PageState = field(default_factory=PageState)

    def merge(self, given: PageState, changed: PageState) -> None:
        """Takes over the fields in which a listener's state differs from what it was given."""
        differing = {
            name: value for name, value in vars(changed).items() if value is not vars(given)[name]
        }
        with _MERGING:
            self.now = self.now.with_(**differing)


_MERGING = threading.Lock()  # one for all pages: Gradio copies a Page, and no lock can be copied
