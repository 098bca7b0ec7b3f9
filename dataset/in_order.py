"""Runs many small tasks on an executor: few at once, results in order, lost ones again."""

import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from dataset.errors import ComputeError

Result = TypeVar("Result")

IN_FLIGHT = 64  # results of 16 pictures with their crops are 0.5 MB each: 32 MB wait at most
TRIES = 3  # of a task whose worker died, the last time alone


@dataclass
class _Task(Generic[Result]):
    arguments: tuple[Any, ...]
    future: Future[Result]
    tries: int = 1

    @property
    def lost(self) -> bool:
        """Whether its worker died."""
        done = self.future.done() and not self.future.cancelled()
        return done and isinstance(self.future.exception(), _deaths())


class InOrder(Generic[Result]):
    """Calls `function` for each of `tasks`, its arguments; iterate for the results, in their order.

    When a worker dies, what it had under way is submitted again, at last alone, so that only a task
    that kills its worker by itself fails.
    """

    def __init__(
        self,
        executor: Executor,
        function: Callable[..., Result],
        tasks: Iterator[tuple[Any, ...]],
        *,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self._executor, self._function = executor, function
        self._tasks = tasks
        self._in_flight = in_flight
        self._window: deque[_Task[Result]] = deque()

    def __iter__(self) -> Iterator[Result]:
        """Yields the results; raises what a task raised.

        Raises ComputeError if the executor takes no work any more, or if a task lost its worker
        TRIES times. What has not begun is cancelled then, and where the reader stops.
        """
        try:
            self._fill()
            while self._window:
                yield self._result(self._window[0])
                self._window.popleft()
                self._fill()
        finally:
            for task in self._window:
                task.future.cancel()
            self._window.clear()

    def _fill(self) -> None:
        while len(self._window) < self._in_flight:
            following = next(self._tasks, None)
            if following is None:
                return
            self._window.append(_Task(following, self._submitted(following)))

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
                    "What was done stands; run it again."
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
                f"the executor takes no more work ({error}). What was done stands; run it again."
            ) from error


def _deaths() -> tuple[type[BaseException], ...]:
    """What a task raises whose worker died; a cluster has its own error for it."""
    distributed = sys.modules.get("distributed")
    return (BrokenExecutor,) if distributed is None else (BrokenExecutor, distributed.KilledWorker)


def _named(arguments: tuple[Any, ...]) -> str:
    return ", ".join(str(one) for one in arguments[-1])
