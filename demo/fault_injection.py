"""Fault injection for the demo board: a seeded middleware that fails at chosen rates.

Every fault is transient: an address gets its correct response after `in_a_row` faults at most.
Which request fails depends only on the seed, the address and the count of its requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import difflib
import email.utils
import functools
import gzip
import io
import json
import random
import re
import socket
import struct
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from aiohttp import web
from PIL import Image

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "throttle": "429 or 421 with a Retry-After, in seconds or as a date",
        "error": "500, 502, 503 or 504",
        "reset": "connection reset: before the response, or within its body",
        "cut": "a truncated body, with the full Content-Length or its own",
        "html": "an HTML page with status 200",
        "empty": "a page without posts (API only)",
        "redirect": "to another address of the same file, or into a loop",
        "slow": "a slow body",
        "wrong_md5": "another picture, or the right one with one bit flipped (media only)",
        "bomb": "a decompression bomb: pixels (media only) or gzip",
    }
)
DEFAULT_IN_A_ROW = 2

_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Just a moment</title></head>\n"
    b"<body><h1>The board is under maintenance.</h1></body></html>\n"
)
_LOOP, _MOVED = "faulty_loop", "faulty_move"  # mark the targets of redirects
_POSTS = re.compile(r"/danbooru/posts\.json|/moebooru/post\.json|/gelbooru(_com)?/index\.php")
_SHARDED = re.compile(r"/media/(original|images)/../../(?P<md5>[0-9a-f]{32})\.(?P<ext>\w+)")
_NAMED = re.compile(r"/media/image/(?P<md5>[0-9a-f]{32})/[^/]*\.(?P<ext>\w+)")
_FORMATS = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "webp": "WEBP"}
_SLOW_PARTS = 8
_BOMB_SIDE_PX = 8_000
_BOMB_BYTES = 64_000_000


class FaultPlanError(ValueError):
    """A plan with an unknown kind or a number out of range; says which and why."""


@dataclasses.dataclass(frozen=True)
class FaultPlan:
    """The rate of each fault: `rates` are shares of the requests it can hit, by kind.

    in_a_row: largest number of consecutive faults of one address; retry_after_s: largest
    Retry-After of a throttled client; slow_s: duration of a slow body. Raises FaultPlanError.
    """

    rates: Mapping[str, float]
    seed: int = 0
    in_a_row: int = DEFAULT_IN_A_ROW
    retry_after_s: int = 1
    slow_s: float = 1.0

    def __post_init__(self) -> None:
        for kind, rate in self.rates.items():
            if kind not in KINDS:
                close = difflib.get_close_matches(kind, KINDS, n=1)
                hint = f'did you mean "{close[0]}"?' if close else f"there are {', '.join(KINDS)}"
                raise FaultPlanError(f'"{kind}" is no kind of fault; {hint}')
            if not 0.0 <= rate <= 1.0:
                raise FaultPlanError(f"the rate of {kind} is {rate:g}; expected 0 to 1")
        total = sum(self.rates.values())
        if total > 1.0 + 1e-9:
            raise FaultPlanError(f"the rates make {total:g} together; expected at most 1")
        if self.in_a_row < 1:
            raise FaultPlanError(f"{self.in_a_row} faults in a row; expected at least 1")


def read_rates(text: str) -> dict[str, float]:
    """Reads `throttle=0.05,reset=0.02`; `all=0.2` shares 0.2 among the kinds not named.

    Raises FaultPlanError, naming the part that cannot be read; FaultPlan validates kinds and rates.
    """
    rates: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        kind, _, value = (word.strip() for word in part.partition("="))
        try:
            rate = float(value)
        except ValueError as error:
            raise FaultPlanError(f'"{part}" is no rate of a fault; expected kind=0.05') from error
        if kind in rates:
            raise FaultPlanError(f"{kind} is named twice")
        rates[kind] = rate
    shared = rates.pop("all", None)
    if shared is not None:
        if not 0.0 <= shared <= 1.0:
            raise FaultPlanError(f"the rate of all is {shared:g}; expected 0 to 1")
        others = [kind for kind in KINDS if kind not in rates]
        rates |= {kind: shared / len(others) for kind in others}
    return rates


class Faults:
    """The faults of a board: pass `middleware` to it; `injected` counts them by kind."""

    def __init__(self, plan: FaultPlan) -> None:
        self.plan = plan
        self.injected: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()
        self._in_a_row: Counter[str] = Counter()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Responds in the board's place, or spoils its response, if this request is to fail."""
        if _LOOP in request.query:
            raise web.HTTPFound(_marked(request, _LOOP, request.path))
        kind, chance = self._next(request)
        if kind is None:
            return await handler(request)
        if kind in ("throttle", "error", "redirect"):
            self.injected[kind] += 1
            raise self._refusal(kind, request, chance)
        if kind == "reset" and chance.random() < 0.5:
            self.injected[kind] += 1
            _abort(request)
            return web.Response()
        whole = await handler(request)
        if not isinstance(whole, web.Response) or whole.status != 200:
            return whole
        return await self._spoil(kind, request, whole, chance=chance)

    def _next(self, request: web.Request) -> tuple[str | None, random.Random]:
        """Returns this request's kind of fault, None for none, and the generator of its form."""
        key = request.path_qs
        chance = random.Random(f"{self.plan.seed} {self._requests[key]} {key}")
        self._requests[key] += 1
        kind = _drawn(_fitting(self.plan.rates, request), chance.random())
        if kind is None or self._in_a_row[key] >= self.plan.in_a_row:
            self._in_a_row[key] = 0
            return None, chance
        self._in_a_row[key] += 1
        return kind, chance

    def _refusal(self, kind: str, request: web.Request, chance: random.Random) -> web.HTTPException:
        if kind == "redirect":
            if chance.random() < 0.5:
                return web.HTTPFound(_marked(request, _LOOP, request.path))
            return web.HTTPFound(_marked(request, _MOVED, _other_path(request.path)))
        if kind == "error":
            broken = (
                web.HTTPInternalServerError,
                web.HTTPBadGateway,
                web.HTTPServiceUnavailable,
                web.HTTPGatewayTimeout,
            )
            return chance.choice(broken)()
        refusal = chance.choice((web.HTTPTooManyRequests, web.HTTPMisdirectedRequest))
        wait_s = chance.randint(0, self.plan.retry_after_s)
        if chance.random() < 0.5:
            return refusal(headers={"Retry-After": str(wait_s)})
        moment = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=wait_s)
        return refusal(headers={"Retry-After": email.utils.format_datetime(moment, usegmt=True)})

    async def _spoil(
        self, kind: str, request: web.Request, whole: web.Response, *, chance: random.Random
    ) -> web.StreamResponse:
        body = whole.body if isinstance(whole.body, bytes) else b""
        if kind == "slow":
            self.injected[kind] += 1
            return await self._trickle(request, whole, body)
        if kind in ("reset", "cut") and len(body) < 2:
            return whole  # too short to truncate
        spoiled: web.StreamResponse | None
        if kind in ("reset", "cut"):
            self.injected[kind] += 1
            part = body[: chance.randrange(1, len(body))]
            if kind == "cut" and chance.random() < 0.5:
                return _answer(part, whole.content_type)
            return await _send_part(request, whole, part, reset=kind == "reset")
        if kind == "html":
            spoiled = _answer(_PAGE, "text/html")
        elif kind == "empty":
            spoiled = _without_posts(body, whole.content_type, chance)
        elif kind == "wrong_md5":
            spoiled = _answer(_wrong_bytes(body, request.path, chance), whole.content_type)
        else:
            spoiled = _bomb(request, whole.content_type, chance)
        if spoiled is None:
            return whole  # the right response is empty too
        self.injected[kind] += 1
        return spoiled

    async def _trickle(
        self, request: web.Request, whole: web.Response, body: bytes
    ) -> web.StreamResponse:
        slowly = web.StreamResponse(headers={"Content-Type": whole.headers["Content-Type"]})
        slowly.content_length = len(body)
        await slowly.prepare(request)
        size = len(body) // _SLOW_PARTS + 1
        for start in range(0, len(body), size):
            await asyncio.sleep(self.plan.slow_s / _SLOW_PARTS)
            await slowly.write(body[start : start + size])
        await slowly.write_eof()
        return slowly


