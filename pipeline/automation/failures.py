"""Failed runs: the sensor, the report in Markdown, the webhook, and the redaction of secrets."""

import datetime as dt
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, quote_plus, urlsplit

import dagster as dg
import yaml

from assets.crawl import ANSWERS
from assets.resources import StoreResource
from crawlers.sites import HIDDEN, LEAST_LETTERS, Secrets, Site, load_sites
from dataset.errors import bare
from dataset.store import Store
from pipeline.instance import duration
from pipeline.settings import Settings

EVERY_S = 30
FOLDER = "reports/failures"
TIMEOUT_S = 10.0  # of the webhook


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

    The webhook comes first, so that the report says how that went; no fault of it is raised.
    Raises StoreError if the home cannot be written.
    """
    sites = load_sites(settings.sites_file or None).values()
    hidden = Redaction(sites, settings.webhook, settings.contact).hidden
    failed = redacted(failed_run(instance, run, words), hidden)
    delivery = ""
    if settings.webhook:
        sent = message(failed, dagster_url=settings.dagster_url, report=failed.path)
        delivery = post(settings.webhook, sent)
    # Once more as a whole: a name beside a value may tell what the value alone did not.
    text = hidden(markdown(failed, dagster_url=settings.dagster_url, delivery=delivery))
    store.write_bytes(failed.path, text.encode())
    return store.url(failed.path)


# What to do about an error of ours, by its class (dataset/errors.py).
REMEDIES = {
    "CrawlError": "The board refused or could not be reached. Where it asks to be left alone, "
    "leave it alone; otherwise the next refresh goes on where this one stopped.",
    "ConfigError": "Mend the setting that the text names, then re-execute the run with the "
    "configuration changed.",
    "StoreError": "Make the home writable again (free space, mount, rights), then re-execute.",
    "RegistryError": "See that the MLflow server runs and MLFLOW_TRACKING_URI is right, then "
    "re-execute from the failure: the training is not repeated.",
    "ComputeError": "See that the workers are there (OMOKAGE_COMPUTE, memory), then re-execute: "
    "what was cut out is not done again.",
    "SchemaError": "The file that the text names was altered or is of another version: materialise "
    "the asset that writes it again.",
    "EmptyStageError": "There was nothing to go on with: crawl more posts, or loosen what drops "
    "them.",
    "TrainingError": "Read the text; a re-execution goes on from the last checkpoint.",
}
OF_CHECKS = (
    "A blocking check stopped the run, so nothing was built on that data. Mend what its text "
    "names, then materialise that asset again."
)
OTHERWISE = (
    "Read the words above; the page of the run has the whole log. A re-execution from the failure "
    "keeps what was finished, and a training goes on from its last checkpoint."
)


@dataclass(frozen=True)
class FailedStep:
    """A step that failed: its words, and the class of our error ("" for one of another kind)."""

    step: str
    words: str
    kind: str = ""


@dataclass(frozen=True)
class FailedCheck:
    """A check that did not pass."""

    check: str
    asset: str
    words: str
    blocking: bool


@dataclass(frozen=True)
class FailedRun:
    """A failed run as far as a person wants to know; times are UTC."""

    run_id: str
    job: str
    started_by: str
    ended: dt.datetime
    seconds: float
    words: str  # of the run itself, where no step says more
    steps: list[FailedStep] = field(default_factory=list)
    checks: list[FailedCheck] = field(default_factory=list)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Where its report lies in the home."""
        return f"{FOLDER}/{self.ended:%Y-%m-%d}-{self.run_id[:8]}.md"

    @property
    def headline(self) -> str:
        """One line for a chat or a list."""
        where = ", ".join(step.step for step in self.steps)
        where = where or ", ".join(check.check for check in self.checks if check.blocking)
        return f"{self.job} failed{f' at {where}' if where else ''} (run {self.run_id[:8]})"

    @property
    def again(self) -> str:
        """Which steps Dagster's UI is to do again; a board that failed beside others is done."""
        boards = [
            one.step.startswith("crawl__") and one.step.endswith(ANSWERS) for one in self.steps
        ]
        return "All steps" if boards and all(boards) else "From failure"

    @property
    def remedies(self) -> list[str]:
        """What to do, most telling first."""
        kinds = [
            step.kind or ("CrawlError" if step.step.startswith("crawl__") else "")
            for step in self.steps
        ]
        found = [REMEDIES[kind] for kind in kinds if kind in REMEDIES]
        blocked = [OF_CHECKS] if any(check.blocking for check in self.checks) else []
        return list(dict.fromkeys([*blocked, *found])) or [OTHERWISE]


