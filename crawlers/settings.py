"""Scrapy's settings: what holds for every crawl, and what a site of the registry adds."""

import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from scrapy.settings import default_settings

from crawlers.sites import Site
from dataset.errors import CrawlError
from dataset.media import MAX_BYTES

BOT_NAME = "omokage"
SPIDER_MODULES = ["crawlers.spiders"]
NEWSPIDER_MODULE = "crawlers.spiders"

ROBOTSTXT_OBEY = True
ROBOTSTXT_USER_AGENT = "Omokage"  # the product's name: what a robots.txt would call us
COOKIES_ENABLED = False
METAREFRESH_ENABLED = False
TELNETCONSOLE_ENABLED = False
REMOTE_CONTROL_ENABLED = False  # a port through which a crawl runs whatever Python it is sent
REFERER_ENABLED = False
LOG_LEVEL = "ERROR"
LOG_FORMAT = "crawl: %(levelname)s %(name)s: %(message)s"

# Only http and https, with a certificate that holds: the address may carry credentials.
DOWNLOAD_HANDLERS = {"data": None, "file": None, "ftp": None, "s3": None}
DOWNLOAD_VERIFY_CERTIFICATES = True
TWISTED_DNS_RESOLVER = "crawlers.middlewares.PublicResolver"

DOWNLOAD_TIMEOUT = 60
DOWNLOAD_MAXSIZE = MAX_BYTES
DOWNLOAD_WARNSIZE = 0
MEDIA_ALLOW_REDIRECTS = True
REDIRECT_MAX_TIMES = 3
FIRST_WAIT_S = 0.5  # before a failed request is retried; doubles each time
RETRY_TIMES = 4  # waits of about 0.5, 1, 2 and 4 s, or what Retry-After asks for
BREAKER_FAILURES = 8  # in a row (5xx, timeouts, broken lines): the host is then left alone,
BREAKER_OPEN_S = 30.0  # so long at first, twice as long after each probe that fails,
BREAKER_OPENINGS = 4  # and after so many times the crawl ends: 30 + 60 + 120 + 240 s in all
CONCURRENT_ITEMS = 100

DOWNLOADER_MIDDLEWARES = {
    "scrapy.downloadermiddlewares.robotstxt.RobotsTxtMiddleware": None,
    "scrapy.downloadermiddlewares.retry.RetryMiddleware": None,
    "scrapy.downloadermiddlewares.httpcompression.HttpCompressionMiddleware": None,
    "scrapy.downloadermiddlewares.redirect.RedirectMiddleware": None,
    "crawlers.middlewares.StopMiddleware": 40,
    "crawlers.middlewares.HostsMiddleware": 50,
    "crawlers.middlewares.RobotsMiddleware": 100,
    "crawlers.retry.RetryMiddleware": 550,
    "crawlers.middlewares.EncodingMiddleware": 590,
    "crawlers.middlewares.RedirectsMiddleware": 600,
    "crawlers.retry.RateLimitMiddleware": 890,  # last before the downloader
}
ITEM_PIPELINES = {
    "crawlers.extensions.PolicyPipeline": 100,
    "crawlers.download.BlobsPipeline": 200,
    "crawlers.extensions.RecorderPipeline": 300,
}
# Scrapy imports what it names there although it is turned off: 0.2 s of every start.
EXTENSIONS_BASE = {
    name: order
    for name, order in default_settings.EXTENSIONS_BASE.items()
    if name.rpartition(".")[2] not in ("RemoteControl", "TelnetConsole")
}
DOWNLOADER_MIDDLEWARES_BASE = {
    name: order
    for name, order in default_settings.DOWNLOADER_MIDDLEWARES_BASE.items()
    if name.rpartition(".")[2] != "CookiesMiddleware"
}
EXTENSIONS = {
    "crawlers.extensions.RedactionExtension": 50,
    "crawlers.extensions.TrafficCounter": 100,
    "crawlers.extensions.ErrorCounter": 150,
    "crawlers.extensions.ProgressBar": 200,
}

LOOPBACK_OPEN_S = 1.0  # BREAKER_OPEN_S of a board on this machine, which nobody else waits for

_AT_ONCE = {"concurrency": 1_000, "delay": 0.0, "jitter": 0.0}


def site_settings(site: Site) -> dict[str, Any]:
    """Returns what a site adds to the settings: our name, no proxy on loopback.

    Raises CrawlError if a real board would be crawled without a contact or without credentials that
    it wants.
    """
    _check_credentials(site)
    return {
        "USER_AGENT": user_agent(site),
        "HTTPPROXY_ENABLED": not site.is_loopback,
        "CONCURRENT_REQUESTS": site.media_at_once + 2,
        "CONCURRENT_REQUESTS_PER_DOMAIN": site.media_at_once,
        # RateLimitMiddleware keeps the rate limit: a request in Scrapy's own queues could not be
        # held back any more.
        "DOWNLOAD_DELAY": 0.0,
        "DOWNLOAD_SLOTS": dict.fromkeys(("api", "media"), _AT_ONCE),
        **({"BREAKER_OPEN_S": LOOPBACK_OPEN_S} if site.is_loopback else {}),
    }


def user_agent(site: Site) -> str:
    """Returns our honest name with a way to reach the person who crawls."""
    contact = " ".join(os.environ.get("OMOKAGE_CONTACT", "").split())
    if not contact and not site.is_loopback:
        raise CrawlError(
            f"{site.name} is a real board, and its keepers must be able to reach you: set "
            "OMOKAGE_CONTACT to an e-mail address or a page of yours"
        )
    if not contact.isascii():
        raise CrawlError("OMOKAGE_CONTACT has letters that a request cannot carry; ASCII wanted")
    return f"Omokage/{_version()} (+{contact or 'demo on this machine'})"


def _version() -> str:
    try:
        return version("omokage")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"


def _check_credentials(site: Site) -> None:
    missing = [name for name in site.credentials.values() if not os.environ.get(name)]
    if site.credentials_wanted and missing:
        raise CrawlError(f"{site.name} answers nobody without a key: set {' and '.join(missing)}")
