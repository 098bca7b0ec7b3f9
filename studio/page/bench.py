"""The picture that is being finished: what it is, and each step of what was done to it."""

import dataclasses
from dataclasses import dataclass, field

from studio.edits import Edits
from studio.recipe import Recipe

ONE_STEP_S = 1.0  # a slider that is dragged changes all the time: that is one step, not forty
STEPS_MAX = 200


@dataclass(frozen=True)
class Look:
    """How a picture is finished: first made larger, then edited."""

    upscale: int = 1
    denoise: int = -1
    edits: Edits = field(default_factory=Edits)

    def differs_in(self, other: "Look") -> str:
        """Names what differs from another look, "" if nothing does."""
        own, others = self._flat(), other._flat()
        return ",".join(name for name in own if own[name] != others[name])

    def _flat(self) -> dict[str, object]:
        rest = {"upscale": self.upscale, "denoise": self.denoise}
        edges = dict(zip(("left", "top", "right", "bottom"), self.edits.crop, strict=True))
        return {**rest, **edges, **{k: v for k, v in vars(self.edits).items() if k != "crop"}}


@dataclass(frozen=True)
class Bench:
    """One picture with its steps: a drawn one by its recipe, or an uploaded one by its path.

    Attributes:
        recipe: what it was drawn from, without what is done to it here; None for an uploaded one.
        sent: path of an uploaded picture that says nothing of how it was drawn, else "".
        name: what the download of an uploaded one is called, without its ending.
        steps: the looks so far; `at` is the one that is seen, those behind it can be redone.
        touched, touched_at: what was changed last, and when, s.

    """

    recipe: Recipe | None = None
    sent: str = ""
    name: str = ""
    steps: tuple[Look, ...] = field(default_factory=lambda: (Look(),))
    at: int = 0
    touched: str = ""
    touched_at: float = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether no picture lies there."""
        return self.recipe is None and not self.sent

    @property
    def look(self) -> Look:
        """The look that is seen."""
        return self.steps[self.at]

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back."""
        return self.at > 0

    @property
    def can_redo(self) -> bool:
        """Whether a step was taken back."""
        return self.at < len(self.steps) - 1

    def changed(self, look: Look, *, now: float) -> "Bench":
        """Returns the bench with a further step; those that were taken back are forgotten.

        Changes of one and the same thing within ONE_STEP_S of each other are one step.
        """
        touched = look.differs_in(self.look)
        if not touched:
            return self
        goes_on = touched == self.touched and now - self.touched_at < ONE_STEP_S and self.at > 0
        before = self.steps[: self.at] if goes_on else self.steps[: self.at + 1]
        steps = (*before, look)[-STEPS_MAX:]
        return dataclasses.replace(
            self, steps=steps, at=len(steps) - 1, touched=touched, touched_at=now
        )

    def undone(self) -> "Bench":
        """Returns the bench one step back."""
        return dataclasses.replace(self, at=max(0, self.at - 1), touched="")

    def redone(self) -> "Bench":
        """Returns the bench one step on."""
        return dataclasses.replace(self, at=min(len(self.steps) - 1, self.at + 1), touched="")

    def reset(self, *, now: float) -> "Bench":
        """Returns the bench with the picture as it was; that can be undone too."""
        return dataclasses.replace(self.changed(Look(), now=now), touched="")

    def finished(self) -> Recipe:
        """Returns the recipe of what is seen; for drawn pictures only."""
        assert self.recipe is not None, "an uploaded picture has no recipe"
        look = self.look
        return dataclasses.replace(
            self.recipe, upscale=look.upscale, denoise=look.denoise, edits=look.edits
        )


def bench_of(recipe: Recipe) -> Bench:
    """Lays a recipe's picture on the bench, with all that the recipe does to it as its one step."""
    look = Look(recipe.upscale, recipe.denoise, recipe.edits)
    plain = dataclasses.replace(recipe, upscale=1, denoise=-1, edits=Edits())
    steps = (Look(),) if look == Look() else (Look(), look)
    return Bench(recipe=plain, steps=steps, at=len(steps) - 1)