def failed_run(instance: dg.DagsterInstance, run: dg.DagsterRun, words: str) -> FailedRun:
    """Gathers what the instance knows of a failed run; `words` are those of its failure event."""
    record = instance.get_run_record_by_id(run.run_id)
    began, ended = (record.start_time, record.end_time) if record else (None, None)
    ended = ended or dt.datetime.now(dt.UTC).timestamp()
    return FailedRun(
        run_id=run.run_id,
        job=run.job_name,
        started_by=_started_by(run.tags),
        ended=dt.datetime.fromtimestamp(ended, dt.UTC),
        seconds=ended - (began or ended),
        words=words,
        steps=list(_failed_steps(instance, run.run_id)),
        checks=list(_failed_checks(instance, run.run_id)),
        config=run.run_config,
    )


def markdown(failed: FailedRun, *, dagster_url: str, delivery: str) -> str:
    """Returns the report; `delivery` says how the webhook went, "" without one."""
    page = f"{dagster_url}/runs/{failed.run_id}"
    lines = [
        f"# {failed.headline}",
        "",
        f"- run: [{failed.run_id}]({page})",
        f"- job: `{failed.job}`, started by {failed.started_by}",
        f"- ended: {failed.ended:%Y-%m-%d %H:%M:%S} UTC, after {duration(failed.seconds)}",
    ]
    lines += [f"- webhook: {delivery}"] if delivery else []
    lines += ["", "## What failed", ""]
    for step in failed.steps:
        lines += [f"**{step.step}**{f' ({step.kind})' if step.kind else ''}:", ""]
        lines += [*_quoted(step.words), ""]
    if not failed.steps:
        lines += [*_quoted(failed.words), ""]
    if failed.checks:
        lines += ["## Checks that did not pass", ""]
        for check in failed.checks:
            kind = "blocking" if check.blocking else "warns"
            lines += [f"**{check.check}** of {check.asset} ({kind}):", ""]
            lines += [*_quoted(check.words), ""]
    lines += ["## What to do", "", *[f"{remedy}\n" for remedy in failed.remedies]]
    lines += [f"To try again: open {page} and choose *Re-execute*, *{failed.again}*.", ""]
    lines += ["## Configuration", "", "```yaml", _yaml(failed.config), "```", ""]
    return "\n".join(lines)


def message(failed: FailedRun, *, dagster_url: str, report: str) -> dict[str, Any]:
    """Returns the webhook's message: `text` says it all, the other keys are for programs."""
    page = f"{dagster_url}/runs/{failed.run_id}"
    said = [step.words for step in failed.steps]
    said += [f"{check.check}: {check.words}" for check in failed.checks if check.blocking]
    return {
        "text": "\n".join([failed.headline, *(said or [failed.words]), page]),
        "job": failed.job,
        "run_id": failed.run_id,
        "run_url": page,
        "ended": failed.ended.isoformat(timespec="seconds"),
        "seconds": round(failed.seconds, 1),
        "steps": [{"step": one.step, "words": one.words} for one in failed.steps],
        "checks": [
            {"check": one.check, "asset": one.asset, "words": one.words, "blocking": one.blocking}
            for one in failed.checks
        ],
        "report": report,
    }


def host_of(url: str) -> str:
    """Returns what may be said of a webhook: its host, without user, port, path and query."""
    return urlsplit(url).hostname or "the webhook"


def post(url: str, message: Mapping[str, Any], *, timeout_s: float = TIMEOUT_S) -> str:
    """Posts the message as JSON and returns how that went, in words that name only the host.

    A failure is returned and never raised: the report itself is what counts.
    """
    request = urllib.request.Request(  # the scheme was checked with the settings
        url,
        data=json.dumps(message, ensure_ascii=False).encode(),
        headers={"Content-Type": "application/json; charset=utf-8", "User-Agent": "omokage"},
        method="POST",
    )
    host = host_of(url)
    try:
        with _OPENER.open(request, timeout=timeout_s) as answer:
            return f"sent to {host} (HTTP {answer.status})"
    except urllib.error.HTTPError as error:
        with error:
            return f"not sent to {host}: it answered HTTP {error.code}"
    except TimeoutError:
        return f"not sent to {host}: no answer within {timeout_s:g} s"
    except (OSError, ValueError) as error:  # URLError and http.client's errors are among them
        reason = getattr(error, "reason", None)
        if isinstance(reason, TimeoutError):
            return f"not sent to {host}: no answer within {timeout_s:g} s"
        return f"not sent to {host}: {type(reason or error).__name__}"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like another: the message goes nowhere but where it was sent."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def redacted(failed: FailedRun, hidden: Any) -> FailedRun:
    """Returns the same with `hidden` (text to text) applied to every word and to the config."""
    return replace(
        failed,
        started_by=hidden(failed.started_by),
        words=hidden(failed.words),
        steps=[replace(one, words=hidden(one.words)) for one in failed.steps],
        checks=[replace(one, words=hidden(one.words)) for one in failed.checks],
        config=_mapped(failed.config, hidden),
    )


