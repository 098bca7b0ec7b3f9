"""Tasks run few at once, answer in order, and are run again when their worker dies."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dataset.compute import Processes
from dataset.engines import InOrder
from dataset.errors import ComputeError


def doubled(wait_s: float, value: int) -> int:
    time.sleep(wait_s)
    return 2 * value


def dying_once(marks: str, name: str) -> str:
    """Kills its worker the first time that `name` is "killer"."""
    mark = Path(marks) / "died"
    if name == "killer" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return name


def dying(name: str) -> str:
    if name == "killer":
        os.kill(os.getpid(), signal.SIGKILL)
    return name


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with Processes(2) as pool:
        yield pool


def test_results_come_in_order_however_long_each_takes() -> None:
    with ThreadPoolExecutor(4) as pool:
        work = InOrder(pool, doubled, ((0.02 * (n % 3), n) for n in range(10)))
        assert list(work) == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]


def test_no_more_than_the_bound_are_under_way() -> None:
    taken = 0

    def tasks() -> Iterator[tuple[Any, ...]]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield 0.0, number

    with ThreadPoolExecutor(2) as pool:
        work = InOrder(pool, doubled, tasks(), in_flight=8)
        for done, _ in enumerate(work):
            assert taken <= done + 9
    assert taken == 1000


def test_what_has_not_begun_is_cancelled_where_the_reader_stops() -> None:
    begun: list[int] = []
    gate = threading.Event()

    def waiting(number: int) -> int:
        begun.append(number)
        if number == 1:
            raise ValueError("one is not wanted")
        if number > 1:
            gate.wait(600)
        return number

    with ThreadPoolExecutor(2) as pool:
        work = iter(InOrder(pool, waiting, ((n,) for n in range(20)), in_flight=10))
        assert next(work) == 0
        with pytest.raises(ValueError, match="one is not wanted"):
            next(work)
        gate.set()
    assert max(begun) < 6


def test_work_of_a_killed_process_is_done_again(processes: Executor, tmp_path: Path) -> None:
    names = ["one", "two", "killer", *map(str, range(12))]
    work = InOrder(processes, dying_once, ((str(tmp_path), name) for name in names))
    assert list(work) == names


def test_only_the_task_that_kills_its_process_fails(processes: Executor) -> None:
    names = ["one", "killer", "two", "three"]
    work = iter(InOrder(processes, dying, ((name,) for name in names)))
    assert next(work) == "one"
    with pytest.raises(ComputeError, match="a worker died 3 times over the same pictures"):
        next(work)
    assert list(InOrder(processes, dying, iter([("two",)]))) == ["two"]


def test_executor_that_takes_no_work_is_named() -> None:
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    work = InOrder(pool, doubled, iter([(0.0, 1)]))
    with pytest.raises(ComputeError, match="the executor takes no more work"):
        list(work)


class Dropping(ThreadPoolExecutor):
    """Cancels what it is given, as a client does that lost its cluster."""

    def submit(self, *_args: Any, **_options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.cancel()
        return future


def test_dropped_work_is_named() -> None:
    work = InOrder(Dropping(1), doubled, iter([(0.0, 1)]))
    with pytest.raises(ComputeError, match="Is the cluster still there"):
        list(work)
