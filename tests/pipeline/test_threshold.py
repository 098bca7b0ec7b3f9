"""The setting OMOKAGE_GROW is read, refused with words, and reached exactly where it says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.errors import ConfigError
from pipeline.automation.cron import Threshold, parse_threshold


@pytest.mark.parametrize(
    ("text", "threshold", "words"),
    [
        ("10%", Threshold(frac=0.1), "10 % wanted"),
        ("2.5 %", Threshold(frac=0.025), "2.5 % wanted"),
        ("1500", Threshold(faces=1500), "1,500 wanted"),
        (" 500 , 10% ", Threshold(frac=0.1, faces=500), "10 % or 500 wanted"),
    ],
)
def test_a_part_a_number_or_both_are_read(text: str, threshold: Threshold, words: str) -> None:
    assert parse_threshold(text) == threshold
    assert parse_threshold(text).words == words


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ten", '"ten" is no growth; a part such as 10%'),
        ("0%", '"0%" is no growth'),
        ("1.5", '"1.5" is no growth'),
        ("-5%", '"-5%" is no growth'),
        ("", '"" is no growth'),
        ("10%,20%", '"10%,20%" has two parts; one wanted'),
        ("5,6", '"5,6" has two numbers; one wanted'),
    ],
)
def test_anything_else_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_threshold(text)
    assert said in str(caught.value)


@given(st.text(alphabet="0123456789.,% -", max_size=12))
def test_what_is_read_wants_something_above_zero(text: str) -> None:
    try:
        threshold = parse_threshold(text)
    except ConfigError:
        threshold = Threshold(faces=1)
    assert not threshold.reached(0, 1000)
    assert threshold.reached(10**12, 1)


@given(st.integers(1, 100), st.integers(1, 10_000))
def test_a_part_is_reached_where_it_is_reached_on_paper(percent: int, hundreds: int) -> None:
    threshold = parse_threshold(f"{percent}%")
    assert threshold.reached(percent * hundreds, 100 * hundreds)
    assert not threshold.reached(percent * hundreds - 1, 100 * hundreds)
