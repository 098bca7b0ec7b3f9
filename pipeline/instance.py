"""Our Dagster instance: its place under the home, killed demos, and runs that have not ended."""

import collections
import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import yaml
from dagster._core.errors import raise_execution_interrupts
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage
from dagster._utils.concurrency import ConcurrencyClaimStatus
from sqlalchemy.exc import DatabaseError

from assets.crawl import IN_TERMINAL
from assets.reporting import DRAWN, DRAWN_STEPS
from dataset.errors import ConfigError, StoreError, UsageError, listed
from dataset.store import Store, file_lock
from pipeline.settings import PROJECT, Settings

DAGSTER_YAML = "dagster.yaml"
YAML_NOTE = "dagster_yaml.json"
# sha256 of the dagster.yaml of earlier versions, which left no note: such a file was not edited.
EARLIER_YAML = (
    "5c28c8998bd355427c18fca3be8ba6a56e57348e6cf9c1306c11a7a57d417843",
    "0273da35c8ff393137c1790729819b5f4e7d622e7b4d16d7285ca4c56ecd897a",
    "47fca54f4adb1a0ea2a03447618df41dd3ec48c31e3f678e5941cb21b726c1e2",
    "22ccb9da0110bfa89304dc2447574d4e3f974c36cc4e54fe15e3b9ed671fb378",
    "713dea712909db1a1037a91393457e3abc91639b335b717ae8ce1ca5ce8b3554",
)
# The demo's stages talk in its own terminal; captured, they would see none and show no bars.
UNCAPTURED = {
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
}
_PASSWORD = re.compile(r"://[^\s/@]*:[^\s/@]+@|^\s*password:\s*[^\s{#]", re.MULTILINE)
FULL_MB = 2.0
GPU_POOL = "gpu"
GPU_NOTE = "gpu_pool.json"
DEMO_TAGS = {IN_TERMINAL: "true"}


def prepare_home(settings: Settings) -> Store:
    """Makes the home and its Dagster instance, and hands the settings to what we start.

    Raises StoreError, saying what to do, if one of its roots cannot be written.
    """
    store = settings.store
    for root in (store, *store.local_roots):
        root.check_writable()
    os.environ.update(settings.environment())
    provide_dagster_yaml(Store(settings.dagster_home))
    return store


def provide_dagster_yaml(folder: Store) -> None:
    """Writes our dagster.yaml, or replaces an older one of ours; one that was edited stays.

    A note beside it has the digest of what was written here. A line on stderr says, once for each
    version of ours, that an edited file was left alone. Raises UsageError outside a checkout.
    """
    if not (PROJECT / DAGSTER_YAML).exists():
        raise UsageError(
            f"{PROJECT / DAGSTER_YAML} is not there: Omokage runs from a checkout; clone it, and "
            "there `make install` or `pip install --editable .`"
        )
    ours = (PROJECT / DAGSTER_YAML).read_bytes()
    there = folder.read_bytes(DAGSTER_YAML) if folder.exists(DAGSTER_YAML) else None
    before = folder.read_json(YAML_NOTE) if folder.exists(YAML_NOTE) else {}
    if there is None or _sha256(there) in (_sha256(ours), before.get("written"), *EARLIER_YAML):
        if there != ours:
            folder.write_bytes(DAGSTER_YAML, ours)
        note = {"written": _sha256(ours)}
    else:
        note = {**before, "left_for": _sha256(ours)}
        if note != before:
            print(
                f"{folder.url(DAGSTER_YAML)} was edited and stays as it is; Omokage's own is "
                f"{PROJECT / DAGSTER_YAML}",
                file=sys.stderr,
            )
    if note != before:
        folder.write_json(YAML_NOTE, note)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def opened_instance(folder: str, *, captured: bool = True) -> Iterator[dg.DagsterInstance]:
    """Yields the Dagster instance of a DAGSTER_HOME, by its dagster.yaml.

    captured: whether the output of stages goes where that says, or else to this terminal. Raises
    ConfigError, naming the file, if it cannot be used.
    """
    path = Path(folder) / DAGSTER_YAML
    try:
        if captured:
            instance = dg.DagsterInstance.from_config(folder)
        else:
            config = yaml.safe_load(path.read_text()) or {}
            if not isinstance(config, dict):
                raise TypeError(f"a dictionary expected, got {config!r}")
            # Only the owner reads it, for a moment: a storage may have a password.
            with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".yaml") as file:
                yaml.safe_dump({**config, **UNCAPTURED}, file)
                file.flush()
                name = Path(file.name).name
                instance = dg.DagsterInstance.from_config(folder, config_filename=name)
    except DatabaseError:
        raise  # see explained_databases
    except Exception as error:  # whatever the classes that it names raise
        said = "\n".join(line[:300] for line in str(error).splitlines()[:6])
        if re.search(r"\bpsycopg|dagster_postgres", said):  # 2: of dagster-postgres; 3: not
            said += "; install omokage[postgres], and write postgresql+psycopg2://…"
        raise ConfigError(f"{path} cannot be used: {said}") from error
    with instance:
        yield instance


