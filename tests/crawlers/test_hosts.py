"""Tricks that would lead the crawl off the site's hosts; none makes a single connection."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from twisted.internet import defer
from twisted.internet.error import DNSLookupError

from crawlers.middlewares import PublicResolver, may_stand_for
from crawlers.sites import load_sites
from tests.crawlers.conftest import reasons_of
from tests.crawlers.little_board import Crawler, LittleBoard, on, serving


class Trap:
    """Listens on loopback and counts whoever connects."""

    def __init__(self, address: str) -> None:
        self.caught = 0
        self._socket = socket.create_server((address, 0))
        self.host, self.port = self._socket.getsockname()[:2]
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                visitor, _address = self._socket.accept()
                self.caught += 1
                visitor.close()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def traps() -> Iterator[list[Trap]]:
    """Another port of the board's address, and another address of this machine."""
    made = [Trap("127.0.0.1"), Trap("127.0.0.2")]
    yield made
    for trap in made:
        trap.close()


def tricks(board: str, other_port: int, other: str) -> dict[str, str]:
    """Where a redirect may try to lead, by what is tricky about it."""
    host, port = board.removeprefix("http://").split(":")
    return {
        "another host": f"http://{other}/x.png",
        "another port": f"http://{host}:{other_port}/x.png",
        "no port": f"http://{host}/x.png",
        "https": f"https://{host}:{port}/x.png",
        "a loopback address that is not listed": f"http://127.0.0.2:{port}/x.png",
        "the net at home": "http://10.0.0.1/x.png",
        "the router": f"http://192.168.0.1:{port}/x.png",
        "a cloud's metadata": "http://169.254.169.254/latest/meta-data/",
        "every address": f"http://0.0.0.0:{other_port}/x.png",
        "IPv6 at another port": f"http://[::1]:{other_port}/x.png",
        "IPv4 within IPv6": f"http://[::ffff:127.0.0.1]:{other_port}/x.png",
        "IPv4 within IPv6 at the board's port": f"http://[::ffff:7f00:1]:{port}/x.png",
        "a zone": f"http://[::1%25lo]:{other_port}/x.png",
        "a decimal address": f"http://2130706433:{other_port}/x.png",
        "a decimal address at the board's port": f"http://2130706433:{port}/x.png",
        "a hexadecimal address": f"http://0x7f000001:{port}/x.png",
        "an octal address": f"http://0177.0.0.1:{port}/x.png",
        "a short address": f"http://127.1:{port}/x.png",
        "a user before another host": f"http://{host}:{port}@{other}/x.png",
        "a user before the right host": f"http://somebody:secret@{host}:{port}/x.png",
        "a dot at the end": f"http://localhost.:{other_port}/x.png",
        "a dot at the end of the address": f"http://{host}.:{port}/x.png",
        "capitals": f"HTTP://LOCALHOST:{other_port}/x.png",
        "the host as a prefix": f"http://{host}.evil.test:{port}/x.png",
        "the host as a suffix": f"http://evil-{host}:{port}/x.png",
        "letters that look alike": f"http://lоcalhost:{port}/x.png",
        "punycode": f"http://xn--lcalhost-rbh:{port}/x.png",
        "a full stop from elsewhere": f"http://127。0。0。2:{other_port}/x.png",
        "backslashes": f"http:\\\\{other}\\x.png",
        "a backslash before the at": f"http://{other}\\@{host}:{port}/x.png",
        "no scheme": f"//{other}/x.png",
        "three slashes": f"///{other}/x.png",
        "a tab in the host": f"http://{other[:4]}\t{other[4:]}/x.png",
        "a port beyond all ports": f"http://{host}:99999/x.png",
        "half an IPv6 address": f"http://[::1:{port}/x.png",
        "no host": "http:///x.png",
        "a file": "file:///etc/passwd",
        "ftp": f"ftp://{other}/x.png",
        "data": "data:image/png;base64,iVBORw0KGgo=",
        "a script": f"javascript:location='http://{other}/'",
        "gopher": f"gopher://{other}/x",
    }


