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
from models.families import FAMILIES, family_of
from models.families.base import DiscriminatorNet, GeneratorNet
from models.training.compile_check import check_compiled, compare, require_compiler
from models.training.step import Parts

pytestmark = pytest.mark.slow

AGREE = 1e-4
COUNT, LABELS = 4, ("blonde_hair", "blue_eyes")
DCGAN = TrainConfig(g_width=0.02, d_width=0.05, r2_gamma=1.0)
STYLED = TrainConfig(
    family="stylegan2",
    resolution_px=8,
    g_channel_base=32,
    d_channel_base=32,
    w_dim=6,
    mapping_layers=1,
    loss="wgan-gp",
    r2_gamma=1.0,
    pl_weight=2.0,
    mixing=0.9,
)
EVERY_PART = {"fakes", "judged", "judged for G", "r1", "r2", "slope", "lengths"}
STYLED_FAMILIES = [name for name, family in FAMILIES.items() if family.has_w]

Networks = tuple[GeneratorNet, DiscriminatorNet]


@pytest.fixture(autouse=True)
def _fresh_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch.manual_seed(0)
    # Its traces are thousands of empty lines, which pytest would keep.
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)
    yield
    torch._dynamo.reset()  # else its limit of graphs a function counts those of other tests


def networks(config: TrainConfig) -> Networks:
    family = family_of(config.family)
    G = family.generator(family.spec(LABELS, config.g_size()))
    D = family.discriminator(family.spec(LABELS, config.d_size()))
    with torch.no_grad():
        for weight in [*G.parameters(), *D.parameters()]:
            weight.add_(0.1 * torch.randn_like(weight))  # what begins at 0 is learnt by now
    return G, D


def batch(config: TrainConfig) -> dict[str, Tensor]:
    side = config.resolution_px
    images = torch.rand(COUNT, 3, side, side) * 2 - 1
    return {"images": images, "labels": torch.randint(0, 2, (COUNT, len(LABELS))).float()}


def checked(config: TrainConfig, backend: str) -> dict[str, float]:
    G, D = networks(config)
    given = batch(config)
    images, labels = given["images"], given["labels"]
    return check_compiled(G, D, config, images=images, labels=labels, backend=backend)


@pytest.mark.parametrize("family", STYLED_FAMILIES)
def test_compiled_gradients_of_every_part_are_the_eager_ones(family: str) -> None:
    config = dataclasses.replace(STYLED, family=family)
    errors = checked(config, "aot_eager")
    assert set(errors) == EVERY_PART
    assert max(errors.values()) <= AGREE


def test_compiled_gradients_near_the_reals_are_the_eager_ones() -> None:
    config = dataclasses.replace(DCGAN, loss="dragan")
    errors = checked(config, "aot_eager")
    assert set(errors) == EVERY_PART - {"lengths"}
    assert max(errors.values()) <= AGREE


def test_only_the_parts_that_training_uses_are_compared() -> None:
    config = dataclasses.replace(DCGAN, r1_gamma=0.0, r2_gamma=0.0)
    G, D = networks(config)
    parts = Parts(G, D, bf16=False, compiled=False)
    found = compare(parts, parts, G, D, config=config, **batch(config))
    assert set(found) == {"fakes", "judged", "judged for G"}


def test_what_is_compared_runs_through_the_backend() -> None:
    @torch._dynamo.register_backend(name="three_times")
    def backend(graph: torch.fx.GraphModule, _inputs: list[Any]) -> Callable[..., Any]:
        return lambda *values: tuple(
            3 * one if isinstance(one, Tensor) and one.is_floating_point() else one
            for one in graph(*values)
        )

    with pytest.raises(TrainingError, match=r"fakes: relative error 2, at most 0\.001 wanted"):
        checked(DCGAN, "three_times")


