"""The tab that keeps pictures: a shelf of recipes in the browser, its files, and two versions."""

import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, TypeVar

import gradio as gr
from PIL import Image

from dataset.errors import OmokageError, UsageError, listed
from models.sampling.draw import png_bytes
from studio.recipe import Recipe
from studio.shelf import (
    LINKS_MAX,
    SHEET_NAME,
    SHELF_MAX,
    ZIP_NAME,
    Lacking,
    archive,
    contact_sheet,
    for_version,
    recipes_of_file,
    small,
)
from studio.validation import UPLOAD_MAX_BYTES
from studio.web import draw_tab, links
from studio.web.files import file_name
from studio.web.label_controls import in_words
from studio.web.language import direction_name, label_name, mark, say
from studio.web.listener import listener
from studio.web.page_state import (
    AT_ONCE,
    FINISHES_AT_ONCE,
    PRIVATE,
    TELLING,
    Drawn,
    PageState,
)

if TYPE_CHECKING:
    from studio.web.app import Parts

# Windows of one browser share the shelf: a listener is given what is stored when it begins, and
# what it adds or removes is changed in what is stored when it ends.
_KEPT_JS = """const kept = () => {
    try {
      const links = JSON.parse(localStorage.getItem("omokage-kept"));
      return Array.isArray(links) ? links : [];
    } catch {
      return [];
    }
  };
  const keep = (links) => {
    localStorage.setItem("omokage-kept", JSON.stringify([...new Set(links)]));
    return [[]];
  };"""
READ_JS = f"(...values) => {{ {_KEPT_JS} return [...values.slice(0, -1), kept()]; }}"
ADD_JS = f"(links) => {{ {_KEPT_JS} return keep([...kept(), ...(links ?? [])]); }}"
REMOVE_JS = f"(gone) => {{ {_KEPT_JS} return keep(kept().filter((x) => !gone.includes(x))); }}"
# Of earlier releases, whose windows each wrote a whole shelf: Gradio's cipher, with a fixed key.
FORMER_STORE, FORMER_KEY = "omokage-shelf", "omokage"

# Stands where a kept picture cannot be drawn.
GREY_PX = 64
GREY = png_bytes(Image.new("RGB", (GREY_PX, GREY_PX), "#b8b8b8"), {})
T = TypeVar("T")

# The browser fetches what an export has made.
SAVE_JS = """(path) => {
  if (!path) return path;
  const link = document.createElement("a");
  link.href = `gradio_api/file=${encodeURI(path)}`;
  link.download = path.split("/").pop();
  link.click();
  return path;
}"""


@dataclass(frozen=True)
class KeepTab:
    """The tab's components.

    `shelf` is the last input of listeners with READ_JS: the links of what is kept. `added` has
    those that ADD_JS adds to it, `removed` those that REMOVE_JS takes off it.
    """

    shelf: gr.JSON
    added: gr.JSON
    removed: gr.JSON
    empty: gr.HTML
    grid: gr.Gallery
    chosen: gr.HTML
    actions: gr.Row
    open: gr.Button
    remove: gr.Button
    sheet: gr.Button
    zip: gr.Button
    drop: gr.File
    saved: gr.Textbox
    left: gr.Dropdown
    right: gr.Dropdown
    compare: gr.Button
    unknown: gr.HTML
    compared: gr.Gallery

    @property
    def shown(self) -> list[Any]:
        """What shows the kept pictures, in the order of `laid_out`."""
        return [self.empty, self.grid, self.chosen, self.actions]


def take_over_former_shelf(page: gr.Blocks) -> None:
    """Adds what the browser kept of an earlier release."""
    former = gr.BrowserState([], storage_key=FORMER_STORE, secret=FORMER_KEY)
    page.load(None, [former], [former], js=ADD_JS, **AT_ONCE)


def build_shelf() -> tuple[gr.JSON, gr.JSON, gr.JSON]:
    """Makes `shelf`, `added` and `removed`; a tab has its parts only once it was opened."""
    return gr.JSON(visible=False), gr.JSON(visible=False), gr.JSON(visible=False)


