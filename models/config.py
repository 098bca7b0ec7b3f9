"""The settings of a training: one frozen value, presets of it, and overrides by `key=value`."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dataset.errors import ConfigError, listed, nearest
from dataset.store import digest_of
from models.families import BY_CHANNELS, BY_WIDTH, Family, family_of
from models.families.base import NetworkSize
from models.training.losses import LOSSES

PRECISIONS = ("auto", "fp32", "bf16")
KEPT = ("best", "final")
SCHEDULED = (
    *("schedule_from_kimg", "lr_final_frac", "beta2_final", "ema_final_kimg", "gamma_final_frac"),
    "aug_p_final",
)
ENDLESS_KIMG = 1e7  # total_kimg of a training that max_minutes ends
# Settings that decide speed, not what is learnt.
_SPEED_ONLY = ("threads", "device", "batch_gpu", "deterministic")


def setting(
    default: Any,
    meaning: str,
    limits: tuple[float, float] | None = None,
    unit: str = "",
    *,
    added: bool = False,
) -> Any:
    """Declares a field of a settings dataclass: default, meaning, range (inclusive) and unit.

    added: the field is younger than trainings that are kept. Its default does what they did, and
    is left out of the digest, so that theirs stay as they are.
    """
    metadata = {"help": meaning, "limits": limits, "unit": unit, "added": added}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """All that decides what a training learns, and how often it reports and saves."""

    family: str = setting("dcgan64", "a name in models.families.FAMILIES")
    resolution_px: int = setting(64, "side of the pictures; the family says which it draws")
    # Sizes of the networks; each family reads those in its `Family.sizes`.
    g_width: float = setting(1.0, "multiplier of G's channels, 1 = the family's table", (0.01, 16))
    d_width: float = setting(1.0, "multiplier of D's channels", (0.01, 16))
    blocks: int = setting(16, "residual blocks of G", (1, 64))
    g_channel_base: int = setting(
        16_384, "G's layer at side s has min(this / s, channel_max) channels", (16, 1 << 20)
    )
    d_channel_base: int = setting(16_384, "the same for D", (16, 1 << 20))
    d_resolution_px: int = setting(
        0,
        "side to which pictures are enlarged for a D on frozen features, 0 = none is",
        (0, 512),
        "px",
        added=True,
    )
    channel_max: int = setting(512, "most channels of a layer", (1, 4096))
    w_dim: int = setting(512, "dimensions of z and of w", (1, 4096))
    mapping_layers: int = setting(8, "layers from z to w", (1, 16))
    # Duration and optimizer.
    batch: int = setting(64, "pictures per step, over all processes", (2, 65_536))
    total_kimg: float = setting(1000.0, "real pictures shown in all", (0.001, 1e7), "kimg")
    max_minutes: float = setting(
        0.0, "end after so much training time at the latest, 0 = no limit", (0, 1e6), "min"
    )
    lr_g: float = setting(2e-4, "Adam's learning rate for G", (0, 1))
    lr_d: float = setting(2e-4, "Adam's learning rate for D", (0, 1))
    beta1: float = setting(0.5, "Adam's decay of the first moment", (0, 0.9999))
    beta2: float = setting(0.99, "Adam's decay of the second moment", (0, 0.99999))
    adam_eps: float = setting(1e-8, "added to the root of Adam's second moment", (0, 1))
    d_steps: int = setting(1, "steps of D per step of G", (1, 100))
    ema_kimg: float = setting(
        2.0, "half-life of the averaged generator, 0 = it is G itself", (0, 1e5), "kimg"
    )
    # Schedules: values that move from those above and below to these, by half a cosine over the
    # pictures seen, and then stay.
    schedule_from_kimg: float = setting(
        0.0, "pictures seen when the schedules begin", (0, 1e7), "kimg", added=True
    )
    schedule_kimg: float = setting(
        0.0,
        "time in which all values with a final one move to it, 0 = they stay",
        (0, 1e7),
        "kimg",
        added=True,
    )
    lr_final_frac: float = setting(
        1.0, "last lr_g and lr_d, as a fraction of the first", (0, 1), added=True
    )
    beta2_final: float = setting(0.0, "last beta2, 0 = beta2 stays", (0, 0.99999), added=True)
    ema_final_kimg: float = setting(
        0.0, "last ema_kimg, 0 = ema_kimg stays", (0, 1e5), "kimg", added=True
    )
    gamma_final_frac: float = setting(
        1.0, "last r1_gamma and r2_gamma, as a fraction of the first", (0, 1), added=True
    )
    aug_p_final: float = setting(0.0, "last aug_p, 0 = aug_p stays", (0, 1), added=True)
    cooldown_frac: float = setting(
        0.0,
        "share at the end of the training, by pictures or by time if that is nearer its end, over "
        "which lr_g and lr_d fall linearly to 0",
        (0, 1),
        added=True,
    )
    # Losses and penalties.
    loss: str = setting("ns", "a name in models.training.losses.LOSSES")
    g_label_weight: float = setting(1.0, "λ of G's label loss on fakes", (0, 1000))
    d_label_weight: float = setting(1.0, "λ of D's label loss on reals", (0, 1000))
    energy_weight: float = setting(
        0.0,
        "energy distance of D's features that G lowers beside its loss, 0 = none; needs a D on "
        "frozen features",
        (0, 1000),
        added=True,
    )
    pair_weight: float = setting(
        0.0,
        "energy score of those features, of pairs of fakes with one real's labels, that G lowers "
        "as well, 0 = none",
        (0, 1000),
        added=True,
    )
    clip: float = setting(0.01, "D's weights stay within ± this under loss wgan", (1e-6, 100))
    gp_weight: float = setting(10.0, "gradient penalty of losses wgan-gp and dragan", (0, 1000))
    r1_gamma: float = setting(1.0, "gradient penalty on reals (R1), 0 = none", (0, 1e4))
    r2_gamma: float = setting(0.0, "gradient penalty on fakes (R2), 0 = none", (0, 1e4))
    r1_every: int = setting(
        4, "steps between R1 and R2 penalties; each is then weighted by this number", (1, 1000)
    )
    pl_weight: float = setting(0.0, "path length penalty, 0 = none; needs W", (0, 1000))
    pl_every: int = setting(4, "steps between path length penalties, weighted alike", (1, 1000))
    mixing: float = setting(
        0.0, "share of fakes drawn with two w, mixed at a random layer; needs W", (0, 1)
    )
    # Augmentation of reals and fakes before D sees them. Hue is never touched.
    flip: bool = setting(True, "mirror half of the reals; wrong where labels tell left from right")
    translate_px: int = setting(0, "shift by up to this both ways", (0, 32), "px")
    scale_frac: float = setting(0.0, "resize by up to this fraction", (0, 0.5))
    rotate_deg: float = setting(0.0, "rotate by up to this both ways", (0, 45), "deg")
    aug_p: float = setting(
        1.0, "probability of each of the three; with ada_target the first value", (0, 1)
    )
    ada_target: float = setting(
        0.0,
        "mean sign of D(real), under loss rp of D(real) - D(fake), that aug_p is steered to, "
        "0 = aug_p stays",
        (0, 1),
    )
    ada_kimg: float = setting(500.0, "time in which aug_p goes from 0 to 1", (0.001, 1e5), "kimg")
    # Computation.
    batch_gpu: int = setting(
        0,
        "most pictures of the batch that a process holds graphs of at a time, 0 = all",
        (0, 65_536),
        added=True,
    )
    deterministic: bool = setting(
        False, "on a GPU, only kernels that repeat their bits, where it has some", added=True
    )
    precision: str = setting("auto", "fp32, bf16, or auto: bf16 on GPUs that have it")
    compile: bool = setting(False, "compile the steps, after a check of their gradients")
    # Progress, checkpoints and scores.
    tick_kimg: float = setting(1.0, "between lines of progress", (0.001, 1e5), "kimg")
    snapshot_kimg: float = setting(
        100.0, "between checkpoints and sample grids", (0.001, 1e6), "kimg"
    )
    keep_generator: str = setting(
        "best",
        "the snapshot that becomes the generator: best, of the best score where there are scores, "
        "or final, the last one",
        added=True,
    )
    keep_checkpoints: int = setting(2, "the newest, besides that of the best score", (1, 1000))
    score_pictures: int = setting(
        0, "fakes that each snapshot's Fréchet distance is measured on, 0 = none", (0, 1_000_000)
    )
    seed: int = setting(0, "of weights, latents, data order and augmentation", (0, 2**31 - 1))
    device: str = setting("auto", "auto, cpu, cuda or cuda:N")
    threads: int = setting(0, "CPU threads, 0 = torch's own choice", (0, 1024))

    @property
    def total_steps(self) -> int:
        """Steps of the whole training, at least 1."""
        return self.steps_of(self.total_kimg)

    @property
    def images_a_step(self) -> int:
        """Reals that D sees for each step of G."""
        return self.batch * self.d_steps

    def steps_of(self, kimg: float) -> int:
        """Returns how many steps show `kimg` thousand pictures, at least 1."""
        return max(1, math.ceil(kimg * 1000 / self.images_a_step))

    @property
    def digest(self) -> str:
        """The sha256 of the settings that decide the result (not device and threads)."""
        return digest_of_settings(TrainConfig(**canonical(dataclasses.asdict(self))))

    def done(self, steps: int, seconds: float) -> float:
        """Returns how much of the training is over, 0 to 1, by its steps or by its time."""
        by_time = seconds / (self.max_minutes * 60) if self.max_minutes > 0 else 0.0
        return min(max(steps / self.total_steps, by_time), 1.0)

    def at(self, images_seen: int, *, done: float = 0.0) -> "TrainConfig":
        """Returns the settings of the step after `images_seen` pictures, by the schedules.

        done: how much of the training is over, for cooldown_frac.

        Sources: Huang et al. 2024, arXiv:2501.05441, whose training code moves values so; Hägele
        et al. 2024, arXiv:2405.18392, for a linear cooldown of a constant learning rate.
        """
        if self.schedule_kimg == 0 and self.cooldown_frac == 0:
            return self
        share = 0.0
        if self.schedule_kimg > 0:
            moving = (images_seen / 1000 - self.schedule_from_kimg) / self.schedule_kimg
            share = (1 - math.cos(math.pi * min(max(moving, 0.0), 1.0))) / 2

        def moved(first: float, final: float) -> float:
            return first + share * (final - first)

        lr, gamma = moved(1.0, self.lr_final_frac), moved(1.0, self.gamma_final_frac)
        if self.cooldown_frac > 0:
            lr = min((1 - done) / self.cooldown_frac, 1.0)
        return dataclasses.replace(
            self,
            lr_g=self.lr_g * lr,
            lr_d=self.lr_d * lr,
            beta2=moved(self.beta2, self.beta2_final or self.beta2),
            ema_kimg=moved(self.ema_kimg, self.ema_final_kimg or self.ema_kimg),
            r1_gamma=self.r1_gamma * gamma,
            r2_gamma=self.r2_gamma * gamma,
            aug_p=moved(self.aug_p, self.aug_p_final or self.aug_p),
        )

    def g_size(self) -> NetworkSize:
        """Returns the sizes of G."""
        return self._size(self.resolution_px, self.g_width, self.g_channel_base)

    def d_size(self) -> NetworkSize:
        """Returns the sizes of D."""
        side = self.d_resolution_px or self.resolution_px
        return self._size(side, self.d_width, self.d_channel_base)

    def _size(self, resolution_px: int, width: float, channel_base: int) -> NetworkSize:
        return NetworkSize(
            resolution_px=resolution_px,
            width=width,
            blocks=self.blocks,
            channel_base=channel_base,
            channel_max=self.channel_max,
            w_dim=self.w_dim,
            mapping_layers=self.mapping_layers,
        )


def overridden(config: TrainConfig, overrides: list[str]) -> TrainConfig:
    """Returns `config` with `key=value` overrides; raises ConfigError naming each wrong one."""
    return checked(
        dataclasses.replace(
            config, **read_overrides(TrainConfig, overrides, heading="--set does not fit")
        )
    )


def checked(config: TrainConfig) -> TrainConfig:
    """Returns `config` if every value is in its range, else raises ConfigError naming them all."""
    family = family_of(config.family)
    faults = [*_unfit_values(config), *_unfit_family(config, family)]
    if faults:
        raise ConfigError(f"the settings do not fit:\n{listed(faults)}")
    return config


def _unfit_values(config: TrainConfig) -> Iterator[str]:
    if config.loss not in LOSSES:
        known = ", ".join(LOSSES)
        yield f'loss is "{config.loss}"{nearest(config.loss, LOSSES)}; {known} wanted'
    elif LOSSES[config.loss].critic and config.ada_target > 0:
        yield (
            f"ada_target is {config.ada_target:g}; 0 wanted with loss {config.loss}, under which "
            "the sign of D means nothing"
        )
    if config.precision not in PRECISIONS:
        yield f'precision is "{config.precision}"; {", ".join(PRECISIONS)} wanted'
    if config.keep_generator not in KEPT:
        yield f'keep_generator is "{config.keep_generator}"; {" or ".join(KEPT)} wanted'
    if not is_device(config.device):
        yield f'device is "{config.device}"; auto, cpu, cuda or cuda:N wanted'
    if config.aug_p_final > 0 and config.ada_target > 0:
        yield (
            f"aug_p_final is {config.aug_p_final:g} and ada_target {config.ada_target:g}: aug_p "
            "follows one of them, 0 wanted for the other"
        )
    if config.cooldown_frac > 0 and config.lr_final_frac != 1:
        yield (
            f"cooldown_frac is {config.cooldown_frac:g} and lr_final_frac "
            f"{config.lr_final_frac:g}: the learning rates follow one of them, 0 wanted for the "
            "first or 1 for the second"
        )
    if config.schedule_kimg == 0:
        for name in SCHEDULED:
            value = getattr(config, name)
            if value != getattr(TrainConfig, name):
                yield f"{name} is {value:g} and schedule_kimg 0; a time above 0 wanted"
    yield from limit_faults(config)


def digest_of_settings(settings: Any) -> str:
    """Returns the sha256 of a settings dataclass without those that decide speed alone.

    Added fields count only where they are not at their default.
    """
    values = dataclasses.asdict(settings)
    for field in dataclasses.fields(settings):
        added = field.metadata["added"] and values[field.name] == field.default
        if added or field.name in _SPEED_ONLY:
            values.pop(field.name)
    return digest_of(values)


def canonical(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a training in the form that equal trainings of all versions share.

    A field that was added since has its default; ada_kimg without ADA, which then means nothing, is
    the 100 that it was by default before it was 500.
    """
    added = {f.name: f.default for f in dataclasses.fields(TrainConfig) if f.metadata["added"]}
    whole = added | dict(values)
    return whole | {"ada_kimg": 100.0} if whole.get("ada_target") == 0 else whole


