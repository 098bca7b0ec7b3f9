"""The demo board: an HTTP server on loopback, and its command line `python -m demo.board`."""

from __future__ import annotations

import argparse
import asyncio
import errno
import ipaddress
import signal
import sys
import threading
import time
import zipfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware
from tqdm import tqdm

from demo import media, pages
from demo.api import danbooru, gelbooru02, moebooru
from demo.api.search import RefusedError, as_int
from demo.collection import Collection, CollectionError, md5_of
from demo.drawn import drawn_collection
from demo.fault_injection import (
    DEFAULT_IN_A_ROW,
    KINDS,
    FaultPlan,
    FaultPlanError,
    Faults,
    read_rates,
)
from demo.media import DerivedPictures
from demo.pictures import pictures_collection

DEFAULT_PORT = 4650
DEFAULT_COUNT = 2200
_ROBOTS = "User-agent: *\nDisallow: /*.json\nDisallow: /*/index.php\nAllow: /\n"
_PROGRESS_EVERY_S = 2.0
_RETRY_AFTER_S = 5  # while the board draws

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Build = Callable[[Callable[[int, int], None]], Collection]


class Board:
    """The state of the server: the collection once it is complete, and the drawing's progress.

    `faults` are counted at /health; they act only if their middleware is passed to the app.
    edit_rate: share of the posts that is edited when the board opens and upon each POST to /edits.
    """

    def __init__(
        self, faults: Faults | None = None, *, edit_rate: float = 0.0, seed: int = 0
    ) -> None:
        self.faults = faults
        self.edit_rate = edit_rate
        self.edits = 0
        self._seed = seed
        self.drawn = 0
        self.total = 0
        self._collection: Collection | None = None
        self._derived: DerivedPictures | None = None

    @property
    def ready(self) -> bool:
        """Whether the collection is complete."""
        return self._collection is not None

    @property
    def collection(self) -> Collection:
        """The collection; raises RuntimeError before it is complete."""
        if self._collection is None:
            raise RuntimeError("the board's collection is still being drawn")
        return self._collection

    @property
    def derived(self) -> DerivedPictures:
        """The collection's thumbnails and samples; raises RuntimeError before it is complete."""
        if self._derived is None:
            raise RuntimeError("the board's collection is still being drawn")
        return self._derived

    def open(self, collection: Collection) -> None:
        """Serves the collection from now on."""
        self.drawn = self.total = len(collection)
        self._derived = DerivedPictures(collection)
        self._collection = collection

    def edit(self) -> None:
        """Serves the collection as it is after the next edits."""
        self.edits += 1
        self.open(self.collection.edited(self.edit_rate, seed=f"{self._seed} {self.edits}"))


BOARD = web.AppKey("board", Board)


def create_app(board: Board, middlewares: Sequence[Middleware] = ()) -> web.Application:
    """The board's application. `middlewares` are outermost."""
    app = web.Application(middlewares=[*middlewares, _only_when_ready])
    app[BOARD] = board
    app.add_routes(
        [
            web.get("/", _index),
            web.get("/health", _health),
            web.post("/edits", _edit),
            web.get("/robots.txt", _robots),
            web.get(r"/posts/{post_id:[0-9]{1,18}}", _post_page),
            web.get(r"/danbooru/posts/{post_id:[0-9]{1,18}}", _to_post_page),
            web.get(r"/moebooru/post/show/{post_id:[0-9]{1,18}}", _to_post_page),
            web.get("/danbooru/posts.json", _danbooru_posts),
            web.get(r"/danbooru/posts/{post_id:[0-9]{1,18}}.json", _danbooru_post),
            web.get("/danbooru/tags.json", _danbooru_tags),
            web.get("/danbooru/counts/posts.json", _danbooru_count),
            web.get("/moebooru/post.json", _moebooru_posts),
            web.get("/moebooru/tag.json", _moebooru_tags),
            web.get("/gelbooru/index.php", _safebooru),
            web.get("/gelbooru_com/index.php", _gelbooru),
            web.get("/media/{path:.+}", _media),
        ]
    )
    return app


