"""The top of the page: which model draws, when it was trained, and what there is to know of it."""

from html import escape

from dataset.errors import OmokageError
from studio.studio import Studio


def head(studio: Studio) -> str:
    """Returns the head as HTML; without a model, what keeps it from being there, and no error."""
    try:
        model = studio.model()
    except OmokageError as error:
        return _laid_out("no model yet", notice=str(error))
    side = model.spec.resolution_px
    facts = [f"<b>{escape(model.name)}</b>"]
    facts += [f"trained {escape(model.trained)}"] if model.trained else []
    facts += [f"{side} × {side} px"]
    return _laid_out(" · ".join(facts), notice=studio.notice() or model.limits)


def _laid_out(facts: str, *, notice: str) -> str:
    told = f'<p class="notice" role="status">{escape(_sentence(notice))}</p>' if notice else ""
    return (
        '<header class="top"><div><h1>Omokage</h1>'
        f'<p class="model" id="model">{facts}</p></div>{told}</header>'
    )


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
