"""What a step does on a GPU: copies to it, formats, micro-batches; no GPU is needed for that.

The device "meta" stands in for one. It runs the same code, holds no values, and so cannot be read:
whatever waits for the device raises.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dataset.errors import ConfigError
from models.config import TrainConfig, checked, overridden
from models.families import FAMILIES
from models.training import data
from models.training.checkpoint import TrainState
from models.training.data import Batches, TrainingSet
from models.training.loop import new_state
from models.training.parts import Parts
from models.training.step import train_step
from tests.models.homes import LABELS
from tests.models.trainings import double, heads, narrow
from tests.tiers import all_slow_but

CPU, META = torch.device("cpu"), torch.device("meta")


class Copies(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the copies between the CPU and the device that holds no values."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        copies = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        # A number that is an operand goes along with the kernel.
        given = [x.device for x in args if isinstance(x, Tensor) and (copies or x.ndim > 0)]
        if isinstance(made, Tensor) and made.device == META and CPU in given:
            self.found.append(str(func))
        return made


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the device "meta" what torch has for GPUs: modules, pinned memory, fused Adam."""

    def to(network: nn.Module, device: torch.device, **_more: Any) -> nn.Module:
        return network.to_empty(device=device)

    class Generator(torch.Generator):
        def __new__(cls, _device: torch.device) -> "Generator":
            return super().__new__(cls)

    adam = torch.optim.Adam
    monkeypatch.setattr(nn.Module, "to", to)
    monkeypatch.setattr(Tensor, "pin_memory", lambda rows: rows)
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _kind: False)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _device: None)
    monkeypatch.setattr(
        torch.optim, "Adam", lambda groups, **named: adam(groups, **{**named, "fused": False})
    )


class OnMeta:
    """A training on the device without values."""

    def __init__(self, config: TrainConfig, reals: TrainingSet, *, resident: bool) -> None:
        self.config = config
        self.state: TrainState = new_state(config, LABELS, META)
        self.parts = Parts(self.state.G, self.state.D, bf16=False, compiled=False)
        self.weights = torch.ones(len(LABELS), device=META)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(data, "free_bytes", lambda _device: 2**40 if resident else 0)
            self.batches = Batches(
                reals.images, reals.labels, batch=config.batch, seed=0, device=META
            )

    def step(self) -> None:
        train_step(
            self.state,
            self.config,
            self.batches,
            parts=self.parts,
            positive_weight=self.weights,
        )


def every_draw(family: str) -> TrainConfig:
    """Returns settings of a family under which a step makes each kind of random draw."""
    moves = {
        "translate_px": 2,
        "scale_frac": 0.1,
        "rotate_deg": 5.0,
        "aug_p": 0.5,
        "aug_p_final": 0,
    }
    more: dict[str, Any] = {"ada_target": 0.6} if family != "srresnet" else {"loss": "dragan"}
    if FAMILIES[family].has_w:
        more |= {"mixing": 0.9, "pl_weight": 2.0}
    if family == "stylegan2":
        more |= {"r2_gamma": 1.0}
    return checked(narrow(family, **moves, **more))


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("family", all_slow_but(FAMILIES, "dcgan64"))
@pytest.mark.usefixtures("accelerator")
def test_a_step_copies_to_the_gpu_at_most_twice_and_never_back(family: str, resident: bool) -> None:
    config = every_draw(family)
    training = OnMeta(config, heads(config.resolution_px), resident=resident)
    training.step()  # it makes the optimisers' state
    training.state.step = 0  # every penalty is due once more
    with Copies() as copies:
        training.step()  # one that returns: to read the device would raise
    training.batches.close()
    assert len(copies.found) == (1 if resident else 2), copies.found


@pytest.mark.parametrize("family", all_slow_but(FAMILIES, "dcgan64", "omokage"))
@pytest.mark.usefixtures("accelerator")
def test_d_sees_one_memory_format_on_a_gpu(family: str) -> None:
    config = every_draw(family)
    training = OnMeta(config, heads(config.resolution_px), resident=True)
    strides = set()

    def watched(part: Any) -> Any:
        def called(images: Tensor, *labels: Tensor) -> Any:
            strides.add(images.stride())
            return part(images, *labels)

        return called

    for name in ("judged", "features", "r1", "slope"):
        setattr(training.parts, name, watched(getattr(training.parts, name)))
    training.step()
    side = config.resolution_px
    assert strides == {(3 * side * side, 1, 3 * side, 3)}  # channels last


@pytest.fixture
def in_double() -> Iterator[None]:
    with double():
        yield


def test_the_count_of_copies_finds_draws_of_the_cpu() -> None:
    with Copies() as copies:
        torch.rand(3).to(META)
        torch.zeros(3, device=META)[:] = torch.rand(3)
        torch.rand(3, device=META) * 2
    assert copies.found == ["aten._to_copy.default", "aten.copy_.default"]


