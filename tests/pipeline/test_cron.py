"""Crons are read or refused with words, and what is read means to Dagster what it means to us."""

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.errors import ConfigError
from pipeline.automation.cron import DEFAULT_REFRESH, parse_cron, refresh_crons
from pipeline.automation.schedules import freshness_policy
from tests.hypothesis_profiles import examples

RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


@st.composite
def field_texts(draw: st.DrawFn, least: int, greatest: int) -> str:
    """A field of a cron: stars, numbers, ranges and steps, joined by commas."""
    pieces = []
    for _ in range(draw(st.integers(1, 3))):
        low = draw(st.integers(least, greatest))
        high = draw(st.integers(low, greatest))
        span = draw(st.sampled_from(["*", str(low), f"{low}-{high}"]))
        step = draw(st.integers(1, greatest))
        pieces.append(f"{span}/{step}" if span != str(low) and draw(st.booleans()) else span)
    return ",".join(pieces)


crons = st.tuples(*(field_texts(*ends) for ends in RANGES)).map(" ".join)


def dagster_takes(text: str) -> bool:
    job = dg.define_asset_job("job")
    try:
        dg.ScheduleDefinition(job=job, cron_schedule=text)
    except dg.DagsterInvalidDefinitionError:
        return False
    return True


@settings(max_examples=examples(40))  # Dagster goes through 1,000 ticks of each
@given(crons)
def test_what_we_take_dagster_takes(text: str) -> None:
    try:
        cron = parse_cron(text)
    except ConfigError as error:
        said = str(error)
    else:
        said = ""
        assert dagster_takes(cron.text)
        freshness_policy(cron, "UTC")  # Dagster takes the deadline too
    assert not said or "never comes" in said or "a step to" in said


@given(st.text(alphabet="0123456789*/-, ajmsunon@", max_size=24))
def test_no_text_is_taken_that_dagster_refuses(text: str) -> None:
    try:
        taken = parse_cron(text).text
    except ConfigError:
        taken = DEFAULT_REFRESH
    assert dagster_takes(taken)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("61 4 * * *", 'minute is "61"; 0 to 59 wanted'),
        ("0 4 * *", '"0 4 * *" has 4 fields; five wanted'),
        ("0 4 * * monday", 'day of the week is "monday"; 0 to 7 or sun to sat wanted'),
        ("0 4 0 * *", 'day of the month is "0"; 1 to 31 wanted'),
        ("0 17-9 * * *", 'hour is "17-9"; the smaller end of a range comes first'),
        ("5/15 * * * *", 'a step wants a range or *, such as "5-59/15"'),
        ("*/0 * * * *", 'minute is "*/0"; a step from 1 wanted after /'),
        ("*/90 * * * *", 'minute is "*/90"; a step to 59 wanted'),
        ("0 4 31 2 *", '"0 4 31 2 *" never comes'),
        ("@dayly", '"@dayly" is no cron; did you mean "@daily"?'),
    ],
)
def test_a_wrong_cron_is_refused_with_its_field(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_cron(text)
    assert said in str(caught.value)


def test_one_cron_is_for_all_sites_and_a_named_one_for_its_own() -> None:
    sites = ("konachan", "yandere", "demo")
    found = refresh_crons("0 5 * * * ; yandere = 30 6 * * 1", sites)
    assert {site: cron.text for site, cron in found.items()} == {
        "konachan": "0 5 * * *", "yandere": "30 6 * * 1", "demo": "0 5 * * *",
    }  # fmt: skip
    assert {cron.text for cron in refresh_crons("", sites).values()} == {"0 4 * * *"}


def test_every_fault_of_the_setting_is_named() -> None:
    given_text = "konachn=0 4 * * *; yandere=0 25 * * *; 0 1 * * *; 0 2 * * *"
    with pytest.raises(ConfigError) as caught:
        refresh_crons(given_text, ("konachan", "yandere"))
    text = str(caught.value)
    assert 'OMOKAGE_REFRESH names "konachn", which OMOKAGE_SITES does not; did you mean' in text
    assert 'OMOKAGE_REFRESH, yandere: hour is "25"; 0 to 23 wanted' in text
    assert "OMOKAGE_REFRESH has two crons for all sites; one wanted" in text
