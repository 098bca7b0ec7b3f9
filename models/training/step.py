"""One step of training: D's, G's and the average's; `models.training.parts` computes."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.config import TrainConfig
from models.families.base import FeatureDiscriminatorNet
from models.training.augment import Strength, augmented, flipped
from models.training.checkpoint import TrainState
from models.training.data import Batches
from models.training.distributed import all_rows, average_gradients, mean_over_ranks, share, world
from models.training.losses import (
    LOSSES,
    around,
    between,
    energy_distance,
    energy_score,
    label_loss,
)
from models.training.parts import Parts

SIGN_MEMORY = 0.9  # of the running mean of the sign that ADA steers on, a step
PATH_MEMORY = 0.99  # of the running mean of path lengths, a penalty


class Reals(NamedTuple):
    """The reals of a step, of this rank."""

    images: Tensor  # [N,3,R,R]
    labels: Tensor  # [N,L]
    augmented: Tensor  # [N,3,R,R], as D sees them


class Latents(NamedTuple):
    """What fakes are drawn from."""

    z: Tensor  # [2,N,Z] with mixing, else [1,N,Z]
    labels: Tensor  # [N,L]
    mixing_mask: Tensor | None  # [N,K,1]
    noise: list[Tensor]  # [N,1,s,s]

    def of(self, rows: slice) -> "Latents":
        """Returns those of some fakes."""
        mask = None if self.mixing_mask is None else self.mixing_mask[rows]
        return Latents(self.z[:, rows], self.labels[rows], mask, [one[rows] for one in self.noise])


class Fakes(NamedTuple):
    """Fakes [N,3,R,R] and their w [N,K,W], if there is one; with their graph, if in one piece."""

    latents: Latents
    images: Tensor
    w: Tensor | None


def train_step(
    state: TrainState,
    config: TrainConfig,
    batches: Batches,
    *,
    parts: Parts,
    positive_weight: Tensor,
) -> dict[str, Tensor]:
    """Takes D's steps, one of G and one of the average.

    Gradients are added term by term, and by micro-batches of config.batch_gpu pictures: each graph
    is freed before the next one is made. Returns detached scalars, not yet averaged over the ranks;
    a lazy penalty (r1, r2, path) only of the steps that have it.
    """
    config = config.at(state.step * config.images_a_step, done=state.done)
    _apply_schedules(state, config)
    stats: dict[str, Tensor] = {}
    for turn in range(config.d_steps):
        reals = _sample_reals(state, config, batches, turn)
        fake_labels = _labels_of_fakes(state, config, batches, reals)
        fakes = sample_fakes(state, config, fake_labels, parts)  # the last ones serve G as well
        if isinstance(state.D, FeatureDiscriminatorNet):
            seen = _see(state, config, parts, reals=reals, fakes=fakes)
            stats |= _d_step_on_features(state, config, parts, positive_weight, seen)
        else:
            stats |= _d_step(state, config, parts, positive_weight, reals=reals, fakes=fakes)
    state.D.requires_grad_(False)  # spares the gradients of D's weights, which nobody wants here
    if isinstance(state.D, FeatureDiscriminatorNet):
        stats |= _g_step_on_features(state, config, parts, positive_weight, seen)
    else:
        stats |= _g_step(state, config, parts, positive_weight, reals=reals, fakes=fakes)
    state.D.requires_grad_(True)

    # The averages that are drawn from
    if fakes.w is not None:
        state.G.track(mean_over_ranks(fakes.w.detach()[:, 0].float().mean(dim=0)))
    state.step += 1
    half_life_steps = config.ema_kimg * 1000 / config.images_a_step
    update_average(state.ema, state.G, step=state.step, half_life_steps=half_life_steps)
    return stats | {"aug_p": state.aug_p.detach()}


def _d_step(
    state: TrainState,
    config: TrainConfig,
    parts: Parts,
    positive_weight: Tensor,
    *,
    reals: Reals,
    fakes: Fakes,
) -> dict[str, Tensor]:
    """Moves D: reals against fakes, the reals' labels, and penalties on D's slope."""
    loss = LOSSES[config.loss]
    images, labels, fake_labels = reals.augmented, reals.labels, fakes.latents.labels
    fakes_aug = _augmented(state, config, fakes.images.detach())
    rows = micro_batches(len(images), config.batch_gpu)
    signs: list[Tensor] = []

    def adversarial(i: slice) -> dict[str, Tensor]:
        real_logits, real_labels = parts.judged(images[i], labels[i])
        fake_logits, _ = parts.judged(fakes_aug[i], fake_labels[i])
        certainty = real_logits - fake_logits if loss.paired else real_logits
        signs.append(certainty.detach().sign())
        return {
            "d": loss.d(real_logits, fake_logits),
            "d_labels": label_loss(real_labels, labels[i], positive_weight),
        }

    state.opt_d.zero_grad(set_to_none=True)
    stats = accumulate(rows, adversarial, d=1.0, d_labels=config.d_label_weight)
    # The loss's own penalty every time, the lazy ones every so often
    if state.step % config.r1_every == 0:
        r1, r2 = (gamma / 2 * config.r1_every for gamma in (config.r1_gamma, config.r2_gamma))
        if r1 > 0:
            stats |= accumulate(rows, lambda i: {"r1": parts.r1(images[i], labels[i])}, r1=r1)
        if r2 > 0:
            stats |= accumulate(
                rows, lambda i: {"r2": parts.r1(fakes_aug[i], fake_labels[i])}, r2=r2
            )
    if loss.penalty:
        places = _in_format(_slope_places(loss.penalty, images, fakes_aug, state.rng))
        stats |= accumulate(
            rows,
            lambda i: {"slope": parts.slope(places[i], labels[i])},
            slope=config.gp_weight,
        )
    optimizer_step(state.opt_d, state.D)
    if loss.clipped:
        _clip(state.D, config.clip)
    _steer_augmentation(state, config, torch.cat(signs))
    return stats


def _g_step(
    state: TrainState,
    config: TrainConfig,
    parts: Parts,
    positive_weight: Tensor,
    *,
    reals: Reals,
    fakes: Fakes,
) -> dict[str, Tensor]:
    """Moves G: to fakes that D takes for reals, that show their labels, and that move with w.

    The gradients of the fakes and of w are gathered first, so that D's graphs are gone when G's is
    differentiated, once.
    """
    loss = LOSSES[config.loss]
    latents, fake_labels = fakes.latents, fakes.latents.labels
    if loss.paired:  # D has moved since, and a pair is compared within one state of D
        reals_aug = _augmented(state, config, reals.images)
    images = fakes.images.detach().requires_grad_()
    fakes_aug = _augmented(state, config, images)
    judged = fakes_aug.detach().requires_grad_()
    rows = micro_batches(len(images), config.batch_gpu)

    def adversarial(i: slice) -> dict[str, Tensor]:
        fake_logits, label_logits = parts.judged(judged[i], fake_labels[i])
        real_logits = fake_logits  # which the losses without pairs leave unused
        if loss.paired:
            real_logits, _ = parts.judged(reals_aug[i], reals.labels[i])
        return {
            "g": loss.g(real_logits.detach(), fake_logits),
            "g_labels": label_loss(label_logits, fake_labels[i], positive_weight),
        }

    state.opt_g.zero_grad(set_to_none=True)
    stats = accumulate(rows, adversarial, g=1.0, g_labels=config.g_label_weight)
    torch.autograd.backward(fakes_aug, judged.grad)
    w = None
    if config.pl_weight > 0 and fakes.w is not None and state.step % config.pl_every == 0:
        w = fakes.w.detach().requires_grad_()
        stats |= _path_penalty(state, config, parts, w, fake_labels)
    gradients = [one.grad for one in (images, w) if one is not None and one.grad is not None]
    for i in rows:
        made = fakes[1:] if len(rows) == 1 else parts.fakes(*latents.of(i))
        outputs = [one for one in made if one is not None][: len(gradients)]
        torch.autograd.backward(outputs, [one[i] for one in gradients])
    optimizer_step(state.opt_g, state.G)
    return stats


class Seen(NamedTuple):
    """What a D on frozen features sees in a step: one pass of the frozen network serves D and G."""

    fakes: Fakes
    images: Tensor  # those of the fakes, cut off from G's graph
    fake_features: list[Tensor]  # with the graph back to `images`
    real_features: list[Tensor]
    real_labels: Tensor


def _see(
    state: TrainState, config: TrainConfig, parts: Parts, *, reals: Reals, fakes: Fakes
) -> Seen:
    images = fakes.images.detach().requires_grad_()
    fake_features = parts.features(_augmented(state, config, images))
    with torch.no_grad():
        real_features = parts.features(reals.augmented)
    return Seen(fakes, images, fake_features, real_features, reals.labels)


def _d_step_on_features(
    state: TrainState, config: TrainConfig, parts: Parts, positive_weight: Tensor, seen: Seen
) -> dict[str, Tensor]:
    """Moves D: reals against fakes on each map, and the reals' labels."""
    loss = LOSSES[config.loss]
    # In one go: on a CPU in three quarters of the time of two.
    maps = zip(seen.real_features, seen.fake_features, strict=True)
    both = [torch.cat([real, fake.detach()]) for real, fake in maps]
    labels = torch.cat([seen.real_labels, seen.fakes.latents.labels])
    logits, label_logits = parts.judged_features(both, labels, 2)
    real_logits, fake_logits = logits.chunk(2)
    real_labels, _ = label_logits.chunk(2)
    terms = {
        "d": loss.d(real_logits, fake_logits),
        "d_labels": label_loss(real_labels, seen.real_labels, positive_weight),
    }
    state.opt_d.zero_grad(set_to_none=True)
    torch.autograd.backward(terms["d"] + config.d_label_weight * terms["d_labels"])
    optimizer_step(state.opt_d, state.D)
    certainty = real_logits - fake_logits if loss.paired else real_logits
    _steer_augmentation(state, config, certainty.detach())
    return {name: value.detach() for name, value in terms.items()}


