"""Crawls one site in this process: `python -m crawlers.run --site demo`.

Talks to people on stderr; the last line of stdout, unless it is a terminal, is the summary as
JSON. Started by Dagster (under its Pipes) it reports the same summary, or its error, there. Exit
codes are those of `dataset.errors`; 130 after SIGINT or SIGTERM.
"""

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from scrapy.crawler import AsyncCrawlerProcess, Crawler
from scrapy.settings import Settings

from crawlers import settings as project_settings
from crawlers.cursor import MIN_RECHECKED_POSTS, RECHECK_DAYS, RECHECK_FRAC
from crawlers.ledger import GONE, Ledger
from crawlers.post import NOT_ASKED_FOR, QUARANTINE
from crawlers.sites import site_named
from crawlers.spiders import BoardSpider
from dataset.compute import end_with_parent
from dataset.errors import BoardDownError, OmokageError

INTERRUPTED = 130
STOP_WITHIN_S = 10.0
# What the summary says of posts that were read again, by the names of the spider's counts.
RECHECKED = {"posts": "known", "changed": "changed", "late": "new", "requests": "requests"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Crawls and returns the exit code."""
    options = _options(arguments)
    if options.die_with_parent is not None:
        end_with_parent(options.die_with_parent or None)
    with _pipes() as report:
        try:
            crawl = Crawl(options)
            crawl.run()
        except OmokageError as error:
            print(f"crawl: {error}", file=sys.stderr)
            report({"error": str(error), "transient": isinstance(error, BoardDownError)})
            return error.exit_code
        _say(crawl)
        if not sys.stdout.isatty():  # there, the words are enough
            print(json.dumps(crawl.summary), flush=True)
        if crawl.interrupted:
            report({"error": "the crawl was stopped; the next one goes on from there"})
            return INTERRUPTED
        report({"summary": crawl.summary})
    return 0


class Crawl:
    """One crawl from its options to its summary; `run` may be called once a process."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.site = site_named(options.site, options.sites or None)
        self.interrupted = False
        self.summary: dict[str, Any] = {}
        self.put_off = 0
        self.tags = options.tags
        self.judged_again = 0
        self.shared_tags: list[str] = []  # of all posts that the search did not want
        self.home = ""

    def run(self) -> None:
        """Crawls; raises OmokageError if the crawl could not be done, and fills the summary."""
        process = AsyncCrawlerProcess(_scrapy_settings(self._options.verbose))
        _be_quiet(self._options.verbose)
        crawler = process.create_crawler(self.site.family)
        started = time.monotonic()
        options = self._options
        task = process.crawl(
            crawler,
            site=options.site,
            tags=options.tags,
            limit=options.limit,
            home=options.home,
            sites=options.sites,
            recheck_days=options.recheck_days,
            recheck_frac=options.recheck_frac,
            refetch_missing=options.refetch_missing,
        )
        with self._stop_on_signals(crawler):
            process.start(install_signal_handlers=False)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
        spider = crawler.spider
        assert isinstance(spider, BoardSpider)
        self.home = spider.store.state.root
        self._summarise(crawler, time.monotonic() - started)
        if spider.failure is not None:
            raise spider.failure
        if not self.interrupted:  # then there is a deadline
            with Ledger.of(spider.store, refetch_missing=True) as ledger:
                ledger.back_up_or_say(spider.store)

    def _summarise(self, crawler: Crawler, seconds: float) -> None:
        stats = crawler.stats.get_stats() if crawler.stats else {}
        prefix = "omokage/drop/"
        refused = {
            key.removeprefix(prefix): count
            for key, count in sorted(stats.items())
            if key.startswith(prefix)
        }
        kept, self.put_off = stats.get("omokage/kept", 0), stats.get("omokage/put_off", 0)
        quarantined = stats.get("omokage/quarantined", 0)
        self.judged_again = stats.get("omokage/judged_again", 0)
        self.shared_tags = sorted(stats.get("omokage/shared_tags", ()))
        self.summary = {
            "site": self.site.name,
            "board": self.site.board,
            "seen": kept + sum(refused.values()) + self.put_off + quarantined,
            "kept": kept,
            "refused": refused,
            "put_off": self.put_off,
            "quarantined": quarantined,
            "rechecked": {
                name: stats.get(f"omokage/recheck/{key}", 0) for name, key in RECHECKED.items()
            }
            | {"gone_on_board": refused.get(GONE, 0)},
            "bytes": stats.get("omokage/bytes", 0),
            "seconds": round(seconds, 2),
            "api_requests": stats.get("omokage/api_requests", 0),
            "media_requests": stats.get("omokage/media_requests", 0),
        }
        faults = stats.get("omokage/faults", 0)
        if faults:
            raise BoardDownError(
                f"{faults} posts or pages of {self.site.name} could not be handled; the lines "
                "above say why. The next crawl tries them again"
            )

    @contextlib.contextmanager
    def _stop_on_signals(self, crawler: Crawler) -> Iterator[None]:
        """The first SIGINT or SIGTERM stops cleanly; after it they end the process at once."""

        def stop(_number: int, _frame: FrameType | None) -> None:
            self.interrupted = True
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: os._exit(INTERRUPTED))
            # Whatever hangs: the ledger survives an end at any moment.
            deadline = threading.Timer(STOP_WITHIN_S, os._exit, (INTERRUPTED,))
            deadline.daemon = True
            deadline.start()
            _reactor().callFromThread(request_stop)

        def request_stop() -> None:
            if isinstance(crawler.spider, BoardSpider):
                crawler.spider.stop()
            else:  # the signal came while the crawl was still being set up
                _reactor().callLater(0.05, request_stop)

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _reactor() -> Any:
    from twisted.internet import reactor  # only once Scrapy has chosen which

    return reactor


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m crawlers.run",
        description="Crawls one site of the registry; goes on where the last crawl stopped.",
        epilog='example: python -m crawlers.run --site demo --tags "1girl solo" --limit 500',
    )
    parser.add_argument("--site", required=True, help="name of a site in the registry, as demo")
    parser.add_argument(
        "--tags", default="", metavar="WORDS", help="search words in the board's own language"
    )
    parser.add_argument(
        "--limit", type=_count, default=0, metavar="N", help="new posts to take (default: 0, all)"
    )
    parser.add_argument(
        "--recheck-days",
        type=_count,
        default=RECHECK_DAYS,
        metavar="N",
        help="posts of the last N days are read again, for changes (default: %(default)s)",
    )
    parser.add_argument(
        "--recheck-frac",
        type=_frac,
        default=RECHECK_FRAC,
        metavar="X",
        help="share of the older posts that is read again per day, in turn; at least "
        f"{MIN_RECHECKED_POSTS:,} posts of a search by each crawl, 0: none (default: 1/30)",
    )
    parser.add_argument(
        "--home",
        default="",
        metavar="DIR",
        help="where all is stored (default: OMOKAGE_HOME, ./var)",
    )
    parser.add_argument(
        "--sites", default="", metavar="FILE", help="a site registry of your own, TOML"
    )
    parser.add_argument(
        "--refetch-missing",
        action="store_true",
        help="pictures of this board that are missing under blobs/ are lost: fetch them again",
    )
    parser.add_argument(
        "--die-with-parent",
        type=int,
        nargs="?",
        const=0,
        metavar="PID",
        help="end when the process that started this one has gone",
    )
    parser.add_argument("--verbose", action="store_true", help="show Scrapy's own log")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'"{text}" is not a whole number, 0 or more')
    return int(text)


