"""The check before a compiled training: its gradients are those of the same steps run eagerly."""

import contextlib
import dataclasses
import importlib.util
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from dataset.errors import ConfigError, TrainingError, listed
from models.config import TrainConfig
from models.families.base import DiscriminatorNet, GeneratorNet
from models.training.losses import LOSSES, around, between
from models.training.step import Parts

TOLERANCE = 1e-3  # relative error of a whole gradient; rounding alone stays below 1e-5
INDUCTOR = "inductor"
_SEED = 7  # of the latents, noise and directions that are compared on

Measured = Callable[[Parts], Tensor]  # a scalar whose gradients are compared


@dataclasses.dataclass(frozen=True)
class _Comparison:
    """One graph that training runs: a scalar of it, and what it is differentiated by."""

    name: str
    measured: Measured
    by: Mapping[str, Tensor]  # parameters and inputs that require gradients, by name
    frozen: nn.Module | None = None  # a network that asks for no gradients meanwhile


def check_compiled(
    G: GeneratorNet,
    D: DiscriminatorNet,
    config: TrainConfig,
    *,
    images: Tensor,
    labels: Tensor,
    backend: str = INDUCTOR,
) -> dict[str, float]:
    """Compares compiled and eager gradients of every part of a step that `config` uses.

    images [N,3,R,R] in [-1,1] and labels [N,L] are a batch on the networks' device; 8 rows are
    plenty, but a float32 training goes on with what was compiled here if its batch is as large.
    Everything is compared in float32, without TF32: bfloat16's own rounding would hide what is
    looked for. Leaves weights, their gradients, buffers and random sources as they were.

    Returns the relative error |compiled - eager| / |eager| of each part's whole gradient by the
    part's name ("fakes", "judged", "judged for G", "r1", "r2", "slope", "lengths"), to be logged.
    Raises TrainingError naming each part beyond TOLERANCE, and ConfigError if nothing can be
    compiled on this machine.
    """
    from torch._dynamo.exc import TorchDynamoException  # here: it takes a second to import

    if backend == INDUCTOR:
        require_compiler(images.device.type)
    eager = Parts(G, D, bf16=False, compiled=False)
    compiled = Parts(G, D, bf16=False, compiled=True, backend=backend)
    try:
        errors = compare(eager, compiled, G, D, config=config, images=images, labels=labels)
    except TorchDynamoException as error:
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ConfigError(
            f"compile is true, but torch.compile ({backend}) fails for {config.family} on "
            f"{images.device.type}: {' '.join(said[:2])}; compile=false trains without it."
        ) from error
    return errors


