"""Child processes report through Pipes, fail with their own words, and end with the run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import psutil
import pytest

from assets.resources import ChildProcess, OutputMessages, TerminalChild
from dataset.errors import OmokageError

REPORTING = """
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    pipes.report_custom_message({"progress": {"kimg": 1.5}})
    pipes.report_custom_message({"summary": {"seen": 3}})
"""
FAILING = """
import sys
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    pipes.report_custom_message({"error": "posts.json, line 3: no id"})
sys.exit(6)
"""
LONG = """
import os, subprocess, sys, time
from pathlib import Path
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes():
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    Path(sys.argv[1]).write_text(f"{os.getpid()} {grandchild.pid}")
    time.sleep(60)
"""
STUBBORN = """
import os, signal, subprocess, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
grandchild = subprocess.Popen(sleep, start_new_session=True)
Path(sys.argv[1]).write_text(f"{os.getpid()} {grandchild.pid}")
time.sleep(60)
"""
# A summary that is long is written in pieces; here they are slow to come.
IN_PIECES = """
import builtins, time
from dagster_pipes import open_dagster_pipes
class Slow:
    def __init__(self, file): self.file = file
    def __enter__(self): return self
    def __exit__(self, *_): self.file.close()
    def write(self, text):
        for part in (text[:40], text[40:]):
            self.file.write(part); self.file.flush(); time.sleep(0.1)
with open_dagster_pipes() as pipes:
    opened = builtins.open
    builtins.open = lambda path, mode="r", **more: (
        Slow(opened(path, mode, **more)) if mode == "a" else opened(path, mode, **more)
    )
    pipes.report_custom_message({"summary": {"seen": 3}})
"""
STOPPED = """
import sys
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    pipes.report_custom_message({"stopped": "stopped at 96 pictures and saved"})
sys.exit(130)
"""


def asset_running(code: str, *arguments: str) -> dg.AssetsDefinition:
    @dg.asset
    def stage(context: dg.AssetExecutionContext, child: ChildProcess) -> dg.MaterializeResult:
        summary = child.run(context, ["-c", code, *arguments])
        return dg.MaterializeResult(metadata={"seen": summary["seen"]})

    return stage


def test_progress_becomes_observations_and_the_summary_comes_back() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [asset_running(REPORTING)], resources={"child": ChildProcess()}, instance=instance
        )
    (made,) = result.asset_materializations_for_node("stage")
    (seen,) = result.get_asset_observation_events()
    assert made.metadata["seen"].value == 3
    assert seen.asset_observation_data.asset_observation.metadata["kimg"].value == 1.5


def test_a_message_that_comes_in_pieces_is_read_whole() -> None:
    result = dg.materialize([asset_running(IN_PIECES)], resources={"child": ChildProcess()})
    (made,) = result.asset_materializations_for_node("stage")
    assert made.metadata["seen"].value == 3


def test_messages_are_read_off_printed_lines_whatever_is_printed_around_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    heard: list[Any] = []
    output = OutputMessages()
    message = '{"__dagster_pipes_version": "0.1", "method": "x", "params": {"kimg": 1}}'
    with output.read_messages(SimpleNamespace(handle_message=heard.append)):  # type: ignore[arg-type]
        for piece in ("said (rank 1) ", message[:30], f"{message[30:]}and\n", '{"a": 1}\nhalf'):
            output.hear(piece)
        output.hear(f"\n{message}\n{message[:40]}\n")
    assert [one["params"] for one in heard] == [{"kimg": 1}, {"kimg": 1}]
    assert capsys.readouterr().out.splitlines() == [
        *("said (rank 1) and", '{"a": 1}', "half", message[:40])
    ]


def test_a_failure_is_told_in_the_childs_own_words() -> None:
    result = dg.materialize(
        [asset_running(FAILING)], resources={"child": ChildProcess()}, raise_on_error=False
    )
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    failed = failure.step_failure_data.user_failure_data
    assert failed is not None
    assert failed.description == "posts.json, line 3: no id"


def test_an_end_without_a_word_names_command_and_code() -> None:
    result = dg.materialize(
        [asset_running("raise SystemExit(9)")],
        resources={"child": ChildProcess()},
        raise_on_error=False,
    )
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    failed = failure.step_failure_data.user_failure_data
    assert failed is not None
    assert "ended with code 9" in str(failed.description)


def test_a_child_that_a_signal_ended_says_how_far_it_came() -> None:
    with pytest.raises(dg.Failure, match="stopped at 96 pictures and saved"):
        dg.materialize([asset_running(STOPPED)], resources={"child": ChildProcess()})


@pytest.mark.parametrize(
    ("script", "number", "patience_s"),
    [
        ("LONG", signal.SIGINT, 2.0),
        pytest.param("LONG", signal.SIGTERM, 2.0, marks=pytest.mark.slow),
        ("STUBBORN", signal.SIGINT, 0.3),  # deaf, and its own child in a group of its own
    ],
)
@pytest.mark.ci
def test_an_interrupt_ends_the_child_and_what_it_started(
    tmp_path: Path, script: str, number: signal.Signals, patience_s: float
) -> None:
    pids = tmp_path / "pids"
    code = f"""
import dagster as dg
from assets.resources import ChildProcess
from tests.assets.test_child import {script}, asset_running
from pipeline.servers import interruptible
with interruptible():
    dg.materialize(
        [asset_running({script}, {str(pids)!r})],
        resources={{"child": ChildProcess(patience_s={patience_s})}},
    )
"""
    run = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    started = [int(pid) for pid in waited_for(pids).split()]
    os.kill(run.pid, number)
    assert run.wait(600) != 0
    assert all(gone(pid) for pid in started)


def waited_for(path: Path) -> str:
    for _ in range(400):
        if path.exists() and " " in path.read_text():
            return path.read_text()
        time.sleep(0.05)
    raise AssertionError(f"{path} was not written")


def gone(pid: int) -> bool:
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_variables_to_compute_with_reach_a_training_and_no_other_child(
    capfd: pytest.CaptureFixture[str],
) -> None:
    child = TerminalChild(environment={"COLUMNS": "80"}, computing={"COLUMNS": "500"})
    with pytest.raises(OmokageError, match="ended with code 2"):
        child.run(None, ["-m", "models.train", "--home"])
    usage, *_ = capfd.readouterr().err.splitlines()
    assert usage.endswith("[--die-with-parent [PID]]")  # in one line, as wide as it likes
    others = 'import json, os; print(json.dumps({"columns": os.environ["COLUMNS"]}))'
    assert child.run(None, ["-c", others]) == {"columns": "80"}
