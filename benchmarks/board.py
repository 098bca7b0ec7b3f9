"""The loopback board of a benchmark, as a process of its own: `python -m benchmarks.board`.

Its posts have distinct, decodable JPEGs, made from a few pictures in a moment.
"""

import argparse
import asyncio
import io
import signal
import struct
import sys

import numpy as np
from aiohttp import web
from PIL import Image

from demo.board import Board, Handler, start
from demo.collection import EPOCH_S, Collection, Entry, by_kind, md5_of

VARIETIES = 24  # pictures that differ; the rest repeat their pixels under another comment
_QUALITY = 85
_TAGS = by_kind(
    general=(
        *(
            "1girl",
            "solo",
            "long_hair",
            "blue_eyes",
            "smile",
            "hair_ornament",
            "ribbon",
            "upper_body",
        ),
        *(
            "looking_at_viewer",
            "blush",
            "closed_mouth",
            "white_shirt",
            "bangs",
            "simple_background",
        ),
    ),
    artist=("benchmark",),
    copyright=("original",),
    meta=("highres",),
)


class Pictures:
    """The bytes of a collection: one of VARIETIES pictures, and the post's name as a comment.

    The comment gives every post another md5 and sha256 while the pixels cost what they cost.
    """

    def __init__(self, width: int, height: int) -> None:
        self._bases = [_jpeg(width, height, seed) for seed in range(VARIETIES)]

    def read(self, name: str) -> bytes:
        """Returns the file of the post whose number is `name`."""
        return _with_comment(self._bases[int(name) % VARIETIES], f"post {name}")


def made_collection(posts: int, width: int, height: int) -> Collection:
    """Returns `posts` ordinary posts (safe, solo, none refused) of `width` x `height` px."""
    pictures = Pictures(width, height)
    entries = []
    for post_id in range(1, posts + 1):
        body = pictures.read(str(post_id))
        entries.append(
            Entry(
                post_id=post_id,
                body=str(post_id),
                md5=md5_of(body),
                ext="jpg",
                size_bytes=len(body),
                width=width,
                height=height,
                rating="g",
                tags=_TAGS,
                created_at=float(EPOCH_S - posts + post_id),
                updated_at=float(EPOCH_S - posts + post_id),
            )
        )
    return Collection(entries, pictures)


def _jpeg(width: int, height: int, seed: int) -> bytes:
    """Returns a soft, coloured picture with a little grain, as a drawing has it."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 32 + 2, width // 32 + 2, 3), dtype=np.uint8)
    soft = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    grain = random.normal(0.0, 4.0, (height, width, 1))
    grained = np.clip(np.asarray(soft, np.float32) + grain, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grained).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _with_comment(jpeg: bytes, text: str) -> bytes:
    """Returns a JPEG with a comment segment behind its start marker."""
    comment = text.encode()
    return jpeg[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + jpeg[2:]


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