NUMBER = 41


def assert_only_the_board_was_met(
    connects: list[tuple[str, int]], board: LittleBoard, traps: list[Trap]
) -> None:
    host, port = board.url.removeprefix("http://").split(":")
    assert set(connects) == {(host, int(port))}
    assert [trap.caught for trap in traps] == [0, 0]


def test_no_redirect_of_a_picture_leads_off_the_hosts(tmp_path: Path, traps: list[Trap]) -> None:
    kinds: list[str] = []
    targets: list[str] = []

    def redirect(request: web.Request) -> web.StreamResponse | None:
        if not request.path.startswith("/media/"):
            return None
        number = int(request.path.split("/")[-1].split(".")[0])
        if number > NUMBER or "once" in request.path:
            target = targets[(number - 1) % NUMBER]
        else:  # first to ourselves, which is allowed, and only then away
            target = f"/media/once/{number}.png"
        # aiohttp would mend the header
        response = web.Response(status=302)
        response.headers["Location"] = target
        return response

    board = LittleBoard(count=2 * NUMBER, answer=redirect)
    with serving(board):
        made = tricks(board.url, traps[0].port, f"{traps[1].host}:{traps[1].port}")
        kinds, targets = list(made), [target.replace("\t", "%09") for target in made.values()]
        assert len(targets) == NUMBER
        crawl = Crawler(tmp_path, url=board.url)
        done = crawl.run()
    assert done.code == 0, done.err
    assert_only_the_board_was_met(done.connects, board, traps)
    assert set(done.names) <= {"127.0.0.1"}
    left = {kinds[(n - 1) % NUMBER]: reason for n, reason in reasons_of(crawl.home).items()}
    assert left.pop("no host") == "gone"  # it leads back to the board
    assert set(left.values()) <= {"host", "status_302"}, left
    assert left["another port"] == "host"


def test_no_address_that_the_api_names_leads_off_the_hosts(
    tmp_path: Path, traps: list[Trap]
) -> None:
    board = LittleBoard()
    with serving(board):
        made = tricks(board.url, traps[0].port, f"{traps[1].host}:{traps[1].port}")
        plain = [
            url
            for url in made.values()
            if url.lower().startswith("http") and "\\" not in url and "[::1:" not in url
        ]
        board.file_urls = dict(enumerate(plain, start=1))
        board.count = len(plain) + 1
        crawl = Crawler(tmp_path, url=board.url)
        done = crawl.run()
    assert len(plain) >= 25
    assert_only_the_board_was_met(done.connects, board, traps)
    assert set(done.names) <= {"127.0.0.1"}
    reasons = reasons_of(crawl.home)
    assert reasons.pop(board.count) is None
    assert set(reasons.values()) == {"host"}, reasons
    assert all(path.startswith(("/danbooru", "/robots", "/media")) for path in board.paths)


@pytest.mark.parametrize("path", ["/danbooru/posts.json", "/robots.txt"])
def test_neither_api_nor_robots_txt_lead_off_the_hosts(
    tmp_path: Path, traps: list[Trap], path: str
) -> None:
    def redirect(request: web.Request) -> web.StreamResponse | None:
        if request.path != path:
            return None
        target = f"http://{traps[1].host}:{traps[1].port}/robots.txt?{request.query_string}"
        return web.Response(status=307, headers={"Location": target})

    with serving(LittleBoard(answer=redirect)) as board:
        done = Crawler(tmp_path, url=board.url).run()
    assert_only_the_board_was_met(done.connects, board, traps)
    assert done.code == (0 if path == "/robots.txt" else 6)
    if done.code:
        assert "is not on the hosts of demo" in done.err


def test_a_redirect_within_a_page_is_not_followed(tmp_path: Path, traps: list[Trap]) -> None:
    url = f"http://{traps[1].host}:{traps[1].port}/"
    text = f'<html><head><meta http-equiv="refresh" content="0; url={url}"></head></html>'
    page = on("/media", text=text, content_type="text/html")
    with serving(LittleBoard(answer=page)) as board:
        crawl = Crawler(tmp_path, url=board.url)
        done = crawl.run()
    assert_only_the_board_was_met(done.connects, board, traps)
    assert len({path for path in board.paths if path.startswith("/media")}) == 3
    assert None not in reasons_of(crawl.home).values()


