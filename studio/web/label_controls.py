"""Controls for groups of labels: fixed places, into which a model's groups are laid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.draw import Group, LabelChoice
from studio.web.language import group_name, label_name, language, say

# No label can be called so: names of labels have no comma.
ANY, NONE = "any,", "none,"

Picked = str | list[str] | None
Option = tuple[str, str]


def options(group: Group) -> list[Option]:
    """Returns what stands on each pill, and its value: first "any" and "none", then the labels."""
    return [
        (say("labels.any"), ANY),
        (say("labels.none"), NONE),
        *((spoken(label, group), label) for label in group.labels),
    ]


def spoken(label: str, group: Group) -> str:
    """Returns a label as people say it below its group's title: `blonde`, not `blonde_hair`.

    In English a last word is left out where all labels of the group have it, and there are at
    least two.
    """
    if language() != "en":
        return label_name(label)
    endings = {one.rpartition("_")[2] for one in group.labels}
    shared = len(group.labels) > 1 and len(endings) == 1 and all("_" in one for one in group.labels)
    return (label.rpartition("_")[0] if shared else label).replace("_", " ")


def in_words(labels: Sequence[str]) -> str:
    """Returns labels as a person reads them: `blonde hair, blue eyes`."""
    named = say("labels.separator").join(label_name(label) for label in labels)
    return named or say("labels.nothing")


def default_pick(group: Group) -> Picked:
    """Returns what is picked before anybody has picked anything."""
    return ANY if group.single else [ANY]


def valid_pick(picked: Picked, group: Group) -> Picked:
    """Returns of a pick what the group still has: a model that follows may know other labels."""
    have = [picked] if isinstance(picked, str) else list(picked or [])
    still = [one for one in have if one in (ANY, NONE, *group.labels)]
    if not still:
        return default_pick(group)
    return still[0] if group.single else still


def choice_of(groups: Sequence[Group], picked: Mapping[str, Picked]) -> LabelChoice:
    """Returns the choice of all groups: "any" leaves a group out, "none" asks for none of it."""
    chosen: dict[str, tuple[str, ...]] = {}
    for group in groups:
        one = valid_pick(picked.get(group.name), group)
        names = [one] if isinstance(one, str) else list(one or [])
        if ANY not in names:
            chosen[group.name] = tuple(name for name in names if name != NONE)
    return LabelChoice(chosen)


def picks_of(groups: Sequence[Group], labels: Sequence[str]) -> dict[str, Picked]:
    """Returns the picks that ask for exactly these labels."""
    picked: dict[str, Picked] = {}
    for group in groups:
        names = [label for label in group.labels if label in labels] or [NONE]
        # A row of real labels may have two of a kind; then the first is shown.
        picked[group.name] = names[0] if group.single else names
    return picked


# Run in the browser: what was clicked last is the last of the list. "any" and "none" stand alone,
# and nothing at all means any. A list of outputs is given back: of this one.
EXCLUSIVE_JS = f"""(picked) => {{
  const last = picked[picked.length - 1], alone = [{ANY!r}, {NONE!r}];
  if (!picked.length) return [[{ANY!r}]];
  return [alone.includes(last) ? [last] : picked.filter((one) => !alone.includes(one))];
}}"""


PLACES = 16  # the vocabulary has fewer kinds of labels


@dataclass(frozen=True)
class LabelControls:
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
                        label=group_name(group.name, group.title),
                        choices=options(group),
                        value=valid_pick(picked.get(group.name), group),
                    )
                )
        return updates

    def left(self) -> list[Any]:
        """Returns the updates that leave all as it is."""
        return [gr.skip()] * len(self.components)


def picks_from(groups: Sequence[Group], values: Sequence[Picked]) -> dict[str, Picked]:
    """Returns by group what is picked, from the values of all places' components in order."""
    return {
        group.name: values[2 * place + (0 if group.single else 1)]
        for place, group in enumerate(groups[:PLACES])
    }


def build_label_controls() -> LabelControls:
    """Makes the places, empty."""
    components: list[gr.Radio | gr.CheckboxGroup] = []
    for place in range(PLACES):
        one = gr.Radio([], visible=False, elem_id=f"one-{place}", elem_classes="pills")
        several = gr.CheckboxGroup(
            [], visible=False, elem_id=f"several-{place}", elem_classes="pills"
        )
        several.input(
            None, several, several, js=EXCLUSIVE_JS, api_visibility="private", queue=False
        )
        components += [one, several]
    return LabelControls(components)
