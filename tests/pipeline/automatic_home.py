"""A home under automation: a real board, MLflow server and Dagster instance, and their ticks."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.resources import StoreResource, TrackingResource
from dataset.store import Store
from models.registry.client import TrackingClient
from pipeline.build import build_defs
from pipeline.instance import prepare_home
from pipeline.servers import (
    Server,
    board_server,
    board_url,
    free_port,
    running,
    wait_for_board,
    wait_until_answering,
)
from pipeline.settings import Settings, read_settings
from pipeline.up import mlflow_server
from tests.assets.workshop import WorksHere

# In this process, which has imported everything; two points of the truncation curve are enough.
CHILD = WorksHere(trains_here=True, measures_with=["--psis", "0.7,1"])


@dataclass
class AutomaticHome:
    """Does what the daemon does at a tick: evaluates a definition and runs what it asks for."""

    settings: Settings
    instance: dg.DagsterInstance
    defs: dg.Definitions
    board: Server
    cursors: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return Path(self.settings.home)

    @property
    def store(self) -> Store:
        return Store(self.settings.home)

    @property
    def tracking(self) -> TrackingClient:
        assert self.defs.resources is not None
        tracking = self.defs.resources["tracking"]
        assert isinstance(tracking, TrackingResource)
        return tracking.open()

    def schedule_tick(self, name: str) -> list[dg.ExecuteInProcessResult]:
        """One tick of a schedule, and the runs that it asks for."""
        schedule = self.defs.get_schedule_def(name)
        assert isinstance(schedule, dg.ScheduleDefinition)
        with dg.build_schedule_context(instance=self.instance) as context:
            data = schedule.evaluate_tick(context)
        tag = {"dagster/schedule_name": name}
        return [self._run(schedule.job_name, one, tag) for one in data.run_requests or []]

    def sensor_tick(self, name: str) -> tuple[list[dg.ExecuteInProcessResult], str]:
        """One tick of a sensor: the runs that it asks for, and why it asks for none."""
        sensor = self.defs.get_sensor_def(name)
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursors.get(name),
            resources={"store": StoreResource(root=self.settings.home)},
        ) as context:
            data = sensor.evaluate_tick(context)
        if data.cursor:
            self.cursors[name] = data.cursor
        if not data.run_requests:
            return [], data.skip_message or ""
        assert sensor.job_name is not None
        tag = {"dagster/sensor_name": name}
        return [self._run(sensor.job_name, one, tag) for one in data.run_requests], ""

    def trainings(self) -> list[dg.DagsterRun]:
        """All runs of the training job, the newest first."""
        return list(self.instance.get_runs(dg.RunsFilter(job_name="train_and_judge")))

    def digest(self) -> str:
        """The digest of the manifest that stands in the home."""
        return str(json.loads((self.home / "manifest/current.json").read_text())["digest"])

    def champion(self) -> int:
        """The version that bears the alias."""
        holder = self.tracking.holder("champion")
        assert holder is not None
        return int(holder.version)

    def serve(self, posts: int) -> None:
        """Serves so many posts from now on, at the same address: the old ones and newer ones."""
        self.board.stop()
        port = int(self.settings.board_url.rpartition(":")[2])
        self.board.command = board_server(self.store, pictures="", posts=posts, port=port).command
        self.board.start()
        assert wait_for_board(self.board, self.settings.board_url) == posts

    def _run(
        self, job: str, request: dg.RunRequest, tags: dict[str, str]
    ) -> dg.ExecuteInProcessResult:
        key = {"dagster/run_key": request.run_key} if request.run_key else {}
        return self.defs.resolve_job_def(job).execute_in_process(
            run_config=request.run_config,
            tags={**request.tags, **tags, **key},
            instance=self.instance,
            raise_on_error=False,
        )


@contextlib.contextmanager
def automatic_home(
    folder: Path,
    patch: pytest.MonkeyPatch,
    *,
    posts: int,
    given: dict[str, Any],
    database: str = "",
) -> Iterator[AutomaticHome]:
    """Starts the servers of a home in `folder` and yields it; `given` are further settings.

    database: address of MLflow's, by default a file in the home.
    """
    ports = {name: free_port() for name in ("board", "mlflow")}
    local = read_settings({"OMOKAGE_HOME": str(folder), "MLFLOW_TRACKING_URI": database})
    settings = read_settings(
        {
            "OMOKAGE_HOME": str(folder),
            "OMOKAGE_BOARD_URL": board_url(ports["board"]),
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports['mlflow']}",
            **given,
        }
    )
    for name, value in settings.environment().items():
        patch.setenv(name, value)  # prepare_home sets them; this takes them back afterwards
    store = prepare_home(settings)
    board = board_server(store, pictures="", posts=posts, port=ports["board"])
    mlflow = mlflow_server(local, port=ports["mlflow"])
    with running([mlflow, board]):
        wait_for_board(board, settings.board_url)
        wait_until_answering(mlflow, settings.tracking_uri, timeout_s=600)
        defs = build_defs(settings=settings, resource_overrides={"child": CHILD})
        with dg.DagsterInstance.from_config(os.environ["DAGSTER_HOME"]) as instance:
            yield AutomaticHome(settings, instance, defs, board)
