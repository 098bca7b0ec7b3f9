"""A process that moves champions in children of its own, each killed after so many writes.

Reads a line of JSON a task, forks (nothing is imported twice), and answers with the children's exit
codes. `tasks` at once are begun together; `kill_after` 0 lets a child live.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Imported here so that the children need not.
import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
from mlflow import MlflowClient

from models.registry.client import TrackingClient
from models.registry.promotion import notice, promote, promote_anyway, rollback

WRITES = ("set_", "delete_", "update_", "create_")
_written = 0


@dataclass(frozen=True)
class Mortal(TrackingClient):
    """Kills its process after the n-th write to the registry."""

    kill_after: int = 0

    def client(self) -> Any:
        return Counting(super().client(), self.kill_after)


class Counting:
    """A client that counts its writes."""

    def __init__(self, client: MlflowClient, kill_after: int) -> None:
        self._client, self._kill_after = client, kill_after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not name.startswith(WRITES):
            return found

        def counted(*arguments: Any, **named: Any) -> Any:
            global _written
            answer = found(*arguments, **named)
            _written += 1
            if _written == self._kill_after:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return counted


def work(task: Mapping[str, Any]) -> None:
    tracking = Mortal(uri=task["uri"], model=task["model"], kill_after=task["kill_after"])
    lock = Path(task["lock"])
    match task["what"]:
        case "promote":
            evaluations = task["evaluations"]
            promote(tracking, lock, task["version"], measure=lambda v: evaluations[str(v.version)])
        case "force":
            promote_anyway(tracking, lock, task["version"], reason="because")
        case "rollback":
            rollback(tracking, lock, reason="green skin")
        case "notice":
            notice(tracking, lock)


def main() -> None:
    for line in sys.stdin:
        children = []
        for task in json.loads(line):
            child = os.fork()
            if child == 0:
                work(task)
                os._exit(0)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    main()