def _frac(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f'"{text}" is not a number from 0 to 1')
    return value


def _scrapy_settings(verbose: bool) -> Settings:
    settings = Settings()
    settings.setmodule(project_settings, priority="project")
    if verbose:
        settings.set("LOG_LEVEL", "DEBUG", priority="cmdline")
    return settings


def _be_quiet(verbose: bool) -> None:
    if not verbose:
        # What failed is counted and reported by our own code.
        logging.getLogger("crawlers.spiders").setLevel(logging.CRITICAL)
        logging.getLogger("scrapy.pipelines.media").setLevel(logging.CRITICAL)
        logging.getLogger("scrapy.downloadermiddlewares.robotstxt").setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _pipes() -> Iterator[Any]:
    """Yields a function that reports a dict to Dagster, or does nothing without Dagster."""
    if "DAGSTER_PIPES_CONTEXT" not in os.environ:
        yield lambda _message: None
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as context:
        yield context.report_custom_message


def _say(crawl: Crawl) -> None:
    """Tells the summary in words, on stderr."""
    made = crawl.summary
    rate = made["seen"] / max(made["seconds"], 1e-3)
    lines = [
        f"crawl {made['site']}: {made['seen']:,} posts seen, {made['kept']:,} kept, "
        f"{sum(made['refused'].values()):,} refused; {made['bytes'] / 1e6:,.1f} MB in "
        f"{made['seconds']:,.1f} s ({rate:,.0f} posts/s), {made['api_requests']:,} API and "
        f"{made['media_requests']:,} media requests"
    ]
    ranked = sorted(made["refused"].items(), key=lambda pair: (-pair[1], pair[0]))
    if ranked:
        lines.append("  refused: " + ", ".join(f"{reason} {count:,}" for reason, count in ranked))
    again = made["rechecked"]
    if again["requests"]:
        lines.append(
            f"  read again: {again['posts']:,} posts by {again['requests']:,} requests; "
            f"{again['changed']:,} changed, {again['gone_on_board']:,} gone, {again['late']:,} late"
        )
    if made["refused"].get(NOT_ASKED_FOR) and not made["kept"]:
        shared = ", ".join(crawl.shared_tags[:10]) or "none"
        lines.append(
            f'  not_asked_for: no post that the board listed has all words of "{crawl.tags}". If '
            f"one is an alias there, search for the tag it stands for; tags that all have: {shared}"
        )
    if crawl.judged_again:
        lines.append(f"  {crawl.judged_again:,} posts refused before are looked at again")
    if crawl.put_off:
        lines.append(f"  {crawl.put_off:,} pictures could not be fetched now; run again later")
    if made["quarantined"]:
        lines.append(
            f"  {made['quarantined']:,} records cannot be used; {crawl.home}/{QUARANTINE} says why"
        )
    if crawl.interrupted:
        lines.append("  stopped; run the same command again: it goes on where this stopped")
    print("\n".join(lines), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
