"""The tab that finishes one picture: larger, cut, turned, its colours; download and link."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from studio.edits import RANGES, Edits
from studio.page.bench import Bench, Look

FACTORS = [("1×", 1), ("2×", 2), ("4×", 4)]
DENOISES = [("none", -1), ("0", 0), ("1", 1), ("2", 2), ("3", 3)]
EDGES = (("left", 0.0), ("top", 0.0), ("right", 1.0), ("bottom", 1.0))
EMPTY = (
    '<div class="empty"><p>No picture is chosen yet.</p><p>Choose one under <b>Draw</b>, or drop a '
    "PNG here: one from this studio brings its settings back.</p></div>"
)
STEPS = {"rotate": 1, "scale": 0.05, "hue": 1}


@dataclass(frozen=True)
class Finished:
    """A finished picture for the page: its file, its size and its link ("" for an upload)."""

    path: str
    width: int
    height: int
    size_bytes: int
    told: str
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
    link: gr.Textbox

    @property
    def controls(self) -> list[Any]:
        """What a look is read from, in the order of `look_of`."""
        return [self.upscale, self.denoise, *self.edges, *self.sliders.values()]

    @property
    def shown(self) -> list[Any]:
        """What shows the picture."""
        return [
            self.empty, self.picture, self.caption, self.download, self.link,
            self.undo, self.redo, self.reset, self.denoise,
        ]  # fmt: skip


def build_finish_tab() -> FinishTab:
    """Lays the tab out."""
    with gr.Row(elem_classes=["room", "picture-first"]):
        with gr.Column(scale=5, min_width=320, elem_classes="sheet"):
            drop = gr.File(
                label="Drop a PNG, or click", file_types=["image"], height=130, elem_id="drop"
            )
            upscale = gr.Radio(
                FACTORS, value=1, label="Larger", elem_classes="pills", elem_id="upscale"
            )
            denoise = gr.Radio(
                DENOISES, value=-1, label="Denoise, while it is made larger", interactive=False,
                elem_classes="pills", elem_id="denoise",
            )  # fmt: skip
            with gr.Accordion("Crop", open=False), gr.Row():
                edges = [
                    gr.Slider(
                        0, 1, value, step=0.01, label=name.capitalize(), elem_id=name, min_width=130
                    )
                    for name, value in EDGES
                ]
            start = Edits()
            sliders = {
                name: gr.Slider(
                    low, high, getattr(start, name), step=STEPS.get(name, 0.05),
                    label=name.capitalize(), elem_id=name,
                )
                for name, (low, high) in RANGES.items()
            }  # fmt: skip
        with gr.Column(scale=7, min_width=320, elem_classes="results"):
            empty = gr.HTML(EMPTY, elem_id="nothing-chosen")
            picture = gr.Image(
                visible=False, interactive=False, show_label=False, container=False,
                buttons=["fullscreen"], elem_id="picture", type="filepath",
            )  # fmt: skip
            caption = gr.HTML(visible=False, elem_id="caption")
            with gr.Row(elem_classes="actions"):
                undo = gr.Button("Undo", size="md", interactive=False, elem_id="undo")
                redo = gr.Button("Redo", size="md", interactive=False, elem_id="redo")
                reset = gr.Button("Reset", size="md", interactive=False, elem_id="reset")
                download = gr.DownloadButton(
                    "Download PNG", variant="primary", size="md", interactive=False,
                    elem_id="download",
                )  # fmt: skip
            link = gr.Textbox(
                label="A link that shows this very picture", interactive=False, buttons=["copy"],
                visible=False, elem_id="link", lines=1, max_lines=1,
            )  # fmt: skip
    return FinishTab(
        drop, empty, picture, caption, upscale, denoise, edges, sliders, undo, redo, reset,
        download, link,
    )  # fmt: skip


def look_of(values: Sequence[Any]) -> Look:
    """Reads a look from the values of FinishTab.controls; raises UsageError of Edits."""
    upscale, denoise, left, top, right, bottom, *rest = values
    edits = Edits(crop=(left, top, right, bottom), **dict(zip(RANGES, rest, strict=True)))
    return Look(upscale=upscale, denoise=denoise, edits=edits)


def set_to(look: Look) -> list[Any]:
    """Returns the values of FinishTab.controls that stand for a look."""
    edits = look.edits
    return [look.upscale, look.denoise, *edits.crop, *(getattr(edits, name) for name in RANGES)]


def laid_out(bench: Bench, finished: Finished | None) -> list[Any]:
    """Returns the updates of FinishTab.shown."""
    there = finished is not None
    return [
        gr.update(visible=not there),
        gr.update(visible=there, value=finished.path if finished else None),
        gr.update(visible=there, value=_caption(finished) if finished else ""),
        gr.update(interactive=there, value=finished.path if finished else None),
        gr.update(
            visible=bool(finished and finished.link), value=finished.link if finished else ""
        ),
        gr.update(interactive=there and bench.can_undo),
        gr.update(interactive=there and bench.can_redo),
        gr.update(interactive=there and bench.look != Look()),
        gr.update(interactive=bench.look.upscale > 1),
    ]


def _caption(finished: Finished) -> str:
    size = f"{finished.width} × {finished.height} px, {max(1, finished.size_bytes // 1000):,} kB"
    return f'<p class="chosen"><b>{size}</b> · {escape(finished.told)}</p>'
