"""Resources of the assets: the store, the executor, MLflow, and long stages as child processes."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Event
from typing import Any

import dagster as dg
import psutil
from dagster import PipesSession
from dagster._core.pipes.context import PipesMessageHandler
from dagster._utils import tail_file
from dagster_pipes import PIPES_PROTOCOL_VERSION_FIELD, PipesDefaultMessageWriter, PipesParams
from pydantic import Field

from assets.reporting import plain_failures
from dataset.compute import (
    LOCAL,
    RAY,
    TORCHRUN,
    Launcher,
    parse_compute,
    parse_launcher,
)
from dataset.engines import Engine, engine_of
from dataset.errors import ConfigError, OmokageError
from dataset.store import Store, file_lock
from models.on_ray import MODULES, Job, submit
from models.registry.client import TrackingClient
from models.registry.model_uri import shown_uri
from models.registry.promotion import lock_folder

POLL_S = 0.2
TRAIN = "models.train"
LAST_WORDS_S = 2.0  # for what the child started, after the child's own end
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
# What is raised in a run that a person cancels, from Dagster's UI or by Ctrl-C.
INTERRUPTS = (KeyboardInterrupt, dg.DagsterExecutionInterruptedError)


class StoreResource(dg.ConfigurableResource[Any]):
    """Everything of the chain under the three roots of a home."""

    root: str = Field(description="Data: a folder or an fsspec URL such as s3://bucket/omokage.")
    state: str = Field(default="", description="A local folder: ledger, locks; empty: the root.")
    scratch: str = Field(default="", description="A local folder: packs, caches; empty: as state.")

    def open(self) -> Store:
        """Returns the store; it makes nothing until something is written."""
        return Store(self.root, state=self.state, scratch=self.scratch)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keeps other processes of this machine from building tables while the block works.

        The stages wait in the pool `home`, where people see them. But Dagster takes a slot in two
        steps: on SQLite both of two runs got the only one in 35 of 60 trials in which they came
        within a millisecond. This lock holds.
        """
        with file_lock(lock_folder(self.open()) / "tables.lock"):
            yield


class ComputeResource(dg.ConfigurableResource[Any]):
    """Hands out what runs bulk work: a pool of processes on this machine, or another engine.

    What `on` may be stands in dataset.compute.
    """

    workers: int = Field(default=2, ge=1, le=256, description="Workers of a pool.")
    on: str = Field(
        default="processes",
        description="processes[:N], threads[:N], distributed:ADDRESS, ray[:ADDRESS] or "
        "MODULE:FUNCTION.",
    )

    @contextlib.contextmanager
    def engine(self) -> Iterator[Engine]:
        """Yields the engine; see dataset.engines.engine_of for its end and its errors."""
        with engine_of(parse_compute(self.on, workers=self.workers)) as engine:
            yield engine


class TrackingResource(dg.ConfigurableResource[Any]):
    """The MLflow tracking server and registry.

    dagster-mlflow's resource ends the run with the step, so this small one hands on ids instead:
    a run belongs to a training, not to a process, and is found again when the training goes on.
    """

    uri: str = Field(description="Tracking URI: sqlite:///… or the address of a server.")
    artifacts: str = Field(
        default="", description="Artifact root of a new experiment; empty: the server's."
    )
    experiment: str = Field(default="avatar-generators", description="Name of the experiment.")
    model: str = Field(default="avatar-generator", description="Name of the registered model.")
    mlflow_url: str = Field(
        default="http://127.0.0.1:5000", description="Where people open MLflow's UI, for links."
    )
    dagster_url: str = Field(
        default="http://127.0.0.1:3000", description="Where people open Dagster's UI, for links."
    )

    def open(self) -> TrackingClient:
        """Returns the client; it asks and makes nothing until it is used."""
        return TrackingClient(
            uri=self.uri,
            artifacts=self.artifacts,
            experiment=self.experiment,
            model=self.model,
            mlflow_url=self.mlflow_url,
            dagster_url=self.dagster_url,
        )


class WholeMessages(dg.PipesFileMessageReader):
    """Reads a child's messages, a line each, once they are whole.

    Dagster's own reader takes what is there of a line for all of it, and then reads nothing more: a
    summary of some kB was lost so on a busy machine.
    """

    def _reader_thread(self, handler: PipesMessageHandler, is_resource_complete: Event) -> None:
        held = ""
        for part in tail_file(self._path, is_resource_complete.is_set):
            held += part
            if held.endswith("\n"):
                handler.handle_message(json.loads(held))
                held = ""


