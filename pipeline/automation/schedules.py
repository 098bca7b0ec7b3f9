"""Schedules, off until switched on: the refresh of each site, and gc; freshness policies."""

import datetime as dt
from collections.abc import Mapping, Sequence

import dagster as dg

from pipeline.automation.cron import Cron
from pipeline.instance import in_words, runs_at_work, unfinished_run
from pipeline.retention import gc_job
from pipeline.run_config import automatic_run_config
from pipeline.settings import DATASET_STAGES, Settings

GC_CRON = "30 3 * * sun"
SLACK_H = 6  # from a daily refresh, or a rarer one, to its deadline
SLACK_OF_SEVERAL_H = 1  # where several hours of a day have a refresh


def refresh_schedules(settings: Settings, crons: Mapping[str, Cron]) -> list[dg.ScheduleDefinition]:
    """Returns the schedule `refresh_<site>_schedule` of each site, with its job `refresh_<site>`.

    The job is the site's crawl, and the training set built again. Boards are crawled side by side,
    but the tables have one writer at a time (pool `home`). The stages of two refreshes may take
    turns. In the end each table is built from the last of the one before it all the same: the last
    to build a table is followed, in its own run, by a build of the next.
    """
    return [_refresh_schedule(settings, site, cron) for site, cron in crons.items()]


def _refresh_schedule(settings: Settings, site: str, cron: Cron) -> dg.ScheduleDefinition:
    job = dg.define_asset_job(
        f"refresh_{site}",
        selection=dg.AssetSelection.assets(["crawl", site], *DATASET_STAGES),
        description=f"Take new posts of {site} in and build the training set again; trains "
        "nothing. The other sites' posts stay as they are.",
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


def gc_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """Returns the weekly schedule of the job `gc`."""

    @dg.schedule(
        name="gc_schedule",
        job=gc_job,
        cron_schedule=GC_CRON,
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=f"Removes each week what nothing needs (`{GC_CRON}`, {settings.timezone}), as "
        "`omokage gc --apply` does; leaves a tick out while any run is at work or in the queue.",
    )
    def gc(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        at_work = runs_at_work(context.instance)
        if at_work:
            return dg.SkipReason(f"{at_work[0]} has not ended; the next tick asks again")
        return dg.RunRequest()

    return gc


def with_freshness(
    assets: Sequence[dg.AssetsDefinition], crons: Mapping[str, Cron], timezone: str
) -> list[dg.AssetsDefinition]:
    """Returns the assets, those that a refresh makes with a freshness policy.

    A crawl is measured by its own site's cron. `posts` and `manifest` are built by every refresh,
    so they are measured by the cron that comes most often. What a training makes has none: without
    new faces an old generator is as good as new.
    """
    measured_by = {dg.AssetKey(["crawl", site]): cron for site, cron in crons.items()}
    most_frequent = max(crons.values(), key=lambda cron: cron.ticks_per_year)
    measured_by |= {dg.AssetKey("posts"): most_frequent, dg.AssetKey("manifest"): most_frequent}
    policies = {key: freshness_policy(cron, timezone) for key, cron in measured_by.items()}
    return [
        asset.map_asset_specs(
            lambda spec: (
                spec.replace_attributes(freshness_policy=policies[spec.key])
                if spec.key in policies
                else spec
            )
        )
        for asset in assets
    ]


def freshness_policy(cron: Cron, timezone: str) -> dg.FreshnessPolicy:
    """Returns the policy of what `cron` refreshes: overdue if not made anew by the deadline.

    The deadline comes some hours after the refresh, which leaves time for the run and its wait in
    the queue. Several refreshes within one hour have one deadline.
    """
    slack_h = SLACK_H if len(cron.hours) == 1 else SLACK_OF_SEVERAL_H
    # Past midnight the deadline would fall on a day that the cron may leave out.
    late = (hour + slack_h for hour in cron.hours if cron.is_every_day or hour + slack_h < 24)
    hours = sorted(hour % 24 for hour in late)
    minute = max(cron.minutes) if hours else 59
    hours = hours or [23]
    apart = (
        later - earlier for earlier, later in zip(hours, [*hours[1:], hours[0] + 24], strict=True)
    )
    days = " ".join(cron.text.split()[2:])
    return dg.FreshnessPolicy.cron(
        deadline_cron=f"{minute} {','.join(map(str, hours))} {days}",
        # The longest that Dagster takes: an hour of summer time may not make an asset overdue.
        lower_bound_delta=dt.timedelta(hours=min(apart)),
        timezone=timezone,
    )