def test_an_allowed_redirect_is_followed(tmp_path: Path) -> None:
    redirect = on("/media/2.png", status=302, headers={"Location": "/media/moved/2.png"})
    with serving(LittleBoard(answer=redirect)) as board:
        crawl = Crawler(tmp_path, url=board.url)
        done = crawl.run()
    assert done.code == 0, done.err
    assert reasons_of(crawl.home) == {1: None, 2: None, 3: None}


def test_a_crawl_opens_no_port(tmp_path: Path) -> None:
    with serving(LittleBoard()) as board:
        crawl = Crawler(tmp_path, url=board.url)
        for done in (crawl.run(), crawl.scrapy()):
            assert done.connects, done.err
            assert done.listens == []  # neither a console nor a remote control


REBINDING = """
[rebinding]
family = "danbooru"
api = "https://board.example:{port}"
media_hosts = ["board.example"]
page_size = 100
safe_ratings = ["g"]
"""


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.7", "169.254.169.254", "0.0.0.0"])
def test_a_name_that_stands_for_an_address_inside_is_not_connected_to(
    tmp_path: Path, traps: list[Trap], address: str
) -> None:
    crawl = Crawler(
        tmp_path,
        registry=REBINDING.format(port=traps[0].port),
        lies={"board.example": address},
        variables={"OMOKAGE_CONTACT": "me@example.org"},
    )
    done = crawl.run(site="rebinding")
    assert done.code == 6
    assert "rebinding cannot be reached at https://board.example" in done.err
    assert "board.example" in done.names
    assert done.connects == []
    assert [trap.caught for trap in traps] == [0, 0]


INSIDE = (
    "127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 100.64.0.1 169.254.169.254 224.0.0.1 "
    "255.255.255.255 0.0.0.0 ::1 ::ffff:127.0.0.1 fe80::1 fd00::1 nonsense"
)


