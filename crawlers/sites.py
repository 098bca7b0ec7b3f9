"""The site registry: which boards can be crawled, in what dialect, how fast, and from where.

`Secrets` keeps a site's credentials out of what is said: addresses, error messages and log lines.
"""

import dataclasses
import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, quote_plus, urlsplit

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from dataset.errors import ConfigError, listed, nearest
from dataset.policy import TAKEDOWN_FILE, Takedowns, read_takedowns
from dataset.store import Store

DEFAULT_BOARD_URL = "http://127.0.0.1:4650"
BUILT_IN = Path(__file__).with_name("sites.toml")

# The words of each family that mean safe. On Danbooru "s" has meant sensitive since 2022.
SAFE_WORDS = {
    "danbooru": frozenset({"g"}),
    "moebooru": frozenset({"s"}),
    "gelbooru02": frozenset({"general", "safe"}),
}
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_PORTS = {"http": 80, "https": 443}
# No user, blank, control character, backslash, or letter beyond ASCII: programs read those apart.
_PLAIN = re.compile(r"(?i:https?)://[A-Za-z0-9.:\[\]-]+(?:[/?#][\x21-\x5b\x5d-\x7e]*)?")
LEAST_INTERVAL_S = 1.0  # between two API requests, outside loopback
_AtLeastOne = Annotated[int, Field(ge=1)]
_Seconds = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, config=ConfigDict(strict=True))
class Site:
    """A board as a row of data; `sites.toml` says what each field means."""

    name: str
    family: str
    api: str
    media_hosts: tuple[str, ...]
    page_size: _AtLeastOne
    safe_ratings: tuple[str, ...]
    board: str = ""  # "": the site is a board of its own, by its own name
    search: str = ""
    interval_s: _Seconds = 1.0
    media_interval_s: _Seconds = 0.5
    media_at_once: _AtLeastOne = 2
    credentials: Mapping[str, str] = dataclasses.field(default_factory=dict)
    credentials_wanted: bool = False
    robots_exempt: tuple[str, ...] = ()
    robots_why: str = ""
    excluded_tags: tuple[str, ...] = ()
    empty_answers: _AtLeastOne = 1
    hosts: frozenset[str] = frozenset()  # API hosts of all sites of this board, by the registry

    def __post_init__(self) -> None:
        if not self.board:
            object.__setattr__(self, "board", self.name)

    @cached_property
    def api_host(self) -> str:
        """Host of the API, without port."""
        return urlsplit(self.api).hostname or ""

    @cached_property
    def is_loopback(self) -> bool:
        """Whether the board is on this very machine; only then plain http is allowed."""
        return is_loopback(self.api_host)

    @property
    def identity(self) -> str:
        """Which server answers for this site: `family@host`."""
        return _identity(self.family, self.api_host)

    @property
    def identities(self) -> frozenset[str]:
        """The servers of this site's board, as the registry has them; its own is among them."""
        return frozenset(_identity(self.family, host) for host in {self.api_host, *self.hosts})

    def allows(self, url: str) -> bool:
        """Tells whether `url` may be requested: by the API's scheme, on API or media hosts only.

        And only at their ports: the API's own for its host and on loopback, the one that an entry
        of `media_hosts` names ("host:port"), else 443.
        """
        place = _host_and_port(url, self)
        if place is None:
            return False
        host, port = place
        return place == self._api_place or any(
            _host_matches(host, one) and port == (own or self._media_port)
            for one, own in map(_entry, self.media_hosts)
        )

    def is_api(self, url: str) -> bool:
        """Tells whether `url` may be requested and is on the API's own host and port."""
        return _host_and_port(url, self) == self._api_place

    @cached_property
    def _api_place(self) -> tuple[str, int]:
        parts = urlsplit(self.api)
        return self.api_host, parts.port or _PORTS.get(parts.scheme, 0)

    @property
    def _media_port(self) -> int:
        return self._api_place[1] if self.is_loopback else _PORTS["https"]

    def is_exempt_from_robots(self, url: str) -> bool:
        """Tells whether `url` is one of the API paths that the registry names."""
        api, parts = urlsplit(self.api), urlsplit(url)
        if parts.netloc != api.netloc:
            return False
        return parts.path in {f"{api.path}{path}" for path in self.robots_exempt}


def _identity(family: str, host: str) -> str:
    return f"{family}@{'loopback' if is_loopback(host) else host}"


