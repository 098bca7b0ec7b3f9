"""The setting OMOKAGE_GROW: the growth of the manifest that starts a training."""

import re
from dataclasses import dataclass

from dataset.errors import ConfigError

DEFAULT_GROW = "10%"


@dataclass(frozen=True)
class Threshold:
    """The growth that starts a training: a part of the learnt faces, a number, or either."""

    frac: float | None = None
    faces: int | None = None

    def reached(self, new: int, learnt: int) -> bool:
        """Tells whether so many new faces beside so many learnt ones are enough."""
        # Divided, since 0.1 * 1950 is a little more than 195.
        by_part = self.frac is not None and (not learnt or new / learnt >= self.frac)
        by_number = self.faces is not None and new >= self.faces
        return new > 0 and (by_part or by_number)

    @property
    def words(self) -> str:
        """What is wanted, such as `10 % or 500 wanted`."""
        parts = [percent(self.frac)] if self.frac is not None else []
        parts += [f"{self.faces:,}"] if self.faces is not None else []
        return f"{' or '.join(parts)} wanted"


def parse_threshold(text: str) -> Threshold:
    """Reads `10%`, `500`, or `10%,500` for either; raises ConfigError saying what is wanted."""
    parts: dict[bool, float] = {}
    for part in map(str.strip, text.split(",")):
        number = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,2})?)\s*(%?)", part)
        if number is None or float(number[1]) == 0 or ("." in number[1] and not number[2]):
            raise ConfigError(
                f'"{part}" is no growth; a part such as 10%, a number of faces such as 500, or '
                "both (10%,500: whichever comes first) wanted"
            )
        is_part = bool(number[2])
        if is_part in parts:
            raise ConfigError(f'"{text}" has two {"parts" if is_part else "numbers"}; one wanted')
        parts[is_part] = float(number[1])
    return Threshold(
        frac=parts[True] / 100 if True in parts else None,
        faces=int(parts[False]) if False in parts else None,
    )


def percent(part: float) -> str:
    """Returns a part of 1 in words, such as `3.24 %`."""
    number = f"{100 * part:,.2f}".rstrip("0").rstrip(".")
    return f"{number} %"
