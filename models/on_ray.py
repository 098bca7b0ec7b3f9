"""Work of `models` on a Ray cluster: the job that is submitted, and what it does there.

`python -m models.on_ray --processes 2 models.train …` is the job's driver: Ray Train places so many
ranks, and each runs `models.train`'s own code. Ray is imported where it is used: the trainer runs
without.
"""

import argparse
import asyncio
import contextlib
import importlib
import json
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from types import ModuleType
from typing import Any

from dataset.errors import ComputeError, OmokageError, TrainingError

MODULES = ("models.train", "models.evaluate", "models.tag")  # each has options_of() and run()
POLL_S = 0.5
STATUS_EVERY_S = 1.0
# Between SIGTERM and SIGKILL of a job that is stopped; Ray's own 3 s are too few for a checkpoint.
STOP_WAIT_S = 60
LOST_AFTER_S = 120.0  # of a job server that answers no more
LAST_LINES_S = 60.0  # of the log of a job that has ended, with the summary among them
LAUNCHED_BY, WORK = "omokage_launched_by", "omokage_work"  # metadata of our jobs


class Job:
    """A job on a cluster; `poll` and `returncode` are as those of a `subprocess.Popen`."""

    def __init__(self, client: Any, name: str) -> None:
        self.name = name
        self.returncode: int | None = None
        self.message = ""  # Ray's own, of a job that did not run
        self._client = client
        self._heard = 0
        self._next_look = 0.0
        self._answered = time.monotonic()
        self._listener: threading.Thread | None = None

    def listen(self, hear: Callable[[str], None]) -> None:
        """Starts to give `hear` what the job prints, as it comes, in pieces; returns at once."""
        self._listener = threading.Thread(target=self._follow, args=(hear,), daemon=True)
        self._listener.start()

    def poll(self) -> int | None:
        """Returns the exit code, or None while the job runs; asks the server once a second.

        Raises ComputeError if it has not answered for LOST_AFTER_S.
        """
        now = time.monotonic()
        if self.returncode is not None or now < self._next_look:
            return self.returncode
        self._next_look = now + STATUS_EVERY_S
        try:
            facts = self._client.get_job_info(self.name)
        except (RuntimeError, OSError) as error:
            if now - self._answered > LOST_AFTER_S:
                self.returncode = 1
                raise ComputeError(
                    f"the Ray cluster has not answered for {LOST_AFTER_S:.0f} s ({error}); the job "
                    f"{self.name} may be at work there still"
                ) from error
            return None
        self._answered = now
        if facts.status.is_terminal():
            if self._listener is not None:
                self._listener.join(LAST_LINES_S)
            code = facts.driver_exit_code
            if facts.status == "STOPPED":  # Ray says no code then
                code = 128 + signal.SIGTERM
            self.returncode = code if code is not None else int(facts.status != "SUCCEEDED")
            self.message = facts.message or ""
        return self.returncode

    def stop(self) -> None:
        """Has the job save and end; returns when it has, at the latest when Ray has killed it."""
        with contextlib.suppress(RuntimeError, OSError):  # it has ended, or nobody answers
            self._client.stop_job(self.name)
        until = time.monotonic() + STOP_WAIT_S + 10
        while self.poll() is None and time.monotonic() < until:
            time.sleep(POLL_S)

    def _follow(self, hear: Callable[[str], None]) -> None:
        while self.returncode is None:
            try:
                asyncio.run(self._tail(hear))
                return  # the job has ended
            except Exception as error:  # whatever a connection that broke raises
                print(f"the log of {self.name} is read again: {error}", file=sys.stderr)
                time.sleep(STATUS_EVERY_S)

    async def _tail(self, hear: Callable[[str], None]) -> None:
        skipped = self._heard  # the log comes from its beginning
        async for text in self._client.tail_job_logs(self.name):
            new, skipped = text[skipped:], max(0, skipped - len(text))
            self._heard += len(new)
            hear(new)


