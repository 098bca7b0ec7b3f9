"""Ways on from a character: its neighbours, labels by degrees, sliders; each step can be undone."""

import dataclasses
import queue
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from dataset.errors import UsageError
from models.sampling.draw import Pictures
from studio.edits import DECIMALS, Edits
from studio.recipe import Recipe
from studio.service import Inverted, Studio
from studio.validation import VARIATION_MAX, VARIATIONS_MAX

ONE_STEP_S = 1.0  # a slider that is dragged changes all the time: that is one step, not forty
STEPS_MAX = 200

MAP, VARIATIONS = "map", "variations"
SIDE = 3  # of the neighbours' square, whose middle is the character itself
MIDDLE = SIDE * SIDE // 2
# Where each neighbour lies on a map: to the right and up.
PLACES = [(right, up) for up in (1, 0, -1) for right in (-1, 0, 1)]
_FIRST_VARIATION = 1_000_000  # noise seeds of variations; those below belong to maps


@dataclass(frozen=True)
class Exploration:
    """What was explored: recipes one after the other, of which `at` is seen.

    Attributes:
        steps: the first is where it began; those behind `at` can be done again.
        way: number of the two directions of the map, or of the eight variations.
        touched, touched_at: what was changed last, and when, s.

    """

    steps: tuple[Recipe, ...] = ()
    at: int = 0
    way: int = 0
    touched: str = ""
    touched_at: float = 0.0

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """Begins with a recipe's character, neither upscaled nor edited."""
        return cls(steps=(dataclasses.replace(recipe, upscale=1, edits=Edits()),))

    def begun_with(self, recipe: Recipe) -> Self:
        """Returns it where a recipe's character was seen, else a new one that begins with it."""
        begun = self.of(recipe)
        seen = begun.steps[0]
        return self.gone_to(self.steps.index(seen)) if seen in self.steps else begun

    @property
    def recipe(self) -> Recipe | None:
        """What is seen; None before there is anything."""
        return self.steps[self.at] if self.steps else None

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back."""
        return self.at > 0

    @property
    def can_redo(self) -> bool:
        """Whether a step was taken back."""
        return self.at < len(self.steps) - 1

    def stepped(self, recipe: Recipe, *, touched: str = "", now: float = 0.0) -> Self:
        """Returns it one step on; what was taken back is forgotten.

        touched: names a slider; its changes within ONE_STEP_S of each other are one step.
        """
        if recipe == self.recipe:
            return self
        goes_on = touched and touched == self.touched and now - self.touched_at < ONE_STEP_S
        before = self.steps[: self.at] if goes_on and self.at else self.steps[: self.at + 1]
        steps = (*before, recipe)
        if len(steps) > STEPS_MAX:
            steps = (steps[0], *steps[2:])  # where it began stays
        return dataclasses.replace(
            self, steps=steps, at=len(steps) - 1, touched=touched, touched_at=now
        )

    def gone_to(self, at: int) -> Self:
        """Returns it at another of its steps, or at the nearest one that there is."""
        at = max(0, min(at, len(self.steps) - 1))
        return dataclasses.replace(self, at=at, touched="")


def moved(recipe: Recipe, amounts: Mapping[int, float]) -> Recipe:
    """Returns a recipe with further variations: amounts by noise seed, added to what it has.

    Raises UsageError at the edge of what variations may be.
    """
    have = dict(recipe.variations)
    for seed, amount in amounts.items():
        have[seed] = round(have.get(seed, 0.0) + amount, DECIMALS)
    have = {seed: amount for seed, amount in have.items() if amount}
    if any(abs(amount) > VARIATION_MAX for amount in have.values()):
        raise UsageError(
            f"That is the edge of this map: {VARIATION_MAX:g} in one direction is as far as it "
            "goes. Take new directions to go on."
        )
    if len(have) > VARIATIONS_MAX:
        raise UsageError(
            f"This character already has {len(recipe.variations)} variations of at most "
            f"{VARIATIONS_MAX}: go back by Undo, or choose another one to begin with."
        )
    return dataclasses.replace(recipe, variations=tuple(have.items()))


def neighbours(recipe: Recipe, *, kind: str, way: int, radius: float) -> list[Recipe]:
    """Returns the 9 recipes around one, row by row; the middle one is the recipe itself.

    kind MAP: along the two directions that `way` names, up and to the right. VARIATIONS: each
    neighbour in a direction of its own. radius: of one step, 0 to 2. Raises UsageError as `moved`.
    """
    if kind == MAP:
        return [
            moved(recipe, {2 * way: radius * right, 2 * way + 1: radius * up})
            for right, up in PLACES
        ]
    first = _FIRST_VARIATION + SIDE * SIDE * way
    return [
        recipe if place == MIDDLE else moved(recipe, {first + place: radius})
        for place in range(SIDE * SIDE)
    ]


def with_strength(recipe: Recipe, label: str, strength: float, *, known: tuple[str, ...]) -> Recipe:
    """Returns a recipe with a label at a strength from 0, which is without it, to 1.

    known: the model's labels, in whose order the recipe's are.
    """
    others = tuple(pair for pair in recipe.strengths if pair[0] != label)
    own = ((label, strength),) if 0 < strength < 1 else ()
    names = {*recipe.labels, label} if strength else {*recipe.labels} - {label}
    labels = tuple(name for name in known if name in names)
    return dataclasses.replace(recipe, labels=labels, strengths=(*others, *own))


def with_slider(recipe: Recipe, name: str, amount: float) -> Recipe:
    """Returns a recipe with the model's direction `name` at an amount; 0 leaves it out."""
    others = tuple(pair for pair in recipe.sliders if pair[0] != name)
    return dataclasses.replace(recipe, sliders=(*others, (name, amount)) if amount else others)


class _Stopped(BaseException):
    """Ends an inversion from within: whoever watched it has gone."""


Step = tuple[int, Pictures | None]


def inverting(studio: Studio, content: bytes, name: str) -> Iterator[Step | Inverted]:
    """Yields the steps of `Studio.invert` as they come, with a preview now and then, and its end.

    Raises what it raises. Once the iterator is closed the work ends, at its next step.
    """
    events: queue.Queue[Step | Inverted | BaseException] = queue.Queue()
    stopped = threading.Event()

    def advance(step: int, preview: Pictures | None) -> None:
        if stopped.is_set():
            raise _Stopped
        events.put((step, preview))

    def work() -> None:
        try:
            events.put(studio.invert(content, name, advance=advance))
        except BaseException as error:  # whoever watches raises it
            events.put(error)

    worker = threading.Thread(target=work, name="inversion", daemon=True)
    worker.start()
    try:
        while True:
            found = events.get()
            if isinstance(found, BaseException):
                raise found
            yield found
            if isinstance(found, Inverted):
                return
    finally:
        # Not waited for: the server itself may close this, which would answer nobody meanwhile.
        stopped.set()
