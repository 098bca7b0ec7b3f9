"""A person's dagster.yaml and DAGSTER_HOME stand; ours are for who has none."""

from pathlib import Path

import dagster as dg
import pytest

from dataset.errors import ConfigError, UsageError
from dataset.store import Store
from pipeline import instance as instance_module
from pipeline.instance import (
    databases,
    demo_instance,
    prepare_home,
    provide_dagster_yaml,
    warn_of_password,
)
from pipeline.settings import PROJECT, Settings, read_settings

OURS = (PROJECT / "dagster.yaml").read_bytes()
ELSEWHERE = "storage:\n  sqlite:\n    base_dir: {folder}\n"


def settings_of(home: Path, **given: str) -> Settings:
    return read_settings({"OMOKAGE_HOME": str(home), **given})


def test_an_edited_dagster_yaml_stays_and_one_line_says_so_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Store(tmp_path)
    provide_dagster_yaml(folder)
    assert (tmp_path / "dagster.yaml").read_bytes() == OURS
    edited = OURS + b"\nsensors:\n  use_threads: true\n"
    (tmp_path / "dagster.yaml").write_bytes(edited)
    assert capsys.readouterr().err == ""
    for _ in range(3):
        provide_dagster_yaml(folder)
    assert (tmp_path / "dagster.yaml").read_bytes() == edited
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"{tmp_path / 'dagster.yaml'} was edited and stays as it is; Omokage's own is "
        f"{PROJECT / 'dagster.yaml'}"
    ]


def test_a_newer_dagster_yaml_replaces_an_older_one_that_nobody_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project, homes = tmp_path / "project", [tmp_path / name for name in ("noted", "edited")]
    project.mkdir()
    monkeypatch.setattr(instance_module, "PROJECT", project)
    (project / "dagster.yaml").write_text("nux: {enabled: false}\n")
    for home in homes:
        provide_dagster_yaml(Store(home))
    (homes[1] / "dagster.yaml").write_text("nux: {enabled: true}\n")
    (project / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    for home in homes:
        provide_dagster_yaml(Store(home))
    assert (homes[0] / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"
    assert (homes[1] / "dagster.yaml").read_text() == "nux: {enabled: true}\n"
    assert capsys.readouterr().err.count("was edited") == 1


def test_a_dagster_yaml_of_a_version_that_left_no_note_is_known_by_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = b"nux: {enabled: false}  # as an earlier version wrote it\n"
    (tmp_path / "dagster.yaml").write_bytes(written)
    provide_dagster_yaml(Store(tmp_path))
    assert (tmp_path / "dagster.yaml").read_bytes() == written
    monkeypatch.setattr(instance_module, "EARLIER_YAML", [instance_module._sha256(written)])
    provide_dagster_yaml(Store(tmp_path))
    assert (tmp_path / "dagster.yaml").read_bytes() == OURS


def test_the_demo_writes_where_an_edited_storage_says(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "home")
    (tmp_path / "home/dagster").mkdir(parents=True)
    edited = ELSEWHERE.format(folder=tmp_path / "elsewhere")
    (tmp_path / "home/dagster/dagster.yaml").write_text(edited)
    prepare_home(settings)

    @dg.asset
    def posts() -> None: ...

    with demo_instance() as instance:
        assert dg.materialize([posts], instance=instance).success
        assert instance.get_runs_count() == 1
    made = databases(settings.dagster_home)
    assert tmp_path / "elsewhere/history/runs/index.db" in made
    assert not list((tmp_path / "home/dagster").rglob("*.db"))
    assert [one.name for one in (tmp_path / "home/dagster").glob("*.yaml")] == ["dagster.yaml"]


def test_a_dagster_home_that_is_set_is_used(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "home", DAGSTER_HOME=str(tmp_path / "mine"))
    assert settings.environment()["DAGSTER_HOME"] == str(tmp_path / "mine")
    prepare_home(settings)
    assert (tmp_path / "mine/dagster.yaml").read_bytes() == OURS
    with demo_instance() as instance:
        assert instance.root_directory == str(tmp_path / "mine")
    assert databases(settings.dagster_home)
    assert not (tmp_path / "home/dagster").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("storage: [", "expected the node content"),
        ("- storage", "['storage']"),
        ("storge: 3", 'unexpected config entry "storge"'),
        ("storage: {sqlite: {base_dir: {env: NOWHERE}}}", 'the environment variable "NOWHERE"'),
        ("storage: {custom: {module: no.module, class: Storage}}", "no.module"),
    ],
)
@pytest.mark.parametrize("captured", [True, False])
def test_a_dagster_yaml_that_cannot_be_used_is_named(
    tmp_path: Path, text: str, said: str, captured: bool
) -> None:
    (tmp_path / "dagster.yaml").write_text(text)
    with (
        pytest.raises(ConfigError, match=r"dagster\.yaml cannot be used") as caught,
        instance_module.opened_instance(str(tmp_path), captured=captured),
    ):
        pass
    assert said in str(caught.value)
    assert [path.name for path in tmp_path.glob("*.yaml")] == ["dagster.yaml"]


@pytest.mark.parametrize(
    ("storage", "warned"),
    [
        ("{postgres: {postgres_url: 'postgresql+psycopg2://me:pw@host/dagster'}}", True),
        ("\n  postgres:\n    postgres_db:\n      password: pw", True),
        ("\n  postgres:\n    postgres_db:\n      password: {env: PGPASSWORD}", False),
        ("{postgres: {postgres_url: {env: DAGSTER_POSTGRES_URL}}}", False),
    ],
)
def test_a_password_written_into_dagster_yaml_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], storage: str, warned: bool
) -> None:
    (tmp_path / "dagster.yaml").write_text(OURS.decode() + f"\nstorage: {storage}\n")
    warn_of_password(str(tmp_path))
    said = capsys.readouterr().err
    assert ("write {env: NAME}" in said) is warned
    assert "pw" not in said


def test_a_wheel_says_that_a_checkout_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance_module, "PROJECT", tmp_path / "site-packages")
    with pytest.raises(UsageError, match=r"dagster\.yaml is not there: .* runs from a checkout"):
        prepare_home(settings_of(tmp_path))
