"""One step of training: D's, G's and the average's, and what they compute, eager or compiled."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from models.config import TrainConfig
from models.families.base import DiscriminatorNet, GeneratorNet
from models.training.augment import Strength, augmented, flipped
from models.training.checkpoint import TrainState
from models.training.data import Batches
from models.training.distributed import average_gradients, mean_over_ranks, share, world
from models.training.losses import (
    LOSSES,
    around,
    between,
    label_loss,
    path_lengths,
    r1_penalty,
    slope_penalty,
)

SIGN_MEMORY = 0.9  # of the running mean of the sign that ADA steers on, a step
PATH_MEMORY = 0.99  # of the running mean of path lengths, a penalty


class Parts:
    """The heavy parts of a step: functions of tensors alone, so that they can be compiled.

    Each runs under autocast to bfloat16 if `bf16`; losses and penalties are float32. backend is
    torch.compile's: "inductor" is the fast one and wants a compiler, "aot_eager" only traces.
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
        self._bf16 = bf16
        parts: dict[str, Callable[..., Any]] = {
            "fakes": self._fakes,
            "judged": self._judged,
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
        self.r1, self.slope, self.lengths = parts["r1"], parts["slope"], parts["lengths"]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device, torch.bfloat16, enabled=self._bf16)

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
        return adversarial.float(), auxiliary.float()

    def _r1(self, images: Tensor, labels: Tensor) -> Tensor:
        with self._autocast():
            return r1_penalty(self._D, images, labels).mean()

    def _slope(self, images: Tensor, labels: Tensor) -> Tensor:
        with self._autocast():
            return slope_penalty(self._D, images, labels).mean()

    def _lengths(self, w: Tensor, labels: Tensor, direction: Tensor, noise: list[Tensor]) -> Tensor:
        with self._autocast():
            return path_lengths(self._G, w, labels, direction=direction, noise=noise)


def train_step(
    state: TrainState,
    config: TrainConfig,
    batches: Batches,
    *,
    parts: Parts,
    positive_weight: Tensor,
) -> dict[str, Tensor]:
    """Takes D's steps, one of G and one of the average.

    Returns detached scalars, not yet averaged over the ranks; a lazy penalty (r1, r2, path) only of
    the steps that have it.
    """
    loss = LOSSES[config.loss]
    strength = Strength(config.translate_px, config.scale_frac, config.rotate_deg)
    G, D, rng = state.G, state.D, state.rng
    stats: dict[str, Tensor] = {}

    for turn in range(config.d_steps):
        # D: reals against fakes, and the reals' labels
        reals, labels = batches.at(state.step * config.d_steps + turn)
        reals = flipped(reals, rng) if config.flip else reals
        reals_aug = augmented(reals, strength, state.aug_p, rng)
        # The last ones serve G as well.
        fake_labels = labels if loss.paired else batches.labels_of_fakes(rng)
        fakes, w = sample_fakes(state, config, fake_labels, parts)
        fakes_aug = augmented(fakes.detach(), strength, state.aug_p, rng)
        real_logits, real_labels = parts.judged(reals_aug, labels)
        fake_logits, _ = parts.judged(fakes_aug, fake_labels)
        stats["d"] = loss.d(real_logits, fake_logits)
        stats["d_labels"] = label_loss(real_labels, labels, positive_weight)
        total = stats["d"] + config.d_label_weight * stats["d_labels"]

        # Penalties on D's slope; those of the loss itself every time, the lazy ones every so often
        penalised = state.step % config.r1_every == 0
        if config.r1_gamma > 0 and penalised:
            stats["r1"] = parts.r1(reals_aug, labels)
            total = total + config.r1_gamma / 2 * config.r1_every * stats["r1"]
        if config.r2_gamma > 0 and penalised:
            stats["r2"] = parts.r1(fakes_aug, fake_labels)
            total = total + config.r2_gamma / 2 * config.r1_every * stats["r2"]
        if loss.penalty:
            places = _slope_places(loss.penalty, reals_aug, labels, fakes_aug, rng)
            stats["slope"] = parts.slope(*places)
            total = total + config.gp_weight * stats["slope"]
        optimizer_step(state.opt_d, D, total)
        if loss.clipped:
            _clip(D, config.clip)
        certainty = real_logits - fake_logits if loss.paired else real_logits
        _steer_augmentation(state, config, certainty)

    # G: fakes that D takes for reals and that show the fake labels
    D.requires_grad_(False)  # spares the gradients of D's weights, which nobody wants here
    if loss.paired:  # D has moved since, and a pair is compared within one state of D
        reals_aug = augmented(reals, strength, state.aug_p, rng)
        real_logits, _ = parts.judged(reals_aug, labels)
    fakes_aug = augmented(fakes, strength, state.aug_p, rng)
    fake_logits, fake_label_logits = parts.judged(fakes_aug, fake_labels)
    stats["g"] = loss.g(real_logits.detach(), fake_logits)
    stats["g_labels"] = label_loss(fake_label_logits, fake_labels, positive_weight)
    total = stats["g"] + config.g_label_weight * stats["g_labels"]
    if config.pl_weight > 0 and w is not None and state.step % config.pl_every == 0:
        stats["path"] = _path_penalty(state, parts, w, fake_labels)
        total = total + config.pl_weight * config.pl_every * stats["path"]
    optimizer_step(state.opt_g, G, total)
    D.requires_grad_(True)

    # The averages that are drawn from
    if w is not None:
        G.track(mean_over_ranks(w[:, 0].float().mean(dim=0)))
    state.step += 1
    half_life_steps = config.ema_kimg * 1000 / config.images_a_step
    update_average(state.ema, G, step=state.step, half_life_steps=half_life_steps)
    stats["aug_p"] = state.aug_p
    return {name: value.detach() for name, value in stats.items()}