@pytest.mark.parametrize("part", ["fakes", "judged", "r1", "slope", "lengths"])
def test_a_part_whose_gradients_are_off_by_a_hundredth_is_named(part: str) -> None:
    G, D = networks(STYLED)
    eager = Parts(G, D, bf16=False, compiled=False)
    broken = Parts(G, D, bf16=False, compiled=False)
    whole = getattr(eager, part)

    def scaled(*values: Any) -> Any:
        made = whole(*values)
        if isinstance(made, tuple):
            return tuple(1.01 * one for one in made)
        return 1.01 * made

    setattr(broken, part, scaled)
    with pytest.raises(TrainingError) as raised:
        compare(eager, broken, G, D, config=STYLED, **batch(STYLED))
    text = str(raised.value)
    named = {line.strip().partition(":")[0] for line in text.splitlines()[1:-1]}
    others = {"judged": {"judged for G"}, "r1": {"r2"}}.get(part, set())
    assert named == {part, *others}
    assert f"{part}: relative error 0.0" in text
    assert text.endswith("another version of torch may compile it rightly.")


def test_a_gradient_that_never_arrives_is_named_with_its_weight() -> None:
    G, D = networks(DCGAN)
    eager = Parts(G, D, bf16=False, compiled=False)
    broken = Parts(G, D, bf16=False, compiled=False)

    def without_labels(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        realness, said = eager.judged(images, labels)
        return realness, said.detach()

    broken.judged = without_labels
    with pytest.raises(TrainingError, match=r"inf.*D\.auxiliary\.weight, which got none"):
        compare(eager, broken, G, D, config=DCGAN, **batch(DCGAN))


def test_a_gradient_that_is_not_a_number_is_no_agreement() -> None:
    G, D = networks(DCGAN)
    eager = Parts(G, D, bf16=False, compiled=False)
    broken = Parts(G, D, bf16=False, compiled=False)
    broken.r1 = lambda images, labels: eager.r1(images, labels) * torch.nan
    with pytest.raises(TrainingError, match="r1: relative error nan"):
        compare(eager, broken, G, D, config=DCGAN, **batch(DCGAN))


@pytest.mark.parametrize("config", [DCGAN, STYLED], ids=["dcgan64", "stylegan2"])
def test_the_check_leaves_everything_as_it_was(config: TrainConfig) -> None:
    G, D = networks(config)
    D.requires_grad_(False)
    next(G.parameters()).grad = torch.ones_like(next(G.parameters()))
    held = [tensor.clone() for net in (G, D) for tensor in net.state_dict().values()]
    random, precision = torch.get_rng_state(), torch.get_float32_matmul_precision()
    given = batch(config)
    torch.set_rng_state(random)
    parts = Parts(G, D, bf16=False, compiled=False)
    compare(parts, parts, G, D, config=config, **given)
    after = [tensor for net in (G, D) for tensor in net.state_dict().values()]
    assert all(torch.equal(one, other) for one, other in zip(held, after, strict=True))
    assert torch.equal(random, torch.get_rng_state())
    assert precision == torch.get_float32_matmul_precision()
    assert not any(weight.requires_grad for weight in D.parameters())
    first, *others = G.parameters()
    assert first.grad is not None
    assert bool((first.grad == 1).all())
    assert all(weight.grad is None for weight in [*others, *D.parameters()])


def test_families_without_labels_are_compared_as_well() -> None:
    family = family_of("dcgan64")
    G = family.generator(family.spec((), DCGAN.g_size()))
    D = family.discriminator(family.spec((), DCGAN.d_size()))
    parts = Parts(G, D, bf16=False, compiled=False)
    given = {"images": batch(DCGAN)["images"], "labels": torch.zeros(COUNT, 0)}
    assert max(compare(parts, parts, G, D, config=DCGAN, **given).values()) == 0


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
    G, D = networks(DCGAN)[0], OneLayer()
    images, labels = torch.randn(2, 3, 8, 8), torch.zeros(2, 0)
    found = []
    for compiled in (False, True):
        penalty = Parts(G, D, bf16=False, compiled=compiled, backend="inductor").r1(images, labels)
        found.append(torch.autograd.grad(penalty, D.conv.weight)[0])
    assert ((found[1] - found[0]).norm() / found[0].norm()).item() <= AGREE


def test_a_missing_compiler_is_a_config_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(
        ConfigError, match=r"no compiler g\+\+ on PATH.*needs on cpu.*compile=false"
    ):
        checked(DCGAN, "inductor")
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
        checked(DCGAN, "refusing")
