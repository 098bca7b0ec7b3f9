"""A user's configuration file is laid over the demo's, or refused with the key's name."""

from pathlib import Path

import pytest

from dataset.errors import ConfigError
from pipeline.run_config import demo_run_config


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_a_file_is_laid_over_the_preset(tmp_path: Path) -> None:
    text = "faces: {min_side_px: 80}\ngenerator: {preset: smoke}\ncrawl: {limit: 9}\n"
    path = written(tmp_path, text)
    config = demo_run_config(cropped=True, config_file=path)
    assert config["ops"]["faces"]["config"] == {
        "cropped": True,
        "mode": "fast",
        "min_side_px": 80,
    }
    assert config["ops"]["crawl__demo"]["config"] == {"limit": 9}
    assert config["ops"]["generator"]["config"] == {"preset": "smoke"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("facse: {cropped: true}", 'unknown stage "facse"; did you mean "faces"?'),
        ("faces: {min_side: 1}", 'faces: unknown key "min_side"; did you mean "min_side_px"?'),
        ("faces: 3", "faces: keys and values wanted, int found"),
        ("- faces", "`stage: {key: value}` wanted, list found"),
        ("faces: [", "is not YAML"),
    ],
)
def test_what_no_stage_knows_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        demo_run_config(cropped=False, config_file=path)
    assert said in str(caught.value)
    assert path in str(caught.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"--config: nowhere\.yaml is not a file"):
        demo_run_config(cropped=False, config_file="nowhere.yaml")
