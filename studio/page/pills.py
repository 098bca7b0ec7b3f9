"""Groups of labels as pills: what stands on them, and which wish the chosen ones mean."""

from collections.abc import Mapping, Sequence

from studio.drawing import Wish
from studio.groups import Group

# No label can be called so: names of labels have no comma.
ANY, NONE = "any,", "none,"

Picked = str | list[str] | None
Choice = tuple[str, str]


def choices(group: Group) -> list[Choice]:
    """Returns what stands on each pill, and its value: first "any" and "none", then the labels."""
    return [
        ("any", ANY),
        ("none", NONE),
        *((spoken(label, group), label) for label in group.labels),
    ]


def spoken(label: str, group: Group) -> str:
    """Returns a label as people say it below its group's title: `blonde`, not `blonde_hair`.

    A last word is left out where all labels of the group have it, and there are at least two.
    """
    endings = {one.rpartition("_")[2] for one in group.labels}
    shared = len(group.labels) > 1 and len(endings) == 1 and all("_" in one for one in group.labels)
    return (label.rpartition("_")[0] if shared else label).replace("_", " ")


def in_words(labels: Sequence[str]) -> str:
    """Returns labels as a person reads them: `blonde hair, blue eyes`."""
    return ", ".join(label.replace("_", " ") for label in labels) or "no label at all"


def start(group: Group) -> Picked:
    """Returns what is picked before anybody has picked anything."""
    return ANY if group.single else [ANY]


def kept(picked: Picked, group: Group) -> Picked:
    """Returns of a pick what the group still has: a model that follows may know other labels."""
    have = [picked] if isinstance(picked, str) else list(picked or [])
    still = [one for one in have if one in (ANY, NONE, *group.labels)]
    if not still:
        return start(group)
    return still[0] if group.single else still


def wish_of(groups: Sequence[Group], picked: Mapping[str, Picked]) -> Wish:
    """Returns the wish of all groups: "any" leaves a group out, "none" asks for none of it."""
    chosen: dict[str, tuple[str, ...]] = {}
    for group in groups:
        one = kept(picked.get(group.name), group)
        names = [one] if isinstance(one, str) else list(one or [])
        if ANY not in names:
            chosen[group.name] = tuple(name for name in names if name != NONE)
    return Wish(chosen)


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
