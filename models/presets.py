"""Settings by name: each family's own, small ones for two cores, and smoke ones for seconds."""

import dataclasses
from typing import Any

from dataset.errors import ConfigError, nearest
from models.config import TrainConfig, overridden

_DCGAN64 = TrainConfig()

_DCGAN96 = TrainConfig(
    family="dcgan96",
    resolution_px=96,
    batch=100,
    total_kimg=6000.0,  # 90 to 300 passes over the 20,000 to 60,000 faces of a crawl
    beta1=0.8,
    beta2=0.999,
    r1_gamma=0.0,  # dropout is what holds this D back
)

_ACGAN64 = TrainConfig(
    family="acgan64",
    total_kimg=2000.0,
    beta2=0.999,
    r1_gamma=0.0,
    rotate_deg=5.0,
)

_SRRESNET = TrainConfig(
    family="srresnet",
    total_kimg=3000.0,
    beta2=0.999,
    loss="dragan",
    gp_weight=0.5,
    r1_gamma=0.0,
    g_label_weight=5.0,
    d_label_weight=5.0,
)

_STYLEGAN2 = TrainConfig(
    family="stylegan2",
    resolution_px=128,
    batch=32,
    total_kimg=5000.0,
    lr_g=2.5e-3,
    lr_d=2.5e-3,
    beta1=0.0,
    r1_gamma=0.1,  # 0.0002 · 128² / 32: as much as the side and the batch ask for
    r1_every=16,
    pl_weight=2.0,
    mixing=0.9,
    ema_kimg=10.0,
    translate_px=12,
    scale_frac=0.2,
    rotate_deg=10.0,
    aug_p=0.0,
    ada_target=0.6,
    score_pictures=2000,
    compile=True,
)

_OMOKAGE = TrainConfig(
    family="omokage",
    resolution_px=128,
    g_channel_base=8192,
    d_channel_base=8192,
    mapping_layers=4,
    batch=128,
    total_kimg=10_000.0,
    lr_g=1e-3,
    lr_d=1e-3,
    beta1=0.0,
    loss="rp",
    r1_gamma=2.0,
    r2_gamma=2.0,
    r1_every=1,
    g_label_weight=0.5,
    d_label_weight=0.5,
    mixing=0.5,
    ema_kimg=20.0,
    translate_px=12,
    scale_frac=0.2,
    rotate_deg=10.0,
    aug_p=0.0,
    ada_target=0.6,
    score_pictures=2000,
    compile=True,
)

_FULL = {one.family: one for one in (_DCGAN64, _DCGAN96, _ACGAN64, _SRRESNET, _STYLEGAN2, _OMOKAGE)}

_MINUTES: dict[str, Any] = {
    "total_kimg": 100.0,
    "snapshot_kimg": 5.0,
    "ema_kimg": 1.0,
    "score_pictures": 0,
    "compile": False,
    "translate_px": 2,  # shifts alone: whole pixels, with no resampling
    "scale_frac": 0.0,
    "rotate_deg": 0.0,
    "aug_p": 1.0,
    "ada_target": 0.0,
}
_FEW_CHANNELS: dict[str, Any] = {
    "resolution_px": 64,
    "g_channel_base": 512,
    "d_channel_base": 512,
    "channel_max": 64,
    "w_dim": 128,
    "mapping_layers": 2,
    "batch": 8,  # more steps count for more than more pictures
    "r1_every": 8,
    "lr_g": 2e-3,
    "lr_d": 2e-3,
    "pl_weight": 0.0,
    "mixing": 0.0,
}
_SMALL: dict[str, dict[str, Any]] = {
    "dcgan64": _MINUTES
    | {"g_width": 0.25, "d_width": 0.75, "batch": 32, "lr_g": 5e-4, "lr_d": 1e-3, "r1_gamma": 0.3},
    "dcgan96": _MINUTES
    | {"g_width": 0.25, "d_width": 0.25, "batch": 32, "lr_g": 4e-4, "lr_d": 4e-4, "beta1": 0.5}
    | {"r1_gamma": 1.0},
    "acgan64": _MINUTES
    | {"g_width": 0.25, "d_width": 0.25, "batch": 32, "lr_g": 4e-4, "lr_d": 4e-4, "r1_gamma": 1.0}
    | {"g_label_weight": 2.0},
    "srresnet": _MINUTES
    | {"g_width": 0.25, "d_width": 0.125, "blocks": 2, "batch": 16, "lr_g": 1e-3, "lr_d": 5e-4}
    | {"r1_gamma": 0.3},
    "stylegan2": _MINUTES | _FEW_CHANNELS | {"r1_gamma": 0.3},
    "omokage": _MINUTES | _FEW_CHANNELS | {"r1_gamma": 3.0, "r2_gamma": 3.0},
}

_SECONDS: dict[str, Any] = {
    "batch": 8,
    "total_kimg": 0.16,
    "tick_kimg": 0.04,
    "snapshot_kimg": 0.08,
    "ema_kimg": 0.05,
    "score_pictures": 0,
    "compile": False,
}
_NARROW = {"g_width": 0.05, "d_width": 0.1}
_NARROW_STYLE = {
    "resolution_px": 64,
    "g_channel_base": 128,
    "d_channel_base": 128,
    "channel_max": 16,
    "w_dim": 16,
    "mapping_layers": 2,
}
_SMOKE: dict[str, dict[str, Any]] = {
    "dcgan64": _SECONDS | _NARROW,
    "dcgan96": _SECONDS | _NARROW,
    "acgan64": _SECONDS | _NARROW,
    "srresnet": _SECONDS | _NARROW | {"blocks": 1},
    "stylegan2": _SECONDS | _NARROW_STYLE,
    "omokage": _SECONDS | _NARROW_STYLE,
}

PRESETS: dict[str, TrainConfig] = {
    # A few minutes on two cores, no GPU. What counts there is the number of steps and a D that
    # keeps up: G at a quarter of its width costs a sixteenth, and D at half its width left grain.
    "demo": dataclasses.replace(
        _DCGAN64,
        g_width=0.25,
        d_width=0.75,
        batch=32,
        total_kimg=100.0,  # 4 minutes on two idle cores: 443 pictures a second
        lr_g=5e-4,
        lr_d=1e-3,
        r1_gamma=0.3,
        translate_px=3,
        snapshot_kimg=10.0,
    ),
    # The families' own tables, for a GPU or a night.
    "dcgan64": _DCGAN64,
    "dcgan96": _DCGAN96,
    "acgan64": _ACGAN64,
    "srresnet": _SRRESNET,
    "stylegan2": _STYLEGAN2,
    "omokage": _OMOKAGE,
    # Minutes on two cores, 64 or 96 px: what docs/families.md shows.
    **{f"{name}-small": dataclasses.replace(_FULL[name], **_SMALL[name]) for name in _FULL},
    # Seconds: for tests and for trying out the wiring; draws nothing worth seeing.
    "smoke": dataclasses.replace(_DCGAN64, **_SMOKE["dcgan64"]),
    **{f"{name}-smoke": dataclasses.replace(_FULL[name], **_SMOKE[name]) for name in _FULL},
}


def preset(name: str, overrides: list[str] | None = None) -> TrainConfig:
    """Returns a preset with `key=value` overrides; raises ConfigError naming each wrong one."""
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise ConfigError(f'unknown preset "{name}"{nearest(name, PRESETS)}. Presets: {known}.')
    return overridden(PRESETS[name], overrides or [])
