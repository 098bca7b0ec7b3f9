"""What a model cannot do, and why, in sentences that a page shows beside what it greys out."""

from models.families import FAMILIES
from models.families.base import GeneratorSpec, NetworkSize
from studio.opened import OpenModel

SPACES = ("z", "w")


def abilities(model: OpenModel) -> dict[str, str]:
    """Returns for each thing that a model may be asked for "" if it can, else the reason.

    The names: noise (other noise than its own), morph, sweep and loop (each also with `_w` for
    those in W), mix, table.
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