def build_keep_tab(shelf: gr.JSON, added: gr.JSON, removed: gr.JSON) -> KeepTab:
    """Lays the tab out."""
    with gr.Row(elem_classes="tab-row"):
        with gr.Column(scale=5, min_width=320, elem_classes="sheet"):
            gr.HTML(f'<p class="hint">{mark("keep.about")}</p>')
            with gr.Row(elem_classes="actions"):
                sheet = gr.Button(mark("keep.sheet"), size="md", elem_id="keep-sheet")
                packed = gr.Button(mark("keep.zip"), size="md", elem_id="keep-zip")
            drop = gr.File(
                label=mark("keep.bring"), file_types=[".png", ".zip"], height=150,
                elem_id="bring",
            )  # fmt: skip
            with gr.Accordion(mark("keep.compare"), open=False, elem_id="versions"):
                gr.HTML(f'<p class="hint">{mark("keep.about_compare")}</p>')
                with gr.Row():
                    left, right = (
                        gr.Dropdown(
                            [], label=mark(f"keep.{side}"), elem_id=f"version-{side}",
                            filterable=False, min_width=130,
                        )
                        for side in ("left", "right")
                    )  # fmt: skip
                compare = gr.Button(
                    mark("keep.do_compare"), variant="primary", size="md", elem_id="compare"
                )
        with gr.Column(scale=7, min_width=320, elem_classes="results"):
            empty = gr.HTML(
                f'<div class="empty">{mark("keep.empty")}</div>', elem_id="nothing-kept"
            )
            grid = _gallery("shelf", columns=4)
            chosen = gr.HTML(visible=False, elem_id="taken")
            with gr.Row(visible=False, elem_classes="actions") as actions:
                opened = gr.Button(mark("keep.open"), variant="primary", size="md", elem_id="open")
                remove = gr.Button(mark("keep.remove"), size="md", elem_id="remove")
            unknown = gr.HTML(visible=False, elem_id="unknown-labels")
            compared = _gallery("compared", columns=2)
    saved = gr.Textbox(visible="hidden", elem_id="saved")
    return KeepTab(
        shelf, added, removed, empty, grid, chosen, actions, opened, remove, sheet, packed, drop,
        saved, left, right, compare, unknown, compared,
    )  # fmt: skip


def _gallery(name: str, *, columns: int) -> gr.Gallery:
    return gr.Gallery(
        columns=columns, object_fit="contain", allow_preview=False, show_label=False,
        container=False, buttons=[], visible=False, elem_id=name,
        height="auto", interactive=False, fit_columns=False,
    )  # fmt: skip


def recipes_on(shelf: object) -> list[Recipe]:
    """Returns the recipes of what the browser keeps; what is no link of ours is left out."""
    return list(dict.fromkeys(recipe for _, recipe in _read(shelf)))[:SHELF_MAX]


def _read(shelf: object) -> list[tuple[str, Recipe]]:
    """Returns the links on the shelf and their recipes."""
    found: list[tuple[str, Recipe]] = []
    for link in shelf[:LINKS_MAX] if isinstance(shelf, list) else ():
        try:
            found.append((link, Recipe.from_query(link)))
        except (OmokageError, TypeError, ValueError):  # the browser's owner may write anything
            continue
    return found


def links_to_add(shelf: object, recipes: Sequence[Recipe]) -> tuple[list[str], int]:
    """Returns the links of recipes that the shelf lacks, and how many of these do not fit."""
    have = recipes_on(shelf)
    new = [recipe for recipe in dict.fromkeys(recipes) if recipe not in have]
    room = SHELF_MAX - len(have)
    return [recipe.to_query() for recipe in new[:room]], max(0, len(new) - room)


def laid_out(state: PageState) -> list[Any]:
    """Returns the updates of KeepTab.shown."""
    some = bool(state.shelf)
    return [
        gr.update(visible=not some),
        gr.update(
            visible=some,
            value=[(one.path, draw_tab.caption(one)) for one in state.shelf],
            selected_index=state.taken if state.taken >= 0 else None,
        ),
        gr.update(visible=some, value=_taken_text(state)),
        gr.update(visible=state.on_shelf is not None),
    ]


def _taken_text(state: PageState) -> str:
    one = state.on_shelf
    if one is None:
        return f'<p class="hint">{say("keep.hint")}</p>'
    return draw_tab.chosen_html(one)


