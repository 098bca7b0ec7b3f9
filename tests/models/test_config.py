import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.errors import ConfigError
from models.config import TrainConfig, checked
from models.families import FAMILIES
from models.layers.equalized import EqualConv
from models.presets import PRESETS, preset
from models.train import main
from tests.models.homes import LABELS

OF_E1FEA30 = ["g_width=0.03", "d_width=0.03", "total_kimg=0.032", "snapshot_kimg=0.032"]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_in_range(name: str) -> None:
    assert preset(name) == PRESETS[name]


def test_overrides_are_read_by_type() -> None:
    config = preset("demo", ["batch=8", "lr_g=1e-3", "flip=false", "loss=rp"])
    assert (config.batch, config.lr_g, config.flip, config.loss) == (8, 1e-3, False, "rp")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("bach=8", '"bach" is unknown; did you mean "batch"?'),
        ("batch=many", 'batch is "many", a whole number wanted'),
        ("lr_g=nan", 'lr_g is "nan", a number wanted'),
        ("flip=perhaps", 'flip is "perhaps", true or false wanted'),
        ("batch", '"batch" is no key=value'),
        ("batch=1", "batch is 1; 2 to 65536 wanted"),
        ("loss=nss", 'loss is "nss"; did you mean "ns"?'),
        ("resolution_px=96", "resolution_px is 96; dcgan64 draws 64"),
        ("family=dcgan4", 'unknown family "dcgan4"; did you mean "dcgan64"?'),
        ("keep_generator=last", 'keep_generator is "last"; best or final wanted'),
        ("device=gpu", 'device is "gpu"; auto, cpu, cuda or cuda:N wanted'),
    ],
)
def test_a_wrong_override_is_named_with_what_is_wanted(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        preset("dcgan64", [override])
    assert message in str(caught.value)


@pytest.mark.parametrize("loss", ["wgan", "wgan-gp"])
def test_ada_is_refused_where_the_sign_of_d_means_nothing(loss: str) -> None:
    with pytest.raises(ConfigError, match=rf"ada_target is 0\.6; 0 wanted with loss {loss}, under"):
        preset("dcgan64-small", [f"loss={loss}", "ada_target=0.6"])


@pytest.mark.parametrize("family", FAMILIES)
def test_clipping_is_refused_for_scaled_weights_alone(family: str) -> None:
    D = FAMILIES[family].discriminator(
        FAMILIES[family].spec(LABELS, PRESETS[f"{family}-smoke"].d_size())
    )
    scaled = any(isinstance(layer, EqualConv) for layer in D.modules())
    assert FAMILIES[family].scaled_weights == scaled
    overrides = ["loss=wgan", "ada_target=0"]
    if FAMILIES[family].frozen_features:
        return  # refused for another reason, below
    if not scaled:
        assert preset(f"{family}-smoke", overrides).loss == "wgan"
        return
    with pytest.raises(ConfigError, match=f"clipping destroys the weights of {family}, .*wgan-gp"):
        preset(f"{family}-smoke", overrides)


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("omokage-small", "r1_gamma=1", "r1_gamma is 1; 0 wanted: D of omokage judges frozen"),
        ("omokage-small", "r2_gamma=2", "r2_gamma is 2; 0 wanted: D of omokage judges frozen"),
        *(
            ("omokage-small", f"loss={loss}", f"loss is {loss}; one of ns, hinge, rp wanted with")
            for loss in ("wgan", "wgan-gp", "dragan")
        ),
        ("omokage-small", "batch_gpu=8", "batch_gpu is 8; 0 wanted: the norms of omokage"),
        ("omokage-small", "resolution_px=16", "resolution_px is 16; omokage draws 32, 64, 96"),
        *(
            (f"{family}-small", f"{name}=5", f"{name} is 5; 0 wanted: D of {family} judges pixels")
            for family in FAMILIES
            if family != "omokage"
            for name in ("energy_weight", "pair_weight", "d_resolution_px")
        ),
        *(
            (
                "omokage-small",
                f"d_resolution_px={side}",
                f"d_resolution_px is {side}; one of 0, 96, 128, 256, 512 wanted with resolution",
            )
            for side in (32, 64, 80)
        ),
        ("omokage-smoke", "loss=rp", "pair_weight is 1; 0 wanted under loss rp, which gives each"),
        ("omokage-smoke", "batch=7", "batch is 7; an even number wanted with pair_weight above 0"),
    ],
)
def test_what_frozen_features_do_not_go_with_is_refused_by_name(
    name: str, override: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        preset(name, [override])
    assert message in str(caught.value)


def test_all_wrong_overrides_are_listed_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        preset("demo", ["bach=8", "lr_d=x"])
    assert "bach" in str(caught.value)
    assert "lr_d" in str(caught.value)


def test_an_unknown_preset_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match='did you mean "demo"'):
        preset("demos")


def test_digest_leaves_out_what_decides_speed_only() -> None:
    config = PRESETS["demo"]
    assert dataclasses.replace(config, threads=3, device="cpu").digest == config.digest
    assert dataclasses.replace(config, seed=3).digest != config.digest