def limit_faults(settings: Any) -> Iterator[str]:
    """Yields a sentence for each value of a settings dataclass that is outside its limits."""
    for field in dataclasses.fields(settings):
        if limits := field.metadata["limits"]:
            low, high = limits
            value = getattr(settings, field.name)
            if not low <= value <= high:
                yield f"{field.name} is {value:g}; {low:g} to {high:g} wanted"


def _unfit_features(config: TrainConfig, family: Family) -> Iterator[str]:
    """Yields what does not fit D: slopes are of pixels, the energy distance is of features."""
    if not family.frozen_features:
        for name in ("energy_weight", "pair_weight", "d_resolution_px"):
            if getattr(config, name) > 0:
                yield (
                    f"{name} is {getattr(config, name):g}; 0 wanted: D of {config.family} judges "
                    "pixels"
                )
        return
    able = [0, *(side for side in family.resolutions_px if side > config.resolution_px)]
    if config.d_resolution_px not in able:
        yield (
            f"d_resolution_px is {config.d_resolution_px}; one of {', '.join(map(str, able))} "
            f"wanted with resolution_px {config.resolution_px}"
        )
    if config.pair_weight > 0 and config.batch % 2:
        yield f"batch is {config.batch}; an even number wanted with pair_weight above 0"
    for name in ("r1_gamma", "r2_gamma"):
        if getattr(config, name) > 0:
            yield (
                f"{name} is {getattr(config, name):g}; 0 wanted: D of {config.family} judges "
                "frozen features, and its spectral norm bounds its slope"
            )
    loss = LOSSES.get(config.loss)
    if loss is not None and loss.paired and config.pair_weight > 0:
        yield (
            f"pair_weight is {config.pair_weight:g}; 0 wanted under loss {config.loss}, which "
            "gives each fake the labels of one real"
        )
    if loss is not None and (loss.penalty or loss.clipped):
        others = ", ".join(n for n, one in LOSSES.items() if not one.penalty and not one.clipped)
        yield f"loss is {config.loss}; one of {others} wanted with D of {config.family}"