def warn_of_password(dagster_home: str) -> None:
    """Prints a line on stderr if dagster.yaml has a password: Dagster's servers get it as argument.

    `{env: NAME}` is passed on by its name.
    """
    path = Path(dagster_home) / DAGSTER_YAML
    if _PASSWORD.search(path.read_text()):
        print(
            f"{path} has a password, which other users of this machine see in the arguments of "
            "Dagster's processes; write {env: NAME} and set that variable",
            file=sys.stderr,
        )


def alone_in(home: Store) -> contextlib.AbstractContextManager[None]:
    """Keeps a second run of a command out of a home; raises UsageError if one is at work."""
    busy = UsageError(
        f"another demo, run, training or comparison is at work in {home.state.root}; wait for "
        "it, end it, or choose another folder with --home"
    )
    return file_lock(home.state.local("demo.lock"), timeout_s=0, busy=busy)


@contextlib.contextmanager
def demo_instance() -> Iterator[dg.DagsterInstance]:
    """Yields the instance of the prepared home, after ending the runs of demos that were killed.

    Only one demo is at work in a home, so such runs are dead.
    """
    with opened_instance(os.environ["DAGSTER_HOME"], captured=False) as instance:
        end_dead_runs(instance, of_demos=True)
        provide_gpu_slots(instance)
        yield instance


def only_up(home: Store) -> contextlib.AbstractContextManager[None]:
    """Keeps a second `up` out of a home; raises UsageError if one is at work."""
    busy = UsageError(
        f"`omokage up` is at work in {home.state.root} already; end it, or choose another "
        "folder with --home"
    )
    return file_lock(home.state.local("up.lock"), timeout_s=0, busy=busy)


@contextlib.contextmanager
def only_servers_of(settings: Settings) -> Iterator[None]:
    """Keeps a second `up` out of a home, and ends what the last one left unfinished when killed.

    To be entered before servers start. Raises UsageError if those of the home are up already.
    """
    store = settings.store
    with only_up(store):
        folder = Path(os.environ["DAGSTER_HOME"])
        if store.state.local("") in folder.parents:
            with explained_databases(settings), opened_instance(str(folder)) as its:
                # Other machines may use an instance that lies elsewhere or on a database server:
                # their processes cannot be seen from here.
                if isinstance(its.event_log_storage, SqliteEventLogStorage):
                    end_dead_runs(its, of_demos=False)
                    with contextlib.suppress(UsageError), alone_in(store):
                        end_dead_runs(its, of_demos=True)
        yield


def prepare_pools() -> None:
    """Gives the prepared home's instance its pool limits, before servers open it."""
    with opened_instance(os.environ["DAGSTER_HOME"]) as instance:
        provide_gpu_slots(instance)


