"""`omokage evaluate`: folders, ids and registered models; faults in plain words."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dataset.errors import ConfigError, OmokageError, RegistryError, UsageError
from pipeline.cli import cli
from tests.models.homes import write_home
from tests.models.small_generators import small_generator, write_generator

LABELS = ("blonde_hair", "blue_hair", "red_eyes")
SMALL = ("--fakes", "16", "--repeats", "1")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a face set and the generator `one`, whose typical labels fit."""
    root = tmp_path_factory.mktemp("home")
    write_home(root, train=10, evaluated=10)
    folder = root / "generators/one/generator"
    write_generator(folder, small_generator("dcgan64", labels=LABELS))
    (folder / "typical_labels.json").write_text(json.dumps([["blonde_hair", "red_eyes"]]))
    return root


def evaluate(home: Path, *words: str) -> Result:
    # MLflow leaves the address that an earlier test gave it in the environment.
    environment = {"MLFLOW_TRACKING_URI": None, "OMOKAGE_PROGRESS": "off"}
    return CliRunner().invoke(cli, ["evaluate", *words, "--home", str(home)], env=environment)


def refusal(home: Path, *words: str) -> OmokageError:
    ended = evaluate(home, *words)
    assert isinstance(ended.exception, OmokageError), ended.output
    return ended.exception


@pytest.mark.slow
def test_a_folder_an_id_and_its_registered_model_give_the_same_numbers(
    home: Path, tmp_path: Path
) -> None:
    import mlflow

    from models.registry.program import log_generator

    uri = f"sqlite:///{home}/mlflow/mlflow.db"
    (home / "mlflow").mkdir()
    before = mlflow.get_tracking_uri()
    client = mlflow.MlflowClient(uri, uri)
    experiment = client.create_experiment("faces", (tmp_path / "artifacts").as_uri())
    run_id = client.create_run(experiment).info.run_id
    folder = str(home / "generators/one/generator")
    try:
        model = log_generator(folder, run_id=run_id, tracking_uri=uri)
        client.create_registered_model("avatar-generator")
        version = client.create_model_version("avatar-generator", model, run_id=run_id).version
    finally:
        mlflow.set_tracking_uri(before)
    client.set_registered_model_alias("avatar-generator", "champion", version)

    made = {}
    for name, arguments in {"id": ["one"], "champion": []}.items():
        out = tmp_path / f"{name}.json"
        ended = evaluate(home, *arguments, *SMALL, "--out", str(out))
        assert ended.exit_code == 0, ended.output + repr(ended.exception)
        assert f"evaluation            {home}/" in ended.output
        assert "16 fakes x 1 against 10 faces of 64 px, manifest" in ended.output
        made[name] = json.loads(out.read_text())
    assert made["id"]["folder"].startswith("generators/one/evaluation/")
    assert made["champion"]["folder"].startswith("evaluations/")
    for name in ("fd_efficientnet_lite0", "recall", "spread", "label_ap", "memory_ratio"):
        assert made["id"][name] == pytest.approx(made["champion"][name], rel=1e-4, abs=1e-6)
    again = evaluate(home, str(home / "generators/one"), *SMALL)
    assert "already evaluated" in again.output


def test_what_is_no_generator_is_refused_with_all_places_looked_at(home: Path) -> None:
    error = refusal(home, "two")
    assert isinstance(error, UsageError)
    assert 'there is no generator "two": neither a folder, nor under' in str(error)


@pytest.mark.parametrize("uri", ["models:/avatar-generator", "models:/a@b@c", "runs:/xy/z"])
def test_a_bad_model_uri_is_refused_with_a_good_one(home: Path, uri: str) -> None:
    assert f'"{uri}" is no model URI: models:/' in str(refusal(home, uri))


def test_without_a_registry_it_is_said_how_to_get_one(tmp_path: Path) -> None:
    error = refusal(tmp_path)
    assert isinstance(error, RegistryError)
    assert "no model models:/avatar-generator@champion yet: `make demo` makes one" in str(error)


def test_an_unknown_extractor_is_answered_with_the_nearest(home: Path) -> None:
    error = refusal(home, "one", "--extractor", "efficientnet_lit0")
    assert isinstance(error, ConfigError)
    assert 'did you mean "efficientnet_lite0"' in str(error)


def test_a_home_without_a_face_set_says_what_to_build(tmp_path: Path) -> None:
    write_generator(tmp_path / "generators/one/generator", small_generator("dcgan64"))
    assert "no manifest was built under this home" in str(refusal(tmp_path, "one"))
