"""The loopback board of a benchmark, as a process of its own: `python -m benchmarks.board`."""

import argparse
import asyncio
import signal
import sys

from aiohttp import web

from benchmarks.pictures import made_collection
from demo.board import Board, Handler, start
from demo.collection import Collection


def main() -> int:
    """Serves made posts until SIGTERM; the only line on stdout is the board's address."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.board", description=__doc__)
    parser.add_argument("--posts", type=int, required=True, metavar="N", help="posts to serve")
    parser.add_argument("--width", type=int, required=True, metavar="PX", help="of each picture")
    parser.add_argument("--height", type=int, required=True, metavar="PX", help="of each picture")
    parser.add_argument(
        "--answer-ms",
        type=float,
        default=0.0,
        metavar="MS",
        help="before each answer, as a line and a server would take them (default: 0)",
    )
    options = parser.parse_args()
    collection = made_collection(options.posts, options.width, options.height)
    asyncio.run(_serve(collection, options.answer_ms / 1000))
    return 0


async def _serve(collection: Collection, answer_s: float) -> None:
    @web.middleware
    async def later(request: web.Request, handler: Handler) -> web.StreamResponse:
        await asyncio.sleep(answer_s)
        return await handler(request)

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    board = Board()
    board.open(collection)
    runner, url = await start(board, "127.0.0.1", 0, middlewares=[later] if answer_s else [])
    print(url, flush=True)
    try:
        await stopping.wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    sys.exit(main())
