"""Child processes of the benchmarks and their cost: wall clock, CPU time, peak memory.

Imports nothing large: a child inherits the peak memory of its parent.
"""

import contextlib
import dataclasses
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
# BLAS would reserve memory for as many threads as the machine has cores.
ONE_BLAS_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class BenchmarkError(Exception):
    """A benchmark could not be run, or its sides did not do the same work."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """Wall-clock and CPU seconds of a program, and its peak resident memory in MB."""

    seconds: float
    cpu_s: float
    peak_mb: float


def run(command: Sequence[str], *, log: Path, variables: Mapping[str, str] | None = None) -> Cost:
    """Runs a program to its end, start-up included; its output goes to `log`.

    Raises BenchmarkError with the end of that output if the exit code is not 0.
    """
    with log.open("wb") as output:
        started = time.perf_counter()
        child = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, **(variables or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            # The kernel's own figure: sampling could miss the peak.
            _pid, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.kill()
            raise
        seconds = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        said = log.read_text(errors="replace")[-2000:]
        raise BenchmarkError(f"{' '.join(command[:4])} … ended with {child.returncode}:\n{said}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000)


def run_module(
    module: str, *arguments: str, variables: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Runs `python -m MODULE ARGUMENTS`; returns the JSON object on its last line of stdout.

    Raises BenchmarkError if the exit code is not 0.
    """
    ended = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **(variables or {})},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        raise BenchmarkError(f"{module} {' '.join(arguments)} ended with {ended.returncode}")
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    print(f"{' '.join(arguments)}: {json.dumps(result)}", file=sys.stderr, flush=True)
    return result


def peak_mb(pid: int | None = None) -> float:
    """Peak memory of this process alone, or of another one on Linux.

    Not `ru_maxrss` on Linux: there a child inherits the peak of its parent.
    """
    status = Path(f"/proc/{pid or 'self'}/status")
    if pid is not None or status.exists():
        (line,) = (one for one in status.read_text().splitlines() if one.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


@contextlib.contextmanager
def board(*, posts: int, width: int, height: int, answer_ms: float = 0.0) -> Iterator[str]:
    """Yields the address of a loopback board that runs until the block ends."""
    options = ["--posts", str(posts), "--width", str(width), "--height", str(height)]
    options += ["--answer-ms", str(answer_ms)]
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.board", *options],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        url = child.stdout.readline().strip()
        if not url:
            raise BenchmarkError(f"the board did not start: exit code {child.wait()}")
        yield url
    finally:
        child.terminate()
        child.wait()
