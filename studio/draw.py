"""Draws avatars: characters whose labels are chosen by group, or come with their seed."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dataset.decode import Picture
from dataset.errors import UsageError, nearest
from dataset.vocabulary import appearance
from models.families import FAMILIES
from models.families.base import GeneratorNet, GeneratorSpec, NetworkSize, Noise
from models.labels import names_of
from models.sampling.characters import draw_characters
from studio.character import (
    Character,
    check_seed,
    drawn_from,
    known_labels,
    without_directions,
)
from studio.model_source import OpenModel
from studio.recipe import NOISES, Recipe
from studio.validation import PSI_MAX, check_choice, check_number, quoted


class FifoLock:
    """A lock that is given in the order of asking.

    A network uses all cores for one picture, and passes side by side are slower than one after the
    other: stylegan2 at 128 px took up to 1.4 s on two cores that others used too, and 0.3 s alone.
    Whoever asks for many pictures lets the others in after each.
    """

    def __init__(self) -> None:
        """Makes one that nobody holds."""
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()  # who holds it, and then those who wait

    @property
    def waiting(self) -> int:
        """How many hold it or wait for it."""
        return len(self._queue)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Waits for its turn and holds it."""
        mine = object()
        with self._changed:
            self._queue.append(mine)
            try:
                self._changed.wait_for(lambda: self._queue[0] is mine)
            except BaseException:  # stopped while it waited: the others must not wait for it
                self._leave(mine)
                raise
        try:
            yield
        finally:
            with self._changed:
                self._leave(mine)

    def _leave(self, mine: object) -> None:
        self._queue.remove(mine)
        self._changed.notify_all()


DRAWING_LOCK = FifoLock()  # of this process: its cores are what is shared


class UnbatchedGenerator(GeneratorNet):
    """A generator that draws the pictures of a batch one after the other, each in its turn.

    How a sum is rounded depends on how many pictures go through a network together. Drawn alone, a
    picture depends on its own latent and labels only, memory does not grow with their number, and
    those who wait get their turn in between.
    """

    def __init__(self, generator: GeneratorNet, drawn: Callable[[], None] = lambda: None) -> None:
        """Draws with `generator`; what drawn raises, which is called after each, ends the work."""
        super().__init__()
        self.spec = generator.spec
        self.generator = generator
        self._drawn = drawn

    def map(self, z: Tensor, labels: Tensor) -> Tensor | None:
        """Maps as the generator does."""
        return self.generator.map(z, labels)

    def truncated(self, w: Tensor, labels: Tensor, psi: float | Tensor) -> Tensor:
        """Truncates as the generator does."""
        return self.generator.truncated(w, labels, psi)

    def noise_sides(self) -> list[int]:
        """Returns the generator's own."""
        return self.generator.noise_sides()

    def forward(
        self,
        z: Tensor,
        labels: Tensor,
        psi: float | Tensor = 1.0,
        w: Tensor | None = None,
        noise: Noise = "const",
    ) -> Tensor:
        """Draws [N,3,R,R] in [-1,1]; all arguments are as in `GeneratorNet.forward`."""
        pictures = []
        for at in range(len(z)):
            own = slice(at, at + 1)
            maps = noise if isinstance(noise, str) else [one[own] for one in noise]
            with DRAWING_LOCK.hold():
                pictures.append(
                    self.generator(
                        z[own],
                        labels[own],
                        psi=psi,
                        w=None if w is None else w[own],
                        noise=maps,
                    )
                )
            self._drawn()
        return torch.cat(pictures)


SINGLE = ("hair_length", "hair_colour", "eye_colour")  # of these a character has one
OTHER = "other"  # labels that the vocabulary does not know


@dataclass(frozen=True)
class Group:
    """Labels that belong together.

    Attributes:
        name: as in the vocabulary, "hair_colour".
        title: for people, "Hair colour".
        labels: in the model's order; never empty.
        single: whether a character has one of them, so that a page offers a single choice.

    """

    name: str
    title: str
    labels: tuple[str, ...]
    single: bool


def label_groups(labels: Sequence[str]) -> list[Group]:
    """Returns the groups of a model's labels, in the vocabulary's order; the unknown ones last."""
    vocabulary = appearance()
    members: dict[str, list[str]] = {name: [] for name in vocabulary.groups.values()}
    members[OTHER] = []
    for label in labels:
        meaning = vocabulary.meaning.get(label, (label,))  # an alias belongs where its tag does
        members[vocabulary.groups.get(meaning[0], OTHER)].append(label)
    return [
        Group(name, name.replace("_", " ").capitalize(), tuple(own), name in SINGLE)
        for name, own in members.items()
        if own
    ]


SPACES = ("z", "w")


def abilities(model: OpenModel) -> dict[str, str]:
    """Returns for each thing that a model may be used for "" if it can, else the reason.

    The names: noise (other noise than its own), morph, sweep and loop (each also with `_w` for
    those in W), mix, table, sliders.
    """
    return {
        "noise": _without(model, "can_noise", "no noise", "its noise cannot be changed"),
        "morph": "",
        "morph_w": _without_w(model, "it cannot morph in W"),
        "sweep": "",
        "sweep_w": _without_w(model, "no number of W can be swept"),
        "mix": _without_w(model, "its styles cannot be mixed")
        or _without(model, "can_mixing", "one w for all layers", "its styles cannot be mixed"),
        "table": "" if model.labels else "This model knows no labels that a table could show.",
        "loop": "",
        "loop_w": _without_w(model, "it cannot wander in W"),
        "sliders": without_directions(model),
    }