@pytest.mark.parametrize(
    ("name", "addresses", "may"),
    [
        ("cdn.donmai.us", "104.26.10.1 2606:4700::1", True),
        ("cdn.donmai.us", INSIDE, False),
        ("localhost", "127.0.0.1", True),
        ("localhost", "104.26.10.1", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("10.0.0.1", "10.0.0.1", False),
    ],
)
def test_a_public_name_stands_for_public_addresses_only(
    name: str, addresses: str, may: bool
) -> None:
    assert {one: may_stand_for(name, one) for one in addresses.split()} == dict.fromkeys(
        addresses.split(), may
    )


def test_the_users_own_proxy_may_lie_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.home:3128")
    monkeypatch.setattr(
        "scrapy.resolver.CachingThreadedResolver.getHostByName",
        lambda *_: defer.succeed("10.0.0.1"),
    )
    resolver = PublicResolver(object(), 0, 1.0)  # type: ignore[arg-type]
    found: list[object] = []
    resolver.getHostByName("proxy.home").addCallback(found.append)
    resolver.getHostByName("cdn.donmai.us").addErrback(lambda failure: found.append(failure.value))
    address, error = found
    assert address == "10.0.0.1"
    assert isinstance(error, DNSLookupError)
    assert str(error).endswith("cdn.donmai.us stands for 10.0.0.1, which is no public address.")


@pytest.mark.parametrize(
    ("site", "url", "allowed"),
    [
        ("safebooru_donmai", "https://cdn.donmai.us/original/a.png", True),
        ("safebooru_donmai", "https://cdn.donmai.us:443/a.png?x=1#y", True),
        ("safebooru_donmai", "https://CDN.donmai.us/a.png", True),
        ("safebooru_donmai", "https://cdn.donmai.us", True),
        ("safebooru_donmai", "https://cdn.donmai.us:8443/a.png", False),
        ("safebooru_donmai", "https://safebooru.donmai.us:80/posts.json", False),
        ("safebooru_donmai", "https://cdn.donmai.us:0/a.png", False),
        ("safebooru_donmai", "https://cdn.donmai.us:99999/a.png", False),
        ("safebooru_donmai", "https://cdn.donmai.us./a.png", False),
        ("safebooru_donmai", "https://cdn.donmai.us@evil.test/a.png", False),
        ("safebooru_donmai", "https://me:pw@cdn.donmai.us/a.png", False),
        ("safebooru_donmai", "https://evil.test\\@cdn.donmai.us/a.png", False),
        ("safebooru_donmai", "https://cdn.donmai.us\\.evil.test/a.png", False),
        ("safebooru_donmai", "https://cdn.donmai.us/a\\b.png", False),
        ("safebooru_donmai", "https://evil.test/#@cdn.donmai.us/", False),
        ("safebooru_donmai", "https://cdn.don\tmai.us/a.png", False),
        ("safebooru_donmai", "https://cdn.donmai.us/a\nb.png", False),
        ("safebooru_donmai", " https://cdn.donmai.us/a.png", False),
        ("safebooru_donmai", "//cdn.donmai.us/a.png", False),
        ("safebooru_donmai", "https:/cdn.donmai.us/a.png", False),
        ("safebooru_donmai", "https://cdn.dоnmai.us/a.png", False),
        ("safebooru_donmai", "https://cdn。donmai。us/a.png", False),
        ("safebooru_donmai", "https://xn--cdn-donmai.us/a.png", False),
        ("safebooru_donmai", "https://acdn.donmai.us/a.png", False),
        ("safebooru_donmai", "https://localhost/a.png", False),
        ("safebooru_donmai", "ftp://cdn.donmai.us/a.png", False),
        ("safebooru_donmai", "http://cdn.donmai.us/a.png", False),
        ("safebooru_donmai", "https://cdn.donmai.us.evil.example/a.png", False),
        ("safebooru_donmai", "http://127.0.0.1/a.png", False),
        ("safebooru_donmai", "", False),
        ("gelbooru_com", "https://img4.gelbooru.com/a.png", True),
        ("gelbooru_com", "https://img4.gelbooru.com:444/a.png", False),
        ("gelbooru_com", "https://evilgelbooru.com/a.png", False),
        ("gelbooru_com", "https://.gelbooru.com.evil.test/a.png", False),
        ("demo", "http://127.0.0.1:4650/media/a.png", True),
        ("demo", "http://localhost:4650/media/a.png", True),
        ("demo", "http://[::1]:4650/media/a.png", True),
        ("demo", "http://127.0.0.1/media/a.png", False),
        ("demo", "http://127.0.0.1:22/media/a.png", False),
        ("demo", "http://192.168.0.1/media/a.png", False),
        ("demo", "https://127.0.0.1:4650/media/a.png", False),
    ],
)
def test_the_rule_of_hosts_and_ports(
    monkeypatch: pytest.MonkeyPatch, site: str, url: str, allowed: bool
) -> None:
    monkeypatch.delenv("OMOKAGE_BOARD_URL", raising=False)
    assert load_sites()[site].allows(url) is allowed


def test_an_entry_of_media_hosts_may_name_its_port(tmp_path: Path) -> None:
    file = tmp_path / "sites.toml"
    file.write_text('[konachan]\nmedia_hosts = ["files.example:8443", "*.cdn.example:444"]\n')
    site = load_sites(file)["konachan"]
    assert site.allows("https://files.example:8443/a.png")
    assert site.allows("https://a.cdn.example:444/a.png")
    assert not site.allows("https://files.example/a.png")
    assert not site.allows("https://a.cdn.example/a.png")


def test_credentials_go_to_the_apis_own_host_only() -> None:
    site = load_sites()["gelbooru_com"]
    assert site.is_api("https://gelbooru.com/index.php?page=dapi")
    assert not site.is_api("https://img4.gelbooru.com/index.php")
    assert not site.is_api("https://gelbooru.com:444/index.php")
