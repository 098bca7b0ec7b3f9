"""What is made from what: columns, as Dagster shows it, and which materialisation a stage takes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from dataset.schemas import FACES, POSTS, machine_labels_schema, manifest_schema

# A blob is found by its sha256 and extension; `cropped` says whether a face is looked for on it.
_PICTURE = [("posts", "sha256"), ("posts", "ext"), ("posts", "cropped")]
_TAGS = ("posts", "tags_general")
# The labels are counted over the kept faces.
_COUNTED = [_TAGS, ("faces", "drop_reason"), ("faces", "board"), ("faces", "post_id")]

LABELS_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("labels", "list<string>", "names of the labels, the more frequent first"),
        dg.TableColumn("groups", "map<string, string>", "group of each label, such as hair_colour"),
        dg.TableColumn("counts", "map<string, int>", "crops with each curated tag"),
        dg.TableColumn("fractions", "map<string, float>", "the same as a part of the crops, 0-1"),
        dg.TableColumn("cut", "map<string, reason>", "tags that are no labels, and why"),
        dg.TableColumn("sided", "list<string>", "labels that tell left from right: no flips"),
    ]
)


def materialised(
    instance: dg.DagsterInstance, run: dg.DagsterRun, key: dg.AssetKey, *, newest: bool = True
) -> Mapping[str, Any] | None:
    """Returns the metadata of the materialisation of an asset that a stage of `run` goes on from.

    It is that of the run, or of the one that it is a re-execution of; otherwise, with `newest`, the
    newest there is. So a stage never takes what another run has made in the meantime. None: there
    is none.
    """
    ancestor: dg.DagsterRun | None = run
    while ancestor is not None:
        log = instance.all_logs(ancestor.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        made = (entry.asset_materialization for entry in reversed(log))
        if found := next((one for one in made if one and one.asset_key == key), None):
            return _values(found)
        ancestor = instance.get_run_by_id(ancestor.get_parent_run_id() or "")
    event = instance.get_latest_materialization_event(key) if newest else None
    return _values(event.asset_materialization) if event and event.asset_materialization else None


def _values(made: dg.AssetMaterialization) -> dict[str, Any]:
    return {name: value.value for name, value in made.metadata.items()}


def _lineage(made_from: dict[str, Iterable[tuple[str, str]]]) -> dg.TableColumnLineage:
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(dg.AssetKey(asset), name) for asset, name in deps]
            for column, deps in made_from.items()
        }
    )


# The ledger, which the posts come from, is no asset with columns: all of theirs are new.
POSTS_LINEAGE = _lineage({name: [] for name in POSTS.names})

FACES_LINEAGE = _lineage(
    {
        **dict.fromkeys(FACES.names, _PICTURE),  # boxes, squares, crops: seen on the picture
        "face_id": [("posts", "sha256")],
        "sha256": [("posts", "sha256")],
        "board": [("posts", "board")],
        "post_id": [("posts", "post_id")],
        # Several faces on a post with the tag solo; of near-duplicates, the first post's stays.
        "drop_reason": [*_PICTURE, _TAGS, ("posts", "board"), ("posts", "post_id")],
    }
)

LABELS_LINEAGE = _lineage({column.name: _COUNTED for column in LABELS_COLUMNS.columns})


def machine_labels_lineage(labels: Sequence[str]) -> dg.TableColumnLineage:
    """Returns where the columns of a tagger's table with these labels come from."""
    seen = [("faces", "crop"), ("faces", "crop_sha256")]
    learnt_from = [*seen, ("labels", "labels"), _TAGS]  # with a tagger of ours
    taken = {name: [("faces", name)] for name in ("face_id", "crop_sha256")}
    names = machine_labels_schema(list(labels)).names
    return _lineage({**dict.fromkeys(names, learnt_from), **taken})


def manifest_lineage(labels: Sequence[str], *, by_machine: bool = True) -> dg.TableColumnLineage:
    """Returns where the columns of a manifest with these labels come from.

    by_machine: whether faces without tags get their labels from the table of a tagger.
    """
    taken = [name for name in manifest_schema([]).names if name in FACES.names]
    machine = [("machine_labels", "face_id")] if by_machine else []
    made_from: dict[str, Iterable[tuple[str, str]]] = {name: [("faces", name)] for name in taken}
    made_from["split"] = [("faces", "sha256")]
    made_from["labels_by"] = [_TAGS, *machine]
    for label in labels:
        machine = [("machine_labels", label)] if by_machine else []
        made_from[label] = [("labels", "labels"), _TAGS, *machine]
    return _lineage(made_from)
