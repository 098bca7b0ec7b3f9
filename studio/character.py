"""A character by plain values, and what a model draws it from."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dataset.errors import UsageError, listed, nearest
from models.labels import Rows, label_rows
from models.sampling.characters import Characters, characters, read_shift, shift_shape
from studio.model_source import OpenModel
from studio.recipe import Amounts, Recipe
from studio.validation import MAX_SEED, check_whole, quoted

_LISTED = 40  # known labels that a message names
_MAX_NAME = 200  # characters of a name that is compared with those known


@dataclasses.dataclass(frozen=True)
class Character:
    """A character of a model; the fields are those of `Recipe`, which checks their ranges."""

    seed: int
    labels: tuple[str, ...] = ()
    strengths: Amounts[str] = ()
    variations: Amounts[int] = ()
    sliders: Amounts[str] = ()
    latent: str = ""

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """Returns the character of a recipe."""
        return cls(**{field.name: getattr(recipe, field.name) for field in dataclasses.fields(cls)})


def drawn_from(model: OpenModel, who: Sequence[Character]) -> Characters:
    """Returns what a model draws characters from.

    Raises UsageError for a seed that there is not, an unknown label or direction (with the nearest
    one), or a latent of another model.
    """
    seeds = [check_seed(one.seed) for one in who]
    rows = label_rows([known_labels(one.labels, model.labels) for one in who], model.labels)
    shifts = [_shift(model, one) for one in who]
    shift = None
    if any(one is not None for one in shifts):
        nothing = torch.zeros(shift_shape(model.spec))
        shift = torch.stack([nothing if one is None else one for one in shifts])
    varied = [one.variations for one in who]
    return characters(
        model.spec,
        seeds,
        rows,
        strengths=np.stack([_strengths(model, one) for one in who]),
        variations=varied if any(varied) else (),
        shift=shift,
    )


def _strengths(model: OpenModel, character: Character) -> Rows:
    row = np.ones(len(model.labels), dtype=np.float32)
    for name, strength in character.strengths:
        (known,) = known_labels([name], model.labels)
        row[model.labels.index(known)] = strength
    return row


def _shift(model: OpenModel, character: Character) -> Tensor | None:
    """Returns the shift of sliders and latent together, None for neither."""
    shift = None
    if character.latent:
        shift = torch.from_numpy(read_shift(character.latent))
        _check_latent(model, shift)
    if character.sliders:
        if model.directions is None:
            raise UsageError(without_directions(model))
        moved = model.directions.shift(character.sliders)
        shift = moved if shift is None else shift + moved
    return shift


def without_directions(model: OpenModel) -> str:
    """Says why a model has no sliders, "" if it has."""
    if model.directions is not None:
        return ""
    if model.limits:
        return f"{model.limits[0].upper()}{model.limits[1:].rstrip('.')}: it has no sliders."
    return (
        f"{model.name} has no directions, so it has no sliders: they are found when a generator is "
        "evaluated, and come with versions that were registered since."
    )


def _check_latent(model: OpenModel, shift: Tensor) -> None:
    wanted = shift_shape(model.spec)
    if tuple(shift.shape) == wanted:
        return
    reason = f" {model.limits}." if model.limits else ""
    raise UsageError(
        f"The latent of this picture has {' x '.join(map(str, shift.shape))} numbers, and "
        f"{model.name} takes {' x '.join(map(str, wanted))}: it was found with another "
        f"model.{reason}"
    )


def known_labels(names: Iterable[object], known: Sequence[str]) -> tuple[str, ...]:
    """Returns the named labels in the model's order, each once.

    Spaces in a name mean underscores. Raises UsageError naming each unknown one with the nearest.
    """
    requested = [
        name.strip().replace(" ", "_") if isinstance(name, str) else name for name in names
    ]
    unknown = [name for name in requested if name not in known]
    if unknown:
        faults = [f"unknown label {quoted(name)}{_near(name, known)}" for name in unknown]
        if len(faults) == 1:
            raise UsageError(f"{faults[0]}{'' if faults[0].endswith('?') else '.'} {_told(known)}")
        raise UsageError(f"{len(faults)} labels are unknown:\n{listed(faults)}\n{_told(known)}")
    return tuple(label for label in known if label in requested)


def check_seed(seed: object, what: str = "the seed") -> int:
    """Returns a seed; raises UsageError if it is no whole number from 0 to 2^53 - 1."""
    return check_whole(seed, what, low=0, high=MAX_SEED)


def _near(name: object, known: Sequence[str]) -> str:
    return nearest(name, known) if isinstance(name, str) and len(name) <= _MAX_NAME else ""


def _told(known: Sequence[str]) -> str:
    if not known:
        return "This model knows no labels."
    more = f" and {len(known) - _LISTED:,} more" if len(known) > _LISTED else ""
    return f"This model knows {', '.join(known[:_LISTED])}{more}."
