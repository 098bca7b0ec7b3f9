"""The plan of a comparison: who trains with which settings, for how long, measured how. Pure."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from dataset.errors import ConfigError, listed
from dataset.store import digest_of
from dataset.vocabulary import sided
from models.comparison.sets import Choice, choices_of
from models.config import ENDLESS_KIMG, TrainConfig
from models.families import family_of
from models.metrics.extractors import chosen_extractor
from models.presets import preset
from models.training.loop import CLOCKS

CURVE_POINTS = 8  # scored snapshots of a training whose length is given in pictures
# Settings that must be the same for all, with what decides them.
_DECIDED = {"total_kimg": "the budget", "max_minutes": "the budget", "seed": "--seed"}


@dataclasses.dataclass(frozen=True)
class Budget:
    """What each entrant may use: minutes of training by a clock, or thousands of pictures.

    Exactly one of minutes and kimg is above 0. clock: "wall" or "processor".
    """

    minutes: float = 0.0
    kimg: float = 0.0
    clock: str = "wall"

    @property
    def faults(self) -> list[str]:
        """A sentence for each thing that does not fit."""
        faults = []
        if (self.minutes > 0) == (self.kimg > 0) or min(self.minutes, self.kimg) < 0:
            faults.append(
                f"minutes is {self.minutes:g} and kimg is {self.kimg:g}; one of them above 0 "
                "wanted, the other 0"
            )
        if self.clock not in CLOCKS:
            faults.append(f'clock is "{self.clock}"; {" or ".join(CLOCKS)} wanted')
        elif self.kimg > 0 and self.clock != "wall":
            faults.append(f"clock is {self.clock}, and kimg needs none: leave it out")
        return faults

    @property
    def overrides(self) -> list[str]:
        """The settings of a training that ends with this budget."""
        if self.kimg:
            return [f"total_kimg={self.kimg}", "max_minutes=0"]
        return [f"total_kimg={ENDLESS_KIMG}", f"max_minutes={self.minutes}"]

    def __str__(self) -> str:
        if self.kimg:
            return f"{self.kimg:g} kimg each"
        kind = "training" if self.clock == "wall" else "processor time"
        return f"{self.minutes:g} minutes of {kind} each"


@dataclasses.dataclass(frozen=True)
class Entrant:
    """One that takes part: its own overrides, those of all, and the settings that come of both."""

    name: str
    preset: str
    own: tuple[str, ...]
    overrides: tuple[str, ...]  # all of them, the budget's too: what the trainer gets
    config: TrainConfig


@dataclasses.dataclass(frozen=True)
class Plan:
    """Entrants and budget; what is measured afterwards is no part of it."""

    entrants: tuple[Entrant, ...]
    budget: Budget

    @property
    def digest(self) -> str:
        """The sha256 of all that decides what is trained, names included."""
        configs = {one.name: one.config.digest for one in self.entrants}
        return digest_of({"entrants": configs, "clock": self.budget.clock})

    def extractor(self, name: str) -> str:
        """Returns the extractor that `name` means: "auto" is one that is fit to judge them all."""
        families = {one.config.family: one.config.g_size() for one in self.entrants}
        specs = [family_of(family).spec((), size) for family, size in families.items()]
        return chosen_extractor(name, [seen for one in specs for seen in one.trained_on_features])

    def check_labels(self, labels: Sequence[str]) -> None:
        """Raises ConfigError naming every entrant that a manifest's labels do not suit."""
        faults = [f"{one.name}: {fault}" for one in self.entrants for fault in _unfit(one, labels)]
        if faults:
            raise ConfigError(f"the comparison does not fit the manifest:\n{listed(faults)}")

    def to_json(self) -> dict[str, Any]:
        """Returns what plan.json says."""
        entrants = {
            one.name: {
                "preset": one.preset,
                "own": list(one.own),
                "overrides": list(one.overrides),
                "family": one.config.family,
                "config_digest": one.config.digest,
            }
            for one in self.entrants
        }
        return {
            "entrants": entrants,
            "order": [one.name for one in self.entrants],
            "budget": dataclasses.asdict(self.budget),
            "budget_text": str(self.budget),
            "digest": self.digest,
        }


def planned(
    sets: Iterable[str],
    entrants: Iterable[Choice] = (),
    *,
    budget: Budget,
    seed: int = 0,
    score_pictures: int = 500,
    overrides: Sequence[str] = (),
) -> Plan:
    """Returns the plan; raises ConfigError with every fault, before anything is trained.

    sets are names of models.comparison.sets.SETS. overrides (`key=value`) hold for all entrants, an
    entrant's own go before them. score_pictures: fakes that each snapshot is scored on, for the
    curves; 0 is no curve.
    """
    chosen, faults = choices_of(sets, entrants)
    faults += budget.faults
    faults += [f"of all entrants: {fault}" for fault in _decided(overrides)]
    common = [f"score_pictures={score_pictures}"]
    if budget.kimg > 0:
        common.append(f"snapshot_kimg={max(budget.kimg / CURVE_POINTS, 0.001)}")
    made = []
    for choice in chosen:
        own_faults = _decided(choice.overrides)
        all_overrides = (*common, *overrides, *choice.overrides, f"seed={seed}")
        try:
            # Its settings first without the budget, whose own faults are named once.
            config = preset(
                choice.preset, [*all_overrides, *([] if budget.faults else budget.overrides)]
            )
        except ConfigError as error:
            own_faults.append(str(error))
        faults += [f"{choice.name}: {fault}" for fault in own_faults]
        if not own_faults:
            all_overrides = (*all_overrides, *budget.overrides)
            made.append(
                Entrant(choice.name, choice.preset, choice.overrides, all_overrides, config)
            )
    if len(chosen) < 2:
        faults.append(f"{len(chosen)} entrants make no comparison; 2 or more wanted")
    faults += _twins(made)
    if faults:
        raise ConfigError(f"the comparison does not fit:\n{listed(faults)}")
    return Plan(tuple(made), budget)


def comparison_id(manifest_digest: str, plan: Plan) -> str:
    """Returns the name of a comparison, and of its folder below comparisons/."""
    return f"{manifest_digest[:12]}-{plan.digest[:12]}"


def _decided(overrides: Sequence[str]) -> list[str]:
    names = [text.partition("=")[0] for text in overrides]
    return [
        f"{name} is the same for all: {_DECIDED[name]} decides it"
        for name in names
        if name in _DECIDED
    ]


def _twins(entrants: Sequence[Entrant]) -> list[str]:
    """Returns a sentence for each entrant whose settings another one has already."""
    first: dict[str, str] = {}
    faults = []
    for one in entrants:
        other = first.setdefault(one.config.digest, one.name)
        if other != one.name:
            faults.append(f"{one.name} has the settings of {other}")
    return faults


def _unfit(entrant: Entrant, labels: Sequence[str]) -> list[str]:
    try:
        known = family_of(entrant.config.family).labels(tuple(labels))
    except ConfigError as error:
        return [str(error)]
    wrong = sided(known) if entrant.config.flip else []
    if wrong:
        return [f"flip is true, and {', '.join(wrong)} tells left from right; set flip=false"]
    return []
