"""The loopback board of a benchmark, as a process of its own: `python -m benchmarks.board`."""

import argparse
import asyncio
import signal
import sys

from benchmarks.pictures import made_collection
from demo.board import Board, start
from demo.collection import Collection


def main() -> int:
    """Serves made posts until SIGTERM; the only line on stdout is the board's address."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.board", description=__doc__)
    parser.add_argument("--posts", type=int, required=True, metavar="N", help="posts to serve")
    parser.add_argument("--width", type=int, required=True, metavar="PX", help="of each picture")
    parser.add_argument("--height", type=int, required=True, metavar="PX", help="of each picture")
    options = parser.parse_args()
    asyncio.run(_serve(made_collection(options.posts, options.width, options.height)))
    return 0


async def _serve(collection: Collection) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    board = Board()
    board.open(collection)
    runner, url = await start(board, "127.0.0.1", 0)
    print(url, flush=True)
    try:
        await stopping.wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    sys.exit(main())
