"""Run configurations: a user's file over the demo's, and the file of the automatic runs."""

from pathlib import Path

import pytest

from dataset.errors import ConfigError, UsageError
from models.presets import preset
from pipeline.run_config import automatic_config, automatic_run_config, demo_run_config
from pipeline.settings import Settings


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
    ("minutes", "text", "wanted"),
    [
        (None, "", {"max_minutes": "5", "total_kimg": "1e+07"}),
        (0.5, "", {"max_minutes": "0.5", "total_kimg": "1e+07"}),
        (None, "generator: {preset: smoke}", None),
        (1, "generator: {preset: smoke}", {"max_minutes": "1", "total_kimg": "1e+07"}),
        (None, "generator: {overrides: {total_kimg: '9'}}", {"total_kimg": "9"}),
        (
            None,
            "generator: {overrides: {batch: '9'}}",
            {"batch": "9", "max_minutes": "5", "total_kimg": "1e+07"},
        ),
    ],
)
def test_the_demo_trains_for_minutes_unless_the_file_says_what_or_how_long(
    tmp_path: Path, minutes: float | None, text: str, wanted: dict[str, str] | None
) -> None:
    file = written(tmp_path, text) if text else ""
    ops = demo_run_config(cropped=False, config_file=file, minutes=minutes)["ops"]
    assert ops["generator"]["config"].get("overrides") == wanted
    if wanted:
        made = preset("demo", [f"{name}={value}" for name, value in wanted.items()])
        assert made.max_minutes == float(wanted.get("max_minutes", 0))


def test_minutes_beside_a_length_in_the_file_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path, "generator: {overrides: {total_kimg: '9'}}")
    with pytest.raises(UsageError, match="--minutes 3 and total_kimg 9 both say how long"):
        demo_run_config(cropped=False, config_file=file, minutes=3)


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


GOOD = """\
crawl: {tags: 1girl, limit: 500}
crawl/konachan: {limit: 50}
faces: {mode: fast}
generator: {preset: smoke}
"""


def settings(folder: Path, text: str) -> Settings:
    file = folder / "automatic.yaml"
    file.write_text(text)
    return Settings(home=str(folder), sites=("demo", "konachan"), auto_config=str(file))


def test_each_run_gets_its_own_part(tmp_path: Path) -> None:
    given = settings(tmp_path, GOOD)
    assert automatic_run_config(given, "refresh_konachan", site="konachan") == {
        "ops": {
            "crawl__konachan": {"config": {"tags": "1girl", "limit": 50}},
            "faces": {"config": {"mode": "fast"}},
        }
    }
    assert automatic_run_config(given, "train_and_judge") == {
        "ops": {"generator": {"config": {"preset": "smoke"}}}
    }


def test_without_a_file_runs_have_their_defaults(tmp_path: Path) -> None:
    assert automatic_run_config(Settings(home=str(tmp_path)), "refresh_demo", site="demo") == {
        "ops": {}
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("crawl/konchan: {limit: 5}", 'unknown stage "crawl/konchan"; did you mean'),
        ("crawl/demo: {limit: many}", "crawl/demo: limit is 'many': Input should be a valid int"),
        ("faces: {mode: slow}", "faces: mode is 'slow': Input should be 'thorough' or 'fast'"),
        ("evaluation: {fakes: 3}", "evaluation: fakes is 3: Input should be greater than"),
    ],
)
def test_faults_are_named_with_file_and_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        automatic_config(settings(tmp_path, text))
    assert "automatic.yaml has faults:" in str(caught.value)
    assert said in str(caught.value)


def test_a_missing_file_is_named_with_the_setting(tmp_path: Path) -> None:
    given = Settings(home=str(tmp_path), auto_config="/nowhere/automatic.yaml")
    with pytest.raises(ConfigError, match=r"OMOKAGE_AUTO_CONFIG: /nowhere/automatic\.yaml is not"):
        automatic_config(given)
