import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.errors import ConfigError
from models.config import TrainConfig, checked, from_json
from models.presets import PRESETS, preset
from models.train import main


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
        ("device=gpu", 'device is "gpu"; auto, cpu, cuda or cuda:N wanted'),
    ],
)
def test_a_wrong_override_is_named_with_what_is_wanted(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        preset("demo", [override])
    assert message in str(caught.value)


@pytest.mark.parametrize("loss", ["wgan", "wgan-gp"])
def test_ada_is_refused_where_the_sign_of_d_means_nothing(loss: str) -> None:
    with pytest.raises(ConfigError, match=rf"ada_target is 0\.6; 0 wanted with loss {loss}, under"):
        preset("dcgan64-small", [f"loss={loss}", "ada_target=0.6"])


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


def test_config_survives_json() -> None:
    config = PRESETS["smoke"]
    assert from_json(dataclasses.asdict(config)) == config
    with pytest.raises(ConfigError, match="nonsense unknown here"):
        from_json({**dataclasses.asdict(config), "nonsense": 1})


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
    assert from_json(json.loads(capsys.readouterr().out)) == expected
    assert (
        main(["--preset", "smoke", "--set", "batch=1", "--print-config"]) == ConfigError.exit_code
    )
    assert "batch is 1; 2 to 65536 wanted" in capsys.readouterr().err


def test_every_numeric_setting_declares_its_range_and_help() -> None:
    for field in dataclasses.fields(TrainConfig):
        assert field.metadata["help"]
        numeric = field.type in (int, float) and field.name != "resolution_px"
        assert (field.metadata["limits"] is not None) == numeric, field.name
