"""The sensor that reports failed runs: a file in the home, and a webhook if there is one."""

import dagster as dg

from assets.resources import StoreResource
from crawlers.sites import load_sites
from dataset.store import Store
from pipeline.automation.failure_report import failed_run, markdown, message, redacted
from pipeline.automation.redaction import Redaction
from pipeline.automation.webhook import post
from pipeline.settings import Settings

EVERY_S = 30


def failure_sensor(settings: Settings) -> dg.SensorDefinition:
    """Returns the sensor `report_failures`, which runs from the start: it only looks."""

    @dg.run_failure_sensor(
        name="report_failures",
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Writes reports/failures/<date>-<run>.md in the home for each run that fails, "
        "and tells OMOKAGE_WEBHOOK if it is set. Credentials are left out.",
    )
    def report_failures(context: dg.RunFailureSensorContext, store: StoreResource) -> None:
        words = context.failure_event.message or "it says nothing more"
        path = report(
            context.instance, store.open(), settings, run=context.dagster_run, words=words
        )
        context.log.info(f"{context.dagster_run.job_name}: see {path}")

    return report_failures


def report(
    instance: dg.DagsterInstance,
    store: Store,
    settings: Settings,
    *,
    run: dg.DagsterRun,
    words: str,
) -> str:
    """Tells the webhook of a failed run, writes the report and returns where it lies.

    Told first, so that the report says how that went; it never fails for the webhook's sake.
    Raises StoreError if the home cannot be written.
    """
    sites = load_sites(settings.sites_file or None).values()
    hidden = Redaction(sites, settings.webhook, settings.contact).hidden
    failed = redacted(failed_run(instance, run, words), hidden)
    told = ""
    if settings.webhook:
        sent = message(failed, dagster_url=settings.dagster_url, report=failed.path)
        told = post(settings.webhook, sent)
    # Once more as a whole: a name beside a value may tell what the value alone did not.
    text = hidden(markdown(failed, dagster_url=settings.dagster_url, told=told))
    store.write_bytes(failed.path, text.encode())
    return store.url(failed.path)