def _g_step_on_features(
    state: TrainState, config: TrainConfig, parts: Parts, positive_weight: Tensor, seen: Seen
) -> dict[str, Tensor]:
    """Moves G: to fakes that D takes for reals, that show their labels, and spread as reals do."""
    assert isinstance(state.D, FeatureDiscriminatorNet)
    loss = LOSSES[config.loss]
    fake_labels = seen.fakes.latents.labels
    fake_logits, label_logits = parts.judged_features(seen.fake_features, fake_labels)
    real_logits = fake_logits  # which the losses without pairs leave unused
    if loss.paired:
        real_logits, _ = parts.judged_features(seen.real_features, seen.real_labels)
    terms = {
        "g": loss.g(real_logits.detach(), fake_logits),
        "g_labels": label_loss(label_logits, fake_labels, positive_weight),
    }
    total = terms["g"] + config.g_label_weight * terms["g_labels"]
    if config.energy_weight > 0 or config.pair_weight > 0:
        fakes = all_rows(state.D.summary(seen.fake_features, fake_labels))
        reals = all_rows(state.D.summary(seen.real_features, seen.real_labels))
        if config.energy_weight > 0:
            terms["energy"] = energy_distance(fakes, reals)
            total = total + config.energy_weight * terms["energy"]
        if config.pair_weight > 0:
            terms["pairs"] = energy_score(fakes, reals)
            total = total + config.pair_weight * terms["pairs"]
    state.opt_g.zero_grad(set_to_none=True)
    torch.autograd.backward(total)
    w = None
    if config.pl_weight > 0 and seen.fakes.w is not None and state.step % config.pl_every == 0:
        w = seen.fakes.w.detach().requires_grad_()
        terms |= _path_penalty(state, config, parts, w, fake_labels)
    gradients = [one.grad for one in (seen.images, w) if one is not None and one.grad is not None]
    outputs = [one for one in seen.fakes[1:] if one is not None][: len(gradients)]
    torch.autograd.backward(outputs, gradients)
    optimizer_step(state.opt_g, state.G)
    return {name: value.detach() for name, value in terms.items()}


