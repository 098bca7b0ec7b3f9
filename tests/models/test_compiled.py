import dataclasses
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dataset.errors import ConfigError, TrainingError
from models.config import TrainConfig
from models.families.base import DiscriminatorNet
from models.training import checkpoint
from models.training.checkpoint import TrainState
from models.training.data import Batches
from models.training.loop import new_state
from models.training.parts import Parts, check_compiled, require_compiler
from models.training.step import train_step
from tests.models.trainings import narrow

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
LABELS = ("blonde_hair", "blue_eyes")
DCGAN = narrow("dcgan64", batch=4, g_width=0.02, d_width=0.05, r2_gamma=1.0)
OMOKAGE = narrow("omokage", resolution_px=32, batch=4, cooldown_frac=0.5)
STYLED = TrainConfig(
    family="stylegan2",
    resolution_px=8,
    g_channel_base=32,
    d_channel_base=32,
    w_dim=6,
    mapping_layers=1,
    batch=4,
    loss="wgan-gp",
    r2_gamma=1.0,
    pl_weight=2.0,
    mixing=0.9,
    device="cpu",
)


@pytest.fixture(autouse=True)
def _fresh_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch.manual_seed(0)
    # Its traces are thousands of empty lines, which pytest would keep.
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)
    yield
    torch._dynamo.reset()  # else its limit of graphs a function counts those of other tests


class Compiled:
    """A training whose parts are compiled by a backend that needs no compiler, or by none.

    None is for faults that are put into the parts: nothing has to be traced for these.
    """

    def __init__(
        self, config: TrainConfig, backend: str | None = "aot_eager", *, bf16: bool = False
    ) -> None:
        self.config = config
        self.state = new_state(config, LABELS, CPU)
        with torch.no_grad():
            for weight in [*self.state.G.parameters(), *self.state.D.parameters()]:
                weight.add_(0.1 * torch.randn_like(weight))  # what begins at 0 is learnt by now
        networks = self.state.G, self.state.D
        compiled = {"compiled": True, "backend": backend} if backend else {"compiled": False}
        self.parts = Parts(*networks, bf16=bf16, **compiled)
        side = config.resolution_px
        images = torch.randint(0, 256, (16, 3, side, side), dtype=torch.uint8).numpy()
        labels = torch.randint(0, 2, (16, len(LABELS))).numpy()
        self.batches = Batches(images, labels, batch=config.batch, seed=0, device=CPU)

    def step(self, state: TrainState, config: TrainConfig, parts: Parts) -> dict[str, Tensor]:
        weights = torch.ones(len(LABELS))
        return train_step(state, config, self.batches, parts=parts, positive_weight=weights)

    def check(self) -> dict[str, float]:
        return check_compiled(self.state, self.config, parts=self.parts, take_step=self.step)


def test_compiled_gradients_near_the_reals_are_the_eager_ones() -> None:
    assert max(Compiled(dataclasses.replace(DCGAN, loss="dragan")).check().values()) <= 1e-4


def test_in_bf16_a_compiled_step_may_be_as_far_from_float32_as_an_eager_one() -> None:
    errors = Compiled(DCGAN, bf16=True).check()
    assert 1e-3 < max(errors.values()) < 0.2


@pytest.mark.parametrize(
    "config",
    [
        dataclasses.replace(STYLED, translate_px=2, r1_every=1, pl_every=1),
        dataclasses.replace(OMOKAGE, pl_weight=2.0, pl_every=1),
    ],
    ids=["stylegan2", "omokage"],
)
def test_gradients_of_a_whole_step_are_the_eager_ones_and_a_training_runs_the_graphs_checked(
    config: TrainConfig,
) -> None:
    training = Compiled(config)
    errors = training.check()
    assert set(errors) == {"D", "D eager", "G", "G eager"}
    assert max(errors.values()) <= 1e-4
    compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert compiled >= 5
    for _ in range(2):
        training.step(training.state, training.config, training.parts)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled


def test_what_is_compared_runs_through_the_backend() -> None:
    @torch._dynamo.register_backend(name="three_times")
    def backend(graph: torch.fx.GraphModule, _inputs: list[Any]) -> Callable[..., Any]:
        return lambda *values: tuple(
            3 * one if isinstance(one, Tensor) and one.is_floating_point() else one
            for one in graph(*values)
        )

    with pytest.raises(TrainingError, match="compiled and eager gradients of dcgan64 differ"):
        Compiled(DCGAN, "three_times").check()


