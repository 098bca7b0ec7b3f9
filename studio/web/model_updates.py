"""The page follows the model: at the start, every few seconds, and with each draw."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from dataset.errors import OmokageError
from studio.draw import abilities, label_groups
from studio.model_source import OpenModel
from studio.web import label_controls, play_tab
from studio.web.label_controls import Picked
from studio.web.language import group_name, say
from studio.web.listener import listener
from studio.web.page_state import AT_ONCE, PageState
from studio.web.theme import head

if TYPE_CHECKING:
    from studio.web.app import Parts

LOOK_EVERY_S = 5.0


def follow_model(
    parts: "Parts", state: PageState, values: Sequence[Picked]
) -> tuple[PageState, list[Any], Mapping[str, Picked]]:
    """Looks which model draws now; returns the state, the updates, and what is picked by group.

    values: of the slots' components. Where nothing has changed nothing is sent: what a visitor is
    about to choose stays as it is. Without any model the head says why.
    """
    text = head(parts.studio)
    picked = label_controls.picks_from(state.groups, values)
    try:
        model = parts.studio.model()
    except OmokageError:
        same = [gr.skip()] * (len(parts.model_shown) - 1)
        return state.with_(head=text), [_changed(text, state.head), *same], picked
    if model.key == state.shown:
        same = [gr.skip()] * (len(parts.model_shown) - 1)
        return state.with_(head=text), [_changed(text, state.head), *same], picked
    groups = tuple(label_groups(model.labels))
    moved = state.with_(shown=model.key, head=text, groups=groups)
    updates = [text, *_of_model(model)]
    if groups == state.groups:
        updates += parts.draw.labels.left()
    else:
        updates += parts.draw.labels.laid(groups, picked)
        picked = {
            group.name: label_controls.valid_pick(picked.get(group.name), group) for group in groups
        }
    return moved, updates, picked


def _changed(text: str, before: str) -> Any:
    return gr.skip() if text == before else text


def _of_model(model: OpenModel) -> list[Any]:
    """Returns the updates of all that depends on what the model can do."""
    able, spec = abilities(model), model.spec
    no_noise = able["noise"]
    groups = [
        (group_name(group.name, group.title), group.name) for group in label_groups(model.labels)
    ]
    layers = max(2, spec.w_layers - 1)
    return [
        gr.update(
            interactive=not no_noise, info=say("draw.no_noise") if no_noise else None, value="const"
        ),
        gr.update(choices=groups, value=groups[0][1] if groups else None),
        gr.update(maximum=max(1, spec.z_dim - 1), value=0),
        gr.update(maximum=layers, value=max(1, layers // 2)),
        *play_tab.abled(able),
    ]


def watch_model(parts: "Parts") -> None:
    """Has the page look for a new model every few seconds."""

    @listener
    def look(state: PageState, *values: Picked) -> list[Any]:
        moved, updates, _ = follow_model(parts, state, values)
        return [moved if moved != state else gr.skip(), *updates]

    timer = gr.Timer(LOOK_EVERY_S)
    timer.tick(
        look,
        [parts.state, *parts.draw.labels.components],
        [parts.state, *parts.model_shown],
        **AT_ONCE,
    )
