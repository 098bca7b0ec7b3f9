"""Overrides of settings by `key=value`: read by the type of the field that they name."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from dataset.errors import ConfigError, listed, nearest

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def read_overrides(
    settings: type[Any], overrides: Sequence[str], *, heading: str
) -> dict[str, Any]:
    """Returns the values of `key=value` texts for fields of the dataclass `settings`.

    Raises ConfigError, under `heading`, naming each text that is no key=value, each unknown key
    with the nearest right one, and each value that is none of its field's type.
    """
    kinds: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(settings)}
    values: dict[str, Any] = {}
    faults = []
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals:
            faults.append(f'"{text}" is no key=value, such as batch=32')
        elif name not in kinds:
            faults.append(f'"{name}" is unknown{nearest(name, kinds)}')
        else:
            read, wanted = _READERS[kinds[name]]
            try:
                values[name] = read(value)
            except ValueError:
                faults.append(f'{name} is "{value}", {wanted} wanted')
    if faults:
        raise ConfigError(f"{heading}:\n{listed(faults)}")
    return values


def is_device(text: str) -> bool:
    """Tells whether a text names a device: auto, cpu, cuda or cuda:N."""
    return text in ("auto", "cpu", "cuda") or (text[:5] == "cuda:" and text[5:].isdigit())


def _read_bool(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise ValueError(text)
    return _BOOLEANS[text.lower()]


def _read_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


_READERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    bool: (_read_bool, "true or false"),
    int: (int, "a whole number"),
    float: (_read_float, "a number"),
    str: (str, "a text"),
}