@pytest.mark.parametrize(
    ("part", "network"),
    [("fakes", "G"), ("judged", "D"), ("r1", "D"), ("slope", "D"), ("lengths", "G")],
)
def test_a_part_that_is_off_by_a_hundredth_is_found(part: str, network: str) -> None:
    broken = Compiled(STYLED, None)
    whole = getattr(broken.parts, part)

    def scaled(*values: Any) -> Any:
        made = whole(*values)
        return tuple(1.01 * one for one in made) if isinstance(made, tuple) else 1.01 * made

    setattr(broken.parts, part, scaled)
    with pytest.raises(TrainingError) as raised:
        broken.check()
    text = str(raised.value)
    assert f"{network}: relative error 0.0" in text
    assert text.endswith("another version of torch may compile it rightly.")


def test_a_gradient_that_never_arrives_is_named_with_its_weight() -> None:
    broken = Compiled(DCGAN, None)
    whole = broken.parts.judged

    def without_labels(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        realness, said = whole(images, labels)
        return realness, said.detach().requires_grad_()

    broken.parts.judged = without_labels
    with pytest.raises(TrainingError, match=r"D: relative error .* is in auxiliary\.weight"):
        broken.check()


def test_a_gradient_that_is_not_a_number_is_no_agreement() -> None:
    broken = Compiled(DCGAN, None)
    whole = broken.parts.r1
    broken.parts.r1 = lambda images, labels: whole(images, labels) * torch.nan
    with pytest.raises(TrainingError, match="D: relative error nan"):
        broken.check()


@pytest.mark.parametrize(
    "config",
    [*(dataclasses.replace(one, loss="wgan") for one in (DCGAN, STYLED)), OMOKAGE],
    ids=["dcgan64", "stylegan2", "omokage"],
)
def test_the_check_leaves_everything_as_it_was(config: TrainConfig) -> None:
    training = Compiled(config, None)
    state = training.state
    held = {name: tensor.clone() for name, tensor in checkpoint._tensors(state).items()}
    precision = torch.get_float32_matmul_precision()
    training.check()
    after = checkpoint._tensors(state)
    assert held.keys() == after.keys()
    assert [name for name in held if not torch.equal(held[name], after[name])] == []
    assert precision == torch.get_float32_matmul_precision()
    weights = [*state.G.parameters(), *state.D.parameters()]
    assert all(weight.grad is None and weight.requires_grad for weight in weights)
    assert state.step == 0


class OneLayer(DiscriminatorNet):
    """The least that has a second derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.conv(x).square().sum(dim=(1, 2, 3)), labels


@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="inductor needs a C++ compiler"
)
def test_inductor_differentiates_r1_as_eager_does() -> None:
    G, D = Compiled(DCGAN).state.G, OneLayer()
    images, labels = torch.randn(2, 3, 8, 8), torch.zeros(2, 0)
    found = []
    for compiled in (False, True):
        penalty = Parts(G, D, bf16=False, compiled=compiled, backend="inductor").r1(images, labels)
        found.append(torch.autograd.grad(penalty, D.conv.weight)[0])
    assert ((found[1] - found[0]).norm() / found[0].norm()).item() <= 1e-4


def test_a_missing_compiler_is_a_config_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(
        ConfigError, match=r"no compiler g\+\+ on PATH.*needs on cpu.*compile=false"
    ):
        Compiled(DCGAN, "inductor").check()
    monkeypatch.setenv("CXX", "my-compiler")
    with pytest.raises(ConfigError, match=r"no compiler my-compiler \(as CXX has it\)"):
        require_compiler("cpu")
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="the package triton is missing"):
        require_compiler("cuda")


def test_a_backend_that_fails_is_a_config_error_with_its_reason() -> None:
    @torch._dynamo.register_backend(name="refusing")
    def backend(_graph: torch.fx.GraphModule, _inputs: list[Any]) -> Callable[..., Any]:
        raise RuntimeError("no kernels today")

    with pytest.raises(ConfigError, match=r"fails for dcgan64 on cpu.*no kernels today"):
        Compiled(DCGAN, "refusing").check()