def micro_batches(count: int, size: int) -> list[slice]:
    """Returns the rows of each micro-batch of `count` rows: up to `size` each, or all for 0."""
    size = size or count
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]


def accumulate(
    rows: list[slice], term: Callable[[slice], dict[str, Tensor]], **weights: float
) -> dict[str, Tensor]:
    """Adds the gradients of a term of the loss, micro-batch by micro-batch.

    term(rows) gives scalars by name, means over its rows; their sum by `weights` is differentiated.
    Returns the scalars of the whole batch, detached.
    """
    means: dict[str, Tensor] = {}
    for i in rows:
        values = term(i)
        part = (i.stop - i.start) / rows[-1].stop
        total = torch.stack([weights[name] * value for name, value in values.items()]).sum()
        (part * total).backward()
        for name, value in values.items():
            mean = part * value.detach()
            means[name] = means[name] + mean if name in means else mean
    return means


@torch.no_grad()
def update_average(ema: nn.Module, G: nn.Module, *, step: int, half_life_steps: float) -> None:
    """Moves the averaged weights towards G's; early on faster, so that the start is forgotten.

    decay = min(0.5^(1/half_life), (1 + step) / (10 + step)). Buffers are averaged too: of the last
    steps alone, batch statistics are noisy enough to shift a colour.
    """
    decay = min(0.5 ** (1 / max(half_life_steps, 1e-3)), (1 + step) / (10 + step))
    averages: list[Tensor] = [*ema.parameters(), *ema.buffers()]
    currents: list[Tensor] = [*G.parameters(), *G.buffers()]
    torch._foreach_lerp_(averages, currents, 1 - decay)


