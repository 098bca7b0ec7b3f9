from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from models.families import FAMILIES, family_of
from models.io.safe_io import without_memory
from tests.models.trainings import narrow


class Drawn(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which of torch's functions draw random numbers without memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in getattr(func, "tags", ()) and made.is_meta:
            self.names.append(str(func))
        return made


@pytest.mark.parametrize("family", FAMILIES)
def test_a_generator_has_its_shapes_and_nothing_is_drawn_for_it(family: str) -> None:
    spec = family_of(family).spec(("blonde_hair", "smile"), narrow(family).g_size())
    with Drawn() as drawn, without_memory():
        empty = family_of(family).generator(spec)
    assert drawn.names == []
    made = family_of(family).generator(spec).state_dict()
    described = {name: (one.shape, one.dtype) for name, one in empty.state_dict().items()}
    assert described == {name: (one.shape, one.dtype) for name, one in made.items()}
    assert all(one.is_meta for one in empty.state_dict().values())


def test_what_names_its_device_is_made_as_ever() -> None:
    rng = torch.Generator().manual_seed(3)
    with without_memory():
        drawn = torch.randn(4, generator=rng, device="cpu")
    assert torch.equal(drawn, torch.randn(4, generator=torch.Generator().manual_seed(3)))
