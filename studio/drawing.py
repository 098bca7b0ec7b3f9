"""Draws avatars: a character by its seed and labels, of which some groups are chosen."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dataset.decode import Picture
from dataset.errors import UsageError, nearest
from models.labels import label_rows, names_of
from models.sampling.draw import draw
from studio.abilities import abilities
from studio.asked import number, one_of, whole
from studio.faults import quoted
from studio.groups import known_labels, label_groups
from studio.limits import MAX_SEED, PSI_MAX
from studio.one_by_one import OneByOne
from studio.opened import OpenModel
from studio.recipe import NOISES, Recipe


@dataclass(frozen=True)
class Wish:
    """What is chosen of a character; the rest comes with its seed.

    Attributes:
        chosen: labels by the name of their group. A group that is missing is "any": the seed's
            own; () is "none of them".

    """

    chosen: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Avatar:
    """A picture, uint8 [R,R,3], and what draws it again."""

    recipe: Recipe
    picture: Picture


def resolve(model: OpenModel, wish: Wish, seed: int) -> tuple[str, ...]:
    """Returns the labels of a character in the model's order.

    They are those of the typical row that the seed points at, with the labels of every chosen
    group replaced: another choice in one group leaves all other groups as they are. Raises
    UsageError for a group that the model does not have, or labels that are not of their group.
    """
    groups = {group.name: group.labels for group in label_groups(model.labels)}
    for name, chosen in wish.chosen.items():
        if name not in groups:
            near = nearest(name, groups) if isinstance(name, str) else ""
            raise UsageError(
                f"{quoted(name)} is no group of this model's labels{near or '.'} "
                f"Groups: {', '.join(groups)}."
            )
        known_labels(chosen, groups[name])
    row = model.typical[check_seed(seed) % len(model.typical)]
    own = set(names_of(row, model.labels))
    for name, chosen in wish.chosen.items():
        own -= set(groups[name])
        own |= set(known_labels(chosen, groups[name]))
    return tuple(label for label in model.labels if label in own)


def wish_for(labels: Sequence[str], model: OpenModel) -> Wish:
    """Returns the wish for exactly these labels: each group is chosen, those without any as ()."""
    asked = known_labels(labels, model.labels)
    return Wish(
        {
            group.name: tuple(label for label in group.labels if label in asked)
            for group in label_groups(model.labels)
        }
    )


def wish_named(labels: Sequence[str], model: OpenModel) -> Wish:
    """Returns the wish for labels as they are typed: their groups are chosen, the others any."""
    every = wish_for(labels, model).chosen
    return Wish({name: chosen for name, chosen in every.items() if chosen})


def check_seed(seed: object, what: str = "the seed") -> int:
    """Returns a seed; raises UsageError if it is no whole number from 0 to 2^53 - 1."""
    return whole(seed, what, low=0, high=MAX_SEED)


def check_psi(psi: object) -> float:
    """Returns psi with the four decimals that links keep; raises UsageError out of 0 to 2."""
    meaning = "where 1 is full variety and 0 the mean face"
    return round(number(psi, "psi", low=0, high=PSI_MAX, meaning=meaning), 4)


def check_noise(model: OpenModel, noise: object) -> str:
    """Returns the noise's name; raises UsageError if there is none such, or the model has none."""
    asked = one_of(noise, "the noise", NOISES)
    reason = abilities(model)["noise"]
    if asked != "const" and reason:
        raise UsageError(f"The noise {quoted(asked)} cannot be drawn. {reason}")
    return asked


def draw_one(
    model: OpenModel, *, seed: int, labels: Sequence[str], psi: float = 1.0, noise: str = "const"
) -> Picture:
    """Draws the one picture of a model, seed, labels, psi and noise: uint8 [R,R,3].

    labels: all that the character has, those that are not named it has not. Raises UsageError,
    naming what was asked and what is wanted, for an unknown label (with the nearest one), a seed,
    psi or noise that there is not.
    """
    seed, psi, noise = check_seed(seed), check_psi(psi), check_noise(model, noise)
    rows = label_rows([known_labels(labels, model.labels)], model.labels)
    pictures = draw(OneByOne(model.generator), rows, [seed], psi=psi, noise=noise)
    picture: Picture = pictures[0]
    return picture


def draw_avatars(
    model: OpenModel,
    wish: Wish,
    seeds: Sequence[int],
    *,
    psi: float = 1.0,
    noise: str = "const",
) -> Iterator[Avatar]:
    """Draws a character for each seed, each when it is asked for, so that the first comes soon.

    Raises UsageError at once, before anything is drawn, as `resolve` and `draw_one` do.
    """
    psi, noise = check_psi(psi), check_noise(model, noise)
    recipes = [
        Recipe(model.key, check_seed(seed), resolve(model, wish, seed), psi=psi, noise=noise)
        for seed in seeds
    ]
    return (
        Avatar(
            recipe, draw_one(model, seed=recipe.seed, labels=recipe.labels, psi=psi, noise=noise)
        )
        for recipe in recipes
    )
