"""Runs programs as child processes and tells what they cost: wall clock, CPU, peak memory.

Imports nothing large: the peak that the kernel tells of a child begins with its parent's.
"""

import contextlib
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


class BenchmarkError(Exception):
    """A benchmark could not be run, or its sides did not do the same work."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a program took: seconds on the wall and of CPU, and its peak resident memory in MB."""

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
            # Its own peak as the kernel saw it: no sample can miss it.
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