def end_dead_runs(instance: dg.DagsterInstance, *, of_demos: bool) -> None:
    """Ends the runs whose process was killed, by a power cut say, and frees their slots.

    Such a run would stay "started" for ever: its slots of the pools would never be free again, its
    schedule and `train_when_grown` would wait for it. Nothing that starts runs of this kind may be
    at work. A process that has outlived what started it goes on. of_demos: the kind, those of
    commands that run in a terminal, or those of the servers.
    """
    left = [*AT_WORK, dg.DagsterRunStatus.NOT_STARTED]
    for run in instance.get_runs(dg.RunsFilter(statuses=left)):
        if (DEMO_TAGS.items() <= run.tags.items()) != of_demos or _has_process(instance, run):
            continue
        words = "Its process was killed: re-execute it from failure, which goes on from there."
        if run.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, words)
        else:
            instance.report_run_failed(run, words)
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _has_process(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Tells whether a process that the log of the run names is alive.

    One that began after it was named is another, which got the number of the dead one.
    """
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        named = entry.dagster_event.engine_event_data.metadata if entry.dagster_event else {}
        with contextlib.suppress(KeyError, psutil.NoSuchProcess):
            process = psutil.Process(int(str(named["pid"].value)))
            is_dead = process.status() == psutil.STATUS_ZOMBIE
            if process.create_time() <= entry.timestamp and not is_dead:
                return True
    return False


def provide_gpu_slots(instance: dg.DagsterInstance) -> int:
    """Gives the pool `gpu` a slot for each GPU, at least one, and returns how many it has now.

    A limit that the user has set (`dagster instance concurrency set gpu N`, or in the UI) stands.
    A note beside the instance's dagster.yaml says what was set here before.
    """
    from models.training.distributed import gpu_count  # imports torch

    storage = instance.event_log_storage
    note = Path(instance.root_directory) / GPU_NOTE
    limits = {pool.name: pool for pool in storage.get_pool_limits()}
    pool, slots = limits.get(GPU_POOL), max(1, gpu_count())
    if pool is not None and not pool.from_default:
        ours = json.loads(note.read_text())["slots"] if note.exists() else None
        if pool.limit != ours:
            return pool.limit
    storage.set_concurrency_slots(GPU_POOL, slots)
    Store(note.parent).write_json(note.name, {"slots": slots})
    return slots


@contextlib.contextmanager
def explained_databases(settings: Settings) -> Iterator[None]:
    """Raises StoreError, saying what to do, when Dagster's or MLflow's database fails."""
    try:
        yield
    except DatabaseError as error:
        if not isinstance(error.orig, sqlite3.Error):
            raise StoreError(
                f"the database of Dagster or MLflow failed ({error.orig}); does its server run, "
                f"and are its addresses in {settings.dagster_home}/{DAGSTER_YAML} and "
                "MLFLOW_TRACKING_URI right?"
            ) from error
        free_mb = shutil.disk_usage(settings.state).free / 1e6
        remedy = "the disk is full; free some space and run the same command again"
        raise StoreError(
            f"a database under {settings.state} failed ({error.orig}): "
            + (remedy if free_mb < FULL_MB else f"there are {free_mb:,.0f} MB free; try again")
        ) from error


UNFINISHED = {
    dg.DagsterRunStatus.NOT_STARTED: "about to be queued",
    dg.DagsterRunStatus.QUEUED: "in the queue",
    dg.DagsterRunStatus.STARTING: "starting",
    dg.DagsterRunStatus.STARTED: "running",
    dg.DagsterRunStatus.CANCELING: "being cancelled",
}
AT_WORK = [status for status in UNFINISHED if status.name not in ("NOT_STARTED", "QUEUED")]
_UNITS = ((86_400, "days"), (3_600, "hours"), (60, "minutes"))


def unfinished_run(instance: dg.DagsterInstance, jobs: Collection[str]) -> dg.RunRecord | None:
    """Returns the oldest run of these jobs that has not ended; None if there is none."""
    records = instance.get_run_records(dg.RunsFilter(statuses=list(UNFINISHED)), ascending=True)
    return next((one for one in records if one.dagster_run.job_name in jobs), None)


def runs_at_work(instance: dg.DagsterInstance, *, but: str = "") -> list[str]:
    """Returns in words the runs of servers that have not ended; those of commands hold `alone_in`.

    but: id of a run that does not count.
    """
    records = instance.get_run_records(dg.RunsFilter(statuses=list(UNFINISHED)))
    return [
        in_words(record)
        for record in records
        if not DEMO_TAGS.items() <= record.dagster_run.tags.items()
        and record.dagster_run.run_id != but
    ]


def check_no_run(instance: dg.DagsterInstance, *, but: str = "") -> None:
    """Raises UsageError if `runs_at_work` has any: they may write what is about to be removed."""
    if at_work := runs_at_work(instance, but=but):
        raise UsageError(
            "runs of Dagster have not ended; wait for them, or cancel them (one that a crash left "
            f"behind too):\n{listed(at_work)}"
        )


def pools_of(job: dg.JobDefinition) -> set[str]:
    """Returns the pools that the ops of a job wait for."""
    ops = (node.definition for node in job.nodes)
    return {op.pool for op in ops if isinstance(op, dg.OpDefinition) and op.pool}


def run_in_pools(instance: dg.DagsterInstance, pools: Collection[str]) -> dg.RunRecord | None:
    """Returns the newest run at work that leaves one of these pools without a free slot, or None.

    A run counts for all pools that any stage of it needs, also while none of them is at work.
    """
    limits = {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}
    held: collections.Counter[str] = collections.Counter()
    for record in reversed(instance.get_run_records(dg.RunsFilter(statuses=AT_WORK))):
        needs = record.dagster_run.run_op_concurrency
        held.update(needs.all_pools or () if needs else ())
        if any(held[pool] >= limits.get(pool, 1) for pool in pools):
            return record
    return None


@functools.cache
def patch_waiting_for_pools() -> None:
    """Has a step that waits for a slot of a pool sleep, hear a cancellation, and get its slot.

    Dagster 1.13 asks again without a pause (`interval_to_next_pending_claim_check` takes the least
    of 0 and the time left): a run behind a training of two days would take a core for two days. A
    run of the in-process executor heard a cancellation only when it got the slot, or when the wait
    before a retry was over. And a step that joins the queue while the slot is being freed, after it
    saw no free one and before the freeing run could see it there, would wait for ever.
    """
    claim = InstanceConcurrencyContext.claim
    claim_slot = SqlEventLogStorage.claim_concurrency_slot

    def patient_claim(self: InstanceConcurrencyContext, *step: Any, **options: Any) -> bool:
        is_claimed = claim(self, *step, **options)
        if not is_claimed:
            time.sleep(CLAIM_EVERY_S)
        return is_claimed

    def claim_or_assign(
        self: SqlEventLogStorage, concurrency_key: str, *step: Any, **options: Any
    ) -> ConcurrencyClaimStatus:
        status = claim_slot(self, concurrency_key, *step, **options)
        if not status.is_claimed and self.has_unassigned_slots(concurrency_key):
            self.assign_pending_steps([concurrency_key])  # the first in the queue, on its next try
        return status

    def sleep_til_ready(self: ActiveExecution) -> None:
        with raise_execution_interrupts():
            left_s: float = self.sleep_interval()  # type: ignore[no-untyped-call]
            time.sleep(min(max(left_s, 0.0), HEARD_WITHIN_S))

    InstanceConcurrencyContext.claim = patient_claim  # type: ignore[method-assign]
    SqlEventLogStorage.claim_concurrency_slot = claim_or_assign  # type: ignore[method-assign]
    ActiveExecution.sleep_til_ready = sleep_til_ready  # type: ignore[method-assign]


CLAIM_EVERY_S = 0.2
HEARD_WITHIN_S = 1.0


def in_words(record: dg.RunRecord) -> str:
    """Returns a run with its state, such as `refresh_demo (run 1a2b3c4d, running, 12 minutes)`."""
    run = record.dagster_run
    since = record.start_time or record.create_timestamp.timestamp()
    state = UNFINISHED.get(run.status, run.status.value.lower())
    return f"{run.job_name} (run {run.run_id[:8]}, {state}, {duration(time.time() - since)})"


def duration(seconds: float) -> str:
    """Returns a time in its largest unit that fits, such as `1.5 hours` or `12 seconds`."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(seconds, 0):.0f} seconds"


_INLINE = ";base64,"
_LOGS = {"event_logs": ("id", "event"), "asset_keys": ("id", "last_materialization")}


def databases(dagster_home: str) -> list[Path]:
    """Returns the SQLite files of Dagster's event log; also those that deleted runs have left.

    None, if the dagster.yaml of DAGSTER_HOME names another kind of database.
    """
    folder = Path(dagster_home) / "history"
    if (Path(dagster_home) / DAGSTER_YAML).exists():  # it may name another place
        with opened_instance(dagster_home) as instance:
            path_of = getattr(instance.event_log_storage, "path_for_shard", None)
        if path_of is None:
            return []
        folder = Path(path_of("index")).parents[1]
    return sorted(folder.rglob("*.db"))


def previews_of_reals(path: Path) -> int:
    """Returns how many inline pictures of real faces a file of the event log holds."""
    return _rewritten(path, "")


def scrub_previews(path: Path, words: str) -> None:
    """Puts `words` in the place of the inline pictures of real faces in a file of the event log.

    The events stay, with their numbers, data versions and links. `repack` must follow.
    """
    _rewritten(path, words)


def repack(path: Path) -> None:
    """Packs a SQLite file anew: nothing that was deleted stays in free pages or in its log.

    Raises StoreError, naming the file, if another process uses it.
    """
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as db:
            db.execute("VACUUM")
            (busy, *_) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError as error:
        raise StoreError(f"{path}: {error}; stop `omokage up` and run this again") from error
    if busy:
        raise StoreError(f"{path} is in use; stop `omokage up` and run this again")


def _rewritten(path: Path, words: str) -> int:
    """Counts the inline pictures of real faces in a file; puts `words`, if any, in their place."""
    count = 0
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        db.execute("PRAGMA secure_delete = ON")
        for table, (key, column) in _LOGS.items():
            if table not in tables:
                continue
            query = f"SELECT {key}, {column} FROM {table} WHERE instr({column}, ?)"  # noqa: S608
            for number, text in db.execute(query, (_INLINE,)).fetchall():
                event = json.loads(text)
                shown = list(_entries_of_reals(event))
                count += len(shown)
                if shown and words:
                    for entry in shown:
                        entry["entry_data"]["md_str"] = words
                    db.execute(
                        f"UPDATE {table} SET {column} = ? WHERE {key} = ?",  # noqa: S608
                        (json.dumps(event), number),
                    )
        db.commit()
    return count


def _entries_of_reals(event: Any, step: str = "") -> Iterator[dict[str, Any]]:
    """Yields the metadata entries of an event that hold a picture of real faces."""
    if isinstance(event, list):
        for one in event:
            yield from _entries_of_reals(one, step)
    elif isinstance(event, dict):
        step = str(event.get("step_key") or step)
        data = event.get("entry_data")
        if isinstance(data, dict) and _INLINE in str(data.get("md_str", "")):
            label = event.get("label")
            if label not in DRAWN and not (label == "preview" and step in DRAWN_STEPS):
                yield event
        else:
            for one in event.values():
                yield from _entries_of_reals(one, step)
