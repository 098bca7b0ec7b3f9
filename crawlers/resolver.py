"""Resolves host names, but never a public name to an address inside: no board is led there."""

import ipaddress
import urllib.request
from collections.abc import Sequence
from urllib.parse import urlsplit

from scrapy.resolver import CachingThreadedResolver
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError

from crawlers.sites import is_loopback


class PublicResolver(CachingThreadedResolver):
    """Scrapy's own resolver, which also sees addresses written as such, with a gate behind it.

    A name of this machine stands for this machine only, every other name for a public address. The
    user's own proxies may lie where they like.
    """

    def __init__(self, reactor: ReactorBase, cache_size: int, timeout: float) -> None:
        super().__init__(reactor, cache_size, timeout)
        self._proxies = _proxy_hosts()

    def getHostByName(  # noqa: N802 - Twisted's name
        self, name: str, timeout: Sequence[int] = ()
    ) -> "Deferred[str]":
        """Returns the address of a name; DNSLookupError where it may not be connected to."""
        found: Deferred[str] = super().getHostByName(name, timeout)
        return found if name in self._proxies else found.addCallback(self._checked, name)

    @staticmethod
    def _checked(address: str, name: str) -> str:
        if not may_stand_for(name, address):
            raise DNSLookupError(f"{name} stands for {address}, which is no public address")
        return address


def may_stand_for(name: str, address: str) -> bool:
    """Tells whether a host name may be connected to at this address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if is_loopback(name):
        return found.is_loopback
    # 224.0.0.0/4 counts as global for Python
    return found.is_global and not found.is_multicast


def _proxy_hosts() -> frozenset[str]:
    urls = (url if "//" in url else f"//{url}" for url in urllib.request.getproxies().values())
    return frozenset(host for url in urls if (host := urlsplit(url).hostname))