@web.middleware
async def _only_when_ready(request: web.Request, handler: Handler) -> web.StreamResponse:
    board = request.app[BOARD]
    if not board.ready and request.path not in ("/health", "/robots.txt"):
        raise web.HTTPServiceUnavailable(
            headers={"Retry-After": str(_RETRY_AFTER_S)},
            text=f"The board is still drawing: {board.drawn:,} of {board.total:,} pictures.\n",
        )
    try:
        return await handler(request)
    except RefusedError as refused:
        return web.json_response(refused.body, status=refused.status)


async def _health(request: web.Request) -> web.Response:
    board = request.app[BOARD]
    state: dict[str, Any] = {"drawn": board.drawn, "total": board.total, "ready": board.ready}
    if board.faults is not None:
        state["faults"] = {kind: board.faults.injected[kind] for kind in KINDS}
    return web.json_response(state)


async def _edit(request: web.Request) -> web.Response:
    board = request.app[BOARD]
    if not board.edit_rate:
        raise web.HTTPNotFound(text="Nothing is edited here; start the board with --edits.\n")
    board.edit()
    return web.json_response({"edits": board.edits, "posts": len(board.collection)})


async def _robots(_: web.Request) -> web.Response:
    return web.Response(text=_ROBOTS)


async def _index(request: web.Request) -> web.Response:
    number = max(as_int(request.query.get("page"), 1), 1)
    text = pages.index(request.app[BOARD].collection, request.query.get("tags", ""), number)
    return web.Response(text=text, content_type="text/html")


async def _post_page(request: web.Request) -> web.Response:
    entry = request.app[BOARD].collection.by_id(int(request.match_info["post_id"]))
    if entry is None:
        raise web.HTTPNotFound(text="No post has this id.\n")
    return web.Response(text=pages.post(entry), content_type="text/html")


async def _to_post_page(request: web.Request) -> web.Response:
    raise web.HTTPFound(f"/posts/{request.match_info['post_id']}")


def _cdn(request: web.Request) -> str:
    return f"{request.scheme}://{request.host}/media"


async def _danbooru_posts(request: web.Request) -> web.Response:
    collection = request.app[BOARD].collection
    return web.json_response(danbooru.posts(collection, request.query, _cdn(request)))


async def _danbooru_post(request: web.Request) -> web.Response:
    post_id = int(request.match_info["post_id"])
    collection = request.app[BOARD].collection
    return web.json_response(
        danbooru.one_post(collection, post_id, request.query, cdn=_cdn(request))
    )


async def _danbooru_tags(request: web.Request) -> web.Response:
    return web.json_response(danbooru.tags(request.app[BOARD].collection, request.query))


async def _danbooru_count(request: web.Request) -> web.Response:
    return web.json_response(danbooru.count(request.app[BOARD].collection, request.query))


async def _moebooru_posts(request: web.Request) -> web.Response:
    board = request.app[BOARD]
    # In a thread: the sizes of a page's jpegs are known only once they are made.
    records = await asyncio.to_thread(
        moebooru.posts,
        board.collection,
        dict(request.query),
        _cdn(request),
        size_of=board.derived.size_bytes,
    )
    return web.json_response(records)


async def _moebooru_tags(request: web.Request) -> web.Response:
    return web.json_response(moebooru.tags(request.app[BOARD].collection, request.query))


async def _safebooru(request: web.Request) -> web.Response:
    return _dapi(request, com=False)


async def _gelbooru(request: web.Request) -> web.Response:
    return _dapi(request, com=True)


def _dapi(request: web.Request, *, com: bool) -> web.Response:
    """Serves page=dapi in the style of gelbooru.com or, without `com`, of safebooru.org."""
    collection, query, cdn = request.app[BOARD].collection, request.query, _cdn(request)
    _check_dapi(request)
    if com:
        gelbooru02.check_key(query)
    as_json = query.get("json") == "1"
    if query.get("s") == "tag":
        tags, attributes = gelbooru02.find_tags(collection, query)
        if com and as_json:  # safebooru.org serves tags as XML only
            return web.json_response(gelbooru02.tags_json(tags, attributes))
        return _xml(gelbooru02.tags_xml(tags))
    if query.get("deleted") == "show":
        return _xml(gelbooru02.deleted_xml(collection, query))
    entries, attributes = gelbooru02.find(collection, query)
    if not as_json:
        write = gelbooru02.gelbooru_xml if com else gelbooru02.safebooru_xml
        return _xml(write(entries, attributes, cdn))
    if com:
        return web.json_response(gelbooru02.gelbooru_json(entries, attributes, cdn))
    return web.json_response(gelbooru02.safebooru_json(entries, cdn))