def compare(
    eager: Parts,
    compiled: Parts,
    G: GeneratorNet,
    D: DiscriminatorNet,
    *,
    config: TrainConfig,
    images: Tensor,
    labels: Tensor,
) -> dict[str, float]:
    """Returns each part's relative error, as `check_compiled` does for parts of its own making."""
    errors: dict[str, float] = {}
    faults: list[str] = []
    with _unchanged(G, D), _exact_float32(), _same_draws(images.device):
        draw = _Draws(images.device)
        given = _inputs(eager, G, draw, config=config, images=images, labels=labels)
        for one in _comparisons(given, G, D, config=config, draw=draw):
            wanted, found = _gradients(eager, one), _gradients(compiled, one)
            errors[one.name] = _relative_error(found, wanted)
            if not errors[one.name] <= TOLERANCE:
                faults.append(
                    f"{one.name}: relative error {errors[one.name]:.2g}, at most {TOLERANCE:g} "
                    f"wanted; most of it is in {_worst(found, wanted)}"
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


@dataclasses.dataclass(frozen=True)
class _Inputs:
    """What both sides are measured on: reals and fakes [N,3,R,R], and what the fakes came from."""

    images: Tensor
    labels: Tensor
    z: Tensor  # [2,N,Z] with mixing, else [1,N,Z]
    mixing_mask: Tensor | None  # [N,K,1]
    noise: list[Tensor]
    fakes: Tensor
    w: Tensor | None  # [N,K,W]


def _inputs(
    eager: Parts,
    G: GeneratorNet,
    draw: "_Draws",
    *,
    config: TrainConfig,
    images: Tensor,
    labels: Tensor,
) -> _Inputs:
    count, mixed = len(images), config.mixing > 0
    z = draw.normal(2 if mixed else 1, count, G.spec.z_dim) * G.spec.z_std
    noise = [draw.normal(count, 1, side, side) for side in G.noise_sides()]
    mixing_mask = None
    if mixed:
        layers = torch.arange(G.spec.w_layers, device=images.device)[None, :, None]
        mixing_mask = (layers < G.spec.w_layers // 2).repeat(count, 1, 1)
    with torch.no_grad():
        fakes, w = eager.fakes(z, labels, mixing_mask, noise)
    return _Inputs(images, labels, z, mixing_mask, noise, fakes, w)


def _comparisons(
    given: _Inputs, G: GeneratorNet, D: DiscriminatorNet, *, config: TrainConfig, draw: "_Draws"
) -> Iterator[_Comparison]:
    """Yields the graphs of a step; every output is weighed, so that none can be wrong unseen."""
    images, labels, fakes, w = given.images, given.labels, given.fakes, given.w
    of_g, of_d = _weights(G, "G"), _weights(D, "D")
    count = len(images)

    toward, w_toward = draw.normal(*fakes.shape), None if w is None else draw.normal(*w.shape)

    def drawn(parts: Parts) -> Tensor:
        pictures, styles = parts.fakes(given.z, labels, given.mixing_mask, given.noise)
        total: Tensor = (pictures * toward).sum()
        return total if w_toward is None else total + (styles * w_toward).sum()

    yield _Comparison("fakes", drawn, of_g)

    real_weight, label_weight = draw.normal(count), draw.normal(*labels.shape)

    def judged(parts: Parts, seen: Tensor) -> Tensor:
        realness, said = parts.judged(seen, labels)
        total: Tensor = (realness * real_weight).sum()
        return total + (said * label_weight).sum() if said.shape[1] else total

    images = fakes.clone().requires_grad_()
    yield _Comparison("judged", lambda parts: judged(parts, images), of_d)
    yield _Comparison(
        "judged for G", lambda parts: judged(parts, images), {"pictures": images}, frozen=D
    )

    if config.r1_gamma > 0:
        yield _Comparison("r1", lambda parts: parts.r1(images, labels), of_d)
    if config.r2_gamma > 0:
        yield _Comparison("r2", lambda parts: parts.r1(fakes, labels), of_d)
    penalty = LOSSES[config.loss].penalty
    if penalty:
        how_far, whereto = draw.uniform(count), draw.uniform(*images.shape)
        on_lines = penalty == "wgan-gp"
        places = between(images, fakes, how_far) if on_lines else around(images, how_far, whereto)
        yield _Comparison("slope", lambda parts: parts.slope(places, labels), of_d)

    if config.pl_weight > 0 and w is not None:
        styles = w.clone()[::2].requires_grad_()  # every second, as in training
        noise = [one[::2].contiguous() for one in given.noise]
        direction = draw.normal(len(styles), *fakes.shape[1:])

        def lengths(parts: Parts) -> Tensor:
            found: Tensor = parts.lengths(styles, labels[::2], direction, noise)
            return found.square().sum()

        yield _Comparison("lengths", lengths, of_g | {"w": styles})


def _weights(network: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": weight for name, weight in network.named_parameters()}


class _Draws:
    """Random inputs from a source of its own, the same for any device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._rng = torch.Generator().manual_seed(_SEED)

    def normal(self, *shape: int) -> Tensor:
        """N(0, 1)."""
        return torch.randn(shape, generator=self._rng).to(self._device)

    def uniform(self, *shape: int) -> Tensor:
        """U(0, 1)."""
        return torch.rand(shape, generator=self._rng).to(self._device)


def _gradients(parts: Parts, one: _Comparison) -> dict[str, Tensor | None]:
    torch.manual_seed(_SEED)  # for dropout
    if one.frozen is not None:
        one.frozen.requires_grad_(False)
    try:
        total = one.measured(parts)
        gradients = torch.autograd.grad(total, list(one.by.values()), allow_unused=True)
    finally:
        if one.frozen is not None:
            one.frozen.requires_grad_(True)
    return dict(zip(one.by, gradients, strict=True))


Gradients = dict[str, Tensor | None]


def _relative_error(found: Gradients, wanted: Gradients) -> float:
    """|found - wanted| / |wanted| over all tensors as one vector; inf where one is missing."""
    if any(found[name] is None and wanted[name] is not None for name in wanted):
        return math.inf
    distance = math.sqrt(sum(_squares(found, wanted).values()))
    size = math.sqrt(sum(_squares(wanted, dict.fromkeys(wanted)).values()))
    if size == 0:
        return 0.0 if distance == 0 else math.inf
    return distance / size


def _worst(found: Gradients, wanted: Gradients) -> str:
    missing = [name for name in wanted if found[name] is None and wanted[name] is not None]
    if missing:
        return f"{missing[0]}, which got none"
    squares = _squares(found, wanted)
    return max(squares, key=lambda name: math.inf if math.isnan(squares[name]) else squares[name])


def _squares(first: Gradients, second: Gradients) -> dict[str, float]:
    """|first - second|² of each tensor; None counts as zeros."""
    squares = {}
    for name, one in first.items():
        other = second[name]
        if one is None:
            one, other = other, None
        if one is None:
            squares[name] = 0.0
        else:
            difference = one.double() if other is None else one.double() - other.double()
            squares[name] = float(difference.square().sum())
    return squares


@contextlib.contextmanager
def _unchanged(*networks: nn.Module) -> Iterator[None]:
    """Puts buffers back as they were; a forward in training moves those of batch norms."""
    buffers = [buffer for network in networks for buffer in network.buffers()]
    kept = [buffer.clone() for buffer in buffers]
    weights = [weight for network in networks for weight in network.parameters()]
    requires_grad = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in zip(buffers, kept, strict=True):
                buffer.copy_(before)
        for weight, required in zip(weights, requires_grad, strict=True):
            weight.requires_grad_(required)


@contextlib.contextmanager
def _exact_float32() -> Iterator[None]:
    """Turns TF32 off: its 10 bits alone would exceed the tolerance."""
    precision, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = convolutions


@contextlib.contextmanager
def _same_draws(device: torch.device) -> Iterator[None]:
    """Keeps torch's sources, and lets compiled code draw dropout masks from them as eager does."""
    from torch._inductor import config as inductor

    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(gpus), inductor.patch(fallback_random=True):
        yield
