"""The tab that finishes one picture: size, crop, rotation, colours; download and link."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio.edits import RANGES, Edits
from studio.web.files import file_name, size_of
from studio.web.label_controls import in_words
from studio.web.language import mark, say
from studio.web.listener import listener
from studio.web.page_state import (
    AT_ONCE,
    FINISHES_AT_ONCE,
    PRIVATE,
    EditHistory,
    Finishing,
    PageState,
)

if TYPE_CHECKING:
    from studio.web.app import Parts

FACTORS = [("1×", 1), ("2×", 2), ("4×", 4)]
DENOISES = [(mark("finish.denoise_none"), -1), ("0", 0), ("1", 1), ("2", 2), ("3", 3)]
EDGES = (("left", 0.0), ("top", 0.0), ("right", 1.0), ("bottom", 1.0))
STEPS = {"rotate": 1, "scale": 0.05, "hue": 1}


@dataclass(frozen=True)
class Finished:
    """A finished picture for the page: its file, its size and its link ("" for an upload)."""

    path: str
    width: int
    height: int
    size_bytes: int
    caption: str
    link: str


@dataclass(frozen=True)
class FinishTab:
    """The tab's components."""

    drop: gr.File
    empty: gr.HTML
    picture: gr.Image
    caption: gr.HTML
    upscale: gr.Radio
    denoise: gr.Radio
    edges: list[gr.Slider]
    sliders: dict[str, gr.Slider]
    undo: gr.Button
    redo: gr.Button
    reset: gr.Button
    download: gr.DownloadButton
    keep: gr.Button
    link: gr.Textbox

    @property
    def controls(self) -> list[Any]:
        """What a finishing is read from, in the order of `finishing_of`."""
        return [self.upscale, self.denoise, *self.edges, *self.sliders.values()]

    @property
    def shown(self) -> list[Any]:
        """What shows the picture."""
        return [
            self.empty, self.picture, self.caption, self.download, self.link,
            self.undo, self.redo, self.reset, self.denoise, self.keep,
        ]  # fmt: skip


def build_finish_tab() -> FinishTab:
    """Lays the tab out."""
    with gr.Row(elem_classes=["tab-row", "picture-first"]):
        with gr.Column(scale=5, min_width=320, elem_classes="sheet"):
            drop = gr.File(
                label=mark("finish.drop"), file_types=["image"], height=150, elem_id="drop"
            )
            upscale = gr.Radio(
                FACTORS,
                value=1,
                label=mark("finish.larger"),
                elem_classes="pills",
                elem_id="upscale",
            )
            denoise = gr.Radio(
                DENOISES, value=-1, label=mark("finish.denoise"), interactive=False,
                elem_classes="pills", elem_id="denoise",
            )  # fmt: skip
            with gr.Accordion(mark("finish.crop"), open=False), gr.Row():
                edges = [
                    gr.Slider(
                        0,
                        1,
                        value,
                        step=0.01,
                        label=mark(f"finish.{name}"),
                        elem_id=name,
                        min_width=130,
                    )
                    for name, value in EDGES
                ]
            start = Edits()
            sliders = {
                name: gr.Slider(
                    low, high, getattr(start, name), step=STEPS.get(name, 0.05),
                    label=mark(f"finish.{name}"), elem_id=name,
                )
                for name, (low, high) in RANGES.items()
            }  # fmt: skip
        with gr.Column(scale=7, min_width=320, elem_classes="results"):
            empty = gr.HTML(
                f'<div class="empty">{mark("finish.empty")}</div>', elem_id="nothing-chosen"
            )
            picture = gr.Image(
                visible=False, interactive=False, show_label=False, container=False,
                buttons=["fullscreen"], elem_id="picture", type="filepath",
            )  # fmt: skip
            caption = gr.HTML(visible=False, elem_id="caption")
            with gr.Row(elem_classes="actions"):
                undo = gr.Button(mark("finish.undo"), size="md", interactive=False, elem_id="undo")
                redo = gr.Button(mark("finish.redo"), size="md", interactive=False, elem_id="redo")
                reset = gr.Button(
                    mark("finish.reset"), size="md", interactive=False, elem_id="reset"
                )
                download = gr.DownloadButton(
                    mark("finish.download"), variant="primary", size="md", interactive=False,
                    elem_id="download",
                )  # fmt: skip
                keep = gr.Button(
                    mark("draw.keep"), size="md", interactive=False, elem_id="keep-finished"
                )
            link = gr.Textbox(
                label=mark("finish.link"), interactive=False, buttons=["copy"],
                visible=False, elem_id="link", lines=1, max_lines=1,
            )  # fmt: skip
    return FinishTab(
        drop, empty, picture, caption, upscale, denoise, edges, sliders, undo, redo, reset,
        download, keep, link,
    )  # fmt: skip


