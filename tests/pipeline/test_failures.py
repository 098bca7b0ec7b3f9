"""A failed run leaves a report that a person can act on, tells the webhook, and keeps secrets."""

import http.server
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.resources import StoreResource
from dataset.errors import ConfigError, CrawlError
from dataset.store import Store
from pipeline.automation.failures import REMEDIES, Redaction, failure_sensor, post, report
from pipeline.settings import Settings, check_webhook, read_settings

KEY = "k3y/with+signs=and%more"
WEBHOOK_SECRET = "T0PSECRETPATH"


class Crawl(dg.Config):
    tags: str = ""


@dg.asset
def crawled(config: Crawl) -> None:
    """Fails as a crawl does, with words that hold what nobody should read."""
    error = CrawlError(
        f"https://me:pw123456@board.example/posts.json?api_key={KEY}&page=2 answered 403: "
        f"the key {KEY} is not known"
    )
    raise dg.Failure(description=str(error), metadata={"kind": type(error).__name__})


@dg.asset
def table() -> None:
    """A table whose check fails."""


@dg.asset_check(asset=table, blocking=True)
def table_kept() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, description="12 of 4,096 posts are kept")


@dg.asset
def broken() -> None:
    """Fails as a mistake of ours does."""
    raise ZeroDivisionError("division by nothing")


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GELBOORU_API_KEY", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-very-secret")


