"""Each edit does what its formula says, exactly one text stands for it, and its size is bounded."""

import colorsys
import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.decode import Picture
from dataset.errors import UsageError
from studio.edits import RANGES, Edits, apply_edits, crop_box, edited_size, rotated_size

GREYS = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
unhurried = settings(deadline=None)  # the machine is shared
SIDES = st.integers(8, 200)


def noise(height: int, width: int) -> Picture:
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)


def plain(*colour: int, side: int = 8) -> Picture:
    return np.full((side, side, 3), colour, np.uint8)


def fractions() -> st.SearchStrategy[tuple[float, float]]:
    steps = st.integers(0, 10_000).map(lambda step: step / 10_000)
    pairs = st.tuples(steps, steps).filter(lambda pair: pair[0] != pair[1])
    return pairs.map(lambda pair: (min(pair), max(pair)))


@st.composite
def all_edits(draw: st.DrawFn) -> Edits:
    (left, right), (top, bottom) = draw(fractions()), draw(fractions())
    crop = draw(st.sampled_from([(0.0, 0.0, 1.0, 1.0), (left, top, right, bottom)]))
    numbers = {
        name: draw(st.one_of(st.just(Edits.__dataclass_fields__[name].default), st.floats(*range_)))
        for name, range_ in RANGES.items()
    }
    return Edits(crop=crop, **numbers)


# --- what each does ---


def test_no_edits_give_back_the_picture_itself() -> None:
    picture = noise(20, 30)
    assert apply_edits(picture, Edits()) is picture
    assert apply_edits(picture, Edits(rotate=0.00004, hue=-0.0)) is picture


@pytest.mark.parametrize("factor", [0.0, 0.25, 0.5, 1.5, 2.0])
def test_brightness_multiplies(factor: float) -> None:
    made = apply_edits(GREYS, Edits(brightness=factor))
    assert made.tolist() == np.minimum(np.floor(GREYS * factor), 255).tolist()


@pytest.mark.parametrize("factor", [0.0, 0.25, 0.5, 1.5, 2.0])
def test_contrast_moves_away_from_the_mean_grey(factor: float) -> None:
    picture = np.concatenate([plain(60, 60, 60), plain(100, 100, 100)])
    made = apply_edits(picture, Edits(contrast=factor))
    assert made[0, 0].tolist() == [80 - 20 * factor] * 3
    assert made[-1, 0].tolist() == [80 + 20 * factor] * 3


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.5, 2.0])
def test_saturation_moves_away_from_the_luma(factor: float) -> None:
    colour = np.array([120, 80, 40])
    luma = round(float(colour @ [0.299, 0.587, 0.114]))
    wanted = np.maximum(luma + factor * (colour - luma), 0)
    made = apply_edits(plain(*colour), Edits(saturation=factor))
    assert made[0, 0].tolist() == np.floor(wanted).tolist()
    assert apply_edits(GREYS, Edits(saturation=factor)).tolist() == GREYS.tolist()


WHEEL = [(255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255)]


@pytest.mark.parametrize(("start", "steps"), list(itertools.product(range(6), range(-3, 4))))
def test_pure_colours_turn_along_the_wheel(start: int, steps: int) -> None:
    made = apply_edits(plain(*WHEEL[start]), Edits(hue=60 * steps))
    assert made.tolist() == plain(*WHEEL[(start + steps) % 6]).tolist()


@unhurried
@given(st.tuples(*[st.integers(0, 255)] * 3), st.floats(-180, 180))
def test_hue_is_that_of_hsv(colour: tuple[int, int, int], degrees: float) -> None:
    edits = Edits(hue=degrees)
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in colour))
    turned = colorsys.hsv_to_rgb((hue + edits.hue / 360) % 1, saturation, value)
    made = apply_edits(plain(*colour), edits)[0, 0].astype(float)
    assert np.abs(made - 255 * np.array(turned)).max() < 0.51