class OutputMessages(dg.PipesMessageReader):
    """Reads messages off the lines that a stage prints somewhere; the rest goes on to our stdout.

    For stages of other machines, with whom no file is shared but the store.
    """

    def __init__(self) -> None:
        self._handler: PipesMessageHandler | None = None
        self._held = ""

    @contextlib.contextmanager
    def read_messages(self, handler: PipesMessageHandler) -> Iterator[PipesParams]:
        """Gives what `hear` finds to the handler while the block works."""
        self._handler = handler
        yield {PipesDefaultMessageWriter.STDIO_KEY: PipesDefaultMessageWriter.STDOUT}

    def hear(self, text: str) -> None:
        """Takes the next piece of the output, which may end in the middle of a line."""
        *lines, self._held = (self._held + text).split("\n")
        for line in lines:
            # Others who print into the same place may have written before and after a message.
            before, mark, rest = line.partition(MESSAGE)
            try:
                message, end = json.JSONDecoder().raw_decode(mark + rest) if mark else (None, 0)
            except json.JSONDecodeError:
                message, end = None, 0
            if message is not None and self._handler is not None:
                self._handler.handle_message(message)
            said = before + (mark + rest)[end:]
            if said:
                print(said, flush=True)

    def no_messages_debug_text(self) -> str:
        """Says where messages were looked for."""
        return "Looked for messages in the lines that it printed."


MESSAGE = f'{{"{PIPES_PROTOCOL_VERSION_FIELD}"'  # how one begins


class ChildProcess(dg.ConfigurableResource[Any]):
    """Runs `python -m …` under Dagster Pipes and returns the summary that it reports.

    A command of `models` runs where `launcher` says: in a child process of this machine, as a job
    on a Ray cluster, or in processes that a command such as Slurm's `srun torchrun` starts.

    The child sends custom messages: {"progress": {…}} while it works, {"summary": {…}} at the end,
    {"error": text} when it cannot go on, with "transient": true if it may by itself later,
    {"stopped": text} when a signal ended it. When the run is
    cancelled the whole process group gets SIGINT, then SIGTERM, then SIGKILL, and nothing that the
    child started is left alive.
    """

    environment: dict[str, str] = Field(
        default={}, description="Variables of the child, over those of this process."
    )
    computing: dict[str, str] = Field(
        default={}, description="More variables of a child that trains, measures or labels."
    )
    patience_s: float = Field(
        default=20.0, gt=0, description="Wait after SIGINT, and after SIGTERM."
    )
    launcher: str = Field(
        default=LOCAL, description="local, ray:ADDRESS of a job server, or torchrun:COMMAND."
    )

    def run(
        self,
        context: dg.AssetExecutionContext | dg.OpExecutionContext,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        processes: int = 1,
    ) -> dict[str, Any]:
        """Runs `python ARGUMENTS…` to its end and returns its summary.

        processes: more than 1 starts so many under torchrun, on this machine or where the launcher
        says; arguments then begin with `-m`. torchrun passes a signal on to each of them.

        Raises dagster.Failure with the child's own words, and its exit code in the metadata, if it
        ends with another code than 0.
        """
        launcher, module = parse_launcher(self.launcher), arguments[1]
        own = self._variables(arguments, environment)
        if launcher.kind == RAY and module in MODULES:
            return self._on_ray(launcher, context, arguments, own, processes)
        if launcher.kind == TORCHRUN and module in MODULES and (launcher.counts or module == TRAIN):
            return self._by_command(launcher, context, arguments, own, processes)
        if processes > 1:
            arguments = [*_torchrun(processes), *arguments]
        with (
            tempfile.TemporaryDirectory() as folder,
            dg.open_pipes_session(
                context=context,
                context_injector=dg.PipesTempFileContextInjector(),
                message_reader=WholeMessages(f"{folder}/messages"),
            ) as session,
        ):
            variables = {**os.environ, **own}
            if processes > 1:
                variables = {**_shared_machine(processes), **variables}
            child = _start(arguments, {**variables, **session.get_bootstrap_env_vars()})
            try:
                heard = _listen(context, session, child)
            except BaseException:
                _end(child, self.patience_s)
                raise
        _tell_since(context, session, heard)
        return _summary(session, arguments, child.returncode)

    def _variables(
        self, arguments: Sequence[str], environment: Mapping[str, str] | None
    ) -> dict[str, str]:
        computing = self.computing if arguments[1] in MODULES else {}
        return {**self.environment, **computing, **(environment or {})}

    def _on_ray(
        self,
        launcher: Launcher,
        context: dg.AssetExecutionContext | dg.OpExecutionContext,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        processes: int,
    ) -> dict[str, Any]:
        """Runs it as a Ray job of so many ranks; a cancelled one saves and ends before we do."""
        variables = dict(environment)
        with plain_failures():
            _check_no_password(variables)
        output = OutputMessages()
        with _talking(context, output) as session:
            variables |= session.get_bootstrap_env_vars()
            with plain_failures():
                job = submit(
                    launcher.address,
                    arguments,
                    processes=processes,
                    environment=variables,
                    launched_by=context.run.run_id,
                    is_over=functools.partial(_is_over, context),
                )
                context.log.info(
                    f"{' '.join(arguments)} is the job {job.name} on {launcher.address}"
                )
                job.listen(output.hear)
                try:
                    heard = _listen(context, session, job)
                except BaseException:
                    job.stop()
                    raise
        _tell_since(context, session, heard)
        return _summary(session, arguments, job.returncode or 0, job.message)

    def _by_command(
        self,
        launcher: Launcher,
        context: dg.AssetExecutionContext | dg.OpExecutionContext,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        processes: int,
    ) -> dict[str, Any]:
        """Runs it by the launcher's command, whose output has the messages of the first process."""
        output = OutputMessages()
        command = [*launcher.command_for(processes), *arguments, "--die-with-parent"]
        with _talking(context, output) as session:
            variables = {**os.environ, **environment, "PYTHONUNBUFFERED": "1"}
            variables |= session.get_bootstrap_env_vars()
            # The command knows nothing of us: between us is a process that ends it with us.
            between = [sys.executable, "-m", "dataset.compute", str(os.getpid()), *command]
            child = _started(between, variables, stdout=subprocess.PIPE)
            reader = threading.Thread(target=_read, args=(child, output.hear), daemon=True)
            reader.start()
            try:
                heard = _listen(context, session, child)
            except BaseException:
                # Not SIGINT, which srun takes for a question.
                _end(child, 2 * self.patience_s, (signal.SIGTERM, signal.SIGKILL))
                raise
            reader.join(LAST_WORDS_S)
        _tell_since(context, session, heard)
        return _summary(session, arguments, child.returncode)


