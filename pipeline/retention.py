"""What a home no longer needs: for `omokage gc` and the job `gc`, with Dagster's finished runs.

What is needed of trainings, manifests and MLflow's runs is decided in `models.registry.retention`.
"""

import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from pydantic import Field

from assets.reporting import plain_failures
from assets.resources import StoreResource, TrackingResource
from dataset import tables
from dataset.crops import GROWING
from dataset.errors import UsageError, listed
from dataset.progress import progress
from dataset.store import Store, file_lock
from models.registry.client import TrackingClient
from models.registry.promotion import lock_folder
from models.registry.retention import KINDS, Retention, Thing, retained
from pipeline.instance import UNFINISHED, alone_in, check_no_run
from pipeline.settings import KEEP

DAGSTER_RUN = "Dagster runs"
RUN_DAYS = 30  # younger runs of Dagster stay
_RUN_KEY = "dagster/run_key"  # tag of a run that a sensor requested
_SHARD = ("", "-wal", "-shm")  # the files of a SQLite database


@contextlib.contextmanager
def nobody_at_work(
    store: Store, instance: dg.DagsterInstance | None, *, but: str = ""
) -> Iterator[None]:
    """Keeps commands and stages that build tables out of a home while the block works.

    but: id of the run that asks. Raises UsageError, saying who, if somebody is at work.
    """
    folder = lock_folder(store)
    busy = UsageError(f"a stage builds tables in {store.root}; wait for it, or end it")
    with alone_in(store), file_lock(folder / "tables.lock", timeout_s=0, busy=busy):
        if instance is not None:
            check_no_run(instance, but=but)
        yield


@dataclass
class Garbage:
    """What may go of a home; `remove` takes it away.

    Attributes:
        runs: of Dagster, by id; run_reasons says why some stay.
        versions: how many old versions each table has.
        refused: what could not be removed, and why.

    """

    home: Retention
    instance: dg.DagsterInstance | None
    runs: dict[str, Thing]
    run_reasons: dict[str, str]
    versions: dict[str, int]
    freed_bytes: int = 0
    removed: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        store: Store,
        tracking: TrackingClient | None,
        instance: dg.DagsterInstance | None,
        *,
        keep: int,
    ) -> "Garbage":
        """Looks through a home, its registry and its runs; changes nothing. See `Retention.of`."""
        now_s = time.time()
        home = Retention.of(store, tracking, keep=keep, now_s=now_s)
        runs: dict[str, Thing] = {}
        reasons: dict[str, str] = {}
        if instance is not None:
            runs, roots = _finished_runs(
                instance, keep=keep, named=home.dagster_runs, manifests=home.reasons
            )
            reasons = retained(runs, roots, now_s=now_s, grace_s=RUN_DAYS * 86_400.0)
        names = [
            name for name in store.names("") if tables.is_lance(name) and tables.exists(store, name)
        ]
        versions = {name: tables.old_versions(store, name) for name in names}
        return cls(home, instance, runs, reasons, versions)

    @property
    def going(self) -> list[Thing]:
        """What goes, in the order in which it is removed."""
        runs = [self.runs[run] for run in sorted(self.runs.keys() - self.run_reasons.keys())]
        return [*self.home.going, *runs]

    def remove(self) -> None:
        """Removes what goes; interrupted, the same again goes on. Nobody else may be at work."""
        going = self.going
        with progress("gc", len(going), unit="removed") as advance:
            for thing in going:
                if thing.kind == DAGSTER_RUN:
                    assert self.instance is not None
                    _delete_run(self.instance, thing)
                elif why := self.home.remove(thing):
                    self.refused.append(f"{thing.name}: {why}")
                    continue
                self.freed_bytes += thing.size_bytes
                self.removed[thing.kind] += 1
                advance(1)
        for path, count in self.versions.items():
            if count:
                store = self.home.store
                before = _bytes_below(store, path)
                tables.tidy(store, path, rows=GROWING.get(path, tables.ROWS_A_FRAGMENT))
                self.freed_bytes += max(0, before - _bytes_below(store, path))

    def lines(self) -> list[str]:
        """Returns a line a kind: how much stays and why, how much goes; then what is left alone."""
        things = {**self.home.things, **self.runs}
        reasons = {**self.home.reasons, **self.run_reasons}
        rows = [f"{'':<14}{'kept':>6}{'MB':>11}{'goes':>8}{'MB':>11}  kept for"]
        for kind in (*KINDS, DAGSTER_RUN):
            of_kind = [one for one in things.values() if one.kind == kind]
            kept = [one for one in of_kind if one.name in reasons]
            goes = [one for one in of_kind if one.name not in reasons]
            why = Counter(reasons[one.name] for one in kept)
            words = ", ".join(f"{reason} {count:,}" for reason, count in why.most_common())
            kept_words = f"{kind:<14}{len(kept):>6,}{_mb(kept):>11}"
            rows.append(f"{kept_words}{len(goes):>8,}{_mb(goes):>11}  {words}".rstrip())
        rows += [
            f"{path}: {count:,} versions older than a day go; what they free shows afterwards"
            for path, count in self.versions.items()
            if count
        ]
        if self.home.unknown:
            rows.append(f"left alone, as nothing here writes them:\n{listed(self.home.unknown)}")
        return rows


