"""The page's words: all there in all languages, and given in the one that a visitor reads."""

import asyncio
import json
import re
import string
from pathlib import Path
from typing import Any

import pytest

import studio.web
from studio.draw import label_groups
from studio.web import label_controls, language
from studio.web.language import LANGUAGES, Translated, language_of, mark, texts

FOLDER = Path(studio.web.__file__).parent
SOURCES = "\n".join(path.read_text("utf-8") for path in sorted(FOLDER.glob("*.[pj][ys]")))


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def tags(text: str) -> list[str]:
    return re.findall(r"</?\w+>", text)


def test_every_text_is_there_in_every_language_with_the_same_placeholders_and_tags() -> None:
    for key, said in texts().items():
        assert set(said) == set(LANGUAGES), key
        assert all(text.strip() for text in said.values()), key
        assert len({frozenset(placeholders(text)) for text in said.values()}) == 1, key
        assert len({tuple(sorted(tags(text))) for text in said.values()}) == 1, key


def test_the_page_says_what_the_catalogue_has_and_nothing_else() -> None:
    used_keys = re.findall(r'(?:say|mark|said)\(\s*(f?)"([a-z]+\.[^"]+)"', SOURCES)
    used_keys += [("", key) for key in re.findall(r"\[\[([a-z]+\.[a-z_0-9]+)\]\]", SOURCES)]
    used_keys += [("", key) for key in re.findall(r'"(play\.[a-z_0-9]+)"', SOURCES)]
    patterns = [re.sub(r"\\\{.*?\\\}", "[a-z_0-9]+", re.escape(key)) for _, key in used_keys]
    used = {key for key in texts() if any(re.fullmatch(one, key) for one in patterns)}
    plain = {key for is_format, key in used_keys if not is_format}
    assert plain - set(texts()) == set(), "used and not in the catalogue"
    assert set(texts()) - used - {"page.description", "labels.other"} == set(), "never used"


@pytest.mark.parametrize(
    ("cookie", "accepted", "wanted"),
    [
        ("", "", "en"),
        ("", "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("", "fr-FR,en;q=0.4,ja;q=0.8", "ja"),
        ("", "de", "en"),
        ("", "zh;q=many, ;;,\x00", "en"),
        ("a=b; omokage_language=ja", "zh", "ja"),
        ("omokage_language=fr", "zh", "zh"),
        ('"; omokage_language', "zh", "zh"),
        ('a[b]=1; c={"d": 2}; omokage_language=ja', "zh", "ja"),
        ("", "zh;q=0, ja; q=0.5, en;q=0.4", "ja"),
    ],
)
def test_the_menu_comes_before_the_browser(cookie: str, accepted: str, wanted: str) -> None:
    assert language_of(cookie, accepted) == wanted


def test_a_page_goes_out_in_the_visitors_language(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = json.dumps({"label": mark("draw.button"), "value": mark("draw.empty"), "n": [[0.5]]})
    gradio = (
        '<html lang="en"><head><meta charset="utf-8" />'
        '<meta property="og:title" content="Gradio" />'
        f"<script>window.gradio_config = {labels};</script></head></html>"
    )
    headers: list[tuple[bytes, bytes]] = []
    body = b""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert b"accept-encoding" not in dict(scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": gradio.encode()})

    async def sent(message: Any) -> None:
        nonlocal body
        headers.extend(message.get("headers", []))
        body += message.get("body", b"")

    headers = [(b"accept-language", b"ja"), (b"accept-encoding", b"br")]
    scope = {"type": "http", "path": "/", "headers": headers}
    asyncio.run(Translated(app)(scope, lambda: None, sent))  # type: ignore[arg-type, return-value]
    page = body.decode()
    assert '<html lang="ja">' in page
    assert "<title>Omokage</title>" in page
    assert 'content="Gradio"' not in page
    assert dict(headers)[b"content-length"] == str(len(body)).encode()
    found = re.search(r"gradio_config = (\{.*\});</script></head>", page)
    assert found is not None
    config = json.loads(found[1])
    assert config["label"] == "描く"
    assert config["value"] == texts()["draw.empty"]["ja"]
    assert "[[" not in found[1].replace("[[0.5]]", "")


def test_a_direction_may_be_called_as_a_text_with_a_number_is() -> None:
    assert language.direction_name("direction_3") == "direction 3"
    assert language.direction_name("hair_length") == "hair length"
    assert language.direction_name("numbered") == "direction numbered"


def test_labels_are_called_as_people_say_them(monkeypatch: pytest.MonkeyPatch) -> None:
    (hair,) = label_groups(["blonde_hair", "gray_hair"])
    (other,) = label_groups(["wings"])
    said = {}
    for name in LANGUAGES:
        monkeypatch.setattr(language, "language", lambda name=name: name)
        monkeypatch.setattr(label_controls, "language", lambda name=name: name)
        said[name] = [
            language.group_name(hair.name, hair.title),
            language.group_name(other.name, other.title),
            *(label_controls.spoken(label, hair) for label in hair.labels),
            label_controls.in_words(["blonde_hair", "wings"]),
        ]
    assert said["en"] == ["Hair colour", "Other", "blonde", "gray", "blonde hair, wings"]
    assert said["zh"] == ["发色", "其他", "金发", "灰发", "金发、wings"]
    assert said["ja"] == ["髪の色", "その他", "金髪", "灰髪", "金髪、wings"]
