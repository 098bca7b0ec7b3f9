"""Trains a tagger: arrays in, a calibrated tagger out; knows nothing of stores and tables.

Training, augmentation, and calibration: a slope and a shift for each label's logit, so that 0.25
means one in four.
"""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from dataset.errors import TrainingError, listed
from dataset.vocabulary import sided
from models.tagger.model import (
    Calibration,
    Images,
    Logits,
    Tagger,
    TaggerConfig,
    TaggerNet,
    at_side,
    begin_at_frequency,
    check_images,
    none_for,
    scaled,
    sigmoid,
)
from models.training.losses import positive_weights

Progress = Callable[[dict[str, Any]], None]

SAY_EVERY_S = 2.0
WARM_UP = 0.1  # part of the steps in which the step size rises
MIN_ROWS = 16
_MOST_POSITIVE_WEIGHT = 4.0
_NEWTON_STEPS = 100
_PRIOR = 1e-3  # pulls slope to 1 and shift to 0, which matters only where rows are few


def train_tagger(
    images: Images,
    labels: npt.NDArray[np.bool_],
    *,
    label_names: Sequence[str],
    config: TaggerConfig,
    progress: Progress = lambda _payload: None,
    calibration_rows: npt.NDArray[np.bool_] | None = None,
    data_digest: str | None = None,
) -> Tagger:
    """Trains on uint8 pictures [N,S,S,3] and bool labels [N,L]; returns the calibrated tagger.

    calibration_rows: bool [N], rows that fit the calibration and no weight (default: a part
    `config.calibration_frac`, drawn by the seed; pass one when several rows show one picture).
    progress: takes {"images_seen", "of_images", "loss", "lr", "pictures_per_s"} every few seconds
    and at the end; what it raises ends the training.
    data_digest: name of the data (default: the sha256 of the arrays).

    The same seed gives the same bytes on one CPU with one number of threads. Raises TrainingError
    for arrays that do not fit, too few rows, or a loss that is not finite.
    """
    names = tuple(label_names)
    _check(images, labels, names)
    started = time.monotonic()
    device = _set_up(config)
    held = _calibration_rows(len(images), config) if calibration_rows is None else calibration_rows
    pictures = at_side(images, config.input_px)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = TaggerNet(len(names), width=config.width).to(device)
    seen = _fit_weights(
        network, pictures[~held], labels[~held], names=names, config=config, progress=progress
    )
    network.eval().requires_grad_(False)
    tagger = Tagger(network, names, none_for(len(names)), config, {})
    if held.any():
        tagger.calibration = fit(tagger.logits(pictures[held]), labels[held])
    tagger.facts = {
        "data_digest": data_digest or arrays_digest(images, labels),
        "rows": int((~held).sum()),
        "calibration_rows": int(held.sum()),
        "images_seen": seen,
        "parameters": sum(p.numel() for p in network.parameters()),
        "precision": precision_of(device),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "seconds": round(time.monotonic() - started, 2),
    }
    return tagger


def arrays_digest(images: Images, labels: npt.NDArray[np.bool_]) -> str:
    """Returns the sha256 over the shapes and bytes of both arrays."""
    sha256 = hashlib.sha256(f"{images.shape} {labels.shape}".encode())
    sha256.update(np.ascontiguousarray(images).data)
    sha256.update(np.ascontiguousarray(labels).data)
    return sha256.hexdigest()


