"""Fetching the pinned file, from a server on loopback that behaves in many ways."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dataset.errors import TrainingError
from models.metrics.download import PinnedFile, fetched, require_pinned

CONTENT = bytes(range(256)) * 12_000  # three pieces
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    paths: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        way = self.path.split("/")[1]
        if way == "to":  # /to/<scheme>/<host and port>
            _, _, scheme, place = self.path.split("/", 3)
            self.send_response(302)
            self.send_header("Location", f"{scheme}://{place}/whole/weights.pth")
            self.end_headers()
            return
        if way == "absent":
            self.send_error(404)
            return
        body = {"other": b"x" * len(CONTENT), "long": CONTENT + b"more"}.get(way, CONTENT)
        self.send_response(200)
        if way not in ("long", "short"):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:1_500_000] if way in ("cut", "short") else body)

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as found:
        found.paths = []
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def pinned(server: Server, way: str, **changed: object) -> PinnedFile:
    facts = {
        "url": f"http://127.0.0.1:{server.server_port}/{way}",
        "sha256": SHA256,
        "size_bytes": len(CONTENT),
        "hosts": frozenset({"127.0.0.1"}),
        "schemes": frozenset({"http"}),
    }
    return PinnedFile(**{**facts, **changed})  # type: ignore[arg-type]


def test_a_file_is_fetched_once(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = pinned(server, "whole/weights.pth")
    path = fetched(file, tmp_path / "cache")
    assert path == tmp_path / "cache" / "weights.pth"
    assert path.read_bytes() == CONTENT
    assert fetched(file, tmp_path / "cache") == path
    assert server.paths == ["/whole/weights.pth"]
    assert [entry.name for entry in path.parent.iterdir()] == ["weights.pth"]
    assert "fetch weights.pth 3,072,000/3,072,000 bytes" in capsys.readouterr().err


def test_a_redirect_to_an_allowed_host_is_followed(server: Server, tmp_path: Path) -> None:
    place = f"to/http/127.0.0.1:{server.server_port}"
    file = pinned(server, place)
    assert fetched(file, tmp_path).read_bytes() == CONTENT
    assert server.paths == [f"/{place}", "/whole/weights.pth"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("http/localhost:{port}", "leads to the host localhost, which is none of 127.0.0.1"),
        ("http/127.0.0.1:{port}@evil.example", "leads to the host evil.example"),
        ("https/127.0.0.1:{port}", "leads to https://127.0.0.1, http wanted"),
        ("file/127.0.0.1", "cannot be fetched: Found - Redirection to url .* is not allowed"),
    ],
)
def test_a_redirect_elsewhere_is_refused_and_not_requested(
    server: Server, tmp_path: Path, place: str, message: str
) -> None:
    file = pinned(server, "to/" + place.format(port=server.server_port))
    with pytest.raises(TrainingError, match=message):
        fetched(file, tmp_path)
    assert len(server.paths) == 1
    assert list(tmp_path.iterdir()) == []


def test_only_https_is_taken_unless_said_otherwise(server: Server, tmp_path: Path) -> None:
    file = pinned(server, "whole/weights.pth", schemes=PinnedFile.schemes)
    with pytest.raises(TrainingError, match=r"leads to http://127\.0\.0\.1, https wanted"):
        fetched(file, tmp_path)
    assert server.paths == []


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("cut", "should have 3,072,000 bytes; it ended after 1,500,000"),
        ("short", "should have 3,072,000 bytes; it ended after 1,500,000"),
        ("long", "should have 3,072,000 bytes; it goes on after them"),
        ("other", f"sent a file with the sha256 .*, {SHA256} is wanted"),
        ("absent", "cannot be fetched: Not Found"),
    ],
)
def test_what_is_not_the_whole_file_leaves_nothing_and_says_what_to_do(
    server: Server, tmp_path: Path, way: str, message: str
) -> None:
    with pytest.raises(TrainingError, match=message) as refused:
        fetched(pinned(server, f"{way}/weights.pth"), tmp_path)
    assert f"put it at {tmp_path / 'weights.pth'}" in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_without_network_the_place_for_the_file_is_named(server: Server, tmp_path: Path) -> None:
    file = pinned(server, "whole/weights.pth", url="http://127.0.0.1:9/weights.pth")
    with pytest.raises(TrainingError, match=r"cannot be fetched: .*refused") as refused:
        fetched(file, tmp_path)
    assert f"3,072,000 bytes, sha256 {SHA256}" in str(refused.value)
    assert f"put it at {tmp_path / 'weights.pth'}" in str(refused.value)


def test_another_file_in_the_cache_is_refused_and_kept(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    file = pinned(server, "whole/weights.pth")
    for content, message in ((b"x" * len(CONTENT), "has the sha256"), (b"x", "has 1 bytes")):
        path.write_bytes(content)
        with pytest.raises(TrainingError, match=message) as refused:
            fetched(file, tmp_path)
        assert SHA256 in str(refused.value)
        assert hashlib.sha256(content).hexdigest() in str(refused.value)
        assert path.read_bytes() == content
    assert server.paths == []


def test_a_file_that_was_put_there_by_hand_is_taken(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(CONTENT)
    file = pinned(server, "whole/weights.pth")
    require_pinned(path, file)
    assert fetched(file, tmp_path) == path
    assert server.paths == []
