"""The studio's server: the page and its API behind one application, on one port, until Ctrl-C.

Gradio is mounted on an application of ours and not launched by itself: then the access control in
front of it (access.py), the end by Ctrl-C and the port are ours, and no request is made to see
whether the server answers.
"""

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dataset.errors import OmokageError, UsageError
from studio.service import Studio
from studio.web.files import Files, temporary_files

if TYPE_CHECKING:
    from studio.web.access import Guard

# No counting of starts, no look for a newer version, no word to any hub; and no server of Node
# beside ours, no recording of runs in the browser, no second protocol that nobody needs.
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_ALLOWED_PATHS": "",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


def silence(files: Path) -> None:
    """Sets the environment of this process; `files` is where Gradio keeps what it serves.

    To be called before gradio is imported, which reads most of it only then.
    """
    os.environ.update(QUIET)
    os.environ["GRADIO_TEMP_DIR"] = str(files)


log = logging.getLogger("studio")

HOST = "127.0.0.1"
PORT = 7860
PASSWORD = "OMOKAGE_STUDIO_PASSWORD"  # noqa: S105  the variable's name
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
WAIT_MAX = 32  # drawings that may wait; one more is refused with a sentence
ENDING_S = 2  # what is under way at Ctrl-C has so long


@dataclass(frozen=True)
class Address:
    """Where the studio is served, and for whom: no user means no password either."""

    host: str = HOST
    port: int = PORT
    user: str = ""
    password: str = ""

    @property
    def url(self) -> str:
        """What a person opens."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def hosts(self) -> frozenset[str]:
        """The names a request may call the server by; empty: any, since others can reach it."""
        return LOOPBACK if self.host in ("127.0.0.1", "localhost", "::1") else frozenset()


def serve(studio: Studio, address: Address) -> None:
    """Serves the page until Ctrl-C, which raises KeyboardInterrupt; raises UsageError.

    The UsageError is about a port that is taken, a host that is not this machine's, or a user
    without a password. What is made and uploaded lies in a temporary folder that is gone then.
    """
    import uvicorn

    class Server(uvicorn.Server):
        """Has the streams of open pages end with it."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            guard.end()
            await super().shutdown(sockets)

    _check(address)
    with temporary_files() as files, _listening(address) as listening:
        guard = application(studio, files, address)
        config = uvicorn.Config(
            guard,
            log_level="warning",
            timeout_graceful_shutdown=ENDING_S,
            server_header=False,
        )
        threading.Thread(target=_warm, args=(studio,), daemon=True).start()
        print(f"The studio is open at {address.url} (Ctrl-C ends it).", flush=True)
        Server(config).run(sockets=[listening])


def application(studio: Studio, files: Files, address: Address) -> "Guard":
    """Returns the whole ASGI application; imports Gradio, after `silence`."""
    silence(files.folder)
    import fastapi
    import gradio as gr

    from studio.validation import UPLOAD_MAX_BYTES
    from studio.web.access import Guard
    from studio.web.app import build_page
    from studio.web.language import Translated, mark
    from studio.web.theme import FAVICON, style, theme

    page = build_page(studio, files)
    # The queue is bounded: what comes beyond is refused with a sentence and not kept waiting.
    page.queue(max_size=WAIT_MAX, default_concurrency_limit=1, api_open=False)
    # Gradio looks at the paths in a request only once it has been launched; mounted, it never is.
    page.has_launched = page.is_running = True
    app = gr.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None, docs_url=None, redoc_url=None),
        page,
        "/",
        server_name=address.host,
        server_port=address.port,
        auth=[(address.user, address.password)] if address.user else None,
        auth_message=mark("page.password") if address.user else None,
        footer_links=["api"],
        run_history=False,
        allowed_paths=[],
        favicon_path=str(FAVICON),
        show_error=False,
        max_file_size=UPLOAD_MAX_BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        head=style(),
    )
    return Guard(Translated(app), files=files.folder, hosts=address.hosts)


def _warm(studio: Studio) -> None:
    """Opens the model and draws once, so that the first visitor does not wait for that."""
    try:
        for _ in studio.draw():
            log.info("ready to draw")
    except OmokageError as error:  # the page's head says so too, and asks again
        log.warning("%s", error)


def _check(address: Address) -> None:
    if bool(address.user) != bool(address.password):
        there, lacking = (
            ("a user", f"a password in ${PASSWORD}")
            if address.user
            else (f"${PASSWORD}", "a user (--user or $OMOKAGE_STUDIO_USER)")
        )
        raise UsageError(f"{there} is given, and {lacking} is not: both or none")


@contextlib.contextmanager
def _listening(address: Address) -> Iterator[socket.socket]:
    """Takes the port first, so that a taken one is reported before anything is loaded."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as listening:
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((address.host, address.port))
        except OSError as error:
            raise UsageError(
                f"{address.host} port {address.port} cannot be had: {error.strerror or error}. "
                "End the program that uses it, or choose another with --port (and --host)"
            ) from error
        yield listening
