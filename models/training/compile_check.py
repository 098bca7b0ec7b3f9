"""The check before a compiled training: its gradients are those of the same step run eagerly."""

import contextlib
import dataclasses
import importlib.util
import math
import os
import shutil
import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dataset.errors import ConfigError, TrainingError, listed
from models.config import TrainConfig
from models.training.checkpoint import TrainState
from models.training.data import Batches
from models.training.step import Parts, train_step

TOLERANCE = 1e-3  # relative error of a network's whole gradient; float32's own rounding: 1e-5
ROUNDINGS = 2.0  # times as far from float32 as eager is in the training's precision

Gradients = dict[str, Tensor]


def check_compiled(
    state: TrainState,
    config: TrainConfig,
    batches: Batches,
    *,
    parts: Parts,
    positive_weight: Tensor,
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
        return _step_gradients(state, config, batches, parts, positive_weight)

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
    batches: Batches,
    parts: Parts,
    positive_weight: Tensor,
) -> dict[str, Gradients]:
    """Takes a step that moves nothing; returns the gradients of D and of G by parameter."""
    config = dataclasses.replace(config, schedule_kimg=0.0)  # which sets the rates anew
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
        train_step(trial, config, batches, parts=parts, positive_weight=positive_weight)
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
