"""Controls for groups of labels that are not known beforehand: the model says what there is.

A page is built once and its model changes under it. So there is a fixed number of places, each
with a single choice and a choice of several, and a model's groups are laid into them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.groups import Group
from studio.page import pills
from studio.page.pills import Picked

PLACES = 16  # the vocabulary has fewer kinds of labels


@dataclass(frozen=True)
class Slots:
    """The places, two components each: the one that is not needed is not there for the browser."""

    components: list[gr.Radio | gr.CheckboxGroup]

    def laid(self, groups: Sequence[Group], picked: Mapping[str, Picked]) -> list[Any]:
        """Returns the updates that lay the groups out, with what is picked in each."""
        updates: list[Any] = []
        for place in range(PLACES):
            group = groups[place] if place < len(groups) else None
            for is_single in (True, False):
                if group is None or group.single != is_single:
                    updates.append(gr.update(visible=False))
                    continue
                updates.append(
                    gr.update(
                        visible=True,
                        label=group.title,
                        choices=pills.choices(group),
                        value=pills.kept(picked.get(group.name), group),
                    )
                )
        return updates

    def left(self) -> list[Any]:
        """Returns the updates that leave all as it is."""
        return [gr.skip()] * len(self.components)


def picked(groups: Sequence[Group], values: Sequence[Picked]) -> dict[str, Picked]:
    """Returns by group what is picked, from the values of all places' components in order."""
    return {
        group.name: values[2 * place + (0 if group.single else 1)]
        for place, group in enumerate(groups[:PLACES])
    }


def build_slots() -> Slots:
    """Makes the places, empty."""
    components: list[gr.Radio | gr.CheckboxGroup] = []
    for place in range(PLACES):
        one = gr.Radio([], visible=False, elem_id=f"one-{place}", elem_classes="pills")
        several = gr.CheckboxGroup(
            [], visible=False, elem_id=f"several-{place}", elem_classes="pills"
        )
        several.input(
            None, several, several, js=pills.EXCLUSIVE_JS, api_visibility="private", queue=False
        )
        components += [one, several]
    return Slots(components)