def connect(parts: "Parts") -> None:
    """Connects the shelf with the other tabs, and its own buttons."""
    tab = parts.keep
    slow: dict[str, Any] = {
        **PRIVATE,
        "concurrency_limit": FINISHES_AT_ONCE,
        "concurrency_id": "finish",
        "trigger_mode": "once",
    }

    @listener
    def keep_drawn(state: PageState, shelf: object) -> list[str]:
        return keep_one(shelf, state.current.recipe if state.current else None)

    @listener
    def keep_finished(state: PageState, shelf: object) -> list[str]:
        history = state.history
        if history.recipe is None and not history.is_empty:
            raise UsageError(say("keep.not_ours"))
        return keep_one(shelf, None if history.is_empty else history.finished())

    @listener
    def show(state: PageState, shelf: object) -> Generator[list[Any], PageState, None]:
        faults: list[str] = []
        now = state.with_(shelf=(), taken=-1)
        now = yield [now, *laid_out(now)]
        for so_far in draw_tab.now_and_then(_tiles(parts, recipes_on(shelf), faults)):
            now = now.with_(shelf=so_far)
            now = yield [now, *laid_out(now)]
        _warn(faults)

    @listener
    def versions(left: object, right: object) -> list[Any]:
        keys = parts.studio.models()
        choices = [(_model_title(key), key) for key in keys]
        before = keys[min(1, len(keys) - 1)]
        return [
            gr.update(choices=choices, value=left if left in keys else before),
            gr.update(choices=choices, value=right if right in keys else keys[0]),
        ]

    @listener
    def take(state: PageState, event: gr.SelectData) -> list[Any]:
        now = state.with_(taken=int(event.index))
        return [now, _taken_text(now), gr.update(visible=now.on_shelf is not None)]

    @listener
    def open_(state: PageState) -> list[Any]:
        if state.on_shelf is None:
            raise UsageError(say("keep.none_chosen"))
        state, back = links.brought_back(parts, state, state.on_shelf.recipe)
        return [state, *back]

    @listener
    def remove(state: PageState, shelf: object) -> list[str]:
        gone = state.on_shelf.recipe if state.on_shelf else None
        return [link for link, recipe in _read(shelf) if recipe == gone]

    @listener
    def bring(sent: Any, shelf: object) -> list[Any]:
        if not sent:
            return [[], gr.skip()]
        content, name = parts.files.sent(sent)
        recipes, faults = recipes_of_file(content, where=name)
        new, without_room = links_to_add(shelf, recipes)
        faults += [say("keep.full", most=SHELF_MAX)] if without_room else []
        if faults:
            gr.Warning(escape(listed(faults)), title=say("keep.left_out"), duration=None)
        gr.Info(say("keep.brought", count=len(new)), title=say("tabs.keep"))
        return [new, None]

    @listener
    def sheet(shelf: object) -> str:
        faults: list[str] = []
        drawn = [
            (recipe, small(picture))
            for recipe, picture in _made(parts.studio.finish, _some(recipes_on(shelf)), faults)
        ]
        _warn(faults)
        return parts.files.keep(contact_sheet(drawn), SHEET_NAME)

    @listener
    def zip_shelf(shelf: object) -> str:
        return _zip(parts, recipes_on(shelf))

    @listener
    def zip_drawn(state: PageState) -> str:
        return _zip(parts, [one.recipe for one in state.drawn])

    @listener
    def compare(state: PageState, left: str, right: str, shelf: object) -> list[Any]:
        recipes = _some(recipes_on(shelf) or [one.recipe for one in state.drawn])
        return _compared(parts, recipes, [left, right])

    keep_on_click(parts, parts.draw.keep, keep_drawn)
    keep_on_click(parts, parts.finish.keep, keep_finished)
    showing: dict[str, Any] = {
        "fn": show,
        "inputs": [parts.state, tab.shelf],
        "outputs": [parts.state, *tab.shown],
        "js": READ_JS,
        **{name: value for name, value in slow.items() if name != "trigger_mode"},
    }
    parts.keep_tab.select(**showing)
    parts.keep_tab.select(versions, [tab.left, tab.right], [tab.left, tab.right], **slow)
    tab.grid.select(take, [parts.state], [parts.state, tab.chosen, tab.actions], **AT_ONCE)
    tab.open.click(open_, [parts.state], [parts.state, *links.outputs(parts)], **slow)
    removed = tab.remove.click(
        remove, [parts.state, tab.shelf], [tab.removed], js=READ_JS, **AT_ONCE
    )
    removed.success(None, [tab.removed], [tab.removed], js=REMOVE_JS, **AT_ONCE).success(**showing)
    brought = tab.drop.upload(
        bring,
        [tab.drop, tab.shelf],
        [tab.added, tab.drop],
        js=READ_JS,
        preprocess=False,  # the path of what was uploaded, and its name; nothing is made of it yet
        **slow,
    )
    brought.success(None, [tab.added], [tab.added], js=ADD_JS, **AT_ONCE).success(**showing)
    brought.failure(lambda: None, [], [tab.drop], **AT_ONCE)
    for button, made, inputs in (
        (tab.sheet, sheet, [tab.shelf]),
        (tab.zip, zip_shelf, [tab.shelf]),
        (parts.draw.every, zip_drawn, [parts.state]),
    ):
        button.click(
            made, inputs, [tab.saved], **slow | {"show_progress": "minimal"},
            js=READ_JS if inputs[-1] is tab.shelf else None, show_progress_on=[button],
        ).success(None, [tab.saved], [tab.saved], js=SAVE_JS, **AT_ONCE)  # fmt: skip
    tab.compare.click(
        compare,
        [parts.state, tab.left, tab.right, tab.shelf],
        [tab.unknown, tab.compared],
        js=READ_JS,
        **slow | {"show_progress": "minimal"},
        show_progress_on=[tab.compare],
    )


