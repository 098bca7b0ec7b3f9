"""Freshness: how old what the refresh makes may become, by the crons of the refresh."""

import datetime as dt
from collections.abc import Mapping, Sequence

import dagster as dg

from pipeline.automation.cron import Cron

LEAST_GRACE = dt.timedelta(hours=1)


def with_freshness(
    assets: Sequence[dg.AssetsDefinition], crons: Mapping[str, Cron]
) -> list[dg.AssetsDefinition]:
    """Returns the assets, those that a refresh makes with a freshness policy.

    A crawl is measured by its own site's cron. `posts` and `manifest` are built by every refresh,
    so they are measured by the cron that comes most often. What a training makes has none: without
    new faces an old generator is as good as new.
    """
    windows = {dg.AssetKey(["crawl", site]): cron.longest_gap for site, cron in crons.items()}
    soonest = min(cron.longest_gap for cron in crons.values())
    windows |= {dg.AssetKey("posts"): soonest, dg.AssetKey("manifest"): soonest}
    return [
        asset.map_asset_specs(
            lambda spec: (
                spec.replace_attributes(freshness_policy=policy(windows[spec.key]))
                if spec.key in windows
                else spec
            )
        )
        for asset in assets
    ]


def policy(gap: dt.timedelta) -> dg.FreshnessPolicy:
    """Returns the policy for what comes every `gap`: a warning after one miss, a failure after two.

    A quarter of the gap, at least an hour, is left for the run itself and its wait in the queue.
    """
    grace = max(LEAST_GRACE, gap / 4)
    return dg.FreshnessPolicy.time_window(fail_window=2 * gap + grace, warn_window=gap + grace)
