"""Schedules: the refresh of each enabled site by its cron; off until somebody switches them on."""

from collections.abc import Mapping

import dagster as dg

from pipeline.automation.cron import Cron
from pipeline.automation.unfinished import in_words, unfinished_run
from pipeline.jobs import CHAIN
from pipeline.run_config import DATASET_STAGES, automatic_run_config
from pipeline.settings import Settings


def refresh_schedules(settings: Settings, crons: Mapping[str, Cron]) -> list[dg.ScheduleDefinition]:
    """Returns the schedule `refresh_<site>_schedule` of each site, with its job `refresh_<site>`.

    The job is the site's crawl, and the training set built again. All of them write the same
    tables, so no two are ever at work at once: dagster.yaml lets one run of the chain through at
    a time, and the others wait in the queue.
    """
    return [_refresh_schedule(settings, site, cron) for site, cron in crons.items()]


def _refresh_schedule(settings: Settings, site: str, cron: Cron) -> dg.ScheduleDefinition:
    job = dg.define_asset_job(
        f"refresh_{site}",
        selection=dg.AssetSelection.assets(["crawl", site], *DATASET_STAGES),
        description=f"Take new posts of {site} in and build the training set again; trains "
        "nothing. The other sites' posts stay as they are.",
        tags=CHAIN,
    )

    @dg.schedule(
        name=f"{job.name}_schedule",
        job=job,
        cron_schedule=cron.text,
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=f"Refreshes {site} by OMOKAGE_REFRESH (`{cron.text}`, {settings.timezone}); "
        "leaves a tick out while the refresh before it is still at work or in the queue.",
        tags={"omokage/site": site},
    )
    def refresh(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        before = unfinished_run(context.instance, {job.name})
        if before is not None:
            return dg.SkipReason(
                f"{in_words(before)} has not ended: {site} is not refreshed twice at once. If it "
                "hangs, terminate it on its page; the next tick asks again."
            )
        return dg.RunRequest(run_config=automatic_run_config(settings, job.name, site=site))

    return refresh
