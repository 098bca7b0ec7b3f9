"""What the documents promise is there: commands, make targets, files, settings, links."""

import dataclasses
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import click
import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from models import train
from models.config import TrainConfig
from models.families import FAMILIES
from models.presets import PRESETS, preset
from pipeline.cli import MODULES as LOADED_LATER
from pipeline.cli import cli
from pipeline.settings import ELSEWHERE, VARIABLES
from tests.pipeline.conftest import clean_environment

ROOT = Path(__file__).resolve().parent.parent
READMES = [ROOT / name for name in ("README.md", "README.zh.md", "README.ja.md")]
DOCUMENTS = [
    *READMES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))
]  # fmt: skip
TEXT = "\n".join(path.read_text() for path in DOCUMENTS)

COMMANDS = re.findall(
    r"(?:bin/|^|`)omokage "
    r"((?:faces|ledger|takedown|lineage) [a-z]+|[a-z]+(?:-[a-z]+)*)\b([^`\n#]*)",
    TEXT,
    re.MULTILINE,
)
OMOKAGE = sorted({name for name, _ in COMMANDS})
TOOLS = re.findall(  # `omokage sample morph --seed 3` or `python -m models.sample morph --seed 3`
    r"(?:omokage sample|python -m models\.sample) ([a-z]+)\b([^`\n#]*)", TEXT
)
MODULES = sorted(set(re.findall(r"\bpython -m ([a-z_.]+)", TEXT)))
TRAININGS = re.findall(r"(?<!`)(?:python|4) -m models\.train (--home [^`\n#]*)", TEXT)
SWITCHES = sorted(
    set(re.findall(r"\bdagster (schedule|sensor) (start|stop) ([a-z_]+)([^`\n#]*)", TEXT))
)
TARGETS = sorted(set(re.findall(r"^(?:\S+=\S+ )*make ([a-z]+)", TEXT, re.MULTILINE)))


def test_the_documents_name_commands() -> None:
    assert {"status", "sample", "crawl", "demo", "review", "faces detect", "import-weights"} <= set(
        OMOKAGE
    )
    assert {"demo", "test", "up", "lint"} <= set(TARGETS)
    assert MODULES


@pytest.mark.parametrize("command", OMOKAGE)
def test_each_command_explains_itself_and_has_the_options_named(command: str) -> None:
    result = CliRunner().invoke(cli, [*command.split(), "--help"])
    assert result.exit_code == 0, result.output
    help_text = result.output
    for name, rest in COMMANDS:
        if name == command and not (name == "sample" and re.match(" [a-z]", rest)):
            for option in re.findall(r"--[a-z-]+", rest):
                assert option in help_text, f"omokage {command} has no {option}"


def test_the_help_of_all_says_of_each_command_what_its_own_help_says() -> None:
    help_text = CliRunner().invoke(cli, ["--help"], terminal_width=200).output
    for name, (_, does) in LOADED_LATER.items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert command.get_short_help_str(limit=200) == does, name
        assert name in help_text