def _fitting(rates: Mapping[str, float], request: web.Request) -> dict[str, float]:
    """Returns the rates of the faults that can hit a request: media or the API, nothing else."""
    path = request.path
    if path.startswith("/media/"):
        unfit = {"empty"}
    elif _POSTS.fullmatch(path) and request.query.get("s", "post") == "post":
        unfit = {"wrong_md5"}
    elif path.startswith(("/danbooru/", "/moebooru/", "/gelbooru")):
        unfit = {"wrong_md5", "empty"}
    else:
        return {}
    if _MOVED in request.query:
        unfit.add("redirect")  # chains would exceed any client's limit
    return {kind: rate for kind, rate in rates.items() if kind not in unfit}


def _drawn(rates: Mapping[str, float], point: float) -> str | None:
    """Returns the kind whose share of 0 to 1 contains the point."""
    for kind in KINDS:  # in the order of KINDS, not of the rates
        point -= rates.get(kind, 0.0)
        if point < 0:
            return kind
    return None


def _marked(request: web.Request, mark: str, path: str) -> str:
    """Returns an address with the query of the request and a mark, a new one each time."""
    number = int(request.query.get(mark, "0")) % 2 + 1
    return str(request.rel_url.with_path(path, keep_query=True).update_query({mark: str(number)}))


