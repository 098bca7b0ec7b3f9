"""Runs many small tasks on an executor: few at once, results in order, lost ones again."""

import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from dataset.errors import ComputeError

Result = TypeVar("Result")

IN_FLIGHT = 64  # results of crop batches are 40 kB each: at most 3 MB wait for their turn
TRIES = 3  # of a task whose worker died, the last time alone


@dataclass
class _Task(Generic[Result]):
    key: str
    arguments: tuple[Any, ...]
    future: Future[Result]
    tries: int = 1

    @property
    def lost(self) -> bool:
        """Whether its worker died."""
        done = self.future.done() and not self.future.cancelled()
        return done and isinstance(self.future.exception(), _deaths())


class InOrder(Generic[Result]):
    """Calls `function` for each of `tasks`, pairs of a key and arguments.

    Tasks of one key stand together. Their results come in the order of the tasks. When a worker
    dies, what it had under way is submitted again, at last alone, so that only a task that kills
    its worker by itself fails.
    """

    def __init__(
        self,
        executor: Executor,
        function: Callable[..., Result],
        tasks: Iterator[tuple[str, tuple[Any, ...]]],
        *,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self._executor, self._function = executor, function
        self._tasks = tasks
        self._in_flight = in_flight
        self._window: deque[_Task[Result]] = deque()

    def of(self, key: str) -> Iterator[Result]:
        """Yields the results of the next tasks, those of `key`; raises what a task raised.

        Raises ComputeError if the executor takes no work any more, or if a task lost its worker
        TRIES times.
        """
        self._fill()
        while self._window and self._window[0].key == key:
            yield self._result(self._window[0])
            self._window.popleft()
            self._fill()

    def skip(self, key: str) -> None:
        """Leaves out what is still to come of `key`; what has begun is not waited for."""
        for task in [task for task in self._window if task.key == key]:
            task.future.cancel()
            self._window.remove(task)
        first_of_next = next((task for task in self._tasks if task[0] != key), None)
        if first_of_next is not None:
            self._tasks = itertools.chain([first_of_next], self._tasks)

    def cancel(self) -> None:
        """Cancels what has not begun."""
        for task in self._window:
            task.future.cancel()
        self._window.clear()

    def _fill(self) -> None:
        while len(self._window) < self._in_flight:
            following = next(self._tasks, None)
            if following is None:
                return
            key, arguments = following
            self._window.append(_Task(key, arguments, self._submitted(arguments)))

    def _result(self, task: _Task[Result]) -> Result:
        while True:
            try:
                return task.future.result()
            except _deaths() as error:
                if task.tries == TRIES:
                    raise ComputeError(
                        f"a worker died {TRIES} times over the same pictures, at last with nothing "
                        f"else under way: {_named(task.arguments)}. Is there memory enough for "
                        "them? Fewer workers (OMOKAGE_WORKERS) need less."
                    ) from error
                self._again(task)
            except CancelledError as error:
                raise ComputeError(
                    "the executor dropped work that was not done. Is the cluster still there? "
                    "Shards that were finished stand; run it again."
                ) from error

    def _again(self, task: _Task[Result]) -> None:
        """Submits the first task of the window again: alone if it has been tried before."""
        others = [other for other in self._window if other is not task]
        if task.tries > 1:
            wait([other.future for other in others])
            others = []
        for lost in (task, *(other for other in others if other.lost)):
            if lost is task or lost.tries < TRIES - 1:
                lost.future = self._submitted(lost.arguments)
                lost.tries += 1

    def _submitted(self, arguments: tuple[Any, ...]) -> Future[Result]:
        try:
            return self._executor.submit(self._function, *arguments)
        except (BrokenExecutor, RuntimeError) as error:
            raise ComputeError(
                f"the executor takes no more work ({error}). "
                "Shards that were finished stand; run it again."
            ) from error


def _deaths() -> tuple[type[BaseException], ...]:
    """What a task raises whose worker died; a cluster has its own error for it."""
    distributed = sys.modules.get("distributed")
    return (BrokenExecutor,) if distributed is None else (BrokenExecutor, distributed.KilledWorker)


def _named(arguments: tuple[Any, ...]) -> str:
    return ", ".join(str(one) for one in arguments[-1])
