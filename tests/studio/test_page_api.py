"""The studio's API, as a program calls it; and what the server's door refuses."""

import asyncio
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from studio.model_source import ModelSource
from studio.service import Studio
from studio.web.access import FULL, Guard
from tests.studio.champions import Champions, generator
from tests.studio.servers import LABELS, Running, studio_server

USER, PASSWORD = "mio", "open sesame"
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "studio.md"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, empty_registry: Path) -> Champions:
    made = Champions(tmp_path_factory.mktemp("registry") / "home", empty_registry)
    made.crown(made.register(generator(1, labels=LABELS)))
    return made


@pytest.fixture(scope="module")
def server(registry: Champions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home, password = tmp_path_factory.mktemp("studio"), {"OMOKAGE_STUDIO_PASSWORD": PASSWORD}
    with studio_server(home, registry.uri, "--user", USER, **password) as running:
        yield running
        assert PASSWORD not in running.said.read_text()


@pytest.fixture(scope="module")
def client(server: Running, tmp_path_factory: pytest.TempPathFactory) -> Client:
    downloads = tmp_path_factory.mktemp("downloads")
    return Client(server.url, auth=(USER, PASSWORD), verbose=False, download_files=downloads)


@pytest.fixture(scope="module")
def visitor(server: Running) -> Iterator[httpx.Client]:
    """One who has said the password."""
    with httpx.Client(base_url=server.url) as visitor:
        answer = visitor.post("/login", data={"username": USER, "password": PASSWORD})
        assert answer.json() == {"success": True}
        yield visitor


def refusal(client: Client, api_name: str, **requested: Any) -> str:
    with pytest.raises(Exception, match=r"\w") as reported:
        client.predict(api_name=api_name, **requested)
    return str(reported.value)


def test_a_draw_says_what_it_drew_and_its_link_gives_the_same_bytes(client: Client) -> None:
    drawn = client.predict(labels=["pink_hair"], count=2, seed=5, api_name="/draw")
    assert [one["seed"] for one in drawn] == [5, 6]
    assert all("pink_hair" in one["labels"] for one in drawn)
    again = client.predict(link=f"http://anywhere/?{drawn[1]['link']}", api_name="/picture")
    assert digest(again["picture"]) == digest(drawn[1]["picture"])
    reported = client.predict(picture=handle_file(drawn[1]["picture"]), api_name="/settings")
    assert reported["link"] == drawn[1]["link"]


def test_the_page_the_api_and_the_library_make_the_same_bytes(
    client: Client, registry: Champions
) -> None:
    (drawn,) = client.predict(seed=8, api_name="/draw")
    finished = client.predict(
        link=drawn["link"], upscale=2, edits="rotate=30;hue=90", api_name="/finish"
    )
    studio = Studio(ModelSource(tracking_uri=registry.uri))
    assert Path(finished["picture"]).read_bytes() == studio.png(finished["link"])
    assert Path(drawn["picture"]).read_bytes() == studio.png(drawn["link"])


def test_films_strips_and_sheets_come_as_files(client: Client) -> None:
    first, second = (one["link"] for one in client.predict(count=2, seed=1, api_name="/draw"))
    strip = client.predict(first=first, second=second, steps=3, api_name="/strip")
    assert len(strip) == 3
    films = client.predict(first=first, second=second, seconds=0.5, fps=8, api_name="/morph")
    assert [Path(film).suffix for film in films] == [".mp4", ".gif"]
    loops = client.predict(link=first, seconds=0.5, fps=8, api_name="/loop")
    assert Path(loops[1]).read_bytes().startswith(b"GIF89a")
    for name, requested in (
        ("/sweep", {"link": first, "number": 1}),
        ("/mix", {"rows": [first], "columns": [second]}),
        ("/table", {"rows": ["pink hair", "blue hair"], "count": 2}),
    ):
        with Image.open(client.predict(api_name=name, **requested)) as sheet:
            assert sheet.width > 16


def test_sheets_and_zips_say_again_what_is_in_them(client: Client) -> None:
    links = [one["link"] for one in client.predict(count=2, seed=40, api_name="/draw")]
    for name in ("/contact_sheet", "/archive"):
        made = client.predict(links=links, api_name=name)
        reported = client.predict(file=handle_file(made), api_name="/kept")
        assert reported == {"links": links, "faults": []}
    keys = client.predict(api_name="/model")["models"]
    assert links[0].startswith(f"model={quote(keys[0], safe='')}&")


def test_an_uploaded_picture_is_made_larger_and_edited(client: Client, tmp_path: Path) -> None:
    Image.new("RGB", (20, 10), "teal").save(tmp_path / "teal.png")
    sent = handle_file(tmp_path / "teal.png")
    with Image.open(client.predict(picture=sent, factor=4, api_name="/upscale")) as larger:
        assert larger.size == (80, 40)
    with Image.open(client.predict(picture=sent, edits="rotate=90", api_name="/edit")) as turned:
        assert turned.size == (10, 20)


@pytest.mark.parametrize(
    ("api_name", "requested", "reported"),
    [
        ("/draw", {"count": 1000}, 'the number of pictures is "1000"; a whole number from 1 to 64'),
        ("/draw", {"labels": ["pink_hare"]}, 'did you mean "pink_hair"?'),
        ("/draw", {"psi": 7}, 'psi is "7"'),
        ("/draw", {"labels": "pink_hair"}, "a list of texts is wanted"),
        ("/draw", {"seed": -1}, "a whole number from 0"),
        ("/picture", {"link": "model=avatar-generator%2F7&seed=1"}, "the registry does not have"),
        ("/picture", {"link": 3}, "a text is wanted"),
        ("/contact_sheet", {"links": []}, 'the number of links is "0"; a whole number from 1'),
        ("/finish", {"link": "model=avatar-generator%2F1&seed=1", "edits": "rotat=3"}, "rotate"),
        ("/upscale", {"picture": None}, "no picture was uploaded"),
        ("/upscale", {"picture": "/etc/passwd"}, "no other path and no address is opened"),
        ("/mix", {"rows": [], "columns": []}, "at least one of each"),
    ],
)
def test_what_is_wrong_comes_back_as_a_sentence_and_the_server_goes_on(
    client: Client, api_name: str, requested: dict[str, Any], reported: str
) -> None:
    said = refusal(client, api_name, **requested)
    assert reported in said
    assert "Traceback" not in said
    assert client.predict(api_name="/model")["name"] == "avatar-generator version 1"


def test_a_text_file_that_is_called_a_picture_is_refused(client: Client, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    said = refusal(client, "/upscale", picture=handle_file(tmp_path / "text.png"))
    assert "text.png: not a picture that can be opened" in said


@pytest.mark.parametrize("path", ["/etc/passwd", "http://127.0.0.1:9/x.png", "x/../../etc/passwd"])
def test_neither_a_path_nor_an_address_in_a_request_is_ever_opened(
    visitor: httpx.Client, path: str
) -> None:
    """Sent as JSON: gradio_client would upload its own machine's file of that name."""
    config = visitor.get("/config").json()
    number = {one["api_name"]: one["id"] for one in config["dependencies"]}["upscale"]
    picture = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}
    body = {"data": [[{"deep": picture}], 2, -1], "fn_index": number, "session_hash": "s"}
    for door in ("queue/join", "run/upscale", "call/upscale"):
        answer = visitor.post(f"/gradio_api/{door}", json=body)
        assert answer.status_code == 400
        assert "a picture must be uploaded to be used" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/gradio_api/file=/etc/passwd", 403),
        ("/gradio_api/file=http://127.0.0.1:9/", 403),
        ("/gradio_api/proxy=http://127.0.0.1:9/", 404),
        ("/gradio_api/runs", 404),
        ("/monitoring", 404),
        ("/docs", 404),
    ],
)
def test_doors_that_nobody_needs_are_closed(server: Running, path: str, status: int) -> None:
    assert httpx.get(server.url + path).status_code == status


