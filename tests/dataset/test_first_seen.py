"""Of near-duplicates the one that was seen first stays, in any split of the posts into builds."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset import crops, tables
from dataset.cropping import Face, FaceSettings
from dataset.duplicates import THUMB_BYTES, Rule, repeats
from dataset.errors import EmptyStageError
from dataset.faces import FacesTable
from dataset.merging import JUDGED_BY
from dataset.policy import REJECTS_PATH
from dataset.schemas import FACES, FACES_PATH, read_table, write_table
from dataset.store import Store
from dataset.takedown import Pictures, find
from tests.dataset.home import Home, cropped
from tests.hypothesis_profiles import examples

DISTANCE = FaceSettings().phash_distance
# Each is near to those beside it, and to no other: what stays depends on what was seen first.
CHAIN = [sum(1 << bit for bit in range(number * 8)) for number in range(7)]


def made_up_face(content: bytes, sha256: str, _settings: FaceSettings, *, where: str) -> list[Face]:
    """A face whose hash is the content: likeness is by the hash alone, all colours are equal."""
    face_id = f"{sha256[:16]}-0"
    whole = dict.fromkeys(("w", "h", "side", "picture_width", "picture_height"), 100)
    place = dict.fromkeys(("x", "y", "square_x", "square_y"), 0)
    hashes = {"phash": content.decode()[:16], "picture_phash": f"{int(sha256[:16], 16):016x}"}
    small = {"thumb": bytes(THUMB_BYTES), "picture_thumb": bytes(THUMB_BYTES)}
    crop = {"crop": f"crops/{face_id[:2]}/{face_id}.png", "crop_sha256": sha256}
    row = {"face_id": face_id, "pad_frac": 0.0, "sharpness": 90.0, "drop_reason": None}
    return [Face(row | whole | place | hashes | small | crop, np.zeros((4, 4, 3), np.uint8))]


@pytest.fixture(autouse=True)
def _faces_without_pictures(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(crops, "faces_in", made_up_face)
        yield


def post(home: Home, post_id: int, phash: int) -> str:
    """Adds a post with such a face; returns its face_id."""
    return home.add(f"{phash:016x} {post_id}".encode(), post_id=post_id)[:16] + "-0"


def dropped(home: Home, *, judge_again: bool = False) -> set[int]:
    """Builds; returns the posts whose faces are near-duplicates."""
    home.write()
    made: FacesTable = cropped(home.store, judge_again=judge_again)
    rows = read_table(home.store, made.path, declared=FACES).to_pylist()
    return {row["post_id"] for row in rows if row["drop_reason"] == "near_duplicate"}


@dataclass
class Model:
    """Judges face by face: those not kept before, the ones that were dropped before first."""

    kept: list[int] = field(default_factory=list)  # hashes' places in the chain, by post
    dropped: list[int] = field(default_factory=list)

    def build(self, there: dict[int, int], rejected: set[int]) -> None:
        usable = [number for number in sorted(there) if number not in rejected]
        self.kept = [number for number in self.kept if number in usable]
        again = [number for number in usable if number in self.dropped]
        new = [number for number in usable if number not in {*self.kept, *again}]
        self.dropped = []
        for number in [*again, *new]:
            near = (
                (CHAIN[there[number]] ^ CHAIN[there[other]]).bit_count() <= DISTANCE
                for other in self.kept
            )
            (self.dropped if any(near) else self.kept).append(number)


builds = st.lists(  # of each: which of the ten posts are there, and which faces are rejected
    st.tuples(st.sets(st.integers(1, 10), min_size=1), st.sets(st.integers(1, 10), max_size=2)),
    min_size=2,
    max_size=3,
)


@given(st.lists(st.integers(0, len(CHAIN) - 1), min_size=10, max_size=10), builds)
@settings(deadline=None, max_examples=examples(8))
def test_a_face_is_dropped_exactly_when_one_that_was_seen_before_shows_the_same(
    places: list[int], steps: list[tuple[set[int], set[int]]]
) -> None:
    model = Model()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        for present, rejected in steps:
            home = Home(store)
            there = {number: places[number - 1] for number in present}
            ids = {number: post(home, number, CHAIN[place]) for number, place in there.items()}
            rejects = [ids[number] for number in rejected & present]
            store.write_bytes(REJECTS_PATH, "".join(f"{one}\n" for one in rejects).encode())
            model.build(there, rejected)
            if not model.kept:
                with pytest.raises(EmptyStageError):
                    dropped(home)
            else:
                assert dropped(home) == set(model.dropped)


def test_a_kept_face_is_not_displaced_by_an_earlier_post(home: Home) -> None:
    post(home, 5, CHAIN[1])
    assert dropped(home) == set()
    post(home, 2, CHAIN[1])
    assert dropped(home) == {2}
    assert dropped(home, judge_again=True) == {5}


def test_what_a_rejected_face_was_the_original_of_is_kept_again(home: Home) -> None:
    ids = [post(home, number, CHAIN[0]) for number in (1, 2, 3)]
    assert dropped(home) == {2, 3}
    home.store.write_bytes(REJECTS_PATH, f"{ids[0]}\n".encode())
    assert dropped(home) == {3}
    home.store.write_bytes(REJECTS_PATH, b"")
    assert dropped(home) == {1, 3}  # the second was kept meanwhile


def test_what_a_removed_face_was_the_original_of_is_kept_again(home: Home) -> None:
    post(home, 7, CHAIN[3])
    assert dropped(home) == set()
    for number in (1, 2):
        post(home, number, CHAIN[3])
    assert dropped(home) == {1, 2}
    taken = home.rows[0]
    pictures = Pictures(frozenset({("demo", 7)}), files={taken["sha256"]: "demo/7"})
    for trace in find(home.store, pictures, named=[]):  # its row of faces among them
        trace.mend()
    home.rows.remove(taken)
    assert dropped(home) == {2}


def test_other_rules_judge_all_faces_anew(home: Home) -> None:
    post(home, 9, CHAIN[0])
    dropped(home)
    post(home, 1, CHAIN[0])
    assert dropped(home) == {1}
    home.write()
    cropped(home.store, FaceSettings(thumb_rms_max=14))
    rows = read_table(home.store, FACES_PATH, declared=FACES).to_pylist()
    assert {row["post_id"] for row in rows if row["drop_reason"]} == {9}


@pytest.mark.parametrize("kind", ["without rules", "damaged", "no table"])
def test_a_table_that_says_nothing_is_no_earlier_judgement(home: Home, kind: str) -> None:
    post(home, 9, CHAIN[0])
    dropped(home)
    post(home, 1, CHAIN[0])
    if kind == "without rules":  # as builds wrote it that judged all faces each time
        table = read_table(home.store, FACES_PATH, declared=FACES)
        assert JUDGED_BY in tables.schema_of(home.store, FACES_PATH).metadata
        write_table(home.store, FACES_PATH, table.cast(FACES), declared=FACES)
    elif kind == "damaged":
        for path in home.store.files(f"{FACES_PATH}/data"):
            home.store.write_bytes(path, b"no table")
    else:
        home.store.remove(FACES_PATH)
    assert dropped(home) == {9}


def test_a_face_of_another_place_on_the_same_picture_is_new(home: Home) -> None:
    post(home, 1, CHAIN[0])
    post(home, 2, CHAIN[6])
    dropped(home)
    schema = tables.schema_of(home.store, FACES_PATH)
    (rows,) = tables.scan(home.store, FACES_PATH, columns=schema.names, rows=9)
    moved = rows.set_column(
        schema.names.index("x"), "x", pc.add(rows["x"], pa.scalar(1, pa.int32()))
    )
    tables.write(home.store, FACES_PATH, [moved.cast(schema)], schema=schema)
    post(home, 0, CHAIN[0])
    assert dropped(home) == {1}


def test_a_copy_is_compared_again_only_once_its_original_has_gone(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = post(home, 1, CHAIN[0])
    post(home, 2, CHAIN[0])
    post(home, 3, CHAIN[6])
    assert dropped(home) == {2}
    compared: list[int] = []

    def counted(rules: Sequence[Rule], *, standing: int) -> Any:
        compared.append(len(rules[0].hashes) - standing)
        return repeats(rules, standing=standing)

    monkeypatch.setattr("dataset.merging.repeats", counted)
    assert dropped(home) == {2}
    home.rows[2]["drop_reason"] = "rating"  # not what it repeats
    assert dropped(home) == {2}
    assert compared == [0, 0]
    home.store.write_bytes("rejects.txt", f"{original}\n".encode())
    assert dropped(home) == set()
    assert compared == [0, 0, 1]
