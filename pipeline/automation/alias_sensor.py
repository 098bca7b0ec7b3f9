"""The sensor that notices when a person moves the champion's alias in MLflow's own UI."""

import dagster as dg

from assets.resources import StoreResource, TrackingResource
from models.registry.promotion import PromotionBusyError, champions, lock_folder, notice
from models.registry.promotion_log import PERSON
from pipeline.jobs import champion_sheet_job

EVERY_S = 60
PATIENCE_S = 5.0  # a tick has a minute; the next one looks again


@dg.sensor(
    job=champion_sheet_job,
    minimum_interval_seconds=EVERY_S,
    # It looks, and writes only what a person's own move has changed already.
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Records a move of the alias `champion` that was made by hand in MLflow, puts "
    "`previous` right, and asks for a fresh sample sheet.",
)
def champion_moved(
    context: dg.SensorEvaluationContext, store: StoreResource, tracking: TrackingResource
) -> dg.SensorResult | dg.SkipReason:
    """Asks for one sheet a move; the cursor is the number of the last move that was looked at."""
    registry = tracking.open()
    if not registry.database_exists():
        return dg.SkipReason("there is no registry yet")
    try:
        notice(registry, lock_folder(store.open()), patience_s=PATIENCE_S)
    except PromotionBusyError as busy:
        return dg.SkipReason(str(busy))
    moves = champions(registry)
    if not moves:
        return dg.SkipReason("there is no champion yet")
    last, seen = moves[0], int(context.cursor or 0)
    asked = last.by == PERSON and last.to and last.number > seen
    if not asked:
        return dg.SensorResult(
            skip_reason=dg.SkipReason(
                f"the last move, {last.number} to version {last.to or '(none)'}, is known"
            ),
            cursor=str(last.number),
        )
    request = dg.RunRequest(
        run_key=str(last.number),
        run_config={"ops": {"draw_sheet": {"config": {"version": last.to}}}},
        tags={"omokage/move": str(last.number)},
    )
    return dg.SensorResult(run_requests=[request], cursor=str(last.number))