def gradients(config: TrainConfig, reals: TrainingSet) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Takes a step from the same start; returns the gradients that G and D got, and its stats."""
    torch.manual_seed(0)
    state = new_state(config, LABELS, CPU)
    for weight in [*state.G.parameters(), *state.D.parameters()]:
        weight.data.add_(0.05 * torch.randn_like(weight))  # what begins at 0 is learnt by now
    for group in [*state.opt_d.param_groups, *state.opt_g.param_groups]:
        group["lr"] = 0.0
    batches = Batches(
        reals.images, np.asarray(reals.labels), batch=config.batch, seed=0, device=CPU
    )
    with contextlib.closing(batches):
        stats = train_step(
            state,
            config,
            batches,
            parts=Parts(state.G, state.D, bf16=False, compiled=False),
            positive_weight=torch.ones(len(LABELS)),
        )
    named = [
        (f"{k}.{n}", p) for k, net in state.networks().items() for n, p in net.named_parameters()
    ]
    found = {name: p.grad for name, p in named if p.grad is not None}
    return found | state.steering(), stats


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference between two sets of tensors, relative to their largest number."""
    assert one.keys() == other.keys()
    largest = max(float(value.abs().max()) for value in one.values())
    return max(float((one[name] - other[name]).abs().max()) for name in one) / largest


GROUPED = {name: family.group for name, family in FAMILIES.items() if family.group}


@pytest.mark.parametrize(
    ("family", "loss"),
    [
        ("stylegan2", "rp"),
        *(
            pytest.param("stylegan2", loss, marks=pytest.mark.slow)
            for loss in ("ns", "wgan-gp", "dragan")
        ),
    ],
)
@pytest.mark.usefixtures("in_double")
@pytest.mark.ci
def test_micro_batches_give_the_gradients_of_the_whole_batch(family: str, loss: str) -> None:
    config = dataclasses.replace(every_draw(family), batch=16, loss=loss, ada_target=0.0)
    reals = heads(config.resolution_px)
    whole, of_whole = gradients(config, reals)
    for size in (GROUPED[family], 12):  # the second leaves a smaller one at the end
        found, stats = gradients(checked(dataclasses.replace(config, batch_gpu=size)), reals)
        assert apart(whole, found) < 1e-12
        assert apart(of_whole, stats) < 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_says_how_many_pictures_its_networks_see_together(family: str) -> None:
    """Moving the first picture moves what is made of the others in its group, and of no more."""
    config = narrow(family, batch=12)
    torch.manual_seed(0)
    state = new_state(config, LABELS, CPU)
    side, spec = config.resolution_px, state.G.spec
    labels = torch.randint(0, 2, (12, len(LABELS))).float()
    z, images = torch.rand(12, spec.z_dim), torch.rand(12, 3, side, side)
    reached = 0
    for network, given in ((state.G, z), (state.D, images)):
        for module in network.modules():
            if type(module).__name__ == "Dropout":
                module.train(False)  # its masks are by the place in the batch, and anew each time
        other = given.clone()
        other[0] += 1.0
        with torch.no_grad():
            one, two = (network(x, labels) for x in (given, other))
        one, two = (x[0] if isinstance(x, tuple) else x for x in (one, two))
        moved = (one - two).flatten(1) if one.ndim > 1 else (one - two)[:, None]
        reached = max(reached, int(moved.abs().sum(dim=1).nonzero().max()) + 1)
    assert reached == (FAMILIES[family].group or 12)


def test_micro_batches_are_refused_where_they_cannot_equal_the_whole_batch() -> None:
    with pytest.raises(ConfigError, match="batch_gpu is 8; 0 wanted: the norms of dcgan64"):
        overridden(narrow("dcgan64"), ["batch_gpu=8"])
    with pytest.raises(ConfigError, match="batch_gpu is 8; 0 wanted: the norms of omokage"):
        overridden(narrow("omokage"), ["batch_gpu=8"])
    with pytest.raises(ConfigError, match="multiples of 4 wanted"):
        overridden(narrow("stylegan2"), ["batch=16", "batch_gpu=6"])
    assert overridden(narrow("stylegan2"), ["batch=16", "batch_gpu=12"]).batch_gpu == 12


@pytest.mark.parametrize(("size", "half"), [(4, 2), (8, 4)])
def test_no_part_of_a_step_is_given_more_than_a_micro_batch(size: int, half: int) -> None:
    config = checked(dataclasses.replace(every_draw("stylegan2"), batch=16, batch_gpu=size))
    counts: dict[str, set[int]] = {}

    def watched(name: str, part: Any) -> Any:
        def called(first: Tensor, labels: Tensor, *more: Any) -> Any:
            counts.setdefault(name, set()).add(len(labels))
            return part(first, labels, *more)

        return called

    with pytest.MonkeyPatch.context() as patch:
        made = Parts.__init__

        def watching(parts: Parts, *networks: Any, **named: Any) -> None:
            made(parts, *networks, **named)
            for name in ("fakes", "judged", "r1", "lengths"):
                setattr(parts, name, watched(name, getattr(parts, name)))

        patch.setattr(Parts, "__init__", watching)
        gradients(config, heads(config.resolution_px))
    assert counts == {"fakes": {size}, "judged": {size}, "r1": {size}, "lengths": {half}}
