"""The servers of `omokage up` in a process of their own, and GraphQL as Dagster's pages use it."""

import contextlib
import json
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
from mlflow import MlflowClient

from pipeline.servers import free_port
from tests.pipeline.conftest import Demo, clean_environment
from tests.waiting import wait_for

# Between looks that cost something: requests to Dagster's server, or the list of all processes.
# Fifty of them a second took a core for as long as a run lasted.
POLL_S = 0.5
LAUNCH = """mutation($selector: JobOrPipelineSelector!, $config: RunConfigData!) {
  launchRun(executionParams: {selector: $selector, runConfigData: $config}) {
    ... on LaunchRunSuccess {run {runId}}
    ... on PythonError {message} ... on RunConfigValidationInvalid {errors {message}}
  }
}"""


@dataclass(frozen=True)
class Servers:
    """What `omokage up` has started."""

    process: subprocess.Popen[Any]
    home: Path
    dagster: str
    mlflow: str
    studio: str

    def ask(self, query: str, **variables: Any) -> Any:
        """Asks Dagster's server, as its pages do; returns the answer's only field."""
        request = urllib.request.Request(
            f"{self.dagster}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            found = json.load(answer)
        assert "errors" not in found, found
        (field,) = found["data"].values()
        return field

    def newest_run(self) -> str:
        found = self.ask("{runsOrError(limit: 1) {... on Runs {results {runId}}}}")
        return str(found["results"][0]["runId"])

    def status(self, run_id: str) -> str:
        query = "query($id: ID!) {runOrError(runId: $id) {... on Run {status}}}"
        return str(self.ask(query, id=run_id)["status"])

    def mlflow_client(self) -> MlflowClient:
        # The registry's address too: by default it is what a test before has left.
        database = f"sqlite:///{self.home}/mlflow/mlflow.db"
        return MlflowClient(database, registry_uri=database)

    def running(self, module: str) -> psutil.Process | None:
        """The child process that runs a module, if there is one."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has just ended
                if module in process.cmdline():
                    return process
        return None

    def held_slots(self) -> int:
        """Slots of the pool `gpu` that somebody holds or waits for."""
        with dg.DagsterInstance.from_config(str(self.home / "dagster")) as instance:
            pool = instance.event_log_storage.get_concurrency_info("gpu")
            return pool.active_slot_count + pool.pending_step_count + pool.assigned_step_count

    def launch(self, job: str, *assets: str, **config: dict[str, Any]) -> str:
        """Starts a run of a job, or of some of its assets, as a page does; returns the run's id.

        config: of ops, by their names.
        """
        selector: dict[str, Any] = {
            "repositoryLocationName": "omokage",
            "repositoryName": "__repository__",
            "jobName": job,
        }
        if assets:
            paths = [{"path": asset.split("/")} for asset in assets]
            selector |= {"assetSelection": paths, "assetCheckSelection": []}
        ops = {op: {"config": values} for op, values in config.items()}
        found = self.ask(LAUNCH, selector=selector, config={"ops": ops})
        assert "run" in found, found
        return str(found["run"]["runId"])

    def cancel(self, run_id: str) -> None:
        """Cancels a run, as its page does."""
        found = self.ask(
            "mutation($id: String!) {terminateRun(runId: $id) {__typename}}", id=run_id
        )
        assert found["__typename"] == "TerminateRunSuccess", found

    def wait_until_it_ended(self, run_id: str) -> str:
        """Returns how a run ended."""
        wait_for(
            lambda: self.status(run_id) in ("SUCCESS", "FAILURE", "CANCELED"),
            f"run {run_id} never ended",
            poll_s=POLL_S,
        )
        return self.status(run_id)

    def stop(self) -> None:
        """Ends them by one Ctrl-C; fails if anything that they started is left."""
        began = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(600) == 130
        _, alive = psutil.wait_procs(began, timeout=600)
        assert alive == [], "one Ctrl-C ends all that was started"

    def kill(self) -> None:
        """Ends them and all that they started at once, as a power cut does."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        for process in (psutil.Process(self.process.pid), *family):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(600)
        psutil.wait_procs(family, timeout=600)


def start(demo: Demo, home: Path, *, posts: int, **variables: str) -> Servers:
    """Starts `omokage up` on a home, with these variables, and waits until all answers."""
    ports = {name: free_port() for name in ("dagster", "mlflow", "board", "studio")}
    options = [part for name, port in ports.items() for part in (f"--{name}-port", str(port))]
    process = subprocess.Popen(
        demo.command("up", "--home", str(home), "--posts", str(posts), *options),
        stdout=subprocess.PIPE,
        text=True,
        env={**clean_environment(), **variables},
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Ctrl-C"):
            break
    assert process.poll() is None
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    return Servers(process, home, urls["dagster"], urls["mlflow"], urls["studio"])


@contextlib.contextmanager
def started(demo: Demo, home: Path, *, posts: int, **variables: str) -> Iterator[Servers]:
    """Starts `omokage up` on a home, with these variables, and ends it by one Ctrl-C."""
    servers = start(demo, home, posts=posts, **variables)
    yield servers
    servers.stop()
