"""What would fill the memory is refused; the crawl goes on, under 500 MB all the while."""

import io
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from PIL import Image

from crawlers.ledger import Ledger
from dataset.store import Store
from demo.board import Handler
from demo.collection import Collection, Entry, md5_of
from tests.board_fixture import serve_collection
from tests.crawlers.conftest import QUICK, CrawlOf
from tests.demo.tiny_posts import InMemory, made_entry

pytestmark = pytest.mark.slow

CrawlOfUrl = Callable[[str], CrawlOf]

LIMIT_MB = 500
MANY = 200_000_000  # bytes that a few kB swell to
GIGABYTE = 1_000_000_000
# 8000x5000 px of one colour in 36 bytes: its decoding took 630 MB.
LARGE_WEBP = bytes.fromhex(
    "524946461c000000574542505650384c0f0000002f3fdfe1040710fd8ffe0722a2ff0100"
)


def board_of(files: dict[str, bytes]) -> Collection:
    """Posts in the order of the files, whose names tell their extensions."""
    entries: list[Entry] = []
    for post_id, (name, body) in enumerate(files.items(), start=1):
        ext = name.rpartition(".")[2]
        entries.append(
            made_entry(post_id, body=name, md5=md5_of(body), ext=ext, size_bytes=len(body))
        )
    return Collection(entries, InMemory(files))


def crawl_watched(crawl: CrawlOf) -> tuple[int, str]:
    """Crawls within LIMIT_MB of memory; returns the exit code and what was said."""
    child = crawl.start(cold=True)
    status, peak_kb = Path(f"/proc/{child.pid}/status"), 0
    # Not the peak that `wait4` tells: a child begins with its parent's. Cold for the same reason.
    while child.poll() is None:
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                peak_kb = max(peak_kb, int(line.split()[1]))
        time.sleep(0.01)
    _out, err = child.communicate(timeout=600)
    assert peak_kb / 1000 < LIMIT_MB
    return child.returncode, err


def reasons_of(home: Path, files: dict[str, bytes]) -> dict[str, str | None]:
    names = list(files)
    with Ledger.of(Store(home)) as ledger:
        rows = list(ledger.rows(["demo"]))
    assert all(row.state != "pending" for row in rows)
    return {names[row.post.post_id - 1]: row.reason for row in rows}