def test_a_high_picture_turns_its_hue_as_its_rows_do() -> None:
    picture, edits = noise(600, 9), Edits(hue=40)
    parts = [apply_edits(picture[top : top + 50], edits) for top in range(0, 600, 50)]
    assert apply_edits(picture, edits).tolist() == np.concatenate(parts).tolist()


@unhurried
@given(SIDES, SIDES, st.sampled_from([-180, -90, 90, 180]))
def test_quarter_turns_move_pixels(height: int, width: int, degrees: int) -> None:
    picture = noise(height, width)
    made = apply_edits(picture, Edits(rotate=degrees))
    assert np.array_equal(made, np.rot90(picture, degrees // 90))


def test_a_turned_picture_grows_and_its_corners_are_white() -> None:
    made = apply_edits(plain(0, 0, 0, side=100), Edits(rotate=45))
    assert made.shape == (142, 142, 3)
    assert {tuple(made[y, x].tolist()) for y in (0, -1) for x in (0, -1)} == {(255, 255, 255)}


@unhurried
@given(st.integers(30, 200), st.integers(30, 200), st.floats(-180, 180))
def test_a_turned_picture_is_held_whole_by_the_smallest_box(
    width: int, height: int, degrees: float
) -> None:
    edits = Edits(rotate=degrees)
    made = apply_edits(np.zeros((height, width, 3), np.uint8), edits)
    assert made.shape[1::-1] == rotated_size(width, height, edits.rotate)
    turned = math.radians(edits.rotate)
    cos, sin = abs(math.cos(turned)), abs(math.sin(turned))
    assert -1e-6 < made.shape[1] - (width * cos + height * sin) < 1
    assert -1e-6 < made.shape[0] - (width * sin + height * cos) < 1
    black = (255.0 - made[..., 0]).sum() / 255
    assert abs(black - width * height) < 0.1 * (width + height)


@pytest.mark.parametrize("degrees", [30, -77.7, 135])
def test_a_turned_point_lies_where_it_should(degrees: float) -> None:
    picture = plain(255, 255, 255, side=101)
    picture[48:53, 78:83] = 0  # its centre 30 px right of the picture's
    made = apply_edits(picture, Edits(rotate=degrees))
    ys, xs = np.indices(made.shape[:2]) + 0.5
    weight = 255.0 - made[..., 0]
    turned = math.radians(degrees)
    x = (xs * weight).sum() / weight.sum() - made.shape[1] / 2
    y = (ys * weight).sum() / weight.sum() - made.shape[0] / 2
    assert (x, y) == pytest.approx((30 * math.cos(turned), -30 * math.sin(turned)), abs=0.1)


def test_the_edges_of_a_turned_picture_blend_into_the_white() -> None:
    row = apply_edits(plain(0, 0, 0, side=100), Edits(rotate=10))[20, :, 0]
    assert ((row > 20) & (row < 235)).sum() >= 2  # one at each side at least


@unhurried
@given(SIDES, SIDES, st.floats(0.25, 4))
def test_scaling_rounds_each_side_and_keeps_a_plain_colour(
    height: int, width: int, factor: float
) -> None:
    edits = Edits(scale=factor)
    wanted = tuple(int(edits.scale * side + 0.5) for side in (height, width))
    picture = np.full((height, width, 3), (10, 200, 77), np.uint8)
    if min(wanted) < 8:
        with pytest.raises(UsageError, match="choose another scale"):
            apply_edits(picture, edits)
    elif edits.scale != 1:
        made = apply_edits(picture, edits)
        assert made.shape[:2] == wanted
        assert (made == (10, 200, 77)).all()


# --- crops ---


@unhurried
@given(st.integers(8, 4096), st.data())
def test_every_border_between_pixels_can_be_cropped_at(side: int, data: st.DataObject) -> None:
    left = data.draw(st.integers(0, side - 8))
    right = data.draw(st.integers(left + 8, side))
    edits = Edits(crop=(left / side, 0, right / side, 1))
    assert crop_box(side, 10, edits.crop) == (left, 0, right, 10)


@unhurried
@given(SIDES, SIDES, fractions(), fractions())
def test_a_crop_is_a_slice(
    height: int, width: int, across: tuple[float, float], down: tuple[float, float]
) -> None:
    edits = Edits(crop=(across[0], down[0], across[1], down[1]))
    left, top, right, bottom = crop_box(width, height, edits.crop)
    for edge, fraction, side in zip((left, right), across, (width, width), strict=True):
        assert abs(edge - fraction * side) <= 0.5
    if min(right - left, bottom - top) < 8:
        with pytest.raises(UsageError, match=f"crop would leave {right - left}x{bottom - top} px"):
            apply_edits(noise(height, width), edits)
    else:
        picture = noise(height, width)
        assert np.array_equal(apply_edits(picture, edits), picture[top:bottom, left:right])


@unhurried
@given(SIDES, st.integers(1, 9_999))
def test_crops_that_share_a_border_share_no_pixel_and_lose_none(side: int, at: int) -> None:
    first = crop_box(side, side, (0, 0, at / 10_000, 1))
    second = crop_box(side, side, (at / 10_000, 0, 1, 1))
    assert (first[0], first[2], second[2]) == (0, second[0], side)


# --- order and sameness ---


def test_edits_are_made_in_the_order_of_their_fields() -> None:
    picture = noise(64, 48)
    steps = [
        Edits(crop=(0.1, 0, 0.9, 0.75)),
        Edits(rotate=30),
        Edits(scale=1.5),
        Edits(brightness=1.2),
        Edits(contrast=0.7),
        Edits(saturation=1.6),
        Edits(hue=-50),
    ]
    made = picture
    for step in steps:
        made = apply_edits(made, step)
    at_once = Edits.from_text(";".join(step.to_text() for step in steps))
    assert np.array_equal(apply_edits(picture, at_once), made)


def test_the_same_edits_give_the_same_bytes_and_leave_the_picture_alone() -> None:
    picture = noise(64, 64)
    before = picture.tobytes()
    edits = Edits((0, 0.1, 1, 1), 12.5, 1.7, 1.1, contrast=1.2, saturation=0.8, hue=10)
    assert apply_edits(picture, edits).tobytes() == apply_edits(picture, edits).tobytes()
    assert picture.tobytes() == before
    turned = np.rot90(picture)  # no plain block of memory
    assert np.array_equal(apply_edits(turned, edits), apply_edits(turned.copy(), edits))


# --- sizes ---


@pytest.mark.parametrize(
    ("shape", "edits", "reported"),
    [
        ((2048, 2048), Edits(scale=2.01), "the result would be 4116x4116 px; sides of 8 to 4096"),
        ((8, 5_000), Edits(brightness=2), "the result would be 5000x8 px"),
        ((8, 5_000_000), Edits(rotate=45), "turned by 45 degrees the picture would be 3535540x"),
        ((16, 16), Edits(scale=0.25), "the result would be 4x4 px"),
        ((16, 16), Edits(crop=(0, 0, 0.25, 1)), "crop would leave 4x16 px of 16x16; sides of at"),
        ((5, 16), Edits(hue=1), "the picture is 16x5 px; sides of at least 8 px are wanted"),
    ],
)
def test_a_result_of_no_fit_size_is_refused_before_a_pixel_is_made(
    shape: tuple[int, int], edits: Edits, reported: str
) -> None:
    picture = np.broadcast_to(np.uint8(0), (*shape, 3))
    tracemalloc.start()
    with pytest.raises(UsageError, match=reported):
        apply_edits(picture, edits)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 200_000


def test_a_large_picture_may_be_cut_turned_and_scaled_down() -> None:
    assert edited_size(8_000, 5_000, Edits(rotate=90, scale=0.5)) == (2_500, 4_000)
    assert edited_size(8_000, 5_000, Edits(crop=(0, 0, 0.5, 0.5))) == (4_000, 2_500)
    assert edited_size(8_000, 5_000, Edits()) == (8_000, 5_000)


# --- texts ---


@pytest.mark.parametrize(
    ("edits", "text"),
    [
        (Edits(), ""),
        (
            Edits(crop=(0.1, 0, 0.9, 1), rotate=90, brightness=1.2),
            "crop=0.1,0,0.9,1;rotate=90;brightness=1.2",
        ),
        (Edits(rotate=-180, hue=-180), "rotate=180;hue=180"),
        (Edits(scale=1 / 3), "scale=0.3333"),
        (Edits(contrast=1e-9), "contrast=0"),
    ],
)
def test_each_set_of_edits_has_one_text(edits: Edits, text: str) -> None:
    assert edits.to_text() == text
    assert Edits.from_text(text) == edits


@unhurried
@given(all_edits())
def test_texts_read_back_as_the_same_edits(edits: Edits) -> None:
    text = edits.to_text()
    assert Edits.from_text(text) == edits
    assert Edits.from_text(text).to_text() == text
    assert len(text) < 150


def test_texts_are_read_in_any_order() -> None:
    assert Edits.from_text("hue=10;crop=0,0,.5,1".replace(".5", "0.50")) == Edits(
        (0, 0, 0.5, 1), hue=10
    )


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("rotat=90", 'unknown edit "rotat"; did you mean "rotate"?'),
        ("xyz=1", 'unknown edit "xyz"; there are crop, rotate, scale, brightness, contrast, sat'),
        ("rotate", '"rotate" is no edit; one such as rotate=90 is wanted'),
        ("rotate=90;", '"" is no edit'),
        ("hue=1;hue=1", '"hue" stands twice'),
        ("hue=1e2", 'hue is "1e2"; a number of -180 to 180 is wanted'),
        ("hue=nan", 'hue is "nan"; a number of'),
        ("hue= 1", 'hue is " 1"; a number of'),
        ("hue=٣", 'hue is "٣"; a number of'),
        ("hue=1,2", 'hue is "1,2"; a number of'),
        ("hue=", 'hue is ""; a number of'),
        ("scale=5", 'scale is "5"; a number of 0.25 to 4 is wanted'),
        ("crop=0,0,1", 'crop is "0,0,1"; left,top,right,bottom as fractions of 0 to 1 are wanted'),
        ("crop=0,0,1,1.1", 'crop is "0,0,1,1.1"; left,top'),
        ("crop=0,0,x,1", 'crop is "0,0,x,1"; left,top'),
        ("crop=0.5,0,0.50004,1", 'crop is "0.5,0,0.50004,1", which keeps nothing'),
        ("hue=1;" * 100, "600 characters; at most 400 are read"),
        ("\x00\x1b[31m=1", 'unknown edit "??[31m"'),
    ],
)
def test_a_faulty_text_is_told_with_what_is_wanted(text: str, reported: str) -> None:
    with pytest.raises(UsageError) as refused:
        Edits.from_text(text)
    assert reported in str(refused.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(UsageError) as refused:
        Edits.from_text("hue=x;scale=9;foo=1;crop=1")
    assert [word in str(refused.value) for word in ("hue", "scale", "foo", "crop", "4 faults")] == [
        True
    ] * 5


@unhurried
@given(st.text(max_size=60))
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        edits = Edits.from_text(text)
    except UsageError:
        return
    assert Edits.from_text(edits.to_text()) == edits


@pytest.mark.parametrize(
    ("values", "reported"),
    [
        ({"rotate": float("nan")}, 'rotate is "nan"'),
        ({"hue": "90"}, 'hue is "90"'),
        ({"scale": True}, 'scale is "True"'),
        ({"brightness": None}, 'brightness is "None"'),
        ({"crop": (0, 0, 1)}, "crop is"),
        ({"crop": "whole"}, 'crop is "whole"'),
    ],
)
def test_values_that_are_no_edits_are_refused(values: dict[str, object], reported: str) -> None:
    with pytest.raises(UsageError) as refused:
        Edits(**values)  # type: ignore[arg-type]
    assert reported in str(refused.value)