@dataclass
class Hook:
    """What a webhook was sent, and how it answers."""

    url: str = ""
    status: int = 200
    wait_s: float = 0.0
    heard: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.heard.append(json.loads(body))
            time.sleep(hook.wait_s)
            self.send_response(hook.status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook.url = f"http://127.0.0.1:{server.server_address[1]}/hooks/{WEBHOOK_SECRET}?token=abcdef"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield hook
    server.shutdown()
    thread.join()
    server.server_close()


def failed(*assets: Any, config: dict[str, Any] | None = None) -> tuple[dg.DagsterInstance, str]:
    """Really runs the assets on an instance; returns it and the id of the run, which failed."""
    instance = dg.DagsterInstance.ephemeral()
    ended = dg.materialize(list(assets), instance=instance, run_config=config, raise_on_error=False)
    assert not ended.success
    return instance, ended.run_id


def reported(home: Path, settings: Settings, *assets: Any, **config: Any) -> str:
    """The report on a real failing run of the assets."""
    instance, run_id = failed(*assets, **config)
    run = instance.get_run_by_id(run_id)
    assert run is not None
    path = report(instance, Store(home), settings, run=run, words="Steps failed.")
    assert Path(path).name.endswith(f"-{run_id[:8]}.md")
    assert Path(path).parent == home / "reports/failures"
    return Path(path).read_text()


def test_the_report_says_what_failed_and_what_to_do(tmp_path: Path) -> None:
    settings = Settings(home=str(tmp_path), dagster_url="https://dagster.example")
    config = {"ops": {"crawled": {"config": {"tags": "1girl"}}}}
    text = reported(tmp_path, settings, crawled, config=config)
    assert "**crawled** (CrawlError):" in text
    assert "> https://board.example/posts.json answered 403" in text
    assert REMEDIES["CrawlError"] in text
    assert "https://dagster.example/runs/" in text
    assert "choose *Re-execute*, *From failure*" in text
    assert "started by a person" in text
    assert "      tags: 1girl\n" in text


def test_a_failed_check_stands_there_with_its_text(tmp_path: Path) -> None:
    text = reported(tmp_path, Settings(home=str(tmp_path)), table, table_kept)
    assert "**table_kept** of table (blocking):\n\n> 12 of 4,096 posts are kept" in text
    assert "A blocking check stopped the run" in text


def test_a_mistake_of_ours_is_told_in_its_own_words(tmp_path: Path) -> None:
    text = reported(tmp_path, Settings(home=str(tmp_path)), broken)
    assert "> ZeroDivisionError: division by nothing" in text
    assert "the page of the run has the whole log" in text


def test_no_secret_is_in_the_report_or_the_message(tmp_path: Path, hook: Hook) -> None:
    settings = Settings(home=str(tmp_path), webhook=hook.url, contact="me@example.org")
    told_so = f"api_key={KEY} aws-very-secret {hook.url} me@example.org"
    config = {"ops": {"crawled": {"config": {"tags": told_so}}}}
    text = reported(tmp_path, settings, crawled, config=config)
    for said in (text, json.dumps(hook.heard)):
        for secret in ("k3y", "pw123456", "aws-very", WEBHOOK_SECRET, "abcdef", "me@example"):
            assert secret not in said
    assert WEBHOOK_SECRET not in repr(settings)
    assert "- webhook: sent to 127.0.0.1 (HTTP 200)" in text


def test_the_webhook_is_told_all_in_one_message(tmp_path: Path, hook: Hook) -> None:
    reported(tmp_path, Settings(home=str(tmp_path), webhook=hook.url), table, table_kept)
    (message,) = hook.heard
    assert message["checks"] == [
        {
            "check": "table_kept", "asset": "table", "blocking": True,
            "words": "12 of 4,096 posts are kept",
        }
    ]  # fmt: skip
    assert "12 of 4,096" in message["text"]
    assert message["run_url"] == f"http://127.0.0.1:3000/runs/{message['run_id']}"
    assert (tmp_path / message["report"]).is_file()


@pytest.mark.parametrize("status", [404, 500, 302])
def test_a_webhook_that_refuses_is_told_in_the_report_only(
    tmp_path: Path, hook: Hook, status: int
) -> None:
    hook.status = status
    text = reported(tmp_path, Settings(home=str(tmp_path), webhook=hook.url), broken)
    assert f"- webhook: not sent to 127.0.0.1: it answered HTTP {status}" in text
    assert len(hook.heard) == 1  # a redirect is not followed


def test_a_webhook_that_is_slow_or_gone_is_told_in_words(hook: Hook) -> None:
    hook.wait_s = 0.5
    assert post(hook.url, {}, timeout_s=0.1) == "not sent to 127.0.0.1: no answer within 0.1 s"
    gone = post("http://127.0.0.1:9/secret", {})
    assert gone == "not sent to 127.0.0.1: ConnectionRefusedError"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://hooks.example/secret", 'its scheme is "http" and its host hooks.example; https'),
        ("ftp://127.0.0.1/secret", 'its scheme is "ftp"'),
        ("secret-without-a-host", "it names no host"),
        ("https://[secret", "it cannot be read"),
        ("https://a.example:secret/", "it cannot be read"),
    ],
)
def test_a_wrong_webhook_is_refused_without_telling_it(url: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_webhook(url)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "https://a.example/x", "http://localhost:1/", "http://[::1]/"])
def test_https_and_this_machine_are_good_webhooks(url: str) -> None:
    assert read_settings({"OMOKAGE_WEBHOOK": url}).webhook == url


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("postgresql://me:pw@db.example/x failed", "postgresql://db.example/x failed"),
        ("see https://a.example/b#c.", "see https://a.example/b"),
        ("https://a.example/plain/path stays", "https://a.example/plain/path stays"),
        ('{"access_token": "abc", "n": 4}', '{"access_token": ***, "n": 4}'),
        ("password=abc, user=me", "password=***, user=me"),
        ("12 tokens of text", "12 tokens of text"),
    ],
)
def test_what_may_be_a_secret_is_hidden_and_no_more(text: str, hidden: str) -> None:
    assert Redaction([]).hidden(text) == hidden


def test_the_sensor_reports_runs_that_fail_after_it_was_switched_on(tmp_path: Path) -> None:
    folder = tmp_path / "dagster"
    folder.mkdir()
    sensor = failure_sensor(Settings(home=str(tmp_path / "home")))
    store = StoreResource(root=str(tmp_path / "home"))
    quiet = {"telemetry": {"enabled": False}}
    cursor: str | None = None
    runs: list[dg.ExecuteInProcessResult] = []
    with dg.DagsterInstance.local_temp(str(folder), overrides=quiet) as instance:
        for _ in range(2):
            with dg.build_sensor_context(
                instance=instance, cursor=cursor, resources={"store": store}
            ) as context:
                cursor = sensor.evaluate_tick(context).cursor
            if not runs:
                runs = [dg.materialize([broken], instance=instance, raise_on_error=False)]
    reports = list((tmp_path / "home/reports/failures").iterdir())
    assert [path.name[11:19] for path in reports] == [run.run_id[:8] for run in runs]
