"""The built-in sets of entrants, and how a user writes one; imports nothing heavy."""

import dataclasses
import re
from collections.abc import Iterable

from dataset.errors import ConfigError, listed, nearest

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}", re.ASCII)  # a folder's name, and a row's title


@dataclasses.dataclass(frozen=True)
class Choice:
    """An entrant as the user wrote it: a name of its own, a preset, and `key=value` overrides."""

    name: str
    preset: str
    overrides: tuple[str, ...] = ()


def _choice(name: str, preset: str, **overrides: str | float) -> Choice:
    return Choice(name, preset, tuple(f"{key}={value}" for key, value in overrides.items()))


# λ is the weight of the class loss, the same for D on reals and G on fakes: the objective of Odena
# et al. 2017, arXiv:1610.09585, has one. At 0 nothing tells G what a label means.
_LAMBDAS = (0, 1, 2, 5, 10)

# What each loss needs beside its name. A critic is to be near its best before G follows it: five
# steps of D for one of G, and no momentum, which drove D to and fro. Clipped weights or slopes of 1
# are what bounds it, so R1 is off. Arjovsky et al. 2017, arXiv:1701.07875, section 4; Gulrajani et
# al. 2017, arXiv:1704.00028, section 4; Kodali et al. 2017, arXiv:1705.07215; gp_weight 0.5 is
# Jin et al.'s 2017, arXiv:1708.05509, section 3.5.
_CRITIC: dict[str, str | float] = {"d_steps": 5, "beta1": 0, "beta2": 0.9, "r1_gamma": 0}

SETS: dict[str, tuple[Choice, ...]] = {
    "families": tuple(
        Choice(family, f"{family}-small")
        for family in ("dcgan64", "dcgan96", "acgan64", "srresnet", "stylegan2", "omokage")
    ),
    "acgan64_lambda": tuple(
        _choice(f"lambda-{weight}", "acgan64-small", g_label_weight=weight, d_label_weight=weight)
        for weight in _LAMBDAS
    ),
    "srresnet_losses": (
        _choice("ns", "srresnet-small", loss="ns", r1_gamma=0.3),
        _choice("wgan", "srresnet-small", loss="wgan", clip=0.01, **_CRITIC),
        _choice("wgan-gp", "srresnet-small", loss="wgan-gp", gp_weight=10, **_CRITIC),
        _choice("dragan", "srresnet-small", loss="dragan", gp_weight=0.5, r1_gamma=0),
    ),
}
WHAT = {
    "families": "the six families, each by its preset <family>-small",
    "acgan64_lambda": "acgan64-small with the class loss weighted 0, 1, 2, 5 and 10",
    "srresnet_losses": "srresnet-small under the losses ns, wgan, wgan-gp and dragan",
}


def read_choices(texts: Iterable[str]) -> list[Choice]:
    """Reads entrants written `name=preset,key=value,…`; raises ConfigError with every fault."""
    choices, faults = [], []
    for text in texts:
        first, *overrides = [part.strip() for part in text.split(",")]
        name, equals, preset = (part.strip() for part in first.partition("="))
        if name and equals and preset and all(overrides):
            choices.append(Choice(name, preset, tuple(overrides)))
        else:
            faults.append(f'"{text}" is no name=preset,key=value,… such as wide=dcgan64,g_width=2')
    names = [choice.name for choice in choices]
    faults += [f'{names.count(n)} entrants are named "{n}"' for n in _repeated(names)]
    if faults:
        raise ConfigError(f"--entrant does not fit:\n{listed(faults)}")
    return choices


def choices_of(sets: Iterable[str], entrants: Iterable[Choice]) -> tuple[list[Choice], list[str]]:
    """Returns the entrants of the sets and the user's own, and a sentence for each fault in them.

    Faults are an unknown set, a set named twice, a name that is no folder's, a name borne twice.
    """
    faults: list[str] = []
    chosen: list[Choice] = []
    seen: set[str] = set()
    for name in sets:
        if name not in SETS:
            hint = nearest(name, SETS) or f"; known are {', '.join(SETS)}"
            faults.append(f'unknown set "{name}"{hint}')
        elif name in seen:
            faults.append(f'the set "{name}" is named twice')
        else:
            chosen += SETS[name]
        seen.add(name)
    chosen += entrants
    names = [choice.name for choice in chosen]
    faults += [f'{names.count(n)} entrants are named "{n}"' for n in _repeated(names)]
    faults += [
        f'"{name}" names no entrant: up to 40 of a-z, 0-9, ".", "_" and "-" wanted, a letter or '
        "digit first"
        for name in dict.fromkeys(names)
        if not NAME.fullmatch(name)
    ]
    return chosen, faults


def _repeated(names: list[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if names.count(name) > 1]
