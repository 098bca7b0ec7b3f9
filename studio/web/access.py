"""The server's door: which hosts, paths and bodies come in, and which headers go out."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

from studio.validation import UPLOAD_MAX_BYTES

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEALTH = "/health"
BODY_MAX_BYTES = 1024 * 1024  # of a request; pictures come through the upload alone
FORM_BYTES = 64 * 1024  # what a form needs around its file

# What the page and gradio_client ask for. Gradio has many more doors (proxies to other hosts,
# editors for code, recordings): what is not named here is not there.
PAGES = {
    "/", "/config", "/theme.css", "/robots.txt", "/manifest.json", "/favicon.ico",
    "/login", "/login/", "/logout", HEALTH,
}  # fmt: skip
FOLDERS = ("/assets/", "/static/", "/svelte/", "/pwa_icon")
API = "/gradio_api/"
API_DOORS = (
    "info", "openapi.json", "startup-events", "heartbeat/", "queue/join", "queue/data", "call/",
    "upload", "upload_progress", "file=", "cancel", "reset", "login_check", "user", "token",
    "app_id", "run/", "api/", "theme.css",
)  # fmt: skip
UPLOAD = API + "upload"
FILE = API + "file="

FULL = "Too many drawings are waited for at this moment: please try again in a little while."

HEADERS = {
    "content-security-policy": "; ".join(
        (
            "default-src 'self'",
            # Gradio's page has its settings and its components' handlers in the page itself.
            "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "media-src 'self' blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "frame-ancestors 'self'",
            "base-uri 'self'",
            "form-action 'self'",
        )
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}


class Guard:
    """An ASGI application around another: answers /health, refuses, and adds headers.

    hosts: names that a request's Host header may have, without port; none: any (behind a proxy of
    one's own). On loopback this keeps a page of another site, whose name was made to lead to this
    machine, from talking to the server. Not Starlette's TrustedHostMiddleware: it cuts "[::1]:7860"
    at the first colon, and saves four lines.
    """

    def __init__(self, app: App, *, files: Path, hosts: frozenset[str]) -> None:
        self._app = app
        self._files = files
        self._hosts = hosts
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Ends the streams that pages listen to, which else go on for as long as a page is open."""
        self._ending.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        if scope["type"] == "websocket":
            return  # the page has none
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = self._refused(scope)
        if refused:
            await _say(send, *refused)
        elif scope["path"] == HEALTH:
            await _say(send, 200, "ok")
        elif scope["method"] != "POST":
            await self._get(scope, receive, send)
        elif scope["path"].rstrip("/") == UPLOAD:
            await self._app(scope, _bounded(scope, receive), _with_headers(send))
        else:
            await self._post(scope, receive, send)

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        host = headers.get("host", "").rpartition("@")[2]
        name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
        if self._hosts and name.lower() not in self._hosts:
            return 400, f'this server is not "{name}": open it by its own address'
        path: str = scope["path"]
        if not _is_door(path):
            return 404, "there is nothing here"
        if path.startswith(FILE):
            wanted = Path(path.removeprefix(FILE)).resolve()
            if not wanted.is_relative_to(self._files.resolve()):
                return 403, "only files that this server made or was sent are handed out"
        length = headers.get("content-length", "")
        most = _most_bytes(path)
        if length.isdecimal() and int(length) > most:
            return 413, f"{int(length):,} bytes were sent; at most {most:,} are taken"
        return None

    async def _get(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a page, a file or a stream; to a stream the server's end is its listener's end."""
        open_ = False
        stream = asyncio.Event()  # set once an answer without a length has begun
        with_headers = _with_headers(send)

        async def sent(message: Message) -> None:
            nonlocal open_
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message.get("headers", ())}
                if b"content-length" not in names:
                    stream.set()
            open_ = message["type"] == "http.response.start" or bool(message.get("more_body"))
            await with_headers(message)

        await self._app(scope, self._until_the_end(receive, stream), sent)
        if open_ and stream.is_set() and self._ending.is_set():
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _until_the_end(self, receive: Receive, stream: asyncio.Event) -> Receive:
        async def ended() -> None:
            await stream.wait()  # what has a length is sent whole: cut short it would be an error
            await self._ending.wait()

        async def received() -> Message:
            own, end = asyncio.ensure_future(receive()), asyncio.ensure_future(ended())
            try:
                await asyncio.wait({own, end}, return_when=asyncio.FIRST_COMPLETED)
                return own.result() if own.done() else {"type": "http.disconnect"}
            finally:
                own.cancel()
                end.cancel()

        return received

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads a whole JSON body first, so that no file that was not uploaded is ever named."""
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if len(body) > BODY_MAX_BYTES:
                await _say(send, 413, f"at most {BODY_MAX_BYTES:,} bytes are taken")
                return
            if not message.get("more_body"):
                break
        fault = self._fault_of(body)
        if fault:
            await _say(send, 400, fault)
            return
        replayed = False

        async def again() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, _full_in_words(_with_headers(send), send))

    def _fault_of(self, body: bytes) -> str:
        try:
            payload = json.loads(body)
        except (ValueError, RecursionError):
            return ""  # a form, or no JSON at all: what is behind says so in its own words
        for path in _named_files(payload):
            if not self._was_uploaded(path):
                return (
                    "a picture must be uploaded to be used: no path of the server's machine and no "
                    "address is ever opened"
                )
        return ""

    def _was_uploaded(self, path: object) -> bool:
        if not isinstance(path, str) or "\0" in path:
            return False
        return Path(path).resolve().is_relative_to(self._files.resolve())


def _is_door(path: str) -> bool:
    if path.startswith(API):
        return path.removeprefix(API).startswith(API_DOORS)
    return path in PAGES or path.startswith(FOLDERS)


def _most_bytes(path: str) -> int:
    return UPLOAD_MAX_BYTES + FORM_BYTES if path.rstrip("/") == UPLOAD else BODY_MAX_BYTES


def _named_files(payload: object) -> Iterator[object]:
    """Yields every path of a JSON value that Gradio might take for one of a file."""
    stack = [payload]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            if "path" in value:
                yield value["path"]
            stack += value.values()
        elif isinstance(value, list):
            stack += value


def _bounded(scope: Scope, receive: Receive) -> Receive:
    """Ends a body that goes on beyond its bound; an honest length was refused before."""
    most, taken = _most_bytes(scope["path"]), 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        return {"type": "http.disconnect"} if taken > most else message

    return bounded


def _full_in_words(with_headers: Send, send: Send) -> Send:
    """Says in words what Gradio's 503 means, whose own text tells the queue's size."""
    refused = False

    async def sent(message: Message) -> None:
        nonlocal refused
        if message["type"] == "http.response.start" and message["status"] == 503:
            refused = True
            await _say(send, 503, FULL)
        if not refused:
            await with_headers(message)

    return sent


def _with_headers(send: Send) -> Send:
    added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await send(message)

    return sent


async def _say(send: Send, status: int, text: str) -> None:
    """Answers with a sentence, as JSON in the shape that Gradio's own refusals have."""
    body = text.encode() if status == 200 else json.dumps({"detail": text}).encode()
    kind = b"text/plain; charset=utf-8" if status == 200 else b"application/json"
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    start = {"type": "http.response.start", "status": status, "headers": headers}
    await _with_headers(send)(start)
    await send({"type": "http.response.body", "body": body})