def test_too_large_uploads_and_requests_are_refused_with_their_limit(server: Running) -> None:
    upload = {"files": ("large.png", b"0" * (11 * 2**20))}
    answer = httpx.post(f"{server.url}/gradio_api/upload", files=upload)
    assert answer.status_code == 413
    assert "at most 10," in answer.json()["detail"]
    body = b'{"data": "' + b"x" * 2**20 + b'"}'
    assert httpx.post(f"{server.url}/gradio_api/queue/join", content=body).status_code == 413


def test_another_hosts_name_is_refused_and_the_browser_is_told_to_ask_nobody_else(
    server: Running, visitor: httpx.Client
) -> None:
    rebound = httpx.get(server.url, headers={"Host": "evil.example:80"})
    assert rebound.status_code == 400
    page = visitor.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert "googleapis" not in page.text
    assert "googleapis" not in visitor.get("/theme.css").text


def test_a_full_queue_is_told_in_a_sentence(tmp_path: Path) -> None:
    async def full(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b"Queue is full. Max size is 32"})

    async def body() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/gradio_api/queue/join", "headers": []}
    asyncio.run(Guard(full, files=tmp_path, hosts=frozenset())(scope, body, send))
    assert [message.get("status") for message in sent] == [503, None]
    assert json.loads(sent[1]["body"]) == {"detail": FULL}


@pytest.mark.parametrize("path", ["/config", "/gradio_api/info", "/gradio_api/queue/status"])
def test_nothing_is_told_to_those_who_do_not_know_the_password(server: Running, path: str) -> None:
    assert httpx.get(server.url + path).status_code in (401, 404)
    wrong = httpx.post(f"{server.url}/login", data={"username": USER, "password": "sesame"})
    assert wrong.status_code == 400
    with pytest.raises(Exception, match="credentials were not provided"):
        Client(server.url, verbose=False)


def test_the_example_of_the_document_runs(
    server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = re.findall(r"```python\n(from gradio_client.*?)```", DOCUMENT.read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    reported: list[Any] = []
    here = example.replace(
        '"http://127.0.0.1:7860"', f'"{server.url}", auth=("{USER}", "{PASSWORD}")'
    )
    exec(here, {"print": lambda *values: reported.extend(values)})
    assert "avatar-generator version 1" in str(reported)


def digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.mark.parametrize("length", [[(b"content-length", b"4")], []], ids=["file", "stream"])
@pytest.mark.ci
def test_at_the_end_a_stream_is_closed_and_a_file_is_sent_whole(
    tmp_path: Path, length: list[tuple[bytes, bytes]]
) -> None:
    sent: list[dict[str, Any]] = []

    async def file_or_stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        guard.end()
        gone = asyncio.ensure_future(receive())
        await asyncio.wait({gone}, timeout=0.05)
        if not gone.done():  # as Starlette's middleware: who hears of a disconnect sends no more
            await send({"type": "http.response.body", "body": b"cd", "more_body": False})
        gone.cancel()

    async def silent() -> Any:
        await asyncio.Event().wait()
        raise AssertionError("a browser that waits says nothing")

    async def send(message: Any) -> None:
        sent.append(message)

    async def serve() -> None:
        await guard({"type": "http", "method": "GET", "path": "/", "headers": []}, silent, send)

    guard = Guard(file_or_stream, files=tmp_path, hosts=frozenset())
    asyncio.run(serve())
    assert sent[-1]["more_body"] is False
    assert b"".join(message.get("body", b"") for message in sent) == (b"abcd" if length else b"ab")