def precision_of(device: torch.device) -> str:
    """Returns bfloat16 where the machine multiplies that faster (3x with AMX), else float32."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if torch.cpu._is_amx_tile_supported() else "float32"


def _fit_weights(
    network: TaggerNet,
    images: Images,
    labels: npt.NDArray[np.bool_],
    *,
    names: tuple[str, ...],
    config: TaggerConfig,
    progress: Progress,
) -> int:
    """Fits the weights; returns how many pictures were shown."""
    device = next(network.parameters()).device
    truths = torch.from_numpy(labels.astype(np.float32))
    # Weights above 1 for the rare: without them they learn late; calibration takes them back.
    weights = positive_weights(truths, at_most=_MOST_POSITIVE_WEIGHT).to(device)
    begin_at_frequency(network, truths.mean(dim=0))
    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    total = config.steps(len(images))
    optimiser = _optimiser(network, config)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.lr, total_steps=max(2, total), pct_start=WARM_UP, cycle_momentum=False
    )
    rng = torch.Generator().manual_seed(config.seed)
    mirror = config.flip and not sided(names)
    low_precision = precision_of(device) == "bfloat16"
    ticks = _Ticks(total * config.batch, config.batch, progress)
    for step in range(total):
        index = _order(step, len(images), config)
        batch = varied(scaled(images[index], device), config, rng, mirror=mirror)
        wanted = truths[torch.from_numpy(index)].to(device)
        wanted = wanted * (1 - config.label_smoothing) + config.label_smoothing / 2
        with torch.autocast(device.type, torch.bfloat16, enabled=low_precision):
            logits = network(batch)
        loss = F.binary_cross_entropy_with_logits(logits.float(), wanted, pos_weight=weights)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        ticks.step(loss.detach(), lr=float(schedule.get_last_lr()[0]), last=step + 1 == total)
    return total * config.batch


def _optimiser(network: TaggerNet, config: TaggerConfig) -> torch.optim.Optimizer:
    """AdamW that shrinks the matrices, not the norms and biases."""
    shrunk = [p for p in network.parameters() if p.ndim > 1]
    free = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": shrunk, "weight_decay": config.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr)


class _Ticks:
    """Mean losses since the last report, kept on the device so that no step waits for them."""

    def __init__(self, of_images: int, batch: int, progress: Progress) -> None:
        self._of_images, self._batch, self._progress = of_images, batch, progress
        self._losses: list[Tensor] = []
        self._steps = 0
        self._said = time.monotonic()

    def step(self, loss: Tensor, *, lr: float, last: bool) -> None:
        self._steps += 1
        self._losses.append(loss)
        now = time.monotonic()
        if not last and now - self._said < SAY_EVERY_S:
            return
        mean = float(torch.stack(self._losses).mean())
        if not np.isfinite(mean):
            raise TrainingError(
                f"step {self._steps}: the tagger's loss is {mean}. Try a smaller lr."
            )
        shown = len(self._losses) * self._batch
        self._progress(
            {
                "images_seen": self._steps * self._batch,
                "of_images": self._of_images,
                "loss": mean,
                "lr": lr,
                "pictures_per_s": shown / max(now - self._said, 1e-9),
            }
        )
        self._losses, self._said = [], now


def _order(step: int, count: int, config: TaggerConfig) -> npt.NDArray[np.int64]:
    """The rows of a step: every row comes once a pass, each pass shuffled anew."""
    places = np.arange(step * config.batch, (step + 1) * config.batch)
    passes = {
        int(number): np.random.default_rng([config.seed, int(number)]).permutation(count)
        for number in np.unique(places // count)
    }
    return np.array([passes[int(p // count)][p % count] for p in places], dtype=np.int64)


def _calibration_rows(count: int, config: TaggerConfig) -> npt.NDArray[np.bool_]:
    rows = np.zeros(count, bool)
    order = np.random.default_rng([config.seed, count]).permutation(count)
    rows[order[: round(count * config.calibration_frac)]] = True
    return rows


def _set_up(config: TaggerConfig) -> torch.device:
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.backends.cudnn.benchmark = False  # it may choose other kernels on another day
    torch.backends.cudnn.deterministic = True
    return config.torch_device()


def _check(images: Images, labels: npt.NDArray[np.bool_], names: tuple[str, ...]) -> None:
    check_images(images)
    faults = []
    if labels.dtype != np.bool_ or labels.shape != (len(images), len(names)):
        faults.append(
            f"labels are {labels.dtype} {list(labels.shape)}; bool {[len(images), len(names)]} "
            f"wanted for {len(images):,} pictures and {len(names)} label names"
        )
    if not names or len(set(names)) != len(names):
        faults.append(f"label names are {', '.join(names) or 'missing'}; different ones wanted")
    if len(images) < MIN_ROWS:
        faults.append(f"{len(images)} pictures; at least {MIN_ROWS} wanted")
    if faults:
        raise TrainingError(f"a tagger cannot be trained on this:\n{listed(faults)}")


def varied(images: Tensor, config: TaggerConfig, rng: torch.Generator, *, mirror: bool) -> Tensor:
    """Turns, scales, shifts, perhaps mirrors, and lights each picture anew.

    images [N,3,R,R] in [-1,1] -> the same shape; what comes in from outside repeats the border.
    Light and contrast change all three channels alike, so grey stays grey and blue stays blue.
    """
    count = len(images)
    frame = _frames(count, config, rng, mirror=mirror).to(images.device)
    places = F.affine_grid(frame, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, places, padding_mode="border", align_corners=False)
    contrast = 1 + config.brightness * _spread(count, rng)[:, None, None, None].to(images.device)
    light = config.brightness * _spread(count, rng)[:, None, None, None].to(images.device)
    return (moved * contrast + light).clamp(-1, 1)


def _frames(count: int, config: TaggerConfig, rng: torch.Generator, *, mirror: bool) -> Tensor:
    """Draws [N,2,3]: where each output place lies in the picture, both from -1 to 1."""
    angle = _spread(count, rng) * config.rotate_deg * math.pi / 180
    scale = 1 + _spread(count, rng) * config.scale_frac
    shift = torch.stack([_spread(count, rng), _spread(count, rng)], dim=1)
    shift = shift * 2 * config.translate_frac
    side = torch.ones(count)
    if mirror:
        side = torch.where(torch.rand(count, generator=rng) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    top = torch.stack([cos * side, -sin, shift[:, 0]], dim=1)
    bottom = torch.stack([sin * side, cos, shift[:, 1]], dim=1)
    return torch.stack([top, bottom], dim=1)


def _spread(count: int, rng: torch.Generator) -> Tensor:
    return torch.rand(count, generator=rng) * 2 - 1


def fit(logits: Logits, truths: npt.NDArray[np.bool_]) -> Calibration:
    """Fits each label's slope and shift by the least cross-entropy on rows no weight was fitted to.

    logits, truths [N,L]. A label that no row or every row has keeps slope 1 and shift 0, and so
    does one whose logits rise where the label is absent: the order of rows is never turned round.
    Source: Platt 1999, with his smoothed targets (N+ + 1)/(N+ + 2) and 1/(N- + 2).
    """
    slopes, shifts = none_for(truths.shape[1]).slope, none_for(truths.shape[1]).shift
    for place in range(truths.shape[1]):
        slope, shift = _fitted(logits[:, place].astype(np.float64), truths[:, place])
        if slope > 0:
            slopes[place], shifts[place] = slope, shift
    return Calibration(slopes, shifts)


def _fitted(x: npt.NDArray[np.float64], truths: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Newton's steps on the convex cross-entropy of one label, halved while they do not help."""
    present = int(truths.sum())
    absent = len(truths) - present
    if not present or not absent:
        return 1.0, 0.0
    target = np.where(truths, (present + 1) / (present + 2), 1 / (absent + 2))
    design = np.stack([x, np.ones_like(x)], axis=1)  # [N,2]
    start = np.array([1.0, 0.0])
    weights = start
    loss = _loss(design @ weights, target, weights - start)
    for _ in range(_NEWTON_STEPS):
        p = sigmoid(design @ weights)
        gradient = design.T @ (p - target) + 2 * _PRIOR * (weights - start)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + 2 * _PRIOR * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-6:
            tried = weights - size * step
            lower = _loss(design @ tried, target, tried - start)
            if lower < loss:
                break
            size /= 2
        else:
            break
        gained, weights, loss = loss - lower, tried, lower
        if gained < 1e-9 * max(1.0, loss):
            break
    return float(weights[0]), float(weights[1])


def _loss(
    logits: npt.NDArray[np.float64],
    target: npt.NDArray[np.float64],
    away: npt.NDArray[np.float64],
) -> float:
    entropy = np.logaddexp(0, logits) - target * logits
    return float(entropy.sum() + _PRIOR * (away**2).sum())