def _check_dapi(request: web.Request) -> None:
    query = request.query
    if query.get("page") == "post" and query.get("s") == "view":
        raise web.HTTPFound(f"/posts/{as_int(query.get('id'), 0)}")
    if query.get("page") != "dapi" or query.get("s") not in ("post", "tag"):
        raise web.HTTPNotFound(text="Only page=dapi with s=post or s=tag is served here.\n")


def _xml(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/xml", charset="utf-8")


async def _media(request: web.Request) -> web.Response:
    board = request.app[BOARD]
    file = media.find(board.collection, request.match_info["path"])
    if file is None:
        raise web.HTTPNotFound(text="No picture of this board has this address.\n")
    try:
        if file.shape is None:
            body = await asyncio.to_thread(board.collection.read, file.entry)
        elif file.shape == media.FILM:
            body = await asyncio.to_thread(board.collection.read_film, file.entry)
        else:
            body = await asyncio.to_thread(board.derived.get, file.entry, file.shape)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        print(f"board: {file.entry.body} can no longer be read: {error}", file=sys.stderr)
        raise web.HTTPInternalServerError(text="The file can no longer be read.\n") from error
    headers = {"Content-Type": file.content_type, "Cache-Control": "public, max-age=86400"}
    response = web.Response(body=body, headers=headers)
    response.etag = md5_of(body)
    if request.if_none_match and any(
        tag.value in ("*", md5_of(body)) for tag in request.if_none_match
    ):
        return web.Response(status=304, headers={"ETag": response.headers["ETag"]})
    return response


async def start(
    board: Board, host: str, port: int, *, middlewares: Sequence[Middleware] = ()
) -> tuple[web.AppRunner, str]:
    """Starts listening; returns the runner (to be cleaned up) and the board's URL.

    Port 0 selects a free one. Raises OSError if the port is in use.
    """
    # aiohttp's signal handlers are off: the caller decides when the board ends.
    runner = web.AppRunner(
        create_app(board, middlewares), handle_signals=False, access_log=None, shutdown_timeout=2.0
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    bound_host, bound_port = runner.addresses[0][:2]
    shown_host = f"[{bound_host}]" if ":" in bound_host else bound_host
    return runner, f"http://{shown_host}:{bound_port}"


async def serve(build: Build, host: str, port: int, *, board: Board) -> None:
    """Listens at once, builds the collection in the background, ends on SIGINT or SIGTERM."""
    faults, stopping = board.faults, asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    middlewares = [faults.middleware] if faults else []
    runner, url = await start(board, host, port, middlewares=middlewares)
    progress = _Progress(board)
    building = asyncio.ensure_future(asyncio.to_thread(build, progress))
    waiting = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait((building, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not building.done():
            progress.stop()
            await asyncio.wait((building,))
        progress.close()
        if stopping.is_set() and isinstance(building.exception(), InterruptedError):
            return
        _open(board, building.result(), url)
        await waiting
    finally:
        waiting.cancel()
        await runner.cleanup()


def _open(board: Board, collection: Collection, url: str) -> None:
    for warning in collection.warnings:
        print(f"board: warning: {warning}", file=sys.stderr)
    if collection.warnings:
        print(f"board: {len(collection.warnings):,} picture(s) left out", file=sys.stderr)
    board.open(collection)
    if board.edit_rate:
        board.edit()
    print(f"board ready at {url} ({len(collection):,} posts)", flush=True)


class _Progress:
    """Reports the drawing's progress to /health and the terminal, and can stop it."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._stopping = threading.Event()
        self._bar: tqdm[Any] | None = None
        self._printed_at = 0.0

    def __call__(self, done: int, total: int) -> None:
        self._board.drawn, self._board.total = done, total
        if self._stopping.is_set():
            raise InterruptedError("stopped; finished pictures are kept")
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = tqdm(total=total, unit="picture", desc="board", file=sys.stderr)
            self._bar.update(done - self._bar.n)
        elif done < total and time.monotonic() - self._printed_at >= _PROGRESS_EVERY_S:
            self._printed_at = time.monotonic()
            print(f"board: {done:,} of {total:,} pictures", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Makes the next call raise InterruptedError in the drawing thread."""
        self._stopping.set()

    def close(self) -> None:
        """Closes the progress bar."""
        if self._bar is not None:
            self._bar.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    if not _is_loopback(options.host):
        return _fail(f"--host {options.host} is not a loopback address; the board serves only them")
    has_seed = options.seed is not None and not options.edits
    if options.pictures and (options.count is not None or has_seed):
        return _fail("--count and --seed are for drawn pictures; leave them out with --pictures")
    try:
        faults = _faults(options)
    except FaultPlanError as error:
        return _fail(f"--faults: {error}")

    def build(on_progress: Callable[[int, int], None]) -> Collection:
        if options.pictures:
            return pictures_collection(options.pictures, options.folder, on_progress=on_progress)
        return drawn_collection(
            options.folder,
            DEFAULT_COUNT if options.count is None else options.count,
            options.seed or 0,
            workers=options.workers,
            on_progress=on_progress,
        )

    try:
        board = Board(faults, edit_rate=options.edits, seed=options.seed or 0)
        asyncio.run(serve(build, options.host, options.port, board=board))
    except CollectionError as error:
        return _fail(str(error), error.exit_code)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _fail(
                f"port {options.port} is taken; give another with --port (0: any free one)"
            )
        return _fail(str(error), 1)
    return 0


def _faults(options: argparse.Namespace) -> Faults | None:
    if options.faults is None:
        return None
    rates = read_rates(options.faults)
    return Faults(FaultPlan(rates, seed=options.fault_seed, in_a_row=options.faults_in_a_row))


def _fail(message: str, exit_code: int = 2) -> int:
    print(f"board: {message}", file=sys.stderr)
    return exit_code


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; 0 to 65535 are")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0.0 <= rate <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate from 0 to 1")
    return rate


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo.board",
        description="Serves one collection of pictures on this machine, in the Danbooru, Moebooru\n"
        "and Gelbooru dialects: its own drawings, or yours.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="kinds of faults:\n"
        + "\n".join(f"  {kind:<10} {meaning}" for kind, meaning in KINDS.items())
        + "\n\nexamples:\n  python -m demo.board --folder var/board --count 200\n"
        "  python -m demo.board --faults throttle=0.05,reset=0.02 --fault-seed 7\n"
        "  python -m demo.board --edits 0.1 --seed 7; curl -X POST http://127.0.0.1:4650/edits",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("var/board"),
        metavar="DIR",
        help="folder of drawings and indexes (default: %(default)s)",
    )
    parser.add_argument(
        "--count",
        type=_positive,
        metavar="N",
        help=f"posts to draw (default: {DEFAULT_COUNT}; some 9 in 10 are ordinary ones)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        metavar="S",
        help="another seed draws other pictures and edits other posts (default: 0)",
    )
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="PATH",
        help="serve your own folder or zip with a tags.csv (columns: file, then tags) instead",
    )
    parser.add_argument(
        "--workers",
        type=_positive,
        metavar="N",
        help="painting processes (default: one per core, at most 8)",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=DEFAULT_PORT,
        help="port to listen at, 0 for any free one (default: %(default)s)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="loopback address to listen at (default: %(default)s)"
    )
    parser.add_argument(
        "--faults",
        metavar="RATES",
        help="answer wrongly now and then, to try a crawler out: shares of the requests by kind, "
        "such as throttle=0.05,reset=0.02, or all=0.2 (counted at /health; default: none)",
    )
    parser.add_argument(
        "--fault-seed",
        type=int,
        default=0,
        metavar="S",
        help="another seed hits other requests (default: %(default)s)",
    )
    parser.add_argument(
        "--faults-in-a-row",
        type=_positive,
        default=DEFAULT_IN_A_ROW,
        metavar="N",
        help="faults of one address in a row, at most (default: %(default)s)",
    )
    parser.add_argument(
        "--edits",
        type=_rate,
        default=0.0,
        metavar="RATE",
        help="share of the posts that is edited at the start, and again upon each POST to /edits: "
        "rated, tagged, deleted or banned anew, removed, restored (default: none)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
