"""A board of a few lines for tests of the crawl's manners: canned answers, a log of the requests.

And a way to crawl it in a child process that writes down every connection it makes.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web
from PIL import Image

from tests.board_fixture import served
from tests.crawlers import forkserver

Answer = Callable[[web.Request], web.StreamResponse | None]

# Runs a module with socket's doors watched: each connect, listen and name looked up gets a line.
WATCHED = """
import json, os, runpy, socket, sys
log = open(os.environ["WATCH_LOG"], "a", buffering=1)
lies = json.loads(os.environ["WATCH_LIES"])
def note(kind, value): print(json.dumps([kind, value]), file=log)
plain_connect, plain_connect_ex = socket.socket.connect, socket.socket.connect_ex
plain_listen, plain_name = socket.socket.listen, socket.gethostbyname
def connect(self, address):
    note("connect", address)
    return plain_connect(self, address)
def connect_ex(self, address):
    note("connect", address)
    return plain_connect_ex(self, address)
def listen(self, *backlog):
    note("listen", self.getsockname())
    return plain_listen(self, *backlog)
def gethostbyname(name):
    note("name", name)
    return lies[name] if name in lies else plain_name(name)
socket.socket.connect, socket.socket.connect_ex = connect, connect_ex
socket.socket.listen = listen
socket.gethostbyname = gethostbyname
if "WATCH_FIRST_WAIT_S" in os.environ:
    from crawlers import settings
    settings.FIRST_WAIT_S = float(os.environ["WATCH_FIRST_WAIT_S"])
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def on(start: str, **response: Any) -> Answer:
    """Answers requests whose path begins with `start` by a response of these arguments."""
    return lambda request: web.Response(**response) if request.path.startswith(start) else None


def picture(number: int) -> bytes:
    """A small PNG, another for each number."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (number % 256, number // 256 % 256, 90)).save(file, "PNG")
    return file.getvalue()


@dataclasses.dataclass
class LittleBoard:
    """Posts 1 to `count` with a picture each; `answer` may answer in the board's place."""

    count: int = 3
    answer: Answer = lambda _request: None
    file_urls: dict[int, str] = dataclasses.field(default_factory=dict)  # instead of our own
    url: str = ""
    requests: list[tuple[float, str]] = dataclasses.field(default_factory=list)  # when, path

    @property
    def paths(self) -> list[str]:
        return [path for _moment, path in self.requests]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((time.monotonic(), request.path))
        answered = self.answer(request)
        if answered is not None:
            return answered
        if request.path == "/robots.txt":
            return web.Response(text="User-agent: *\nAllow: /\n")
        if request.path == "/danbooru/counts/posts.json":
            return web.json_response({"counts": {"posts": self.count}})
        if request.path == "/danbooru/posts.json":
            return web.json_response(self._page(request.query))
        if request.path.startswith("/media/"):
            return web.Response(body=picture(int(request.path.split("/")[-1].split(".")[0])))
        raise web.HTTPNotFound

    def _page(self, query: Any) -> list[dict[str, Any]]:
        edge, limit = int(query["page"][1:]), int(query["limit"])
        ids = range(self.count, 0, -1)
        wanted = [n for n in ids if (n > edge if query["page"][0] == "a" else n < edge)]
        return [self._record(number) for number in wanted[:limit]]

    def _record(self, number: int) -> dict[str, Any]:
        return {
            "id": number,
            "md5": hashlib.md5(picture(number), usedforsecurity=False).hexdigest(),
            "file_ext": "png",
            "image_width": 64,
            "image_height": 64,
            "rating": "g",
            "tag_string": "1girl solo",
            "source": "https://source.invalid/never-requested.png",
            "file_url": self.file_urls.get(number, f"{self.url}/media/{number}.png"),
        }


Board = TypeVar("Board", bound=LittleBoard)


@contextlib.contextmanager
def serving(board: Board) -> Iterator[Board]:
    """Serves a little board on loopback until the block ends."""

    async def start() -> tuple[web.AppRunner, str]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", board.handle)
        runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, "http://{}:{}".format(*runner.addresses[0][:2])

    with served(start()) as board.url:
        yield board


@dataclasses.dataclass
class Crawled:
    """What a crawl left: exit code, words, connections made, names looked up, ports opened."""

    code: int
    out: str
    err: str
    connects: list[tuple[str, int]]
    names: list[str]
    listens: list[tuple[str, int]]


@dataclasses.dataclass
class Crawler:
    """Crawls with the doors watched; `home` and `registry` lie in `folder`."""

    folder: Path
    url: str = "http://127.0.0.1:9"
    registry: str = "[demo]\npage_size = 200\n"
    lies: dict[str, str] = dataclasses.field(default_factory=dict)  # name -> address
    variables: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def run(self, *options: str, site: str = "demo") -> Crawled:
        """Runs `crawlers.run`."""
        return self._run(
            "crawlers.run",
            *("--site", site, "--home", str(self.home), "--sites", self._registry(), *options),
        )

    def scrapy(self, **settings: Any) -> Crawled:
        """Runs `scrapy crawl` of the demo site with settings of Scrapy's."""
        given = [word for key, value in settings.items() for word in ("-s", f"{key}={value}")]
        arguments = f"-a site=demo -a home={self.home} -a sites={self._registry()}".split()
        return self._run("scrapy", "crawl", "danbooru", *arguments, *given)

    def _registry(self) -> str:
        file = self.folder / "sites.toml"
        file.write_text(self.registry, encoding="utf-8")
        return str(file)

    def _run(self, *arguments: str) -> Crawled:
        log = self.folder / "watch.log"
        log.write_text("")
        clean = {
            k: v for k, v in os.environ.items() if "OMOKAGE" not in k and "proxy" not in k.lower()
        }
        child = forkserver.start(
            ["-c", WATCHED, *arguments],
            {
                **clean,
                "OMOKAGE_BOARD_URL": self.url,
                "OMOKAGE_PROGRESS": "off",
                "WATCH_LOG": str(log),
                "WATCH_LIES": json.dumps(self.lies),
                **self.variables,
            },
        )
        out, err = child.communicate(timeout=600)
        noted = [json.loads(line) for line in log.read_text().splitlines()]
        return Crawled(
            code=child.wait(),
            out=out,
            err=err,
            connects=[tuple(value[:2]) for kind, value in noted if kind == "connect"],
            names=[value for kind, value in noted if kind == "name"],
            listens=[tuple(value[:2]) for kind, value in noted if kind == "listen"],
        )