def test_what_is_asked_often_imports_neither_dagster_nor_torch() -> None:
    program = (
        "import sys, pipeline.cli, pipeline.status, pipeline.commands.promotion\n"
        "pipeline.cli.cli.main(['--help'], standalone_mode=False)\n"
        "assert not {'dagster', 'torch'} & set(sys.modules)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_each_tool_of_sample_has_the_options_named() -> None:
    assert {"grid", "table", "morph", "loop", "sweep", "mix"} == {name for name, _ in TOOLS}
    for name, rest in TOOLS:
        help_text = CliRunner().invoke(cli, ["sample", name, "--help"]).output
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in help_text, f"sample {name} has no {option}"


def test_each_training_has_a_preset_and_settings_that_fit() -> None:
    assert len(TRAININGS) >= 4
    for command in TRAININGS:
        options = train.options_of(shlex.split(command))
        assert preset(options.preset, options.set)


def test_the_settings_and_presets_of_the_document_are_there() -> None:
    training = (ROOT / "docs/training.md").read_text()
    cells = re.findall(r"^\| ((?:`[^`|]+`(?:, )?)+) \|", training, re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    files = {"generator/", "checkpoints/<pictures>/", "samples/<pictures>.png", "progress.jsonl"}
    files |= {"growth.gif"}
    settings = {field.name for field in dataclasses.fields(TrainConfig)}
    assert set(FAMILIES) <= named
    shapes = {f"<family>-{size}" for size in ("small", "smoke")}
    assert all(f"{family}-{size}" in PRESETS for family in FAMILIES for size in ("small", "smoke"))
    assert named <= settings | set(PRESETS) | shapes | files


@pytest.mark.parametrize("module", MODULES)
def test_each_module_explains_itself(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # In this process, where most of what they import is loaded already.
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    monkeypatch.delitem(sys.modules, module, raising=False)  # runpy warns of a second copy
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert ended.value.code in (0, None)
    assert "usage" in capsys.readouterr().out.lower()


def test_what_the_documents_switch_on_and_off_is_there(tmp_path: Path) -> None:
    from pipeline.build import build_defs
    from pipeline.settings import read_settings

    defs = build_defs(settings=read_settings({"OMOKAGE_HOME": str(tmp_path)}))
    known = {("schedule", schedule.name) for schedule in defs.schedules or []}
    known |= {("sensor", sensor.name) for sensor in defs.sensors or []}
    assert {verb for _, verb, _, _ in SWITCHES} == {"start", "stop"}
    assert {(kind, name) for kind, _, name, _ in SWITCHES} <= known


@pytest.mark.slow
def test_a_schedule_is_switched_on_as_the_document_says(tmp_path: Path) -> None:
    (options,) = {rest for kind, verb, _, rest in SWITCHES if (kind, verb) == ("schedule", "start")}
    folder = tmp_path / "dagster"
    folder.mkdir()
    ended = subprocess.run(
        [Path(sys.executable).with_name("dagster"), "schedule", "start", "refresh_demo_schedule",
         *shlex.split(options)],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
        env={**clean_environment(), "OMOKAGE_HOME": str(tmp_path), "DAGSTER_HOME": str(folder)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "Started schedule refresh_demo_schedule" in ended.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_each_make_target_is_there(target: str) -> None:
    ended = subprocess.run(
        ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_every_setting_is_documented_and_no_other() -> None:
    settings = (ROOT / "docs/settings.md").read_text()
    named = set(re.findall(r"\b(?:OMOKAGE|MLFLOW|DAGSTER)_[A-Z_]+\b", settings))
    known = {*VARIABLES.values(), *ELSEWHERE}
    assert set(VARIABLES.values()) <= named
    assert named <= known


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_pictures_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert missing == []


def test_each_dependency_group_is_part_of_the_plain_install() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    plain = set(declared["project"]["dependencies"])
    assert set(declared["dependency-groups"]) == {"train", "crawl", "studio"}
    for name, needed in declared["dependency-groups"].items():
        assert set(needed) <= plain, name


def test_the_site_has_every_page_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    # --strict: no dead link or anchor, no missing picture, no page that `nav` leaves out.
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    loading = re.compile(
        r"<(?:script|img|link|iframe|source)\b[^>]*?(?:src|href)=[\"']?(?:https?:)?//[^>]*>"
    )
    for page in tmp_path.rglob("*.html"):
        assert loading.findall(page.read_text()) == [], page
    for sheet in tmp_path.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", sheet.read_text()), sheet


def test_the_readmes_of_other_languages_are_one_page_and_lead_to_each_other() -> None:
    for readme in READMES:
        text = readme.read_text()
        assert all(f"]({other.name})" in text for other in READMES if other != readme)
        assert all(command in text for command in ("make demo", "make up", "omokage sample"))
        assert len(text.splitlines()) <= 80


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("github-workflows", ".github/workflows/ci.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/bug.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/idea.yml"),
        ("github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
        ("citation-file-format", "CITATION.cff"),
    ],
)
def test_what_github_reads_fits_its_schema(schema: str, path: str) -> None:
    vendored = resources.files("check_jsonschema") / f"builtin_schemas/vendor/{schema}.json"
    content = json.loads(vendored.read_text())
    validator = jsonschema.validators.validator_for(content)(content)
    errors = validator.iter_errors(yaml.safe_load((ROOT / path).read_text()))
    assert [error.message for error in errors] == []


def test_the_citation_is_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version


def test_notebooks_have_no_outputs() -> None:
    notebooks = list((ROOT / "notebooks").glob("*.ipynb"))
    assert notebooks
    for path in notebooks:
        code = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        assert all(c["outputs"] == [] and c["execution_count"] is None for c in code), path
