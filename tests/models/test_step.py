"""What one step of training does: pairs, the state of D that they are judged by, ADA, penalties."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from models.config import TrainConfig
from models.families import FAMILIES, family_of
from models.families.omokage import Discriminator
from models.training.checkpoint import TrainState
from models.training.data import Batches, TrainingSet
from models.training.loop import new_state
from models.training.parts import Parts
from models.training.progress_log import Tick
from models.training.step import train_step
from tests.models.trainings import heads, narrow

CPU = torch.device("cpu")


class Steps:
    """A training of the drawn heads, of which single steps are taken."""

    def __init__(self, reals: TrainingSet, config: TrainConfig, *, bf16: bool = False) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        data = reals.of_family(family_of(config.family))
        self.labels = np.asarray(data.labels)
        self.state: TrainState = new_state(config, data.label_names, CPU)
        self.parts = Parts(self.state.G, self.state.D, bf16=bf16, compiled=False)
        self._batches = Batches(data.images, self.labels, batch=config.batch, seed=0, device=CPU)

    def step(self) -> dict[str, Tensor]:
        return train_step(
            self.state,
            self.config,
            self._batches,
            parts=self.parts,
            positive_weight=torch.ones(self.labels.shape[1]),
        )

    def raise_d(self, amount: float) -> None:
        """Adds a constant to all that D says."""
        with torch.no_grad():
            self.state.D.get_parameter("head.realness.bias").add_(amount)


def paired(**changes: object) -> TrainConfig:
    return narrow("stylegan2", **{"loss": "rp", "ada_target": 0.6, **changes})


@pytest.mark.parametrize("shift", [-3.0, 3.0])
def test_a_constant_added_to_d_changes_neither_the_losses_nor_ada_of_pairs(
    reals: TrainingSet, shift: float
) -> None:
    found = []
    for amount in (0.0, shift):
        steps = Steps(reals, paired())
        steps.raise_d(amount)
        stats = steps.step()
        found.append([*stats.values(), steps.state.real_sign, steps.state.aug_p])
    assert torch.allclose(torch.stack(found[0]), torch.stack(found[1]), atol=1e-5)
    assert found[0][-2].abs() > 0.01  # the sign is measured


@pytest.mark.parametrize("shift", [-3.0, 3.0])
def test_g_meets_reals_and_fakes_as_one_state_of_d_judges_them(
    reals: TrainingSet, shift: float
) -> None:
    still, moved = (Steps(reals, paired(lr_d=0.0)) for _ in range(2))
    moved.state.opt_d.register_step_post_hook(lambda *_: moved.raise_d(shift))
    assert still.step()["g"].item() == pytest.approx(moved.step()["g"].item(), abs=1e-5)


def judged_labels(steps: Steps) -> list[Tensor]:
    """Takes a step; returns the labels of each time that D judges, in turn."""
    seen: list[Tensor] = []
    judge: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = steps.parts.judged

    def recording(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(labels)
        return judge(images, labels)

    steps.parts.judged = recording
    steps.step()
    return seen


def test_a_pair_has_the_labels_of_its_real_in_the_steps_of_d_and_g(reals: TrainingSet) -> None:
    of_reals, *others = judged_labels(Steps(reals, paired()))
    assert len(others) == 3  # D's fakes; G's reals and fakes
    assert all(torch.equal(labels, of_reals) for labels in others)


def test_two_fakes_have_the_labels_of_each_real_of_the_batchs_first_half(
    reals: TrainingSet,
) -> None:
    steps = Steps(reals, narrow("omokage"))
    seen: list[Tensor] = []
    judge: Callable[..., tuple[Tensor, Tensor]] = steps.parts.judged_features

    def recording(features: list[Tensor], labels: Tensor, *sets: int) -> tuple[Tensor, Tensor]:
        seen.append(labels)
        return judge(features, labels, *sets)

    steps.parts.judged_features = recording
    steps.step()
    for_d, for_g = seen
    of_reals, of_fakes = for_d.chunk(2)
    half = len(of_reals) // 2
    assert torch.equal(of_fakes, torch.cat([of_reals[:half], of_reals[:half]]))
    assert torch.equal(of_fakes, for_g)


def test_without_pairs_fakes_have_labels_of_their_own(reals: TrainingSet) -> None:
    of_reals, of_fakes, for_g = judged_labels(Steps(reals, narrow("dcgan64")))
    assert not torch.equal(of_fakes, of_reals)
    assert torch.equal(of_fakes, for_g)


def test_without_pairs_ada_steers_on_the_sign_of_d_on_reals(reals: TrainingSet) -> None:
    signs = []
    for amount in (-100.0, 100.0):
        steps = Steps(reals, paired(loss="ns"))
        steps.raise_d(amount)
        steps.step()
        signs.append(steps.state.real_sign.item())
    assert signs == pytest.approx([-0.1, 0.1])


def test_lazy_penalties_are_means_over_the_steps_that_have_them(reals: TrainingSet) -> None:
    config = narrow("stylegan2", r1_every=3, r2_gamma=1.0, pl_every=2)
    steps, rows = Steps(reals, config), []
    tick = Tick(steps.state, config, CPU)
    for _ in range(5):
        rows.append(steps.step())
        tick.add(rows[-1])
    assert [number for number, row in enumerate(rows) if "r1" in row] == [0, 3]
    assert [number for number, row in enumerate(rows) if "path" in row] == [0, 2, 4]
    found = tick.metrics()
    for name in ("d", "r1", "r2", "path"):
        values = [row[name].item() for row in rows if name in row]
        assert found[name] == pytest.approx(sum(values) / len(values))


def test_a_tick_without_a_penalised_step_has_no_penalty(reals: TrainingSet) -> None:
    config = dataclasses.replace(narrow("dcgan64"), r1_every=3)
    steps = Steps(reals, config)
    steps.step()
    tick = Tick(steps.state, config, CPU)
    tick.add(steps.step())
    assert "r1" not in tick.metrics()


def test_a_step_takes_what_the_schedules_have_come_to(reals: TrainingSet) -> None:
    ends = {"lr_final_frac": 0.25, "beta2": 0.9, "beta2_final": 0.99, "aug_p_final": 0.3}
    starts = {"lr_g": 0.004, "ada_target": 0.0, "aug_p": 0.0}
    steps = Steps(reals, narrow("stylegan2", schedule_kimg=0.032, **starts, **ends))  # 4 steps
    found = []
    for _ in range(6):
        steps.step()
        fast, slow = steps.state.opt_g.param_groups
        assert slow["lr"] == pytest.approx(fast["lr"] / 100)
        assert steps.state.opt_d.param_groups[0]["betas"] == fast["betas"]
        found.append((fast["lr"], fast["betas"][1], steps.state.aug_p.item()))
    first, half, last = (0.004, 0.9, 0.0), (0.0025, 0.945, 0.15), (0.001, 0.99, 0.3)
    assert [found[0], found[2]] == [pytest.approx(first), pytest.approx(half)]
    assert [found[4], found[5]] == [pytest.approx(last)] * 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_in_bf16_is_finite_and_has_logits_of_float32(family: str) -> None:
    gammas = {} if FAMILIES[family].frozen_features else {"r1_gamma": 1.0, "r2_gamma": 1.0}
    config = narrow(family, batch=4, **gammas)
    steps = Steps(heads(config.resolution_px, 8), config, bf16=True)
    seen: list[tuple[torch.dtype, ...]] = []
    D = steps.state.D
    for judge in [*D.heads, D.auxiliary] if isinstance(D, Discriminator) else [D]:
        judge.register_forward_hook(
            lambda _module, _inputs, found: seen.append(tuple(one.dtype for one in found))
        )
    stats = steps.step()
    assert {dtype for dtypes in seen for dtype in dtypes} == {torch.float32}
    assert {one.dtype for one in stats.values()} == {torch.float32}
    assert bool(torch.stack([*stats.values()]).isfinite().all())
    networks = (steps.state.G, steps.state.D, steps.state.ema)
    assert all(bool(p.isfinite().all()) for network in networks for p in network.parameters())
    assert ({"r1", "r2"} if gammas else {"energy", "pairs"}) <= stats.keys()
