"""Networks without memory: what the tensors of a file are compared with before they are taken."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


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