def picture(kind: str, *, mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 7).save(file, kind)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def png_of(width: int, height: int, *, before_data: bytes = b"", line: bytes = b"\0\0\0") -> bytes:
    """An RGB picture whose every line has the bytes `line`, compressed without ever being whole.

    The same lines are the same block of the stream again: only the checksum has to see them all.
    """
    rows = min(height, 500)
    assert height % rows == 0
    block = (b"\0" + line * width) * rows
    packer = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    packed = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = 1
    for _ in range(height // rows):
        checksum = zlib.adler32(block, checksum)
    stream = packed * (height // rows) + packer.flush()
    data = b"\x78\x01" + stream + struct.pack(">I", checksum)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    end = chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + before_data + end


def patched(body: bytes, at: int, value: bytes) -> bytes:
    return body[:at] + value + body[at + len(value) :]


def animation(kind: str) -> bytes:
    file = io.BytesIO()
    first, *others = (Image.new("L", (8, 8), number % 256) for number in range(500))
    first.save(file, kind, save_all=True, append_images=others)
    return file.getvalue()


def swollen(prefix: bytes) -> bytes:
    """What a few kB of zlib's format unpack to MANY bytes of."""
    packer = zlib.compressobj(9)
    block = bytes(1_000_000)
    return prefix + b"".join(packer.compress(block) for _ in range(MANY // 10**6)) + packer.flush()


def claims(size: bytes) -> dict[str, bytes]:
    """Pictures of 8x8 px that claim another size, given as two bytes, big end first."""
    jpeg, gif = picture("JPEG"), picture("GIF", mode="L")
    return {
        "claim.jpg": patched(jpeg, jpeg.index(b"\xff\xc0") + 5, size * 2),
        "claim.gif": patched(gif, 6, size[::-1] * 2),
        "claim.png": patched(picture("PNG"), 16, b"\0\0" + size + b"\0\0" + size),
    }


def test_bombs_among_the_pictures_are_refused_and_the_crawl_continues(
    crawl_of: CrawlOfUrl,
) -> None:
    tall = png_of(20_000, 20_000)
    files = {
        "first.png": picture("PNG"),
        **claims((60_000).to_bytes(2, "big")),
        "tall.png": tall,
        "large.webp": LARGE_WEBP,
        "frames.png": animation("PNG"),
        "frames.gif": animation("GIF"),
        "text.png": png_of(8, 8, before_data=chunk(b"zTXt", swollen(b"Comment\0\0"))),
        "profile.png": png_of(8, 8, before_data=chunk(b"iCCP", swollen(b"colours\0\0"))),
        "last.jpg": picture("JPEG"),
    }
    with serve_collection(board_of(files)) as board:
        crawl = crawl_of(board.url)
        code, err = crawl_watched(crawl)
    assert code == 0, err
    found = reasons_of(crawl.home, files)
    claimed = {found.pop("claim.png"), found.pop("claim.jpg"), found.pop("claim.gif")}
    assert claimed <= {"too_many_pixels", "corrupt"}
    assert found == {
        "first.png": None,
        "tall.png": "too_many_pixels",
        "large.webp": "too_many_pixels",
        "frames.png": "animated",
        "frames.gif": "animated",
        "text.png": "corrupt",
        "profile.png": "corrupt",
        "last.jpg": None,
    }


def test_bodies_without_end_and_packed_bombs_are_refused_as_too_large(
    crawl_of: CrawlOfUrl,
) -> None:
    zeros = bytes(MANY)
    gzip = zlib.compressobj(1, wbits=31)
    packed = {
        "gzip": gzip.compress(zeros) + gzip.flush(),
        "deflate": zlib.compress(zeros, 1),
    }
    names = ["first.png", "declared.png", "endless.png", "gzip.png", "deflate.png"]
    # Each begins as a picture of its own, so that each has an md5 of its own.
    files = {name: png_of(8, 8, line=name[:3].encode()) for name in [*names, "last.png"]}
    collection = board_of(files)
    name_of = {entry.md5: entry.body.removesuffix(".png") for entry in collection}

    @web.middleware
    async def hostile(request: web.Request, handler: Handler) -> web.StreamResponse:
        name = name_of.get(request.path.rpartition("/")[2].partition(".")[0], "")
        if name in packed:
            return web.Response(body=packed[name], headers={"Content-Encoding": name})
        if name not in ("declared", "endless"):
            return await handler(request)
        answer = web.StreamResponse(headers={"Content-Type": "image/png"})
        if name == "declared":
            answer.content_length = GIGABYTE
        await answer.prepare(request)
        block = bytes(1_000_000)
        for _ in range(GIGABYTE // len(block)):
            await answer.write(block)
        return answer

    with serve_collection(collection, middlewares=[hostile]) as board:
        crawl = crawl_of(board.url)
        code, err = crawl_watched(crawl)
    assert code == 0, err
    wanted = {name: None if name in ("first.png", "last.png") else "too_large" for name in files}
    assert reasons_of(crawl.home, files) == wanted


@pytest.mark.parametrize("answer", ["endless", "packed", "nested", "many lists"])
def test_an_api_answer_that_would_fill_the_memory_ends_the_crawl_with_its_reason(
    crawl_of: CrawlOfUrl, answer: str
) -> None:
    @web.middleware
    async def hostile(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.endswith("/danbooru/posts.json"):
            return await handler(request)
        if answer == "packed":
            gzip = zlib.compressobj(1, wbits=31)
            body = gzip.compress(b"[" + bytes(MANY)) + gzip.flush()
            return web.Response(body=body, headers={"Content-Encoding": "gzip"})
        if answer == "nested":
            return web.Response(body=b"[" * 2_000_000)
        if answer == "many lists":
            return web.Response(body=b"[" + b"[]," * 2_600_000 + b"[]]")
        stream = web.StreamResponse()
        await stream.prepare(request)
        for _ in range(GIGABYTE // 1_000_000):
            await stream.write(b"[0]," * 250_000)
        return stream

    with serve_collection(board_of({"a.png": picture("PNG")}), middlewares=[hostile]) as board:
        crawl = crawl_of(board.url)
        crawl.program = QUICK
        code, err = crawl_watched(crawl)
    assert code == 6
    # What is too large would be so again, and costs more than any other answer.
    assert f"It was requested {5 if answer in ('nested', 'many lists') else 2} times" in err
    said = {
        "endless": "it has more than 8 MB, which no page of posts takes",
        "packed": "it has more than 8 MB, which no page of posts takes",
        "nested": "recursion depth exceeded",
        "many lists": "the answer has 2,600,001 records, at most 10,000 wanted",
    }[answer]
    assert said in err
    assert len(err.splitlines()) == 1


def test_sixteen_pictures_of_29_mb_at_once_are_all_kept(
    crawl_of: CrawlOfUrl,
) -> None:
    padding = bytes(29_000_000)
    files = {}
    for number in range(16):
        private = chunk(b"teSt", bytes([number]) + padding)
        files[f"{number}.png"] = png_of(8, 8, before_data=private)
    with serve_collection(board_of(files)) as board:
        crawl = crawl_of(board.url)
        code, err = crawl_watched(crawl)
    assert code == 0, err
    assert set(reasons_of(crawl.home, files).values()) == {None}


def test_pictures_of_40_megapixels_that_come_at_once_are_decoded_in_turn(
    crawl_of: CrawlOfUrl,
) -> None:
    files = {f"{n}.png": png_of(8000, 5000, line=bytes([n] * 3)) for n in range(6)}
    with serve_collection(board_of(files)) as board:
        crawl = crawl_of(board.url)
        code, err = crawl_watched(crawl)
    assert code == 0, err
    assert set(reasons_of(crawl.home, files).values()) == {None}
