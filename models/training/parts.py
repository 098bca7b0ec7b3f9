"""The heavy parts of a step, eager or compiled, and the check that compiled gradients are right."""

import contextlib
import dataclasses
import importlib.util
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dataset.errors import ConfigError, TrainingError, listed
from models.config import TrainConfig
from models.families.base import DiscriminatorNet, FeatureDiscriminatorNet, GeneratorNet
from models.training.checkpoint import TrainState
from models.training.losses import path_lengths, r1_penalty, slope_penalty


class Parts:
    """The heavy parts of a step: functions of tensors alone, so that they can be compiled.

    Each runs under autocast to bfloat16 if `bf16`: convolutions do, and their gradient within a
    penalty too; D's head, losses and the sums of penalties are float32. backend is torch.compile's:
    "inductor" is the fast one and wants a compiler, "aot_eager" only traces.
    """

    def __init__(
        self,
        G: GeneratorNet,
        D: DiscriminatorNet,
        *,
        bf16: bool,
        compiled: bool,
        backend: str = "inductor",
    ) -> None:
        self._G, self._D = G, D
        self._device = next(G.parameters()).device.type
        self.bf16, self.backend = bf16, backend
        parts: dict[str, Callable[..., Any]] = {
            "fakes": self._fakes,
            "judged": self._judged,
            "features": self._features,
            "judged_features": self._judged_features,
            "r1": self._r1,
            "slope": self._slope,
            "lengths": self._lengths,
        }
        if compiled:
            # Dropout draws from torch's own source, as it does uncompiled: a resumed training goes
            # on with the same masks.
            options: dict[str, Any] | None = None
            if backend == "inductor":
                options = {"fallback_random": True}
            parts = {
                name: torch.compile(part, dynamic=False, backend=backend, options=options)
                for name, part in parts.items()
            }
        self.fakes, self.judged = parts["fakes"], parts["judged"]
        self.features, self.judged_features = parts["features"], parts["judged_features"]
        self.r1, self.slope, self.lengths = parts["r1"], parts["slope"], parts["lengths"]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device, torch.bfloat16, enabled=self.bf16)

    def _fakes(
        self, z: Tensor, labels: Tensor, mixing_mask: Tensor | None, noise: list[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Draws z [2,N,Z] or [1,N,Z] -> pictures [N,3,R,R] and their w [N,K,W], if there is one.

        mixing_mask [N,K,1] is True where a layer takes the w of the first z.
        """
        with self._autocast():
            w = self._G.map(z[0], labels)
            if w is None:
                return self._G(z[0], labels).float(), None
            if mixing_mask is not None:
                other = self._G.map(z[1], labels)
                assert other is not None  # as the first
                w = torch.where(mixing_mask, w, other)
            return self._G(z[0], labels, w=w, noise=noise).float(), w

    def _judged(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with self._autocast():
            adversarial, auxiliary = self._D(images, labels)
        return adversarial, auxiliary

    def _features(self, images: Tensor) -> list[Tensor]:
        assert isinstance(self._D, FeatureDiscriminatorNet)
        with self._autocast():
            return self._D.features(images)

    def _judged_features(
        self, features: list[Tensor], labels: Tensor, sets: int = 1
    ) -> tuple[Tensor, Tensor]:
        assert isinstance(self._D, FeatureDiscriminatorNet)
        with self._autocast():
            return self._D.judge(features, labels, sets=sets)

    def _r1(self, images: Tensor, labels: Tensor) -> Tensor:
        with self._autocast():
            return r1_penalty(self._D, images, labels).mean()

    def _slope(self, images: Tensor, labels: Tensor) -> Tensor:
        with self._autocast():
            return slope_penalty(self._D, images, labels).mean()

    def _lengths(self, w: Tensor, labels: Tensor, direction: Tensor, noise: list[Tensor]) -> Tensor:
        with self._autocast():
            return path_lengths(self._G, w, labels, direction=direction, noise=noise)


TOLERANCE = 1e-3  # relative error of a network's whole gradient; float32's own rounding: 1e-5
ROUNDINGS = 2.0  # times as far from float32 as eager is in the training's precision

Gradients = dict[str, Tensor]
TakeStep = Callable[[TrainState, TrainConfig, Parts], object]  # as `models.training.step` does


def check_compiled(
    state: TrainState,
    config: TrainConfig,
    *,
    parts: Parts,
    take_step: TakeStep,
) -> dict[str, float]:
    """Compares the gradients of the compiled `parts` with eager ones, on a step as it is trained.

    parts are the training's own: what is compiled here is what it runs, in its precision, batch and
    memory format. The step is taken three times at step 0, where every penalty is due: compiled,
    eagerly, and eagerly in float32 without TF32. The eager one's distance from float32 is what the
    precision costs by itself, so the compiled one may be ROUNDINGS times as far, and TOLERANCE.
    `state` is left as it was, its random sources included.

    Returns the relative error |compiled - float32| / |float32| of all gradients of "D" and of "G",
    and those of the eager step as "D eager" and "G eager". Raises TrainingError naming each network
    beyond the limit, and ConfigError if nothing can be compiled on this machine.
    """
    from torch._dynamo.exc import TorchDynamoException  # here: it takes a second to import

    if parts.backend == "inductor":
        require_compiler(state.aug_p.device.type)
    exact, eager = (
        Parts(state.G, state.D, bf16=bf16, compiled=False) for bf16 in (False, parts.bf16)
    )

    def gradients(parts: Parts) -> dict[str, Gradients]:
        return _step_gradients(state, config, parts, take_step)

    try:
        compiled = gradients(parts)
    except TorchDynamoException as error:
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ConfigError(
            f"compile is true, but torch.compile ({parts.backend}) fails for {config.family} on "
            f"{state.aug_p.device.type}: {' '.join(said[:2])}; compile=false trains without it."
        ) from error
    rounded = gradients(eager)
    with _exact_float32():
        wanted = gradients(exact)
    errors, faults = {}, []
    for name in wanted:
        errors[name] = _relative_error(compiled[name], wanted[name])
        errors[f"{name} eager"] = _relative_error(rounded[name], wanted[name])
        limit = ROUNDINGS * errors[f"{name} eager"] + TOLERANCE
        if not errors[name] <= limit:
            faults.append(
                f"{name}: relative error {errors[name]:.2g}, expected at most {limit:.2g}; most of "
                f"it is in {_worst(compiled[name], wanted[name])}"
            )
    if faults:
        raise TrainingError(
            f"compiled and eager gradients of {config.family} differ:\n{listed(faults)}\n"
            "Train with compile=false; another version of torch may compile it rightly."
        )
    return errors


def require_compiler(device: str) -> None:
    """Raises ConfigError naming the program that torch.compile misses on "cpu" or "cuda"."""
    if device == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise ConfigError(f"compile is true, but the package triton is missing. {_REMEDY}")
        programs, variable = ["gcc", "clang"], "CC"  # triton builds its launchers with it
    else:
        programs, variable = ["clang++" if sys.platform == "darwin" else "g++"], "CXX"
    chosen = os.environ.get(variable)
    if not any(shutil.which(program) for program in ([chosen] if chosen else programs)):
        what = f"{chosen} (as {variable} has it)" if chosen else " or ".join(programs)
        raise ConfigError(
            f"compile is true, but there is no compiler {what} on PATH, which torch.compile "
            f"needs on {device}. {_REMEDY}"
        )


_REMEDY = "Install it, or train with compile=false."


def _step_gradients(
    state: TrainState,
    config: TrainConfig,
    parts: Parts,
    take_step: TakeStep,
) -> dict[str, Gradients]:
    """Takes a step that moves nothing; returns the gradients of D and of G by parameter."""
    # Both set the rates anew.
    config = dataclasses.replace(config, schedule_kimg=0.0, cooldown_frac=0.0)
    trial = TrainState(
        G=state.G,
        D=state.D,
        ema=state.G,  # an average of G with itself
        opt_g=torch.optim.SGD(state.G.parameters(), lr=0.0),
        opt_d=torch.optim.SGD(state.D.parameters(), lr=0.0),
        rng=state.rng.clone_state(),
        device_rng=state.device_rng.clone_state(),
        aug_p=state.aug_p.clone(),
        real_sign=state.real_sign.clone(),
        path_mean=state.path_mean.clone(),
    )
    gpus = [state.aug_p.device] if state.aug_p.device.type == "cuda" else []
    # Dropout draws from torch's own source.
    with torch.random.fork_rng(gpus), _unchanged(state.G, state.D):
        take_step(trial, config, parts)
    found: dict[str, Gradients] = {}
    for name, network in (("D", state.D), ("G", state.G)):
        named = network.named_parameters()
        found[name] = {n: p.grad for n, p in named if p.grad is not None}
        network.zero_grad(set_to_none=True)
    return found


def _relative_error(found: Gradients, wanted: Gradients) -> float:
    """|found - wanted| / |wanted| over all tensors as one vector; a missing one counts as 0."""
    size = math.sqrt(sum(_squares(wanted, {}).values()))
    distance = math.sqrt(sum(_squares(found, wanted).values()))
    if size == 0:
        return 0.0 if distance == 0 else math.inf
    return distance / size


def _worst(found: Gradients, wanted: Gradients) -> str:
    squares = _squares(found, wanted)
    return max(squares, key=lambda name: math.inf if math.isnan(squares[name]) else squares[name])


def _squares(first: Gradients, second: Gradients) -> dict[str, float]:
    """|first - second|² of each tensor; one that is missing counts as zeros."""
    squares = {}
    for name in first | second:
        one, other = first.get(name), second.get(name)
        if one is None or other is None:
            (difference,) = (tensor.double() for tensor in (one, other) if tensor is not None)
        else:
            difference = one.double() - other.double()
        squares[name] = float(difference.square().sum())
    return squares


@contextlib.contextmanager
def _unchanged(*networks: nn.Module) -> Iterator[None]:
    """Puts parameters and buffers back as they were: batch norms track, `wgan` clips."""
    held = [tensor for network in networks for tensor in network.state_dict().values()]
    kept = [tensor.clone() for tensor in held]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, before in zip(held, kept, strict=True):
                tensor.copy_(before)


@contextlib.contextmanager
def _exact_float32() -> Iterator[None]:
    """Turns TF32 off, whose 10 bits are not what float32 is measured by."""
    precision, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = convolutions