def is_loopback(host: str) -> bool:
    """Tells whether a host is this machine: localhost or an address of the loopback network."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_sites(path: str | os.PathLike[str] | None = None) -> dict[str, Site]:
    """Returns the sites of the built-in registry, changed and added to by the TOML file `path`.

    Raises ConfigError with every fault of the file: site, key, what is there, what is wanted.
    """
    rows = _read(BUILT_IN)
    where = BUILT_IN
    if path is not None:
        where = Path(path)
        for name, row in _read(where).items():
            rows[name] = {**rows.get(name, {}), **row}
    faults: list[str] = []
    sites = {}
    for name, row in rows.items():
        site, found = _site(name, row)
        faults += found
        if site is not None:
            sites[name] = site
    faults = faults or _faults_of_boards(sites)
    if faults:
        raise ConfigError(f"{where} is not a site registry:\n{listed(faults)}")
    boards: dict[str, list[Site]] = {}
    for site in sites.values():
        boards.setdefault(site.board, []).append(site)
    return {
        name: dataclasses.replace(
            site,
            hosts=frozenset(one.api_host for one in boards[site.board]),
            # What one site fetched, the build would drop for the other.
            excluded_tags=tuple(
                dict.fromkeys(tag for one in boards[site.board] for tag in one.excluded_tags)
            ),
        )
        for name, site in sites.items()
    }


def board_names(sites: Mapping[str, Site]) -> dict[str, str]:
    """Returns the board of every name that a user may write: of sites, and of boards themselves."""
    boards = {site.board: site.board for site in sites.values()}
    return boards | {name: site.board for name, site in sites.items()}


def site_named(name: str, path: str | os.PathLike[str] | None = None) -> Site:
    """Returns one site; raises ConfigError, with the nearest right name, for an unknown one."""
    sites = load_sites(path)
    if name not in sites:
        hint = nearest(name, sites) or f"; known are {', '.join(sites)}"
        raise ConfigError(f'"{name}" is not a site of the registry{hint}')
    return sites[name]


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from error
    for name, row in rows.items():
        if not isinstance(row, dict):
            raise ConfigError(f"{path}: {name} is {_kind(row)}, a table [{name}] of a site wanted")
    return rows


_KEYS = [it.name for it in dataclasses.fields(Site) if it.name not in ("name", "hosts")]
# What is wanted where pydantic finds something else, by the type of its error.
_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list of texts",
    "dict_type": "a table of texts",
}


def _site(name: str, row: Mapping[str, Any]) -> tuple[Site | None, list[str]]:
    """Returns a site, or a sentence for every unknown, missing, ill-typed or forbidden value."""
    faults = {
        key: f'[{name}] "{key}" is not a key of a site{nearest(key, _KEYS)}'
        for key in row
        if key not in _KEYS
    }
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in row.items()
        if key in _KEYS
    }
    try:
        site = Site(name=name, **values)
    except ValidationError as error:
        for found in error.errors(include_url=False):
            key = str(found["loc"][0])
            faults.setdefault(key, f"[{name}] {_fault(key, row.get(key), found)}")
    if faults:
        return None, list(faults.values())
    board = os.environ.get("OMOKAGE_BOARD_URL") or DEFAULT_BOARD_URL
    api = site.api.replace("${OMOKAGE_BOARD_URL}", board.rstrip("/")).rstrip("/")
    site = dataclasses.replace(site, api=api)
    return site, _forbidden(site)


def _fault(key: str, value: Any, found: Mapping[str, Any]) -> str:
    """Says what pydantic found in a key: it is missing, too small, or of another type."""
    if found["type"] == "missing":
        return f"{key} is missing"
    if found["type"] == "greater_than_equal":
        return f"{key} is {value:g}; at least {found['ctx']['ge']:g} wanted"
    type_of_all = "tuple_type" if isinstance(value, list) else "dict_type"
    wanted = _WANTED[type_of_all if len(found["loc"]) > 1 else found["type"]]
    return f"{key} is {_kind(value)}, {wanted} wanted"


def _faults_of_boards(sites: Mapping[str, Site]) -> list[str]:
    """Returns a sentence for every site that cannot share its board with the sites before it."""
    faults = []
    first: dict[str, Site] = {}
    for site in sites.values():
        other = first.setdefault(site.board, site)
        if other.family != site.family:
            faults.append(
                f'[{site.name}] board is "{site.board}", which is a {other.family} board in '
                f"[{other.name}]; {site.family} here: sites of one board have one family"
            )
        # A site's own name must not mean another board: a takedown entry could name either.
        if site.board != site.name and site.name in {one.board for one in sites.values()}:
            faults.append(
                f'[{site.name}] board is "{site.board}", but "{site.name}" is the board of '
                "another site; name that board otherwise"
            )
    return faults


def _forbidden(site: Site) -> list[str]:
    where = f"[{site.name}]"
    if not _NAME.fullmatch(site.name):
        return [f"{where} is no name: small letters, digits and _ wanted"]
    if not _NAME.fullmatch(site.board):
        return [f'{where} board is "{site.board}"; small letters, digits and _ wanted']
    if site.family not in SAFE_WORDS:
        return [
            f'{where} family is "{site.family}"; one of {", ".join(SAFE_WORDS)} wanted'
            f"{nearest(site.family, SAFE_WORDS)}"
        ]
    faults = []
    for word in site.safe_ratings:
        if word not in SAFE_WORDS[site.family]:
            safe = ", ".join(sorted(SAFE_WORDS[site.family]))
            faults.append(
                f'{where} safe_ratings has "{word}"; on {site.family} only {safe} is safe'
            )
    scheme = urlsplit(site.api).scheme
    if not site.api_host or scheme not in ("https", "http"):
        faults.append(
            f'{where} api is "{site.api}"; an address such as https://board.example wanted'
        )
    elif scheme == "http" and not site.is_loopback:
        faults.append(f'{where} api is "{site.api}"; https wanted, http is for loopback only')
    if not site.is_loopback and site.interval_s < LEAST_INTERVAL_S:
        faults.append(
            f"{where} interval_s is {site.interval_s:g}; at least {LEAST_INTERVAL_S:g} wanted"
        )
    return faults


def _kind(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})"


def _host_and_port(url: str, site: Site) -> tuple[str, int] | None:
    """Returns host and port of a plain address of the site's scheme, else None.

    The scheme is https, and http only where a board on this machine speaks it.
    """
    if not _PLAIN.fullmatch(url):
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # a port out of range, or half an IPv6 address
        return None
    if parts.scheme != urlsplit(site.api).scheme:
        return None
    if parts.scheme == "http" and not (site.is_loopback and is_loopback(host)):
        return None
    return host, _PORTS[parts.scheme] if port is None else port


def _entry(text: str) -> tuple[str, int | None]:
    """Reads an entry of media_hosts: a host, or host:port; ::1 is a host."""
    host, _, port = text.rpartition(":")
    return (host, int(port)) if ":" not in host and host and port.isdecimal() else (text, None)


def _host_matches(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    return host == pattern


def board_takedowns(
    store: Store, names: Mapping[str, str], *, crawled: Iterable[str] = ()
) -> Takedowns:
    """Reads the takedown list of a home, with every post under its board.

    names: the board of each name of a site or board (`sites.board_names`); crawled: boards that
    the ledger has besides. Raises ConfigError for a name that is neither: a slip of the pen must
    not leave a picture where it is.
    """
    takedowns = read_takedowns(store)
    boards = {**{board: board for board in crawled}, **names}
    faults = [
        f'post {name}/{number}: "{name}" is no site of the registry and no board of the ledger'
        f"{nearest(name, boards)}"
        for name, number in sorted(takedowns.posts)
        if name not in boards
    ]
    if faults:
        raise ConfigError(f"{store.url(TAKEDOWN_FILE)} is not a takedown list:\n{listed(faults)}")
    posts = frozenset((boards[name], number) for name, number in takedowns.posts)
    return dataclasses.replace(takedowns, posts=posts)


HIDDEN = "***"
LEAST_LETTERS = 6  # a shorter value is hidden only behind its parameter's name
# As a board's JSON may hold a value that it repeats: PHP writes \/ for a slash.
_AS_JSON = (
    lambda value: json.dumps(value)[1:-1],
    lambda value: json.dumps(value, ensure_ascii=False)[1:-1],
    lambda value: json.dumps(value)[1:-1].replace("/", "\\/"),
)


class Secrets:
    """The values of a site's credentials, as they stand in the environment now."""

    def __init__(self, site: Site) -> None:
        names = "|".join(re.escape(name) for name in sorted(site.credentials))
        values = [os.environ.get(variable, "") for variable in site.credentials.values()]
        spelt = {way(value) for value in values for way in (str, quote, quote_plus, *_AS_JSON)}
        found = [re.escape(value) for value in spelt if len(value) >= LEAST_LETTERS]
        found.sort(key=len, reverse=True)
        mark = r"""(=|\\?["']\s*:\s*\\?["']?)"""  # of a query, or of JSON
        self._named = re.compile(rf"\b({names}){mark}[^&\s\"'<>#:,}}]*") if names else None
        self._values = re.compile("|".join(found)) if found else None

    def hidden(self, text: str) -> str:
        """Returns a text with the credentials in it replaced by ***."""
        if self._values is not None:
            text = self._values.sub(HIDDEN, text)
        return self._named.sub(rf"\1\2{HIDDEN}", text) if self._named is not None else text
