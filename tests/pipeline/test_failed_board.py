"""A board that fails stops no other one, and fails its run for all to see."""

import dataclasses
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.crawl import IN_TERMINAL, RETRIES
from assets.resources import ChildProcess
from dataset.store import Store
from pipeline.automation.failures import report
from pipeline.build import build_defs
from pipeline.demo import was_interrupted
from pipeline.settings import read_settings
from tests.pipeline.test_stored_home import ARCHIVE

COUNTS = {
    "seen": 3, "kept": 2, "refused": {}, "put_off": 0, "quarantined": 0, "bytes": 9, "seconds": 1.0,
    "rechecked": {"requests": 0}, "api_requests": 1, "media_requests": 2,
}  # fmt: skip
CANCELLED = "by a person"
REFUSED = "konachan answers 403 to https://konachan.net/post.json: it refuses us"


class Boards(ChildProcess):
    """Crawls of boards of which some fail: for each site what its crawl says, "" for success."""

    words: dict[str, str]
    transient: bool = False

    def run(
        self,
        context: dg.AssetExecutionContext | dg.OpExecutionContext,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        processes: int = 1,
    ) -> dict[str, Any]:
        words = self.words.get(arguments[arguments.index("--site") + 1])
        if words == CANCELLED:
            raise dg.DagsterExecutionInterruptedError
        if not words:
            return COUNTS
        raise dg.Failure(words, metadata={"exit_code": 6, "transient": self.transient})


@dataclasses.dataclass
class Refresh:
    """A home of 60 stored posts, whose crawls are those of `Boards`."""

    home: Path
    instance: dg.DagsterInstance

    def run(self, sites: str, child: Boards, **tags: str) -> dg.ExecuteInProcessResult:
        settings = read_settings({"OMOKAGE_HOME": str(self.home), "OMOKAGE_SITES": sites})
        defs = build_defs(settings=settings, resource_overrides={"child": child})
        assets = [dg.AssetKey(["crawl", site]) for site in sites.split(",")]
        return defs.resolve_job_def("everything").execute_in_process(
            asset_selection=[*assets, dg.AssetKey("posts")],
            instance=self.instance,
            tags=tags,
            raise_on_error=False,
        )

    def reported(self, result: dg.ExecuteInProcessResult) -> str:
        settings = read_settings({"OMOKAGE_HOME": str(self.home)})
        store = Store(self.home)
        report(self.instance, store, settings, run=result.dagster_run, words="")
        (path,) = self.home.glob(f"reports/failures/*-{result.run_id[:8]}.md")
        return path.read_text()


@pytest.fixture
def refresh(tmp_path: Path) -> Iterator[Refresh]:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    with dg.DagsterInstance.ephemeral() as instance:
        yield Refresh(tmp_path, instance)


def failed_steps(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """The words of each step that failed."""
    words = {}
    for event in result.all_events:
        if event.is_step_failure and (failure := event.step_failure_data.user_failure_data):
            words[str(event.step_key)] = str(failure.description)
    return words


def test_the_others_posts_are_built_and_the_run_fails_with_the_boards_words(
    refresh: Refresh,
) -> None:
    result = refresh.run("demo,konachan", Boards(words={"konachan": REFUSED}))
    assert not result.success
    assert failed_steps(result) == {"crawl__konachan__answers": REFUSED}
    assert result.asset_materializations_for_node("posts")
    checks = {
        check.asset_key.to_user_string(): (check.passed, check.description, check.blocking)
        for check in result.get_asset_check_evaluations()
        if check.check_name == "answers"
    }
    assert checks == {
        "crawl/demo": (True, "The board answered to the end.", False),
        "crawl/konachan": (False, REFUSED, False),
    }
    (made,) = result.asset_materializations_for_node("crawl__konachan")
    assert made.metadata["failed"].value == REFUSED
    text = refresh.reported(result)
    assert f"**crawl__konachan__answers** (CrawlError):\n\n> {REFUSED}" in text
    assert "*Re-execute*, *All steps*" in text


def test_where_every_board_fails_nothing_is_built(refresh: Refresh) -> None:
    before = (refresh.home / "posts.parquet").stat().st_mtime_ns
    words = {"konachan": REFUSED, "demo": "demo is down"}
    result = refresh.run("demo,konachan", Boards(words=words))
    assert not result.success
    assert failed_steps(result)["posts"] == (
        f"every board failed, so there is nothing new to build:\n  demo is down\n  {REFUSED}"
    )
    assert (refresh.home / "posts.parquet").stat().st_mtime_ns == before


def test_alone_in_its_run_its_crawl_fails_and_can_be_done_again_from_there(
    refresh: Refresh,
) -> None:
    result = refresh.run("konachan", Boards(words={"konachan": REFUSED}))
    assert failed_steps(result) == {"crawl__konachan": REFUSED}
    assert not result.asset_materializations_for_node("crawl__konachan")
    text = refresh.reported(result)
    assert f"**crawl__konachan** (CrawlError):\n\n> {REFUSED}" in text
    assert "*Re-execute*, *From failure*" in text


@pytest.mark.parametrize(
    ("transient", "tags", "retries"),
    [(True, {}, RETRIES.max_retries), (False, {}, 0), (True, {IN_TERMINAL: "true"}, 0)],
)
def test_only_what_a_wait_may_mend_is_tried_again_where_nobody_waits(
    refresh: Refresh,
    monkeypatch: pytest.MonkeyPatch,
    *,
    transient: bool,
    tags: dict[str, str],
    retries: int,
) -> None:
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda _policy, _attempt: 0.01)
    result = refresh.run(
        "konachan", Boards(words={"konachan": "down"}, transient=transient), **tags
    )
    tried = [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    assert len(tried) == retries
    assert failed_steps(result) == {"crawl__konachan": "down"}


def test_a_crawl_that_is_cancelled_is_not_tried_again(refresh: Refresh) -> None:
    result = refresh.run("demo,konachan", Boards(words={"demo": CANCELLED}, transient=True))
    assert any(map(was_interrupted, result.all_events))
    assert not [one for one in result.all_events if one.event_type_value == "STEP_UP_FOR_RETRY"]