def keep_on_click(
    parts: "Parts", button: gr.Button, keep: Callable[[PageState, object], list[str]]
) -> None:
    """Has a button add to the shelf what `keep` returns, by `keep_one`, of the page and shelf."""
    added = [parts.keep.added]
    kept = button.click(keep, [parts.state, parts.keep.shelf], added, js=READ_JS, **TELLING)
    kept.success(None, added, added, js=ADD_JS, **AT_ONCE)


def keep_one(shelf: object, recipe: Recipe | None) -> list[str]:
    """Returns the link to add for a recipe, and shows a message.

    Raises UsageError if there is no recipe or the shelf is full.
    """
    if recipe is None:
        raise UsageError(say("keep.none_chosen"))
    new, without_room = links_to_add(shelf, [recipe])
    if without_room:
        raise UsageError(say("keep.full", most=SHELF_MAX))
    count = len(recipes_on(shelf)) + len(new)
    said = say("keep.kept", count=count, most=SHELF_MAX) if new else say("keep.known")
    gr.Info(said, title=say("tabs.keep"))
    return new


def _some(recipes: list[Recipe]) -> list[Recipe]:
    if not recipes:
        raise UsageError(say("keep.nothing"))
    return recipes


def _made(
    make: Callable[[Recipe], T], recipes: Iterable[Recipe], faults: list[str]
) -> Iterator[tuple[Recipe, T]]:
    """Makes something of recipes one after the other; adds why it cannot be to `faults`."""
    for recipe in recipes:
        try:
            made = make(recipe)
        except OmokageError as error:
            if str(error) not in faults:
                faults.append(str(error))
            continue
        yield recipe, made


def _tiles(parts: "Parts", recipes: Iterable[Recipe], faults: list[str]) -> Iterator[Drawn]:
    """Draws recipes; what cannot be drawn has a grey tile, by which it can be taken off the shelf.

    Why it cannot be is added to `faults`.
    """
    for recipe in recipes:
        drawn = [one for _, one in _made(parts.pictures.on_page, [recipe], faults)]
        yield drawn[0] if drawn else Drawn(recipe, parts.files.keep(GREY, "not-drawn.png"), GREY_PX)


def _warn(faults: Sequence[str]) -> None:
    if faults:
        gr.Warning(escape(listed(list(faults))), title=say("keep.not_drawn"), duration=None)


def _zip(parts: "Parts", recipes: list[Recipe]) -> str:
    faults: list[str] = []
    made = _made(parts.pictures.drawn, _some(recipes), faults)
    try:
        content = archive((file_name(recipe), png) for recipe, png in made)
    finally:
        _warn(faults)
    if len(content) > UPLOAD_MAX_BYTES:
        gr.Warning(say("keep.large", most=UPLOAD_MAX_BYTES // 2**20), title=say("tabs.keep"))
    return parts.files.keep(content, ZIP_NAME)


def _compared(parts: "Parts", recipes: Sequence[Recipe], keys: Sequence[str]) -> list[Any]:
    """Returns the updates of a row per recipe, drawn by two versions, and what those lack."""
    unknown: dict[str, list[str]] = {key: [] for key in keys}
    pictures: list[tuple[str, str]] = []
    faults: list[str] = []
    for recipe in recipes:
        for key in keys:
            model = parts.studio.model_of(dataclasses.replace(recipe, model=key))
            known = () if model.directions is None else model.directions.names
            own, lacking = for_version(recipe, key, labels=model.labels, directions=known)
            unknown[key] += [one for one in _in_words(lacking) if one not in unknown[key]]
            (tile,) = _tiles(parts, [own], faults)
            about = say(
                "keep.by", model=_model_title(key), seed=own.seed, labels=in_words(own.labels)
            )
            pictures.append((tile.path, about))
    _warn(faults)
    sentences = [
        say("keep.unknown", model=_model_title(key), labels=" · ".join(names))
        for key, names in unknown.items()
        if names
    ]
    text = "".join(f'<p class="reason">{escape(one)}</p>' for one in sentences)
    sides = "".join(f"<p>{escape(_model_title(key))}</p>" for key in keys)
    return [
        gr.update(visible=True, value=f'{text}<div class="sides">{sides}</div>'),
        gr.update(visible=True, value=pictures),
    ]


def _in_words(lacking: Lacking) -> list[str]:
    names = [*map(label_name, lacking.labels), *map(direction_name, lacking.sliders)]
    return [*names, *([say("explore.found")] if lacking.latent else [])]


def _model_title(key: str) -> str:
    name, _, number = key.rpartition("/")
    return say("keep.version", number=number) if name else key
