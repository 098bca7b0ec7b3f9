"""The page follows the model: at the start, every few seconds, and with each draw."""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from dataset.errors import OmokageError
from studio.abilities import abilities
from studio.groups import label_groups
from studio.opened import OpenModel
from studio.page import pills, play_tab, slots
from studio.page.desk import Desk
from studio.page.head import head
from studio.page.parts import AT_ONCE, Parts
from studio.page.pills import Picked
from studio.page.told import told

LOOK_EVERY_S = 5.0


def followed(
    parts: Parts, desk: Desk, values: Sequence[Picked]
) -> tuple[Desk, list[Any], Mapping[str, Picked]]:
    """Looks which model draws now; returns the desk, the updates, and what is picked by group.

    values: of the slots' components. Where nothing has changed nothing is sent: what a visitor is
    about to choose stays as it is. Without any model the head says why.
    """
    text = head(parts.studio)
    picked = slots.picked(desk.groups, values)
    try:
        model = parts.studio.model()
    except OmokageError:
        same = [gr.skip()] * (len(parts.model_shown) - 1)
        return desk.with_(told=text), [_changed(text, desk.told), *same], picked
    if model.key == desk.shown:
        same = [gr.skip()] * (len(parts.model_shown) - 1)
        return desk.with_(told=text), [_changed(text, desk.told), *same], picked
    groups = tuple(label_groups(model.labels))
    moved = desk.with_(shown=model.key, told=text, groups=groups)
    updates = [text, *_of_model(model)]
    if groups == desk.groups:
        updates += parts.draw.slots.left()
    else:
        updates += parts.draw.slots.laid(groups, picked)
        picked = {group.name: pills.kept(picked.get(group.name), group) for group in groups}
    return moved, updates, picked


def _changed(text: str, before: str) -> Any:
    return gr.skip() if text == before else text


def _of_model(model: OpenModel) -> list[Any]:
    """Returns the updates of all that depends on what the model can do."""
    able, spec = abilities(model), model.spec
    no_noise = able["noise"]
    groups = [(group.title, group.name) for group in label_groups(model.labels)]
    layers = max(2, spec.w_layers - 1)
    return [
        gr.update(interactive=not no_noise, info=no_noise or None, value="const"),
        gr.update(choices=groups, value=groups[0][1] if groups else None),
        gr.update(maximum=max(1, spec.z_dim - 1), value=0),
        gr.update(maximum=layers, value=max(1, layers // 2)),
        *play_tab.abled(able),
    ]


def listen(parts: Parts) -> None:
    """Has the page look for a new model every few seconds."""

    @told
    def look(desk: Desk, *values: Picked) -> list[Any]:
        moved, updates, _ = followed(parts, desk, values)
        return [moved if moved != desk else gr.skip(), *updates]

    timer = gr.Timer(LOOK_EVERY_S)
    timer.tick(
        look,
        [parts.desk, *parts.draw.slots.components],
        [parts.desk, *parts.model_shown],
        **AT_ONCE,
    )
