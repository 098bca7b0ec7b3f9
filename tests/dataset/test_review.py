"""Sheets show the oddest faces first; what is rejected there is dropped by the next build."""

import csv

import numpy as np
import pytest
from PIL import Image

from dataset.cropping import FaceSettings
from dataset.errors import ConfigError, EmptyStageError, SchemaError, UsageError
from dataset.faces import FacesTable
from dataset.policy import read_rejects
from dataset.review import (
    HEAD,
    contact_page,
    in_order,
    reasons_of,
    reject,
    suspicions,
    unreject,
    write_review,
)
from dataset.schemas import FACES, read_table
from dataset.store import Store
from tests.dataset.home import Home, cropped, png, portrait, scenery

SETTINGS = FaceSettings(cropped=True, min_sharpness=0)
COUNT = 100


def build(home: Home) -> FacesTable:
    return cropped(home.store, SETTINGS)


@pytest.fixture
def reviewed(home: Home) -> Home:
    """A home of 100 faces and, as if it were one, a picture without any detail."""
    for seed in range(COUNT):
        home.add(png(portrait(seed, side=96)))
    home.add(png(Image.new("RGB", (96, 96), (0, 255, 0))))
    home.write()
    build(home)
    return home


def rows_of(store: Store) -> list[dict[str, str]]:
    text = store.read_bytes("review/review.csv").decode().splitlines()
    assert tuple(text[0].split(",")) == HEAD
    return list(csv.DictReader(text))


def test_oddest_face_comes_first_with_its_reasons(reviewed: Home) -> None:
    made = write_review(reviewed.store, pages=0)
    rows = rows_of(reviewed.store)
    kept = made.faces
    assert (made.shown, len(rows)) == (kept, kept)
    assert made.pages == ["review/page-0001.png", "review/page-0002.png"]
    first = rows[0]
    assert first["face_id"].startswith(str(reviewed.rows[-1]["sha256"])[:16])
    assert set(first["reasons"].split(";")) == {"blurred", "colour"}
    assert (first["page"], first["row"], first["column"]) == ("1", "A", "1")
    assert (rows[13]["row"], rows[13]["column"], rows[96]["page"]) == ("B", "2", "2")
    values = [float(row["suspicion"]) for row in rows]
    assert values == sorted(values, reverse=True)
    with reviewed.store.open(made.pages[0]) as file:
        page = Image.open(file).convert("RGB")
    green = np.asarray(page)[20 + 56, 20 + 56]
    assert tuple(green.tolist()) == (0, 255, 0)


def test_review_is_the_same_twice_and_leaves_no_older_page(reviewed: Home) -> None:
    write_review(reviewed.store, pages=0)
    rows = reviewed.store.read_bytes("review/review.csv")
    again = write_review(reviewed.store, pages=1)
    assert reviewed.store.files("review") == ["review/page-0001.png", "review/review.csv"]
    assert again.shown == 96
    assert rows.startswith(reviewed.store.read_bytes("review/review.csv"))


def test_rejected_cells_are_dropped_and_come_back(reviewed: Home) -> None:
    write_review(reviewed.store, pages=0)
    rows = rows_of(reviewed.store)
    assert reject(reviewed.store, ["1:A1", "2:a1", rows[5]["face_id"]]) == 3
    assert reject(reviewed.store, ["1:A1"]) == 0
    named = [rows[place]["face_id"] for place in (0, 96, 5)]
    assert read_rejects(reviewed.store) == named
    made = build(reviewed)
    assert made.dropped["rejected"] == 3
    table = read_table(reviewed.store, made.path, declared=FACES).to_pylist()
    dropped = [row["face_id"] for row in table if row["drop_reason"] == "rejected"]
    assert dropped == sorted(named)
    assert unreject(reviewed.store, [named[1], f"crops/ab/{named[2]}.png"]) == 2
    assert build(reviewed).dropped["rejected"] == 1


