"""How the page looks: theme, style sheet, and the head that names the model."""

from html import escape
from pathlib import Path

import gradio as gr
from gradio.themes.utils import colors

from dataset.errors import OmokageError
from studio.service import Studio
from studio.web.language import say

CSS = Path(__file__).with_name("page.css")
FAVICON = Path(__file__).with_name("favicon.png")

PLUM = colors.Color(
    name="plum",
    c50="#faf5fb",
    c100="#f3e8f5",
    c200="#e6d2ea",
    c300="#d2b0d9",
    c400="#b884c2",
    c500="#9a5ea8",
    c600="#7f478d",
    c700="#693a74",
    c800="#57325f",
    c900="#492d50",
    c950="#2d1632",
)
INK = colors.Color(
    name="ink",
    c50="#faf9fb",
    c100="#f3f1f5",
    c200="#e7e3ea",
    c300="#d2ccd7",
    c400="#a49cad",
    c500="#7b7285",
    c600="#5f5668",
    c700="#4a4253",
    c800="#2e2835",
    c900="#1e1a24",
    c950="#131017",
)
FONTS = ("ui-sans-serif", "system-ui", "Segoe UI", "Helvetica", "Arial", "sans-serif")
MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")


def style() -> str:
    """Returns the style sheet for the page's head, as it is: Gradio would rewrite its selectors."""
    return f"<style>{CSS.read_text(encoding='utf-8')}</style>"


def theme() -> gr.themes.Base:
    """Returns the page's theme: no font of it is fetched from anywhere."""
    made = gr.themes.Base(
        primary_hue=PLUM,
        secondary_hue=PLUM,
        neutral_hue=INK,
        radius_size=gr.themes.sizes.radius_lg,
        font=FONTS,
        font_mono=MONO,
    )
    return made.set(
        body_text_color_subdued="*neutral_600",  # 4.5 and more on what lies behind it
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        background_fill_primary_dark="*neutral_900",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="0px",
        block_label_background_fill="transparent",
        block_title_text_weight="600",
        block_title_text_size="*text_sm",
        block_shadow="none",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white",
        button_large_radius="999px",
        button_medium_radius="999px",
        button_small_radius="999px",
        slider_color="*primary_500",
    )


def head(studio: Studio) -> str:
    """Returns the head as HTML; without a model, what keeps it from being there, and no error."""
    try:
        model = studio.model()
    except OmokageError as error:
        return _laid_out(say("page.no_model"), notice=str(error))
    side = model.spec.resolution_px
    facts = [f"<b>{escape(model.name)}</b>"]
    facts += [say("page.trained", date=escape(model.trained))] if model.trained else []
    facts += [f"{side} × {side} px"]
    return _laid_out(" · ".join(facts), notice=studio.notice() or model.limits)


def _laid_out(facts: str, *, notice: str) -> str:
    notice_html = (
        f'<p class="notice" role="status">{escape(_sentence(notice))}</p>' if notice else ""
    )
    return (
        '<header class="top"><div><h1>Omokage</h1>'
        f'<p class="model" id="model">{facts}</p></div>{notice_html}</header>'
    )


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