def _unfit_family(config: TrainConfig, family: Family) -> Iterator[str]:
    if config.resolution_px not in family.resolutions_px:
        able = ", ".join(map(str, family.resolutions_px))
        yield f"resolution_px is {config.resolution_px}; {config.family} draws {able}"
    if not family.has_w:
        for name in ("pl_weight", "mixing"):
            if getattr(config, name) > 0:
                yield f"{name} is {getattr(config, name):g}; {config.family} has no W, 0 wanted"
    yield from _unfit_features(config, family)
    if config.batch_gpu > 0:
        if family.group == 0:
            yield (
                f"batch_gpu is {config.batch_gpu}; 0 wanted: the norms of {config.family} are over "
                "the whole batch"
            )
        elif config.batch % family.group or config.batch_gpu % family.group:
            yield (
                f"batch_gpu is {config.batch_gpu} and batch {config.batch}; multiples of "
                f"{family.group} wanted, the group that D of {config.family} sees together"
            )
    if family.scaled_weights and config.loss in LOSSES and LOSSES[config.loss].clipped:
        others = ", ".join(name for name, loss in LOSSES.items() if not loss.clipped)
        yield (
            f"loss is {config.loss}, whose clipping destroys the weights of {config.family}, which "
            f"are scaled where they are used; one of {others} wanted"
        )
    for name, usual in _SIZES.items():
        if name not in family.sizes and getattr(config, name) != usual:
            able = ", ".join(family.sizes)
            yield f"{name} means nothing to {config.family}, whose sizes are {able}"