def _without_w(model: OpenModel, so: str) -> str:
    return _without(model, "can_w", "no W", so)


def _without(model: OpenModel, ability: str, lack: str, so: str) -> str:
    """Says that a model lacks an ability, what follows, and which families have it."""
    if getattr(model.spec, ability):
        return ""
    able = [name for name in FAMILIES if getattr(_usual(name), ability)]
    if model.spec.family in able and model.limits:
        return f"{model.limits[0].upper()}{model.limits[1:].rstrip('.')}: {so}."
    return f"{model.spec.family} has {lack}, so {so}. Families that can: {', '.join(sorted(able))}."


def _usual(family: str) -> GeneratorSpec:
    return FAMILIES[family].spec((), NetworkSize(FAMILIES[family].resolutions_px[0]))


@dataclass(frozen=True)
class LabelChoice:
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


def resolve(model: OpenModel, choice: LabelChoice, seed: int) -> tuple[str, ...]:
    """Returns the labels of a character in the model's order.

    They are those of the typical row that the seed points at, with the labels of every chosen
    group replaced: another choice in one group leaves all other groups as they are. Raises
    UsageError for a group that the model does not have, or labels that are not of their group.
    """
    groups = {group.name: group.labels for group in label_groups(model.labels)}
    for name, chosen in choice.chosen.items():
        if name not in groups:
            near = nearest(name, groups) if isinstance(name, str) else ""
            raise UsageError(
                f"{quoted(name)} is no group of this model's labels{near or '.'} "
                f"Groups: {', '.join(groups)}."
            )
        known_labels(chosen, groups[name])
    row = model.typical[check_seed(seed) % len(model.typical)]
    own = set(names_of(row, model.labels))
    for name, chosen in choice.chosen.items():
        own -= set(groups[name])
        own |= set(known_labels(chosen, groups[name]))
    return tuple(label for label in model.labels if label in own)


def choice_for(labels: Sequence[str], model: OpenModel) -> LabelChoice:
    """Returns the choice of exactly these labels: a group without any of them is chosen as ()."""
    requested = known_labels(labels, model.labels)
    return LabelChoice(
        {
            group.name: tuple(label for label in group.labels if label in requested)
            for group in label_groups(model.labels)
        }
    )


def choice_named(labels: Sequence[str], model: OpenModel) -> LabelChoice:
    """Returns the choice for labels as they are typed: their groups are chosen, the others any."""
    every = choice_for(labels, model).chosen
    return LabelChoice({name: chosen for name, chosen in every.items() if chosen})


def check_psi(psi: object) -> float:
    """Returns psi with the four decimals that links keep; raises UsageError out of 0 to 2."""
    meaning = "where 1 is full variety and 0 the mean face"
    return round(check_number(psi, "psi", low=0, high=PSI_MAX, meaning=meaning), 4)


def check_noise(model: OpenModel, noise: object) -> str:
    """Returns the noise's name; raises UsageError if there is none such, or the model has none."""
    requested = check_choice(noise, "the noise", NOISES)
    reason = abilities(model)["noise"]
    if requested != "const" and reason:
        raise UsageError(f"The noise {quoted(requested)} cannot be drawn. {reason}")
    return requested


def draw_one(
    model: OpenModel, character: Character, *, psi: float = 1.0, noise: str = "const"
) -> Picture:
    """Draws the one picture of a model, character, psi and noise: uint8 [R,R,3].

    Labels that the character does not name it has not. Raises UsageError, naming what was given
    and what is wanted, as `drawn_from` does, and for a psi or noise that there is not.
    """
    psi, noise = check_psi(psi), check_noise(model, noise)
    who = drawn_from(model, [character])
    pictures = draw_characters(UnbatchedGenerator(model.generator), who, psi=psi, noise=noise)
    picture: Picture = pictures[0]
    return picture


def draw_avatars(
    model: OpenModel,
    choice: LabelChoice,
    seeds: Sequence[int],
    *,
    psi: float = 1.0,
    noise: str = "const",
    like: Character | None = None,
) -> Iterator[Avatar]:
    """Draws a character for each seed, lazily, so that the first comes soon.

    like: whose variations, sliders and latent all have, and the strengths of the labels that they
    share with it. Raises UsageError at once, before anything is drawn, as `resolve` and `draw_one`
    do.
    """
    psi, noise = check_psi(psi), check_noise(model, noise)
    recipes = []
    for seed in seeds:
        labels = resolve(model, choice, seed)
        given = like or Character(seed)
        recipe = Recipe(
            model.key,
            check_seed(seed),
            labels,
            psi=psi,
            noise=noise,
            strengths=tuple(pair for pair in given.strengths if pair[0] in labels),
            variations=given.variations,
            sliders=given.sliders,
            latent=given.latent,
        )
        drawn_from(model, [Character.of(recipe)])
        recipes.append(recipe)
    return drawn_avatars(model, recipes)


def drawn_avatars(model: OpenModel, recipes: Iterable[Recipe]) -> Iterator[Avatar]:
    """Draws recipes of one model, lazily, neither upscaled nor edited; raises as `draw_one`."""
    return (
        Avatar(one, draw_one(model, Character.of(one), psi=one.psi, noise=one.noise))
        for one in recipes
    )
