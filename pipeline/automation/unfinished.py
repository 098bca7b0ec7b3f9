"""Runs that have not ended: found by their jobs, and told in words."""

import time
from collections.abc import Collection

import dagster as dg

UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_STATES = {
    dg.DagsterRunStatus.NOT_STARTED: "about to be queued",
    dg.DagsterRunStatus.QUEUED: "in the queue",
    dg.DagsterRunStatus.STARTING: "starting",
    dg.DagsterRunStatus.STARTED: "running",
    dg.DagsterRunStatus.CANCELING: "being cancelled",
}
_UNITS = ((86_400, "days"), (3_600, "hours"), (60, "minutes"))


def unfinished_run(instance: dg.DagsterInstance, jobs: Collection[str]) -> dg.RunRecord | None:
    """Returns the oldest run of these jobs that has not ended; None if there is none."""
    records = instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED), ascending=True)
    return next((one for one in records if one.dagster_run.job_name in jobs), None)


def in_words(record: dg.RunRecord) -> str:
    """Returns a run with its state, such as `refresh_demo (run 1a2b3c4d, running, 12 minutes)`."""
    run = record.dagster_run
    since = record.start_time or record.create_timestamp.timestamp()
    state = _STATES.get(run.status, run.status.value.lower())
    return f"{run.job_name} (run {run.run_id[:8]}, {state}, {duration(time.time() - since)})"


def duration(seconds: float) -> str:
    """Returns a time in its largest unit that fits, such as `1.5 hours` or `12 seconds`."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(seconds, 0):.0f} seconds"
