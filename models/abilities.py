"""What a family of generators cannot do, said by name with what it can do instead."""

from dataset.errors import UsageError
from models.families import FAMILIES
from models.spec import GeneratorSpec

_ANY = "grid, table, sweep, and morph and loop, each with --space z"


def require_w(spec: GeneratorSpec, wanted: str) -> None:
    """Raises UsageError if the family has no W, which `wanted` needs."""
    if not spec.can_w:
        able = [name for name, family in FAMILIES.items() if family.has_w]
        raise UsageError(
            f"{spec.family} has no W, which {wanted} needs. It can do {_ANY}.{_families(able)}"
        )


def require_mixing(spec: GeneratorSpec) -> None:
    """Raises UsageError if the family's layers cannot take styles of two pictures."""
    require_w(spec, "style mixing")
    if not spec.can_mixing:
        raise UsageError(f"{spec.family} cannot mix styles: all its layers take the same w.")


def require_noise(spec: GeneratorSpec, wanted: str) -> None:
    """Raises UsageError if the family takes no noise maps."""
    if not spec.can_noise:
        raise UsageError(
            f"{spec.family} has no noise maps, so {wanted} means nothing to it: leave --noise at "
            "const. Its pictures come from the seed and the labels alone."
        )


def _families(able: list[str]) -> str:
    return f" Families with W: {', '.join(able)}." if able else ""
