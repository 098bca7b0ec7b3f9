"""Settings are read from the environment wholly, or refused with every fault named."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from crawlers.sites import load_sites
from dataset.errors import ConfigError
from pipeline.settings import PROJECT, computing_environment, read_settings, variables_of_runs


def test_defaults_lie_in_var_under_the_working_folder() -> None:
    settings = read_settings({})
    assert settings.home == str(Path("var").resolve())
    assert settings.tracking_uri == f"sqlite:///{settings.home}/mlflow/mlflow.db"
    assert settings.sites == ("demo",)


def test_the_option_wins_over_the_variable(tmp_path: Path) -> None:
    settings = read_settings({"OMOKAGE_HOME": "/elsewhere"}, home=str(tmp_path))
    assert settings.home == str(tmp_path)


def test_data_on_an_object_store_leaves_ledger_and_packs_in_the_home(tmp_path: Path) -> None:
    settings = read_settings({"OMOKAGE_DATA": "s3://bucket/omokage"}, home=str(tmp_path))
    assert settings.data == "s3://bucket/omokage"
    assert settings.state == settings.scratch == settings.home == str(tmp_path)
    assert read_settings(settings.environment()) == settings
    only_state = {"OMOKAGE_DATA": "s3://bucket/omokage", "OMOKAGE_STATE": str(tmp_path)}
    assert read_settings(only_state) == settings


def test_a_home_that_is_one_folder_hands_on_no_roots_that_another_home_would_inherit() -> None:
    assert not {"OMOKAGE_DATA", "OMOKAGE_STATE"} & read_settings({}).environment().keys()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"OMOKAGE_HOME": "s3://bucket/omokage"}, "OMOKAGE_DATA may name an object store"),
        ({"OMOKAGE_STATE": "s3://bucket"}, 'OMOKAGE_STATE is "s3://bucket"; a local folder wanted'),
        ({"OMOKAGE_SCRATCH": "s3://b"}, 'OMOKAGE_SCRATCH is "s3://b"; a local folder wanted'),
        ({"OMOKAGE_DATA": "s3://bucket"}, "set OMOKAGE_HOME or OMOKAGE_STATE to a local folder"),
    ],
)
def test_a_root_that_must_be_local_is_named(given: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_settings(given)
    assert str(caught.value).count("\n") == 1  # no fault twice
    assert said in str(caught.value)


def test_children_read_back_the_very_same_settings(tmp_path: Path) -> None:
    given = {
        "OMOKAGE_HOME": str(tmp_path),
        "OMOKAGE_SITES": "konachan, yandere",
        "OMOKAGE_WORKERS": "3",
        "OMOKAGE_COMPUTE": "distributed:tcp://host:8786",
        "OMOKAGE_EXECUTOR": "multiprocess",
        "OMOKAGE_LAUNCHER": "torchrun:srun -n 2 torchrun --nproc-per-node {processes}",
        "OMOKAGE_STEP_TAGS": "tags.yaml",
        "OMOKAGE_CONTACT": "me@example.org",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:5001",
        "DAGSTER_HOME": str(tmp_path / "dagster of mine"),
        "OMOKAGE_REFRESH": "0 3 * * *; yandere=@weekly",
        "OMOKAGE_TIMEZONE": "Europe/Berlin",
        "OMOKAGE_GROW": "5%,1000",
        "OMOKAGE_AUTO_CONFIG": "automatic.yaml",
    }
    settings = read_settings(given)
    assert settings.sites == ("konachan", "yandere")
    assert settings.auto_config == str(Path("automatic.yaml").resolve())
    assert read_settings(settings.environment()) == settings


def test_every_fault_is_named_at_once_with_the_nearest_right_name() -> None:
    given = {"OMOKAGE_HOEM": "x", "OMOKAGE_WORKERS": "many", "OMOKAGE_EXECUTOR": "thread"}
    given |= {"OMOKAGE_COMPUTE": "process:2", "OMOKAGE_LAUNCHER": "rya"}
    with pytest.raises(ConfigError) as caught:
        read_settings(given)
    text = str(caught.value)
    assert 'OMOKAGE_HOEM is not a setting; did you mean "OMOKAGE_HOME"?' in text
    assert 'OMOKAGE_WORKERS is "many"; a whole number from 1 to 256 wanted' in text
    assert 'OMOKAGE_EXECUTOR is "thread"; in_process, multiprocess or MODULE:ATTRIBUTE' in text
    assert 'OMOKAGE_LAUNCHER: "rya" is no launcher; did you mean "ray"?' in text
    assert 'OMOKAGE_COMPUTE: "process:2" is no compute; did you mean "processes"?' in text


def test_faults_of_the_automation_are_named_with_what_is_wanted() -> None:
    given = {"OMOKAGE_SITES": "konachan", "OMOKAGE_REFRESH": "konchan=0 4 * * *; 0 99 * * *"}
    given |= {"OMOKAGE_TIMEZONE": "Europe/Berlino", "OMOKAGE_GROW": "a lot"}
    given["OMOKAGE_WEBHOOK"] = "http://hooks.example/secret"
    with pytest.raises(ConfigError) as caught:
        read_settings(given)
    text = str(caught.value)
    assert 'OMOKAGE_REFRESH names "konchan", which OMOKAGE_SITES does not; did you mean' in text
    assert 'OMOKAGE_REFRESH: hour is "99"; 0 to 23 wanted' in text
    assert 'OMOKAGE_TIMEZONE is "Europe/Berlino", which is no time zone; did you mean' in text
    assert 'OMOKAGE_GROW: "a lot" is no growth; a part such as 10%' in text
    assert 'OMOKAGE_WEBHOOK: its scheme is "http" and its host hooks.example; https wanted' in text
    assert "secret" not in text


def test_the_webhook_is_not_handed_on_where_others_could_read_it() -> None:
    settings = read_settings({"OMOKAGE_WEBHOOK": "https://hooks.example/secret"})
    assert settings.webhook == "https://hooks.example/secret"
    assert "secret" not in str(settings.environment())
    assert "secret" not in repr(settings)


def test_a_persons_own_variables_of_other_programs_go_before_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert read_settings({}).environment()["MLFLOW_LOGGING_LEVEL"] == "WARNING"
    monkeypatch.setenv("MLFLOW_LOGGING_LEVEL", "DEBUG")
    assert read_settings({}).environment()["MLFLOW_LOGGING_LEVEL"] == "DEBUG"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc than glibc's")
def test_what_computes_takes_its_freed_memory_again_without_a_page_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each round takes and frees 8 MiB, as a layer of a training does: 2,048 pages."""
    rounds = (
        "import resource\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "bytes(8 << 20), bytes(8 << 20)\n"
        "before = faults()\n"
        "for _ in range(20): one, two = bytearray(8 << 20), bytearray(8 << 20); del one, two\n"
        "print(faults() - before)"
    )

    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)

    def page_faults(variables: dict[str, str]) -> int:
        environment = {**os.environ, **variables}
        command = [sys.executable, "-c", rounds]
        return int(subprocess.run(command, env=environment, capture_output=True).stdout)

    assert page_faults(computing_environment()) < page_faults({}) / 4
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=0")
    assert computing_environment() == {"GLIBC_TUNABLES": "glibc.malloc.check=0"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("local:2", '"local:2" is no launcher; did you mean "local"?'),
        ("ray", "the address of the job server of a Ray cluster wanted, such as ray:http://host"),
        ("ray:ray://host:10001", "the address of the job server"),
        ("torchrun:", "the command wanted that starts the processes"),
        ("torchrun:sh -c 'a", "no closing quotation"),
    ],
)
def test_a_launcher_that_is_none_is_refused_with_what_is_wanted(given: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        read_settings({"OMOKAGE_LAUNCHER": given})


# Of a run's own processes to each other, and of pages and pictures of this machine.
WITHIN = {"MLFLOW_RUN_ID", "RANK", "LOCAL_RANK", "WORLD_SIZE", "DAGSTER_PIPES_CONTEXT"}
WITHIN |= {"MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION", "GRADIO_TEMP_DIR"}


def test_a_run_in_a_container_is_given_every_variable_that_the_code_reads() -> None:
    credentials = [name for site in load_sites().values() for name in site.credentials.values()]
    known = {*variables_of_runs(credentials), *WITHIN}
    known |= {"OMOKAGE_STUDIO_USER", "OMOKAGE_STUDIO_PASSWORD", "OMOKAGE_REAL_DATA"}
    known |= {"OMOKAGE_WEBHOOK"}
    ours = r'"((?:OMOKAGE|MLFLOW|AWS|DAGSTER)_[A-Z0-9_]+)"'
    read = r'environ(?:\.get\(|\[)\s*"([A-Z0-9_]+)"'
    found = set()
    for package in ("assets", "crawlers", "dataset", "models", "pipeline", "studio"):
        for path in (PROJECT / package).rglob("*.py"):
            found |= {name for form in (ours, read) for name in re.findall(form, path.read_text())}
    assert found - known == set()
    assert {"OMOKAGE_HOME", "AWS_ENDPOINT_URL"} <= found
    assert {"GELBOORU_API_KEY", "OMOKAGE_EXTRACTOR_WEIGHTS"} <= known