def test_digests_of_earlier_versions_are_still_those_of_their_settings() -> None:
    # Of e1fea30, which had no schedules and 100 as the default of ada_kimg.
    config = preset("dcgan64-smoke", OF_E1FEA30)
    assert config.digest == "b92adaf21e65703f5906ee3471734cca54733f70e9a8163ee85fc5bf6c07f8ea"
    others = ["schedule_kimg=1", "ada_target=0.5", "ada_target=0.5 ada_kimg=100"]
    changed = [preset("dcgan64-smoke", [*OF_E1FEA30, *one.split()]) for one in others]
    assert len({config.digest, *(one.digest for one in changed)}) == 4


def test_schedules_go_from_the_first_value_to_the_last_and_stay() -> None:
    # Those of R3GAN's presets for faces.
    ends = ["lr_final_frac=0.25", "beta2_final=0.99", "ema_final_kimg=500", "gamma_final_frac=0.1"]
    starts = ["lr_g=0.001", "lr_d=0.001", "beta2=0.9", "ema_kimg=0", "r1_gamma=17", "r2_gamma=17"]
    augmented = ["ada_target=0", "aug_p=0", "aug_p_final=0.3"]
    config = preset("stylegan2", ["schedule_kimg=10000", *starts, *ends, *augmented])
    assert config.at(0) == config
    half, end = config.at(5_000_000), config.at(10_000_000)
    assert (half.lr_g, half.beta2, half.ema_kimg, half.r1_gamma, half.r2_gamma, half.aug_p) == (
        pytest.approx((0.000625, 0.945, 250.0, 9.35, 9.35, 0.15))
    )
    assert (end.lr_d, end.beta2, end.ema_kimg, end.r1_gamma, end.r2_gamma, end.aug_p) == (
        pytest.approx((0.00025, 0.99, 500.0, 1.7, 1.7, 0.3))
    )
    assert config.at(20_000_000) == end
    assert PRESETS["dcgan64"].at(123) is PRESETS["dcgan64"]
    late = ["schedule_from_kimg=75", "schedule_kimg=25", "lr_final_frac=0.1", "total_kimg=100"]
    small = preset("dcgan64", late)
    assert small.at(75_000) == small
    assert small.at(87_500).lr_g == pytest.approx(0.55 * small.lr_g)
    assert small.at(100_000).lr_d == pytest.approx(0.1 * small.lr_d)


def test_a_cooldown_takes_both_learning_rates_linearly_to_0_by_pictures_or_by_time() -> None:
    config = preset("dcgan64-small", ["cooldown_frac=0.25", "total_kimg=0.8", "max_minutes=2"])
    assert config.total_steps == 25
    dones = [
        config.done(0, 0.0),
        config.done(20, 30.0),
        config.done(20, 105.0),
        config.done(9, 999),
    ]
    assert dones == [0.0, 0.8, 0.875, 1.0]
    rates = [config.at(640, done=done).lr_g / config.lr_g for done in (0.75, *dones)]
    assert rates == pytest.approx([1.0, 1.0, 0.8, 0.5, 0.0])
    half = config.at(640, done=0.875)
    assert half == dataclasses.replace(config, lr_g=config.lr_g / 2, lr_d=config.lr_d / 2)
    endless = dataclasses.replace(config, max_minutes=0.0)
    assert (endless.done(20, 1e9), PRESETS["dcgan64"].at(1, done=1.0)) == (0.8, PRESETS["dcgan64"])


def test_a_cooldown_goes_beside_schedules_of_other_values() -> None:
    overrides = ["schedule_kimg=10", "gamma_final_frac=0.5", "cooldown_frac=0.5"]
    config = preset("dcgan64", overrides)
    end = config.at(10_000, done=0.75)
    assert (end.lr_g, end.r1_gamma) == pytest.approx((config.lr_g / 2, config.r1_gamma / 2))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["schedule_kimg=5", "lr_final_frac=0.5", "cooldown_frac=0.2"],
            "cooldown_frac is 0.2 and lr_final_frac 0.5: the learning rates follow one of them",
        ),
        (["lr_final_frac=0.5"], "lr_final_frac is 0.5 and schedule_kimg 0; a time above 0 wanted"),
        (
            ["schedule_kimg=5", "aug_p_final=0.3", "ada_target=0.6"],
            "aug_p_final is 0.3 and ada_target 0.6: aug_p follows one of them",
        ),
    ],
)
def test_schedules_that_cannot_be_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        preset("dcgan64", overrides)
    assert message in str(caught.value)


@given(st.integers(2, 1000), st.floats(0.001, 1000))
def test_steps_show_at_least_total_kimg(batch: int, kimg: float) -> None:
    config = checked(TrainConfig(batch=batch, total_kimg=kimg))
    assert config.total_steps * batch >= kimg * 1000 - 1e-6
    assert (config.total_steps - 1) * batch < max(kimg * 1000, 1) + 1e-6


def test_print_config_prints_the_whole_config_after_overrides(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--preset", "smoke", "--set", "batch=4", "--print-config"]) == 0
    expected = dataclasses.replace(PRESETS["smoke"], batch=4)
    assert TrainConfig(**json.loads(capsys.readouterr().out)) == expected
    assert (
        main(["--preset", "smoke", "--set", "batch=1", "--print-config"]) == ConfigError.exit_code
    )
    assert "batch is 1; 2 to 65536 wanted" in capsys.readouterr().err


def test_every_numeric_setting_declares_its_range_and_help() -> None:
    for field in dataclasses.fields(TrainConfig):
        assert field.metadata["help"]
        numeric = field.type in (int, float) and field.name != "resolution_px"
        assert (field.metadata["limits"] is not None) == numeric, field.name
