"""The breaker as a table of its states, on a made clock."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawlers.rate_limit import Breaker, BreakerLimits

LIMITS = BreakerLimits(failures=3, open_s=10.0, openings=2)


class Story:
    """Plays words: `+` an answer, `-` a failure, `x` a 5xx, a number: seconds that pass."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.breaker = Breaker(LIMITS, lambda: self.now_s)

    def play(self, words: str) -> Breaker:
        for word in words.split():
            if word == "+":
                self.breaker.answer(self.breaker.sent(), failed=False)
            elif word == "x":
                self.breaker.answer(self.breaker.sent(), failed=True)
            elif word == "-":
                self.breaker.failure(self.breaker.sent())
            else:
                self.now_s += float(word)
        return self.breaker


@pytest.mark.parametrize(
    ("words", "state", "wait_s"),
    [
        ("", "closed", 0.0),
        ("+ - -", "closed", 0.0),
        ("+ - - + - -", "closed", 0.0),  # in a row only
        ("+ - - -", "open", 10.0),
        ("x x x", "open", 10.0),  # an error is an answer: the host is there
        ("x x x 4", "open", 6.0),
        ("x x x 10", "open", 0.0),  # the next request is the probe
        ("x x x 10 +", "closed", 0.0),
        ("x x x 10 + x x", "closed", 0.0),
        ("x x x 10 + x x x", "open", 10.0),  # after a good probe from the beginning
        ("x x x 10 x", "open", 20.0),  # one failed probe is enough, twice as long
        ("x x x 10 - 20 +", "closed", 0.0),
        ("x x x 10 - 20 -", "given_up", math.inf),
        ("- -", "closed", 0.0),
        ("- - -", "given_up", math.inf),  # never answered: it is not there
    ],
)
def test_the_states_and_waits(words: str, state: str, wait_s: float) -> None:
    breaker = Story().play(words)
    assert (breaker.state, breaker.wait_s()) == (state, wait_s)


def test_one_probe_at_a_time() -> None:
    breaker = Story().play("x x x 10")
    ticket = breaker.sent()
    assert breaker.state == "probing"
    assert breaker.wait_s() == math.inf
    breaker.answer(ticket, failed=False)
    assert breaker.wait_s() == 0.0


def test_what_was_sent_before_the_opening_no_longer_counts() -> None:
    story = Story()
    late = [story.breaker.sent() for _ in range(5)]
    story.play("x x x")
    for ticket in late[:3]:
        story.breaker.failure(ticket)
    assert (story.breaker.state, story.breaker.wait_s()) == ("open", 10.0)
    story.play("10")
    probe = story.breaker.sent()
    story.breaker.answer(late[3], failed=False)
    story.breaker.failure(late[4])
    states = [story.breaker.state]
    story.breaker.answer(probe, failed=False)
    assert [*states, story.breaker.state] == ["probing", "closed"]


@given(st.lists(st.sampled_from(["+", "x", "-", "3", "10", "40"]), max_size=60))
def test_nothing_goes_out_while_open_and_a_good_probe_always_closes(words: list[str]) -> None:
    story = Story()
    for word in words:
        wait_s = story.breaker.wait_s()
        if word.isdecimal() or wait_s == 0:
            story.play(word)
        else:
            assert story.breaker.state in ("open", "given_up")
            with pytest.raises(AssertionError, match="open breaker"):
                story.breaker.sent()
        if word == "+" and wait_s == 0:
            assert story.breaker.state == "closed"
