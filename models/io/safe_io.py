"""Reads files of unknown origin: nothing of them is believed, or shown, before it is checked."""

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dataset.errors import TrainingError
from dataset.store import Files, LocalFolder, Store

JSON_MAX_BYTES = 64 * 2**20  # a checkpoint's with 256 rows of 1,000 labels has 4 MB
# What safetensors raises, and torch where a header asks for a tensor that it cannot have.
_FOREIGN = (safetensors.SafetensorError, KeyError, ValueError, TypeError, RuntimeError)


def read_own(store: Store, path: str, *, within: str, max_bytes: int | None = None) -> bytes:
    """Reads a file of the store that lies in the folder `within`, also after links are followed.

    Raises TrainingError naming the file if it is a link that leads out of that folder, no plain
    file (a device, a pipe), or larger than max_bytes; StoreError if it is not there.
    """
    if (folder := store.folder) is not None:
        _check(folder, path, within, max_bytes)
    elif max_bytes is not None and (size := store.size(path) or 0) > max_bytes:
        raise _too_large(store, path, size, max_bytes)
    return store.read_bytes(path)


def read_own_json(store: Store, path: str, *, within: str) -> Any:
    """Reads a JSON file as `read_own` does; raises TrainingError naming it if it is none."""
    content = read_own(store, path, within=within, max_bytes=JSON_MAX_BYTES)
    try:
        return json.loads(content)
    except RecursionError as error:
        raise TrainingError(f"{store.url(path)} is nested too deeply") from error
    except ValueError as error:
        raise TrainingError(f"{store.url(path)} is not JSON: {error}") from error


def _check(store: LocalFolder, path: str, within: str, max_bytes: int | None) -> None:
    try:
        found, folder = store.local(path).resolve(), store.local(within).resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        raise TrainingError(f"{store.url(path)} is a link that leads nowhere: {error}") from error
    if not found.is_relative_to(folder):
        raise TrainingError(
            f"{store.url(path)} is a link that leads out of {folder}, to {found}: "
            "put the file itself there"
        )
    if found.exists() and not found.is_file():
        raise TrainingError(f"{store.url(path)} is no plain file")
    if max_bytes is not None and found.exists() and found.stat().st_size > max_bytes:
        raise _too_large(store, path, found.stat().st_size, max_bytes)


def _too_large(store: Files, path: str, size: int, max_bytes: int) -> TrainingError:
    return TrainingError(f"{store.url(path)} has {size:,} bytes, {max_bytes:,} at most wanted")


MAX_TEXT = 80


def shown(text: str) -> str:
    """Returns a text from a file as an error may show it: printable and short."""
    printable = "".join(one if one.isprintable() else "?" for one in text[: MAX_TEXT + 1])
    return printable if len(printable) <= MAX_TEXT else printable[:MAX_TEXT] + "…"


_MOST = 2**53  # the greatest count that every reader of JSON holds exactly


def fact_faults(found: Mapping[str, Any], wanted: "Mapping[str, Kind]") -> list[str]:
    """Returns a sentence for each fact that is missing or of another kind."""
    faults = []
    for name, kind in wanted.items():
        fits, words = kind
        if name not in found and not fits(None):
            faults.append(f"{name} is missing")
        elif not fits(found.get(name)):
            faults.append(f"{name} is {shown_value(found[name])}, {words} wanted")
    return faults


def shown_value(value: Any) -> str:
    """Returns a JSON value as an error may show it; a large whole number by its size alone."""
    if isinstance(value, int) and abs(value) > _MOST:
        return f"a number of {value.bit_length():,} bits"
    if isinstance(value, dict | list) and len(value) > 8:
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value):,}"
    try:
        return shown(repr(value))
    except (RecursionError, ValueError):  # nested deeply, or with a number of many digits in it
        return f"a {type(value).__name__}"


def is_count(found: Any) -> bool:
    """Whether it is a whole number from 0 on."""
    return isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= _MOST


def is_number(found: Any) -> bool:
    """Whether it is a finite number."""
    if isinstance(found, bool) or not isinstance(found, int | float):
        return False
    return abs(found) <= _MOST if isinstance(found, int) else math.isfinite(found)


def _is_name(found: Any) -> bool:
    return isinstance(found, str) and len(found) <= 1000 and found.isprintable()


def _is_origin(found: Any) -> bool:
    return found is None or (isinstance(found, dict) and not fact_faults(found, _OF_ORIGIN))


Kind = tuple[Callable[[Any], bool], str]  # a test, and what passes it in words

COUNT: Kind = (is_count, "a whole number from 0")
SECONDS: Kind = (lambda found: is_number(found) and found >= 0, "a number from 0")
SCORE: Kind = (lambda found: found is None or is_number(found), "a number or null")
NAME: Kind = (_is_name, "a text")
OBJECT: Kind = (lambda found: isinstance(found, dict), "an object")
SHA256: Kind = (
    lambda found: isinstance(found, str) and bool(re.fullmatch("[0-9a-f]{64}", found)),
    "a sha256 (64 hexadecimal digits)",
)
NAMES_OR_NONE: Kind = (
    lambda found: found is None or (isinstance(found, list) and all(map(_is_name, found))),
    "a list of texts or null",
)
_OF_ORIGIN: dict[str, Kind] = {
    "folder": NAME,
    "step": COUNT,
    "images_seen": COUNT,
    "manifest_digest": NAME,
    "labels": NAMES_OR_NONE,  # in the order in which the weights have them
}
ORIGIN: Kind = (_is_origin, f"null or an object of {', '.join(_OF_ORIGIN)}")


def read_tensors(store: Store, path: str) -> dict[str, Tensor]:
    """Reads a safetensors file; raises TrainingError naming it if it is none or is cut short."""
    return parse_tensors(store.read_bytes(path), where=store.url(path))


def parse_tensors(content: bytes, *, where: str) -> dict[str, Tensor]:
    """Reads a safetensors file's bytes; raises TrainingError naming `where` if they are none."""
    try:
        return safetensors.torch.load(content)
    except _FOREIGN as error:
        raise TrainingError(
            f"{where} is no whole safetensors file ({len(content):,} bytes): {shown(str(error))}"
        ) from error


def tensor_faults(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    """Returns a sentence for every tensor that is missing, unknown, misshapen or not finite."""
    faults = [f"{shown(name)} is unknown" for name in sorted(found) if name not in wanted]
    for name, want in wanted.items():
        have = found.get(name)
        if have is None:
            faults.append(f"{name} is missing")
        elif have.shape != want.shape or have.dtype != want.dtype:
            faults.append(f"{name} is {tensor_kind(have)}, {tensor_kind(want)} wanted")
        elif not bool(torch.isfinite(have).all()):
            faults.append(f"{name} holds numbers that are not finite")
    return faults


def tensor_kind(tensor: Tensor) -> str:
    """Returns dtype and shape, such as "float32 [3, 64]"."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


@contextlib.contextmanager
def without_memory() -> Iterator[None]:
    """Has modules in the block made of tensors that have a shape and a type, but no numbers.

    Tensors that name their device, such as constants that no file holds, are made as ever.
    """
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    """Draws no beginning for weights: they have no numbers, and torch would notice slowly.

    For a random number without memory it imports its decompositions, which are 800 modules and a
    second of processor time in every process that opens a generator.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if getattr(func, "__module__", None) == torch.nn.init.__name__:
            return named["tensor"] if "tensor" in named else args[0]
        if func is torch.randn and "device" not in named:
            func = torch.empty
        return func(*args, **named)