def _mb(things: Collection[Thing]) -> str:
    return f"{sum(one.size_bytes for one in things) / 1e6:,.1f}"


def _bytes_below(store: Store, path: str) -> int:
    return sum(one.size_bytes for one in store.details(path).values())


def _finished_runs(
    instance: dg.DagsterInstance, *, keep: int, named: Collection[str], manifests: Collection[str]
) -> tuple[dict[str, Thing], list[tuple[str, str]]]:
    """Returns all runs of Dagster by id, and those that are needed by themselves with the reason.

    A re-execution needs the run that it goes on from. A sensor asks once for a run of a manifest:
    Dagster knows that from the run, by its run key.
    """
    roots = [(run_id, "of what stays") for run_id in named]
    newest = instance.get_latest_materialization_events(instance.all_asset_keys())
    roots += [(event.run_id, "newest of an asset") for event in newest.values() if event]
    runs = {}
    of_job: defaultdict[str, list[str]] = defaultdict(list)
    for record in instance.get_run_records():  # the newest first
        run = record.dagster_run
        of_job[run.job_name].append(run.run_id)
        if run.status in UNFINISHED:
            roots.append((run.run_id, "at work"))
        if f"manifest/{run.tags.get(_RUN_KEY)}" in manifests:
            roots.append((run.run_id, "asked for once"))
        files = _files_of_run(instance, run.run_id)
        runs[run.run_id] = Thing(
            DAGSTER_RUN,
            run.run_id,
            needs=frozenset(filter(None, [run.get_parent_run_id()])),
            modified_s=record.end_time or record.create_timestamp.timestamp(),
            size_bytes=sum(file.stat().st_size for file in files),
            files=tuple(map(str, files)),
        )
    for ids in of_job.values():
        roots += [(run_id, f"last {keep} of its job") for run_id in ids[:keep]]
    return runs, roots


def _files_of_run(instance: dg.DagsterInstance, run_id: str) -> list[Path]:
    """Returns a run's own files: its part of the event log, and the output of its steps."""
    files = []
    shard_of = getattr(instance.event_log_storage, "path_for_shard", None)  # of SQLite alone
    if shard_of is not None:
        files = [Path(f"{shard_of(run_id)}{end}") for end in _SHARD]
    if isinstance(instance.compute_log_manager, LocalComputeLogManager):
        some = Path(instance.compute_log_manager.get_captured_local_path([run_id, "step"], "out"))
        files += sorted(some.parent.rglob("*"))
    return [file for file in files if file.is_file()]


def _delete_run(instance: dg.DagsterInstance, run: Thing) -> None:
    instance.delete_run(run.name)
    instance.compute_log_manager.delete_logs(prefix=[run.name])
    for path in run.files:  # Dagster empties the run's database and leaves the file
        Path(path).unlink(missing_ok=True)


class GcConfig(dg.Config):
    """How much stays."""

    keep: int = Field(
        default=KEEP,
        ge=1,
        description="So many of the newest trainings, manifests and runs of each job stay.",
    )


@dg.op(
    name="collect_garbage",
    pool="home",
    description="Removes the packs, manifests, trainings, evaluations, old versions of tables and "
    "finished runs that nothing needs.",
)
def gc_op(
    context: dg.OpExecutionContext,
    config: GcConfig,
    store: StoreResource,
    tracking: TrackingResource,
) -> None:
    """Does what `omokage gc --apply` does; fails while another run is at work."""
    opened, registry = store.open(), tracking.open()
    known = registry if registry.database_exists() else None
    with (
        plain_failures(),
        nobody_at_work(opened, context.instance, but=context.run.run_id),
    ):
        found = Garbage.of(opened, known, context.instance, keep=config.keep)
        found.remove()
    context.log.info("\n".join(found.lines()))
    for words in found.refused:
        context.log.warning(words)
    context.add_output_metadata(
        {
            "freed_mb": found.freed_bytes / 1e6,
            "freed_bytes": found.freed_bytes,
            "refused": len(found.refused),
            **{
                kind.replace(" ", "_").lower(): found.removed[kind]
                for kind in (*KINDS, DAGSTER_RUN)
            },
        }
    )


@dg.job(
    name="gc",
    description="Remove what neither champion, previous, the newest trainings nor a running job "
    "needs. `omokage gc` shows it first.",
)
def gc_job() -> None:
    """Frees disk."""
    gc_op()