def _mapped(value: Any, hidden: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _mapped(inner, hidden) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(inner, hidden) for inner in value]
    return hidden(value) if isinstance(value, str) else value


def _started_by(tags: Mapping[str, str]) -> str:
    for tag, kind in (("dagster/schedule_name", "schedule"), ("dagster/sensor_name", "sensor")):
        if tag in tags:
            return f"the {kind} `{tags[tag]}`"
    return "a person"


def _failed_steps(instance: dg.DagsterInstance, run_id: str) -> Iterator[FailedStep]:
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        if entry.dagster_event is not None:
            yield _failed_step(entry.dagster_event)


def _failed_step(event: dg.DagsterEvent) -> FailedStep:
    data, step = event.step_failure_data, event.step_key or "a step"
    failure = data.user_failure_data
    if failure is not None and failure.description:
        kind = failure.metadata.get("kind")
        return FailedStep(step, failure.description, str(kind.value) if kind else "")
    error = data.error.cause if data.error and data.error.cause else data.error
    return FailedStep(step, error.message.strip() if error else "no message")


def _failed_checks(instance: dg.DagsterInstance, run_id: str) -> Iterator[FailedCheck]:
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
        found = entry.dagster_event.event_specific_data if entry.dagster_event else None
        if isinstance(found, dg.AssetCheckEvaluation) and not found.passed:
            asset = found.asset_key.to_user_string()
            words = found.description or "it says nothing more"
            yield FailedCheck(found.check_name, asset, words, bool(found.blocking))


def _quoted(text: str) -> list[str]:
    return [f"> {line}".rstrip() for line in text.splitlines()]


def _yaml(config: Mapping[str, Any]) -> str:
    if not config:
        return "# the defaults of every stage"
    plain = json.loads(json.dumps(config))
    return yaml.safe_dump(plain, sort_keys=True, allow_unicode=True).strip()


# Variables of other programs, such as AWS_SECRET_ACCESS_KEY or MLFLOW_TRACKING_PASSWORD.
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIALS?|ACCESS_KEY|API_KEY|PRIVATE_KEY)(?:_|$)"
)
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>`()\[\]{}]+", re.IGNORECASE)
_PARAMETER = re.compile(
    r"\b([\w-]*(?:api_?key|token|secret|passw(?:or)?d|passwd|credential)[\w-]*)([\"']?\s*[=:]\s*)"
    r"(\"[^\"\n]*\"|'[^'\n]*'|[^\s&\"'<>,;]+)",
    re.IGNORECASE,
)


class Redaction:
    """Hides the credentials of sites and of the environment, and whatever an address may carry.

    more: further secrets, such as the address of a webhook.
    """

    def __init__(self, sites: Iterable[Site], *more: str) -> None:
        self._of_sites = [Secrets(site) for site in sites]
        values = [value for name, value in os.environ.items() if _SECRET_NAME.search(name)]
        spelt = {way(value) for value in [*values, *more] for way in (str, quote, quote_plus)}
        long = sorted((v for v in spelt if len(v) >= LEAST_LETTERS), key=len, reverse=True)
        self._values = re.compile("|".join(map(re.escape, long))) if long else None

    def hidden(self, text: str) -> str:
        """Returns the text with *** for each secret; addresses lose user, query and fragment."""
        for secrets in self._of_sites:
            text = secrets.hidden(text)
        if self._values is not None:
            text = self._values.sub(HIDDEN, text)
        text = _ADDRESS.sub(lambda found: _shortened(found[0]), text)
        return _PARAMETER.sub(rf"\1\2{HIDDEN}", text)


def _shortened(address: str) -> str:
    return bare(address) if re.search("[@?#]", address) else address