def _other_path(path: str) -> str:
    """Returns another path of the same file, or the same path if there is none."""
    if found := _SHARDED.fullmatch(path):
        return f"/media/image/{found['md5']}/moved.{found['ext']}"
    if found := _NAMED.fullmatch(path):
        md5 = found["md5"]
        return f"/media/original/{md5[:2]}/{md5[2:4]}/{md5}.{found['ext']}"
    return path


def _answer(body: bytes, content_type: str, **headers: str) -> web.Response:
    return web.Response(body=body, headers={"Content-Type": content_type, **headers})


def _abort(request: web.Request) -> None:
    """Closes the connection with RST: the client sees a reset, not an end."""
    transport = request.transport
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def _send_part(
    request: web.Request, whole: web.Response, part: bytes, *, reset: bool
) -> web.StreamResponse:
    """Sends the headers of the whole and a part of its body, then closes the connection."""
    response = web.StreamResponse(headers={"Content-Type": whole.headers["Content-Type"]})
    response.content_length = whole.content_length
    await response.prepare(request)
    # The client may close first: it has all that it was to get.
    with contextlib.suppress(ConnectionError):
        await response.write(part)
        await asyncio.sleep(0.01)  # lets the part arrive before the connection closes
    if reset:
        _abort(request)
    elif request.transport is not None:
        request.transport.close()
    return response


def _without_posts(body: bytes, content_type: str, chance: random.Random) -> web.Response | None:
    """Returns the page without its posts; None if it has none."""
    if content_type != "application/json":
        empty = b'<?xml version="1.0" encoding="UTF-8"?>\n<posts count="0" offset="0"/>\n'
        return _answer(empty, content_type) if b"<post " in body or b"<post>" in body else None
    page = json.loads(body)
    if isinstance(page, dict):
        if "post" not in page:
            return None
        del page["post"]
        return _answer(json.dumps(page).encode(), content_type)
    return _answer(b"[]", content_type) if page else None


def _wrong_bytes(body: bytes, path: str, chance: random.Random) -> bytes:
    """Returns a made picture of the same kind, or the right one with one bit flipped."""
    encoding = _FORMATS.get(path.rpartition(".")[2])
    if encoding and (not body or chance.random() < 0.5):
        file = io.BytesIO()
        colour = tuple(chance.randrange(256) for _ in "rgb")
        Image.new("RGB", (chance.randint(8, 64), 8), colour).save(file, encoding)
        return file.getvalue()
    place = chance.randrange(max(1, len(body)))
    flipped = (body[place] if body else 0) ^ (1 << chance.randrange(8))
    return body[:place] + bytes([flipped]) + body[place + 1 :]


def _bomb(request: web.Request, content_type: str, chance: random.Random) -> web.Response:
    """Returns a small body that decompresses to, or claims, far too much."""
    if not request.path.startswith("/media/") or chance.random() < 1 / 3:
        return _answer(_gzip_bomb(), content_type, **{"Content-Encoding": "gzip"})
    return _answer(_pixel_bomb(claimed_only=chance.random() < 0.5), content_type)


@functools.cache
def _gzip_bomb() -> bytes:
    """Returns 62 kB of gzip that expand to 64 MB of spaces."""
    return gzip.compress(b" " * _BOMB_BYTES, mtime=0)


@functools.cache
def _pixel_bomb(*, claimed_only: bool) -> bytes:
    """Returns a PNG of a few kB with 64 megapixels, or one that only claims 10,000 of them."""
    side = 100_000 if claimed_only else _BOMB_SIDE_PX
    rows = b"" if claimed_only else bytes(1 + side // 8) * side
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
