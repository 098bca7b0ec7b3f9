"""The page's languages: the catalogue of its words, and the language of whoever is answered.

What the page is built from are marks, into which the words are filled as the page goes out; what
is said later is said in the language of the request. The menu's choice, a cookie, comes before
what the browser asks for.
"""

import importlib.resources
import json
import re
import tomllib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import cache
from html import escape
from typing import Any

from gradio.context import LocalContext

from dataset.vocabulary import appearance

LANGUAGES = {"en": "English", "zh": "中文", "ja": "日本語"}
TAGS = {"en": "en", "zh": "zh-CN", "ja": "ja"}  # as browsers and Gradio call them
COOKIE = "omokage_language"  # set by page.js

_MARK = re.compile(r"\[\[([a-z]+\.[a-z_0-9]+)\]\]")
_META = re.compile(r'<meta\s+(?:property|name)="(?:og|twitter):[^>]*>\s*')


@cache
def texts() -> Mapping[str, Mapping[str, str]]:
    """Returns the catalogue: by key, such as "draw.button", the text in each language."""
    content = (importlib.resources.files("studio.web") / "texts.toml").read_text("utf-8")
    return {
        f"{section}.{name}": said
        for section, names in tomllib.loads(content).items()
        for name, said in names.items()
    }


@cache
def _script() -> str:
    """Returns page.js, which must run before Gradio's own scripts."""
    return (importlib.resources.files("studio.web") / "page.js").read_text("utf-8")


def mark(key: str) -> str:
    """Returns what stands for a text while the page is built; it must have no placeholders."""
    assert key in texts(), key
    return f"[[{key}]]"


def say(key: str, **values: object) -> str:
    """Returns a text in the language of the request that is answered; English without one."""
    return texts()[key][language()].format(**values)


def language() -> str:
    """Returns the language of the request that is answered: a key of LANGUAGES."""
    request = LocalContext.request.get(None)
    if request is None:
        return "en"
    headers = request.headers
    return language_of(headers.get("cookie", ""), headers.get("accept-language", ""))


def language_of(cookie: str, accepted: str) -> str:
    """Returns the language of the headers Cookie and Accept-Language."""
    # Not SimpleCookie: it stops at what is no cookie, such as another server's of this machine.
    pairs = (one.strip().partition("=") for one in cookie.split(";"))
    chosen = [value.strip('"') for name, _, value in pairs if name == COOKIE]
    if chosen and chosen[0] in LANGUAGES:
        return chosen[0]
    wanted: list[tuple[float, str]] = []
    for part in accepted.replace(" ", "").split(","):
        tag, _, weight = part.partition(";q=")
        name = tag.partition("-")[0].lower()
        if name not in LANGUAGES or not re.fullmatch(r"[01](\.\d{0,3})?", weight or "1"):
            continue
        if float(weight or 1) > 0:  # else it is one that the visitor does not read
            wanted.append((-float(weight or 1), name))
    return min(wanted, key=lambda one: one[0])[1] if wanted else "en"


def label_name(label: str) -> str:
    """Returns what people call a label: `blonde hair`, 金发, 金髪."""
    vocabulary = appearance()
    tag = vocabulary.meaning.get(label, (label,))[0]  # an alias is called as its tag
    name = vocabulary.names.get(tag, {}).get(language())
    return name or label.replace("_", " ")


def direction_name(name: str) -> str:
    """Returns what people call a model's direction: a quality, a label, or a number."""
    word, _, number = name.rpartition("_")
    if word == "direction" and number.isdecimal():
        return say("directions.numbered", number=number)
    if f"directions.{name}" not in texts():
        return label_name(name)
    return say(f"directions.{name}", number=number)  # a file may call one "numbered" itself


def group_name(name: str, title: str) -> str:
    """Returns what people call a group of labels; title: what it is called in English."""
    if f"labels.{name}" in texts():
        return say(f"labels.{name}")
    return appearance().names.get(name, {}).get(language(), title)


def menu() -> str:
    """Returns the menu of languages as HTML; page.js marks the one that is on."""
    buttons = "".join(
        f'<button type="button" data-language="{name}" lang="{TAGS[name]}">{title}</button>'
        for name, title in LANGUAGES.items()
    )
    return f'<nav class="languages" aria-label="{mark("page.language")}">{buttons}</nav>'


def translated(page: str, language: str) -> str:
    """Returns JSON, or a page that holds some, with the words of a language instead of marks."""

    def word(found: re.Match[str]) -> str:
        text = texts()[found[1]][language]
        return json.dumps(text, ensure_ascii=False)[1:-1].replace("<", "\\u003c")

    return _MARK.sub(word, page)


def page_in(page: str, language: str) -> str:
    """Returns Gradio's page in a language, with our title and previews instead of Gradio's."""
    about = escape(texts()["page.description"][language])
    ours = (
        f"<title>Omokage</title><script>{_script()}</script>"
        f'<meta name="description" content="{about}" />'
        '<meta property="og:title" content="Omokage" />'
        '<meta property="og:type" content="website" />'
        f'<meta property="og:description" content="{about}" />'
    )
    page = _META.sub("", page).replace('lang="en"', f'lang="{TAGS[language]}"', 1)
    charset = '<meta charset="utf-8" />'
    return translated(page.replace(charset, f"{charset}{ours}", 1), language)


Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Translated:
    """An ASGI application around Gradio's: its page goes out in the visitor's language."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        path = scope.get("path")
        if scope["type"] != "http" or path not in ("/", "/config"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): text for name, text in scope["headers"]}
        cookie = headers.get("cookie", b"").decode("latin-1")
        accepted = headers.get("accept-language", b"").decode("latin-1")
        wanted = language_of(cookie, accepted)
        plain = [(name, text) for name, text in scope["headers"] if name != b"accept-encoding"]
        start: Message = {}
        body = b""

        async def sent(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            text = body.decode()
            text = page_in(text, wanted) if path == "/" else translated(text, wanted)
            kept = [one for one in start.get("headers", []) if one[0].lower() != b"content-length"]
            content = text.encode()
            kept += [
                (b"content-length", str(len(content)).encode()),
                (b"content-language", TAGS[wanted].encode()),
                (b"vary", b"Cookie, Accept-Language"),
            ]
            await send({**start, "headers": kept})
            await send({"type": "http.response.body", "body": content})

        await self._app({**scope, "headers": plain}, receive, sent)