def submit(
    address: str,
    arguments: Sequence[str],
    *,
    processes: int,
    environment: Mapping[str, str],
    launched_by: str,
    is_over: Callable[[str], bool],
) -> Job:
    """Submits `python -m models.…` as a job of so many ranks to the server at `address`.

    arguments: `-m`, one of MODULES and its own. A job for the same work that an earlier run left,
    since it was killed itself, is stopped first: is_over tells of its `launched_by` whether that
    run has ended. Raises ComputeError if the server does not answer.
    """
    try:
        from ray.exceptions import RayError  # such as one of a token that is missing
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise ComputeError(
            f"the launcher ray:{address} needs the package ray: pip install 'omokage[ray]', here "
            "and on the cluster"
        ) from error
    try:
        client = JobSubmissionClient(address)
        work = json.dumps([*arguments])
        for job in client.list_jobs():
            about = job.metadata or {}
            if job.status.is_terminal() or about.get(WORK) != work:
                continue
            if is_over(about.get(LAUNCHED_BY, "")):
                print(f"stops {job.submission_id}, which an earlier run left", file=sys.stderr)
                Job(client, str(job.submission_id)).stop()
        name = client.submit_job(
            entrypoint=shlex.join(
                ["python", "-m", "models.on_ray", "--processes", str(processes), *arguments[1:]]
            ),
            runtime_env={"env_vars": {**environment, "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}},
            metadata={LAUNCHED_BY: launched_by, WORK: work},
        )
    except (ConnectionError, RuntimeError, RayError) as error:
        raise ComputeError(
            f"the job server of Ray at {address} took no job: {str(error).strip()[:500]}"
        ) from error
    return Job(client, name)


class Line:
    """An actor between driver and ranks: reports in one direction, a signal in the other."""

    def __init__(self) -> None:
        self._messages: list[dict[str, Any]] = []
        self._fault: OmokageError | None = None
        self._signum, self._began = 0, False

    def tell(self, message: dict[str, Any]) -> None:
        """Keeps a report for the driver."""
        self._messages.append(message)

    def heard(self) -> list[dict[str, Any]]:
        """Returns the reports since the last call."""
        messages, self._messages = self._messages, []
        return messages

    def fail(self, fault: OmokageError) -> None:
        """Keeps the first fault of a rank."""
        self._fault = self._fault or fault

    def fault(self) -> OmokageError | None:
        """Returns it."""
        return self._fault

    def stop(self, signum: int) -> bool:
        """Keeps a signal for the ranks; returns whether any rank has requested it yet."""
        self._signum = signum
        return self._began

    def signal(self) -> int:
        """Returns that signal, or 0."""
        self._began = True
        return self._signum


def main(argv: list[str] | None = None) -> int:
    """Runs the driver of a job; returns its exit code."""
    from models.io.entry_point import run_entry  # imports torch, which who submits can do without

    parser = argparse.ArgumentParser(
        prog="python -m models.on_ray",
        description="Runs a command of models on this Ray cluster, in ranks that Ray Train places.",
        epilog="example: python -m models.on_ray --processes 2 models.train --home var --out r/1",
    )
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="ranks (default: 1)")
    parser.add_argument("module", choices=MODULES, help="what each rank runs")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its own options")
    options = parser.parse_args(argv)
    module = importlib.import_module(options.module)
    work = module.options_of(options.arguments)
    return run_entry(
        lambda report: _driven(module, work, processes=options.processes, report=report),
        die_with_parent=None,
    )


def _driven(
    module: ModuleType,
    options: argparse.Namespace,
    *,
    processes: int,
    report: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Has the ranks placed and hears them; returns the summary of rank 0, or raises what it did."""
    from models.io.entry_point import Stopped, stop_signals

    try:  # Any: its types know nothing of what is remote
        ray: Any = importlib.import_module("ray")
        ray_train: Any = importlib.import_module("ray.train")
        ray_torch: Any = importlib.import_module("ray.train.torch")
    except ImportError as error:
        raise ComputeError(f"{error}: pip install 'omokage[ray]'") from error

    try:
        ray.init(address="auto")
    except ConnectionError as error:
        raise ComputeError(f"no Ray cluster is at work here: {error}") from error
    with tempfile.TemporaryDirectory() as folder, stop_signals() as stop_signal:
        use_gpu = _wants_gpu(module, options) and ray.cluster_resources().get("GPU", 0) > 0
        _tell_of_waiting(ray.cluster_resources(), processes, "GPU" if use_gpu else "CPU")
        line = ray.remote(num_cpus=0)(Line).remote()
        trainer = ray_torch.TorchTrainer(
            _rank,
            train_loop_config={"line": line, "module": module.__name__, "options": options},
            scaling_config=ray_train.ScalingConfig(num_workers=processes, use_gpu=use_gpu),
            run_config=ray_train.RunConfig(storage_path=folder),  # it wants one, and keeps little
        )
        fitted = _in_thread(trainer.fit)
        forwarded = 0
        while not fitted.done():
            wait([fitted], timeout=POLL_S)
            for message in ray.get(line.heard.remote()):
                report(message)
            if (signum := stop_signal()) and not forwarded:
                forwarded = signum
                if not ray.get(line.stop.remote(signum)):
                    raise Stopped(signum, "stopped before the ranks had begun")
        try:
            outcome = fitted.result().return_value
        except ray_train.TrainingFailedError as error:
            fault: OmokageError | None = ray.get(line.fault.remote())
            raise fault or TrainingError(
                f"the ranks on the Ray cluster failed: {str(error)[-500:].strip()}. Run it again: "
                "it goes on from the last checkpoint"
            ) from error
        if "stopped" in outcome:
            raise Stopped(outcome["signum"], outcome["stopped"])
        return dict(outcome["summary"])


def _in_thread(work: Callable[[], Any]) -> Future[Any]:
    """Starts `work` in a thread that no end of the process waits for."""
    done: Future[Any] = Future()

    def working() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # it is raised where the result is requested
            done.set_exception(error)

    threading.Thread(target=working, daemon=True).start()
    return done


def _wants_gpu(module: ModuleType, options: argparse.Namespace) -> bool:
    if module.__name__ == "models.train":
        from models.presets import preset

        return preset(options.preset, options.set).device != "cpu"
    return str(getattr(options, "device", "auto")) != "cpu"


def _tell_of_waiting(resources: Mapping[str, float], processes: int, kind: str) -> None:
    there = resources.get(kind, 0)
    if there < processes:
        print(f"waits for {processes} {kind}s; the cluster has {there:g} now", file=sys.stderr)


def _rank(config: dict[str, Any]) -> dict[str, Any]:
    """Does the work in one of Ray Train's workers: in a thread, so without signals of its own."""
    from models.io.entry_point import Stopped, pass_on
    from models.training.distributed import rank_of_environment

    ray: Any = importlib.import_module("ray")
    line, module = config["line"], importlib.import_module(config["module"])
    ended = threading.Event()

    def listen() -> None:
        while not ended.is_set():
            pass_on(ray.get(line.signal.remote()))
            ended.wait(POLL_S)

    def report(message: dict[str, Any]) -> None:
        if rank_of_environment() == 0:
            ray.get(line.tell.remote(message))

    threading.Thread(target=listen, daemon=True).start()
    try:
        return {"summary": module.run(config["options"], report)}
    except Stopped as stopped:
        return {"stopped": str(stopped), "signum": stopped.signum}
    except OmokageError as error:
        ray.get(line.fail.remote(error))
        raise
    finally:
        ended.set()


if __name__ == "__main__":
    sys.exit(main())