def _sample_reals(state: TrainState, config: TrainConfig, batches: Batches, turn: int) -> Reals:
    images, labels = batches.at(state.step * config.d_steps + turn)
    images = flipped(images, state.rng) if config.flip else images
    return Reals(images, labels, _augmented(state, config, images))


def _labels_of_fakes(
    state: TrainState, config: TrainConfig, batches: Batches, reals: Reals
) -> Tensor:
    """Returns the labels [N,L] of this rank's fakes: the reals' where a loss pairs the two."""
    if LOSSES[config.loss].paired:
        return reals.labels
    if config.pair_weight > 0:  # each row twice, half a batch apart
        return share(all_rows(reals.labels)[: config.batch // 2].repeat(2, 1))
    return batches.labels_of_fakes(state.rng)


def _augmented(state: TrainState, config: TrainConfig, images: Tensor) -> Tensor:
    strength = Strength(config.translate_px, config.scale_frac, config.rotate_deg)
    return _in_format(augmented(images, strength, state.aug_p, state.rng))


def _in_format(images: Tensor) -> Tensor:
    """Returns pictures in the one memory format that D sees: channels last on a GPU.

    A compiled D would be compiled anew for each format, and an eager one convert it.
    """
    channels_last = images.device.type != "cpu"
    return images.contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )


def sample_fakes(
    state: TrainState, config: TrainConfig, fake_labels: Tensor, parts: Parts
) -> Fakes:
    """Draws this rank's share of a batch of fakes, of its labels."""
    G, rng, device = state.G, state.rng, fake_labels.device
    pairs = 2 if config.mixing > 0 else 1
    draw = torch.randn if G.spec.z_dist == "normal" else torch.rand
    z = draw(pairs, config.batch, G.spec.z_dim, generator=rng, device=device) * G.spec.z_std
    z = torch.stack([share(one) for one in z])
    mixing_mask = None
    if config.mixing > 0:
        layers = G.spec.w_layers
        # Rows that are not mixed cross over after the last layer.
        at = torch.randint(1, layers, (config.batch,), generator=rng, device=device)
        mixed = torch.rand(config.batch, generator=rng, device=device) < config.mixing
        at = share(torch.where(mixed, at, layers))
        mixing_mask = (torch.arange(layers, device=device) < at[:, None])[:, :, None]
    latents = Latents(z, fake_labels, mixing_mask, _noise(state, config.batch))
    rows = micro_batches(len(fake_labels), config.batch_gpu)
    if len(rows) == 1:
        return Fakes(latents, *parts.fakes(*latents))
    with torch.no_grad():  # all graphs at once would be the whole batch's: G's step draws again
        made = [parts.fakes(*latents.of(i)) for i in rows]
    w = [one for _, one in made if one is not None]
    return Fakes(latents, torch.cat([images for images, _ in made]), torch.cat(w) if w else None)


def _noise(state: TrainState, count: int) -> list[Tensor]:
    rng, device = state.device_rng, state.aug_p.device
    sides = state.G.noise_sides()
    return [
        share(torch.randn(count, 1, side, side, generator=rng, device=device)) for side in sides
    ]


def _slope_places(name: str, reals: Tensor, fakes: Tensor, rng: torch.Generator) -> Tensor:
    count, device = len(reals) * world(), reals.device
    mix = share(torch.rand(count, generator=rng, device=device))
    if name == "wgan-gp":
        return between(reals, fakes, mix)
    noise = share(torch.rand(count, *reals.shape[1:], generator=rng, device=device))
    return around(reals, mix, noise)


def _path_penalty(
    state: TrainState, config: TrainConfig, parts: Parts, w: Tensor, fake_labels: Tensor
) -> dict[str, Tensor]:
    """(length - its running mean)², on every second picture: half the memory, all the use.

    Adds its gradients to those of G and to w's.
    """
    w, fake_labels = w[::2], fake_labels[::2]
    side, count = state.G.spec.resolution_px, len(w) * world()
    size = (count, 3, side, side)
    direction = share(torch.randn(size, generator=state.device_rng, device=w.device))
    noise = _noise(state, count)
    rows = micro_batches(len(w), (config.batch_gpu + 1) // 2)

    def lengths(i: slice) -> Tensor:
        found: Tensor = parts.lengths(w[i], fake_labels[i], direction[i], [n[i] for n in noise])
        return found

    def track(found: Tensor) -> None:
        state.path_mean.lerp_(mean_over_ranks(found.mean()), 1 - PATH_MEMORY)

    def penalty(i: slice) -> dict[str, Tensor]:
        found = lengths(i)
        if len(rows) == 1:
            track(found)
        return {"path": (found - state.path_mean).square().mean()}

    if len(rows) > 1:  # the mean is that of the whole batch
        with torch.no_grad():
            track(torch.cat([lengths(i) for i in rows]))
    return accumulate(rows, penalty, path=config.pl_weight * config.pl_every)


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


def _apply_schedules(state: TrainState, config: TrainConfig) -> None:
    """Gives the optimisers and aug_p what their schedules have come to."""
    if config.schedule_kimg == 0 and config.cooldown_frac == 0:
        return
    for optimiser, lr in ((state.opt_g, config.lr_g), (state.opt_d, config.lr_d)):
        for group in optimiser.param_groups:
            group["lr"], group["betas"] = lr * group["pace"], (config.beta1, config.beta2)
    if config.aug_p_final > 0:
        state.aug_p.fill_(config.aug_p)


@torch.no_grad()
def _clip(D: nn.Module, bound: float) -> None:
    for weight in D.parameters():
        weight.clamp_(-bound, bound)


def optimizer_step(optimiser: torch.optim.Optimizer, network: nn.Module) -> None:
    """Takes one step down the gradients so far, averaged over the ranks."""
    average_gradients(network)
    optimiser.step()
