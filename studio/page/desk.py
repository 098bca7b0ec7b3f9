"""What one visitor's page knows: the model it shows, what was drawn, what was put aside."""

import dataclasses
from dataclasses import dataclass, field

from studio.groups import Group
from studio.page.bench import Bench
from studio.recipe import Recipe

KEPT_S = 6 * 3600  # a page that nobody touches for so long begins anew


@dataclass(frozen=True)
class Drawn:
    """A picture on the page: its recipe, and the path of its PNG."""

    recipe: Recipe
    path: str

    @property
    def caption(self) -> str:
        """What stands below it."""
        return f"seed {self.recipe.seed}"


@dataclass(frozen=True)
class Desk:
    """One visitor's page.

    Attributes:
        shown: key of the model whose groups are laid out, "" before there is any.
        told: the head's text, so that it is sent only when it changes.
        groups: the groups that are laid out.
        drawn: the last draw, in order.
        chosen: number of the chosen one of them, -1 for none.
        first, second: what is played with.
        bench: what is finished.

    """

    shown: str = ""
    told: str = ""
    groups: tuple[Group, ...] = ()
    drawn: tuple[Drawn, ...] = ()
    chosen: int = -1
    first: Drawn | None = None
    second: Drawn | None = None
    bench: Bench = field(default_factory=Bench)

    @property
    def current(self) -> Drawn | None:
        """The chosen picture."""
        return self.drawn[self.chosen] if 0 <= self.chosen < len(self.drawn) else None

    def with_(self, **changes: object) -> "Desk":
        """Returns the desk with some things changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]
