import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dagster_pipes import PipesContextData, encode_param

from models import evaluate, sample, train
from tests.models.homes import LABELS
from tests.models.small_generators import small_generator, write_generator
from tests.waiting import wait_for

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMOKAGE_PROGRESS": ""}
TRAIN = ["models.train", "--preset", "smoke", "--set", "device=cpu"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def pipes(context: Path, messages: Path) -> dict[str, str]:
    """The environment that a Dagster Pipes client would give, by way of files."""
    context.write_text(json.dumps(dict.fromkeys(PipesContextData.__annotations__) | {"extras": {}}))
    return {
        "DAGSTER_PIPES_CONTEXT": encode_param({"path": str(context)}),
        "DAGSTER_PIPES_MESSAGES": encode_param({"path": str(messages)}),
    }


@pytest.mark.slow
def test_a_generator_that_saw_an_extractors_features_is_judged_by_another(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = small_generator("dcgan64", labels=LABELS, trained_on_features=("efficientnet_lite0",))
    folder = write_generator(tmp_path / "seen", seen)
    arguments = ["--home", str(home), "--generator", folder, "--fakes", "4", "--repeats", "1"]
    assert evaluate.main([*arguments, "--flips", "0", "--psis", ""]) == 0
    made = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert made["metric"] == "fd_efficientnet_lite2"
    assert made["protocol"]["extractor"] == "efficientnet_lite2"
    assert made["trained_on_features"] == ["efficientnet_lite0"]
    assert made["sigma"] is None  # of one set nothing is known


@pytest.mark.slow
def test_train_sample_and_evaluate_work_from_the_command_line(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--home", str(home)]
    messages = tmp_path / "messages"
    done = run(*TRAIN, *where, "--out", "runs/cli", **pipes(tmp_path / "context", messages))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["images_seen"], summary["already_trained"]) == (160, False)
    assert "kimg 0.04  d " in done.stderr
    sent = [json.loads(line) for line in messages.read_text().splitlines()]
    payloads = [m["params"]["payload"] for m in sent if m["method"] == "report_custom_message"]
    assert [one["progress"]["images_seen"] for one in payloads[:-1]] == [40, 80, 120, 160]
    assert payloads[-1] == {"summary": summary}

    sheet = tmp_path / "grid.png"
    generator = ["--generator", str(home / "runs/cli/generator")]
    capsys.readouterr()
    assert sample.main([*generator, "--labels", "blond hair", "--out", str(sheet)]) == 2
    assert 'did you mean "blonde_hair"?' in capsys.readouterr().err
    assert not sheet.exists()
    assert sample.main([*generator, "--labels", "blonde hair", "--out", str(sheet)]) == 0
    assert sheet.exists()

    arguments = [*where, "--generator", "runs/cli", "--out", "runs/cli/evaluation"]
    arguments += ["--fakes", "12", "--repeats", "2", "--flips", "1", "--psis", "0.5,1"]
    capsys.readouterr()
    assert evaluate.main(arguments) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    stored = json.loads((home / "runs/cli/evaluation/evaluation.json").read_text())
    assert summary["fd_efficientnet_lite0"] == stored["fd_efficientnet_lite0"] > stored["real_fd"]
    assert stored["sigma"] >= 0
    assert stored["reference_rows"] == 24
    assert stored["real_hair_colour_hits"] == 1.0
    assert {p.name for p in (home / "runs/cli/evaluation").iterdir()} == {
        "evaluation.json",
        "fakes.png",
        "labels.png",
        "neighbours.png",
        "reals.png",
        "truncation.png",
    }
    assert evaluate.main(arguments) == 0
    again = capsys.readouterr()
    assert "already evaluated" in again.err
    assert json.loads(again.out.splitlines()[-1])["reused"] is True


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--set", "bach=3"], 3, '"bach" is unknown; did you mean "batch"?'),
        (["--manifest", "0" * 64], 1, "is not there"),
    ],
)
def test_a_fault_is_one_message_and_an_exit_code(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    where = ["--home", str(home), "--out", "runs/fault"]
    assert train.main([*TRAIN[1:], *where, *arguments]) == code
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err


PARENT = """
import subprocess, sys, time
child = subprocess.Popen(sys.argv[1:], stderr=subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_a_training_ends_when_its_parent_is_killed(home: Path) -> None:
    command = [sys.executable, "-m", *TRAIN, "--home", str(home), "--out", "runs/orphan"]
    command += ["--set", "total_kimg=400", "--set", "snapshot_kimg=400", "--die-with-parent"]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *command],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    wait_for(lambda: (home / "runs/orphan/progress.jsonl").exists())
    parent.kill()
    parent.communicate()
    wait_for(lambda: not is_running(child))
    assert list((home / "runs/orphan/checkpoints").glob("*/state.json"))


def is_running(pid: int) -> bool:
    """Tells whether a process runs; one that has ended but is not yet reaped does not."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