def finishing_of(values: Sequence[Any]) -> Finishing:
    """Reads a finishing from the values of FinishTab.controls; raises UsageError of Edits."""
    upscale, denoise, left, top, right, bottom, *rest = values
    edits = Edits(crop=(left, top, right, bottom), **dict(zip(RANGES, rest, strict=True)))
    return Finishing(upscale=upscale, denoise=denoise, edits=edits)


def set_to(finishing: Finishing) -> list[Any]:
    """Returns the values of FinishTab.controls that stand for a finishing."""
    edits = finishing.edits
    return [
        finishing.upscale,
        finishing.denoise,
        *edits.crop,
        *(getattr(edits, name) for name in RANGES),
    ]


def laid_out(history: EditHistory, finished: Finished | None) -> list[Any]:
    """Returns the updates of FinishTab.shown."""
    there = finished is not None
    return [
        gr.update(visible=not there),
        gr.update(
            visible=there,
            value=finished.path if finished else None,
            alt_text=say("finish.picture", about=finished.caption) if finished else None,
        ),
        gr.update(visible=there, value=_caption(finished) if finished else ""),
        gr.update(interactive=there, value=finished.path if finished else None),
        gr.update(
            visible=bool(finished and finished.link), value=finished.link if finished else ""
        ),
        gr.update(interactive=there and history.can_undo),
        gr.update(interactive=there and history.can_redo),
        gr.update(interactive=there and history.finishing != Finishing()),
        gr.update(interactive=history.finishing.upscale > 1),
        gr.update(interactive=bool(finished and finished.link)),
    ]


def _caption(finished: Finished) -> str:
    size = say(
        "finish.size",
        width=finished.width,
        height=finished.height,
        kilobytes=f"{max(1, finished.size_bytes // 1000):,}",
    )
    return f'<p class="chosen"><b>{size}</b> · {escape(finished.caption)}</p>'


# The server knows the query alone; by which name it is reached is the browser's to say.
LINK_JS = "(link) => link.startsWith('?') ? location.origin + location.pathname + link : link"


def connect(parts: "Parts") -> None:
    """Connects the controls, and undo, redo and reset."""
    tab = parts.finish
    outputs = [parts.state, *tab.shown]

    @listener
    def change(state: PageState, *values: Any) -> list[Any]:
        if state.history.is_empty:
            return [gr.skip()] * len(outputs)
        history = state.history.changed(finishing_of(values), now=time.monotonic())
        return [state.with_(history=history), *laid_out(history, finished(parts, history))]

    @listener
    def undo(state: PageState) -> list[Any]:
        return _gone_to(parts, state, state.history.undone())

    @listener
    def redo(state: PageState) -> list[Any]:
        return _gone_to(parts, state, state.history.redone())

    @listener
    def reset(state: PageState) -> list[Any]:
        return _gone_to(parts, state, state.history.reset(now=time.monotonic()))

    group: dict[str, Any] = {"concurrency_limit": FINISHES_AT_ONCE, "concurrency_id": "finish"}
    gr.on(
        [control.input for control in tab.controls],
        change,
        [parts.state, *tab.controls],
        outputs,
        trigger_mode="always_last",  # of a slider that is dragged, the last place counts
        **PRIVATE,
        **group,
    )
    everything = [parts.state, *parts.finish_all]
    for button, step in ((tab.undo, undo), (tab.redo, redo), (tab.reset, reset)):
        button.click(step, [parts.state], everything, **PRIVATE, **group)
    tab.link.change(None, tab.link, tab.link, js=LINK_JS, **AT_ONCE)


def show_history(
    parts: "Parts", state: PageState, history: EditHistory
) -> tuple[PageState, list[Any]]:
    """Returns the state with a picture on its history, and the updates of Parts.finish_all."""
    laid = laid_out(history, finished(parts, history))
    return state.with_(history=history), [*laid, *set_to(history.finishing)]


def finished(parts: "Parts", history: EditHistory) -> Finished | None:
    """Makes the picture of a history and its file; None if no picture lies there."""
    if history.is_empty:
        return None
    if history.recipe is None:
        made = parts.pictures.sent(history.sent, history.name, history.finishing)
        return _kept(
            parts, made, name=f"{history.name}-finished.png", caption=history.name, link=""
        )
    recipe = history.finished()
    made = parts.pictures.drawn(recipe)
    caption = say(
        "finish.about",
        seed=recipe.seed,
        labels=in_words(recipe.labels),
        model=recipe.model.replace("/", " "),
        side=parts.studio.model_of(recipe).spec.resolution_px,
    )
    return _kept(parts, made, name=file_name(recipe), caption=caption, link=f"?{recipe.to_query()}")


def _gone_to(parts: "Parts", state: PageState, history: EditHistory) -> list[Any]:
    now, laid = show_history(parts, state, history)
    return [now, *laid]


def _kept(parts: "Parts", content: bytes, *, name: str, caption: str, link: str) -> Finished:
    width, height = size_of(content)
    path = parts.files.keep(content, name)
    return Finished(path, width, height, len(content), caption, link)