class TerminalChild(ChildProcess):
    """Runs a child whose progress bar is this terminal's; it ends with this process."""

    def run(
        self,
        context: Any,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        processes: int = 1,
    ) -> dict[str, Any]:
        """Runs `python ARGUMENTS…` and returns the summary on its last line.

        Raises OmokageError if it fails; it has said why on stderr by then.
        """
        ended = subprocess.run(
            [sys.executable, *arguments, "--die-with-parent", str(os.getpid())],
            env={**os.environ, **self._variables(arguments, environment)},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if ended.returncode in (-signal.SIGINT, 128 + signal.SIGINT):
            raise KeyboardInterrupt
        if ended.returncode:
            raise OmokageError(
                f"`python {' '.join(arguments)}` ended with code {ended.returncode}; its own "
                "output above says why, unless it was killed, perhaps for want of memory"
            )
        return dict(json.loads(ended.stdout.splitlines()[-1]))


def _talking(
    context: dg.AssetExecutionContext | dg.OpExecutionContext, output: OutputMessages
) -> contextlib.AbstractContextManager[PipesSession]:
    return dg.open_pipes_session(
        context=context, context_injector=dg.PipesEnvContextInjector(), message_reader=output
    )


def _read(child: subprocess.Popen[bytes], hear: Callable[[str], None]) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        hear(line.decode(errors="replace"))


def _is_over(context: dg.AssetExecutionContext | dg.OpExecutionContext, run_id: str) -> bool:
    """Whether a run has ended, or is this one in an earlier attempt."""
    run = context.instance.get_run_by_id(run_id)
    return run_id == context.run.run_id or run is None or run.is_finished


def _check_no_password(variables: Mapping[str, str]) -> None:
    tracking = variables.get("MLFLOW_TRACKING_URI", "")
    if shown_uri(tracking) != tracking:
        raise ConfigError(
            f"MLFLOW_TRACKING_URI is {shown_uri(tracking)}: its password would be shown in Ray's "
            "dashboard; use an MLflow server, and set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD on the nodes of the cluster"
        )


def _torchrun(processes: int) -> list[str]:
    # With an address of its own, it need not resolve this machine's name.
    command = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    return [*command, "--nproc-per-node", str(processes)]


def _shared_machine(processes: int) -> dict[str, str]:
    """Returns variables for processes that share one machine; a user's own go before them."""
    threads = max(1, (os.cpu_count() or 1) // processes)
    return {
        "GLOO_SOCKET_IFNAME": LOOPBACK,
        "NCCL_SOCKET_IFNAME": LOOPBACK,
        "OMP_NUM_THREADS": str(threads),
    }


def _start(arguments: Sequence[str], variables: dict[str, str]) -> subprocess.Popen[bytes]:
    # Our number, since a parent that dies while the child still imports would not be missed. Its
    # stdout repeats the summary, for scripts.
    command = [sys.executable, *arguments, "--die-with-parent", str(os.getpid())]
    return _started(command, variables, stdout=subprocess.DEVNULL)


def _started(
    command: Sequence[str], variables: Mapping[str, str], *, stdout: int
) -> subprocess.Popen[bytes]:
    # A group of its own: a Ctrl-C in the terminal reaches the child through us, once, and
    # whatever the child starts ends with it.
    return subprocess.Popen(command, env=variables, stdout=stdout, start_new_session=True)


def _listen(
    context: dg.AssetExecutionContext | dg.OpExecutionContext,
    session: PipesSession,
    child: subprocess.Popen[bytes] | Job,
) -> int:
    """Waits for the child; passes each progress message on as an asset observation at once.

    Returns how many messages were read so far; the last ones may come after the child's end.
    """
    heard = 0
    while child.poll() is None:
        time.sleep(POLL_S)
        heard = _tell_since(context, session, heard)
    return heard


def _tell_since(
    context: dg.AssetExecutionContext | dg.OpExecutionContext, session: PipesSession, heard: int
) -> int:
    messages = session.get_custom_messages()
    for progress in _progress_of(messages[heard:]):
        _tell(context, progress)
    return len(messages)


def _tell(context: dg.AssetExecutionContext | dg.OpExecutionContext, progress: Any) -> None:
    if isinstance(context, dg.AssetExecutionContext):
        context.log_event(dg.AssetObservation(context.asset_key, metadata=progress))
    else:  # a job that is about no asset, such as promote
        context.log.info(", ".join(f"{name} {value}" for name, value in progress.items()))


def _progress_of(messages: Sequence[Any]) -> Iterator[dict[str, Any]]:
    for message in messages:
        if isinstance(message, dict) and "progress" in message:
            yield message["progress"]


def _end(
    child: subprocess.Popen[bytes],
    patience_s: float,
    signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL),
) -> None:
    """Ends the child and all that it started, those in groups of their own (torchrun's) too."""
    started: dict[int, psutil.Process] = {}
    for number in signals:
        with contextlib.suppress(psutil.NoSuchProcess):
            below = psutil.Process(child.pid).children(recursive=True)
            started |= {process.pid: process for process in below}
        try:
            os.killpg(child.pid, number)
            child.wait(timeout=patience_s)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            pass  # it has ended
        break
    _, alive = psutil.wait_procs(list(started.values()), timeout=LAST_WORDS_S)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _summary(
    session: PipesSession, arguments: Sequence[str], returncode: int, said: str = ""
) -> dict[str, Any]:
    """Returns the last summary, or raises dagster.Failure.

    said: what the launcher knows of an end without a word.
    """
    messages = [m for m in session.get_custom_messages() if isinstance(m, dict)]
    summaries = [m["summary"] for m in messages if "summary" in m]
    errors = [m["error"] for m in messages if "error" in m]
    stops = [m["stopped"] for m in messages if "stopped" in m]
    if returncode == 0 and summaries:
        return dict(summaries[-1])
    command = f"python {' '.join(arguments)}"
    if errors or stops:
        transient = any(m.get("transient") for m in messages)
        raise dg.Failure(
            description=[*stops, *errors][-1],
            metadata={"command": command, "exit_code": returncode, "transient": transient},
        )
    likely = said[-1000:] or (
        "it was killed, perhaps for want of memory"
        if returncode == -signal.SIGKILL
        else "its own output above says why"
    )
    raise dg.Failure(
        description=f"`{command}` ended with code {returncode} and no summary: {likely}. "
        "Run the job again: it goes on where this stopped.",
        metadata={"command": command, "exit_code": returncode},
    )
