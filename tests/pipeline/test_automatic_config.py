"""The configuration of automatic runs: what each run gets of it, and how its faults are told."""

from pathlib import Path

import pytest

from dataset.errors import ConfigError
from pipeline.automation.automatic_config import automatic_config, automatic_run_config
from pipeline.settings import Settings

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
        ("generatr: {preset: smoke}", 'unknown stage "generatr"; did you mean "generator"?'),
        ("crawl/konchan: {limit: 5}", 'unknown stage "crawl/konchan"; did you mean'),
        ("generator: {prest: smoke}", 'generator: unknown key "prest"; did you mean "preset"?'),
        ("crawl/demo: {limit: many}", "crawl/demo: limit is 'many': Input should be a valid int"),
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