_SIZES: dict[str, Any] = {
    field.name: field.default
    for field in dataclasses.fields(TrainConfig)
    if field.name in {*BY_WIDTH, *BY_CHANNELS, "blocks"}
}


_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def read_overrides(
    settings: type[Any], overrides: Sequence[str], *, heading: str
) -> dict[str, Any]:
    """Returns the values of `key=value` texts for fields of the dataclass `settings`.

    Raises ConfigError, under `heading`, naming each text that is no key=value, each unknown key
    with the nearest right one, and each value that is none of its field's type.
    """
    kinds: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(settings)}
    values: dict[str, Any] = {}
    faults = []
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals:
            faults.append(f'"{text}" is no key=value, such as batch=32')
        elif name not in kinds:
            faults.append(f'"{name}" is unknown{nearest(name, kinds)}')
        else:
            read, wanted = _READERS[kinds[name]]
            try:
                values[name] = read(value)
            except ValueError:
                faults.append(f'{name} is "{value}", {wanted} wanted')
    if faults:
        raise ConfigError(f"{heading}:\n{listed(faults)}")
    return values


def is_device(text: str) -> bool:
    """Tells whether a text names a device: auto, cpu, cuda or cuda:N."""
    return text in ("auto", "cpu", "cuda") or (text[:5] == "cuda:" and text[5:].isdigit())


def _read_bool(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise ValueError(text)
    return _BOOLEANS[text.lower()]


def _read_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


_READERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    bool: (_read_bool, "true or false"),
    int: (int, "a whole number"),
    float: (_read_float, "a number"),
    str: (str, "a text"),
}