@torch.no_grad()
def update_average(ema: nn.Module, G: nn.Module, *, step: int, half_life_steps: float) -> None:
    """Moves the averaged weights towards G's; early on faster, so that the start is forgotten.

    decay = min(0.5^(1/half_life), (1 + step) / (10 + step)); buffers (batch statistics) are copied.
    """
    decay = min(0.5 ** (1 / half_life_steps), (1 + step) / (10 + step))
    averages: list[Tensor] = list(ema.parameters())
    currents: list[Tensor] = list(G.parameters())
    torch._foreach_lerp_(averages, currents, 1 - decay)
    for kept, latest in zip(ema.buffers(), G.buffers(), strict=True):
        kept.copy_(latest)


def sample_fakes(
    state: TrainState, config: TrainConfig, fake_labels: Tensor, parts: Parts
) -> tuple[Tensor, Tensor | None]:
    """Draws this rank's share of a batch of fakes, of its labels; returns them and their w."""
    G, rng = state.G, state.rng
    pairs = 2 if config.mixing > 0 else 1
    draw = torch.randn if G.spec.z_dist == "normal" else torch.rand
    z = draw(pairs, config.batch, G.spec.z_dim, generator=rng) * G.spec.z_std
    z = torch.stack([share(one) for one in z]).to(fake_labels.device)
    mixing_mask = None
    if config.mixing > 0:
        layers = G.spec.w_layers
        # Rows that are not mixed cross over after the last layer.
        at = torch.randint(1, layers, (config.batch,), generator=rng)
        at[torch.rand(config.batch, generator=rng) >= config.mixing] = layers
        mixing_mask = (torch.arange(layers) < share(at)[:, None])[:, :, None].to(fake_labels.device)
    return parts.fakes(z, fake_labels, mixing_mask, _noise(state, config.batch))


def _noise(state: TrainState, count: int) -> list[Tensor]:
    rng = state.device_rng
    sides = state.G.noise_sides()
    return [
        share(torch.randn(count, 1, side, side, generator=rng, device=rng.device)) for side in sides
    ]


def _slope_places(
    name: str, reals: Tensor, labels: Tensor, fakes: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    count = len(reals) * world()
    mix = share(torch.rand(count, generator=rng)).to(reals.device)
    if name == "wgan-gp":
        return between(reals, fakes, mix), labels
    noise = share(torch.rand(count, *reals.shape[1:], generator=rng)).to(reals.device)
    return around(reals, mix, noise), labels


def _path_penalty(state: TrainState, parts: Parts, w: Tensor, fake_labels: Tensor) -> Tensor:
    """(length - its running mean)², on every second picture: half the memory, all the use."""
    w, fake_labels = w[::2], fake_labels[::2]
    side, rng = state.G.spec.resolution_px, state.device_rng
    count = len(w) * world()
    direction = share(torch.randn(count, 3, side, side, generator=rng, device=rng.device))
    lengths = parts.lengths(w, fake_labels, direction, _noise(state, count))
    mean = mean_over_ranks(lengths.mean())
    state.path_mean.lerp_(mean, 1 - PATH_MEMORY)
    penalty: Tensor = (lengths - state.path_mean).square().mean()
    return penalty


@torch.no_grad()
def _steer_augmentation(state: TrainState, config: TrainConfig, certainty: Tensor) -> None:
    """Adapts the chance of augmentation to how sure D is of the reals.

    certainty [N]: D(real), or D(real) - D(fake) where the loss determines D only up to a constant.
    Source: Karras et al. 2020, arXiv:2006.06676, section 3.1: the mean sign is held at a target.
    """
    if config.ada_target == 0:
        return
    sign = mean_over_ranks(certainty.sign().mean())
    state.real_sign.lerp_(sign, 1 - SIGN_MEMORY)
    pace = config.batch / (config.ada_kimg * 1000)
    state.aug_p.add_((state.real_sign - config.ada_target).sign() * pace).clamp_(0, 1)


@torch.no_grad()
def _clip(D: nn.Module, bound: float) -> None:
    for weight in D.parameters():
        weight.clamp_(-bound, bound)


def optimizer_step(optimiser: torch.optim.Optimizer, network: nn.Module, loss: Tensor) -> None:
    """Takes one step down the loss, with gradients averaged over the ranks."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    average_gradients(network)
    optimiser.step()
