"""A Dagster logger that says one line when a stage begins and one when it ends."""

import logging
import time

import dagster as dg
from dagster import DagsterEvent, DagsterEventType

from dataset.progress import progress_stream


class StageLines(logging.Handler):
    """Prints `▶ faces`, then `✔ faces 12.3 s  kept 1,912, …`; warnings and failures whole."""

    def __init__(self, steps: frozenset[str]) -> None:
        super().__init__()
        self._steps = steps  # those of assets; checks are steps too, and only talk when they fail
        self._began: dict[str, float] = {}
        self._facts: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Says what an event of a run means for a person at a terminal."""
        event: DagsterEvent | None = getattr(record, "dagster_event", None)
        if event is None:
            if record.levelno >= logging.WARNING:
                _say(f"  ! {getattr(record, 'dagster_meta', {}).get('orig_message', '')}")
            return
        step = event.step_key or ""
        if event.event_type == DagsterEventType.STEP_START:
            self._began[step] = time.monotonic()
            if _op(step) in self._steps:
                _say(f"▶ {step.replace('__', '/')}")
        elif event.event_type == DagsterEventType.ASSET_MATERIALIZATION:
            self._facts[step] = facts(event)
        elif event.event_type == DagsterEventType.ASSET_CHECK_EVALUATION:
            evaluation = event.asset_check_evaluation_data
            if not evaluation.passed:
                _say(f"  ! {evaluation.check_name}: {evaluation.description}")
        elif event.event_type == DagsterEventType.STEP_SUCCESS and _op(step) in self._steps:
            took = time.monotonic() - self._began[step]
            _say(f"✔ {step.replace('__', '/')}  {took:.1f} s  {self._facts.get(step, '')}")


def _op(step: str) -> str:
    """Returns the name of the step's op: `entrant` of `entrant[02_omokage]`."""
    return step.partition("[")[0]


def facts(event: DagsterEvent) -> str:
    """Returns the counts of a materialisation as `kept 1,912, dropped 40, digest 0123456789ab`."""
    parts = []
    for name, value in event.step_materialization_data.materialization.metadata.items():
        shown = value.value
        if name == "digest":
            parts.append(f"digest {str(shown)[:12]}")
        elif name == "reused" and shown:
            parts.append("reused: nothing had changed")
        elif isinstance(value, dg.IntMetadataValue):
            parts.append(f"{name.removeprefix('dagster/').replace('_', ' ')} {shown:,}")
    return ", ".join(parts)


def stage_lines(steps: frozenset[str]) -> dg.LoggerDefinition:
    """Returns a logger for the asset steps of these names; it talks where progress is shown."""

    @dg.logger({}, description="One line when a stage begins and one when it ends.")
    def stages(_context: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("omokage.stages", logging.DEBUG)
        logger.addHandler(StageLines(steps))
        return logger

    return stages


def _say(line: str) -> None:
    stream = progress_stream()
    if stream is not None:
        print(line, file=stream, flush=True)