def test_comments_of_the_reject_list_are_kept(reviewed: Home) -> None:
    write_review(reviewed.store, pages=1)
    one, two = (row["face_id"] for row in rows_of(reviewed.store)[:2])
    reviewed.store.write_bytes(
        "rejects.txt", f"# looked at in May\n\n{one}  # a clock\ncrops/00/{two}.png\n".encode()
    )
    assert unreject(reviewed.store, [one, two]) == 2
    assert reject(reviewed.store, [two]) == 1
    text = reviewed.store.read_bytes("rejects.txt").decode()
    assert text == f"# looked at in May\n\n# a clock\n{two}\n"


def test_unknown_faces_are_named_with_the_nearest_and_nothing_changes(reviewed: Home) -> None:
    write_review(reviewed.store, pages=1)
    face_id = rows_of(reviewed.store)[0]["face_id"]
    wrong = face_id[:10] + ("0" if face_id[10] != "0" else "1") + face_id[11:]
    with pytest.raises(UsageError) as caught:
        reject(reviewed.store, [face_id, wrong, "9:H12", "that one"], where="ids.txt")
    said = str(caught.value)
    assert said.startswith("ids.txt: 3 of 4 faces are unknown; nothing was changed:")
    assert f'"{wrong}" is no known face; did you mean "{face_id}"?' in said
    assert '"9:H12" is no cell of the last review' in said
    assert '"that one" is no known face; 16 hex digits, dash and number wanted' in said
    assert read_rejects(reviewed.store) == []


def test_cells_without_a_review_are_refused(reviewed: Home) -> None:
    with pytest.raises(UsageError, match="run `omokage review` first"):
        reject(reviewed.store, ["1:A1"])
    reviewed.store.write_bytes("review/review.csv", b"face,page\n")
    with pytest.raises(SchemaError, match="the columns are face, page; face_id, page, row"):
        reject(reviewed.store, ["1:A1"])


def test_damaged_list_is_refused_before_it_is_changed(reviewed: Home) -> None:
    reviewed.store.write_bytes("rejects.txt", b"that one\n")
    face_id = str(reviewed.rows[0]["sha256"])[:16] + "-0"
    with pytest.raises(ConfigError, match='line 1: "that one" is no face_id'):
        reject(reviewed.store, [face_id])
    assert reviewed.store.read_bytes("rejects.txt") == b"that one\n"


def test_review_of_no_kept_face_is_an_empty_stage(home: Home) -> None:
    home.add(png(scenery(1, side=40)))
    home.write()
    with pytest.raises(EmptyStageError):
        build(home)
    with pytest.raises(EmptyStageError, match="no face is kept, so none can be looked at"):
        write_review(home.store, pages=1)


def test_suspicion_is_the_sum_of_how_rare_each_sign_is() -> None:
    total, parts = suspicions(
        {
            "low_score": np.array([np.nan] * 4),
            "blurred": np.array([4.0, 1.0, 2.0, 3.0]),
            "padded": np.array([0.0, 0.0, 0.1, 0.0]),
        }
    )
    assert parts["low_score"].tolist() == [1, 1, 1, 1]
    assert parts["blurred"].tolist() == [0.25, 1, 0.75, 0.5]
    assert parts["padded"].tolist() == [1, 1, 0.25, 1]
    assert total.tolist() == pytest.approx([0.602, 0, 0.727, 0.301], abs=1e-3)
    assert in_order(["d", "c", "b", "a"], total) == [2, 0, 3, 1]
    assert in_order(["b", "a"], np.zeros(2)) == [1, 0]
    assert reasons_of({"small": np.array([0.05]), "padded": np.array([0.01])}, 0) == [
        "padded",
        "small",
    ]


def test_last_page_is_as_high_as_its_rows() -> None:
    crops = [Image.new("RGB", (64, 64), (200, 0, 0))] * 13
    page = contact_page(crops, ["0123456789abcdef-0"] * 13)
    assert page.size == (20 + 12 * 116, 20 + 2 * 130)
