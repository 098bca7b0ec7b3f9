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
from dataset.errors import ComputeError
from dataset.in_order import InOrder


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


def failing(value: int) -> int:
    if value == 1:
        raise ValueError("one is not wanted")
    return value


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with Processes(2) as pool:
        yield pool


def test_results_come_in_order_however_long_each_takes() -> None:
    with ThreadPoolExecutor(4) as pool:
        tasks = (("a" if n < 6 else "b", (0.02 * (n % 3), n)) for n in range(10))
        work = InOrder(pool, doubled, tasks)
        assert list(work.of("a")) == [0, 2, 4, 6, 8, 10]
        assert list(work.of("none")) == []
        assert list(work.of("b")) == [12, 14, 16, 18]


def test_no_more_than_the_bound_are_under_way() -> None:
    taken = 0

    def tasks() -> Iterator[tuple[str, tuple[Any, ...]]]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield "a", (0.0, number)

    with ThreadPoolExecutor(2) as pool:
        work = InOrder(pool, doubled, tasks(), in_flight=8)
        for done, _ in enumerate(work.of("a")):
            assert taken <= done + 9
    assert taken == 1000


def test_failing_key_is_left_out_and_the_next_continues() -> None:
    with ThreadPoolExecutor(2) as pool:
        tasks = (("a" if n < 5 else "b", (n,)) for n in range(8))
        work = InOrder(pool, failing, tasks, in_flight=3)
        with pytest.raises(ValueError, match="one is not wanted"):
            list(work.of("a"))
        work.skip("a")
        assert list(work.of("b")) == [5, 6, 7]


def test_cancelled_work_does_not_begin() -> None:
    begun: list[int] = []
    gate = threading.Event()

    def waiting(number: int) -> None:
        begun.append(number)
        gate.wait(600)

    with ThreadPoolExecutor(1) as pool:
        work = InOrder(pool, waiting, (("a", (n,)) for n in range(20)), in_flight=10)
        next(work.of("none"), None)
        work.cancel()
        gate.set()
    assert begun == [0]


def test_work_of_a_killed_process_is_done_again(processes: Executor, tmp_path: Path) -> None:
    names = ["one", "two", "killer", *map(str, range(12))]
    work = InOrder(processes, dying_once, (("a", (str(tmp_path), name)) for name in names))
    assert list(work.of("a")) == names


def test_only_the_task_that_kills_its_process_fails(processes: Executor) -> None:
    names = [("a", "one"), ("b", "killer"), ("c", "two"), ("c", "three")]
    work = InOrder(processes, dying, ((key, (name,)) for key, name in names))
    assert list(work.of("a")) == ["one"]
    with pytest.raises(ComputeError, match="a worker died 3 times over the same pictures"):
        list(work.of("b"))
    work.skip("b")
    assert list(work.of("c")) == ["two", "three"]


def test_executor_that_takes_no_work_is_named() -> None:
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    work = InOrder(pool, doubled, iter([("a", (0.0, 1))]))
    with pytest.raises(ComputeError, match="the executor takes no more work"):
        list(work.of("a"))


class Dropping(ThreadPoolExecutor):
    """Cancels what it is given, as a client does that lost its cluster."""

    def submit(self, *_args: Any, **_options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.cancel()
        return future


def test_dropped_work_is_named() -> None:
    work = InOrder(Dropping(1), doubled, iter([("a", (0.0, 1))]))
    with pytest.raises(ComputeError, match="Is the cluster still there"):
        list(work.of("a"))
