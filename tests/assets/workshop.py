"""A home with a manifest of drawn heads, on which the assets of training are materialised."""

import contextlib
import dataclasses
import io
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from mlflow import MlflowClient
from pydantic import Field

from assets.champion import champion
from assets.evaluation import evaluation
from assets.generator import generator
from assets.resources import ChildProcess, StoreResource, TrackingResource
from models import evaluate, train
from models.registry.client import TrackingClient

INTERRUPTS = (KeyboardInterrupt, dg.DagsterExecutionInterruptedError)
FEW_PICTURES = ("--fakes", "8", "--repeats", "2", "--flips", "1", "--psis", "0.7,1")


class WorksHere(ChildProcess):
    """Measures in this process, on few pictures, and can train here too: it takes a second."""

    trains_here: bool = False
    measures_with: list[str] = Field(default=list(FEW_PICTURES))

    def run(
        self,
        context: dg.AssetExecutionContext | dg.OpExecutionContext,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        processes: int = 1,
    ) -> dict[str, Any]:
        output = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
            for name, value in (environment or {}).items():
                patch.setenv(name, value)
            if "models.evaluate" in arguments:
                code = evaluate.main([*arguments[2:], *self.measures_with])
            elif self.trains_here and "models.train" in arguments:
                code = train.main(list(arguments[2:]))
                if code == 128 + signal.SIGINT:
                    raise KeyboardInterrupt
            else:
                return super().run(context, arguments, environment=environment, processes=processes)
        assert code == 0
        return dict(json.loads(output.getvalue().splitlines()[-1]))


@dataclass(frozen=True)
class Workshop:
    """The home and its MLflow store; `model` is the registered model's name."""

    home: Path
    model: str = "avatar-generator"

    @property
    def tracking(self) -> TrackingClient:
        return TrackingClient(
            uri=f"sqlite:///{self.home}/mlflow.db",
            artifacts=(self.home / "artifacts").as_uri(),
            model=self.model,
        )

    def materialise(
        self,
        preset: str,
        *,
        trains_only: bool = False,
        trains_here: bool = False,
        launcher: str = "local",
        **config: Any,
    ) -> dict[str, dict[str, Any]]:
        """Trains, and judges and registers unless trains_only; returns the metadata by asset.

        trains_here: in this process, not in a child; launcher: what starts the child.
        """
        overrides = {"device": "cpu", "threads": "1", **config.pop("overrides", {})}
        settings = {"preset": preset, "overrides": overrides, **config}
        stages = [generator] if trains_only else [generator, evaluation, champion]
        run = {"generator": settings} | ({} if trains_only else {"evaluation": {"fakes": 64}})
        result = dg.materialize(
            stages,
            resources={
                "store": StoreResource(root=str(self.home)),
                "child": WorksHere(
                    environment={"OMP_NUM_THREADS": "1"}, trains_here=trains_here, launcher=launcher
                ),
                "tracking": TrackingResource(**dataclasses.asdict(self.tracking)),
            },
            run_config={"ops": {name: {"config": values} for name, values in run.items()}},
        )
        made = {}
        for stage in stages:
            (event,) = result.asset_materializations_for_node(stage.op.name)
            made[stage.op.name] = {name: value.value for name, value in event.metadata.items()}
        return made

    def client(self) -> MlflowClient:
        return self.tracking.client()

    def history(self, run_id: str, metric: str) -> dict[int, float]:
        """The metric by its step; fails if a step stands there twice."""
        found = self.client().get_metric_history(run_id, metric)
        steps = [one.step for one in found]
        assert len(set(steps)) == len(steps), f"{metric}: {sorted(steps)}"
        return {one.step: one.value for one in found}

    def pictures(self, run_id: str) -> list[int]:
        """The steps of the run's series `samples`, each of which stands there once."""
        names = [Path(file.path).name for file in self.client().list_artifacts(run_id, "images")]
        return sorted(
            int(name.split("+")[2])
            for name in names
            if name.startswith("samples") and name.endswith(".png")
        )


@contextlib.contextmanager
def interrupting_when(condition: Callable[[], bool]) -> Iterator[None]:
    """Sends this process a Ctrl-C once the condition holds while the block works."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            if condition():
                os.kill(os.getpid(), signal.SIGINT)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


@contextlib.contextmanager
def interrupting_the_first_tick(home: Path) -> Iterator[None]:
    """Sends this process a Ctrl-C once a training that begins in the block has finished a tick."""
    known = ticks(home)
    with interrupting_when(lambda: ticks(home) != known):
        yield


def ticks(home: Path) -> set[Path]:
    """The progress files below the home's generators."""
    return set(home.glob("generators/*/progress.jsonl"))
