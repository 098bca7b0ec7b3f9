"""Cron: five fields as numbers, each checked with a clear error; which site is refreshed when."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dataset.errors import ConfigError, listed, nearest

DEFAULT_REFRESH = "0 4 * * *"
MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST_MONTHS = dict(
    zip(range(1, 13), (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), strict=True)
)


@dataclass(frozen=True)
class _Field:
    """A field of a cron: what it is called, its least and greatest number, and names for them."""

    name: str
    least: int
    greatest: int
    names: tuple[str, ...] = ()

    @property
    def wanted(self) -> str:
        named = f" or {self.names[0]} to {self.names[-1]}" if self.names else ""
        return f"{self.least} to {self.greatest}{named}"


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 7, _WEEKDAYS),
)


@dataclass(frozen=True)
class Cron:
    """A cron of five fields; `text` is as given, or what a macro such as @daily stands for."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]  # of the month
    months: frozenset[int]
    weekdays: frozenset[int]  # 0 is Sunday
    any_day: bool  # the day of the month is *
    any_weekday: bool

    @property
    def is_every_day(self) -> bool:
        """Whether day of the month, month and day of the week leave no day out."""
        return self.any_day and self.any_weekday and len(self.months) == len(_MONTHS)

    @property
    def ticks_per_year(self) -> float:
        """About how often it comes, to compare one cron with another."""
        of_month, of_week = len(self.days) / 31, len(self.weekdays) / 7
        # Restricted twice, one of both is enough.
        is_either = not (self.any_day or self.any_weekday)
        days = of_month + of_week - of_month * of_week if is_either else of_month * of_week
        return len(self.minutes) * len(self.hours) * days * 365 * len(self.months) / 12

    @property
    def never_comes(self) -> bool:
        """Whether no month has such a day, as 31 February."""
        longest = max(_LONGEST_MONTHS[month] for month in self.months)
        return self.any_weekday and min(self.days) > longest


def parse_cron(text: str) -> Cron:
    """Reads `minute hour day month weekday`: numbers, names, `*`, lists, ranges and steps.

    Raises ConfigError naming the field, what it is and what is wanted.
    """
    given = text.strip()
    if given.startswith("@"):
        if given not in MACROS:
            hint = nearest(given, MACROS) or f"; one of {', '.join(MACROS)} wanted"
            raise ConfigError(f'"{given}" is no cron{hint}')
        given = MACROS[given]
    parts = given.split()
    if len(parts) != len(_FIELDS):
        names = ", ".join(field.name for field in _FIELDS)
        raise ConfigError(
            f'"{given}" has {len(parts)} fields; five wanted ({names}), such as "{DEFAULT_REFRESH}"'
        )
    minutes, hours, days, months, weekdays = (
        frozenset(_numbers(part, field)) for part, field in zip(parts, _FIELDS, strict=True)
    )
    cron = Cron(
        " ".join(parts),
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=frozenset(number % 7 for number in weekdays),  # 7 is Sunday too
        any_day=parts[2] == "*",
        any_weekday=parts[4] == "*",
    )
    if cron.never_comes:
        raise ConfigError(f'"{given}" never comes: no such day is in these months')
    return cron


def refresh_crons(text: str, sites: Sequence[str]) -> dict[str, Cron]:
    """Returns each site's cron by OMOKAGE_REFRESH: one for all, and `site=cron`, separated by `;`.

    Raises ConfigError with every fault: a wrong cron, a site that is not among `sites`.
    """
    named: dict[str, Cron] = {}
    faults: list[str] = []
    for entry in filter(None, map(str.strip, text.split(";"))):
        site, equals, cron = (part.strip() for part in entry.rpartition("="))
        if equals and site not in sites:
            hint = nearest(site, sites) or f"; these are {', '.join(sites)}"
            faults.append(f'OMOKAGE_REFRESH names "{site}", which OMOKAGE_SITES does not{hint}')
        elif site in named:
            whose = f"{site} twice" if site else "two crons for all sites"
            faults.append(f"OMOKAGE_REFRESH has {whose}; one wanted")
        else:
            try:
                named[site] = parse_cron(cron)
            except ConfigError as error:
                faults.append(f"OMOKAGE_REFRESH{f', {site}' if site else ''}: {error}")
    if faults:
        raise ConfigError(listed(faults).strip())
    for_all = named.get("") or parse_cron(DEFAULT_REFRESH)
    return {site: named.get(site, for_all) for site in sites}


def _numbers(part: str, field: _Field) -> Iterator[int]:
    for piece in part.split(","):
        span, slash, step = piece.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            low, high = field.least, field.greatest - (field.name == "day of the week")
        else:
            low = _number(first, field)
            high = _number(last, field) if dash else low
        if high < low:
            raise ConfigError(f'{field.name} is "{piece}"; the smaller end of a range comes first')
        if slash and not (dash or span == "*"):
            raise ConfigError(
                f'{field.name} is "{piece}"; a step wants a range or *, such as '
                f'"{first}-{field.greatest}/{step or 2}"'
            )
        if slash and not (re.fullmatch(r"[0-9]{1,3}", step) and int(step) >= 1):
            raise ConfigError(f'{field.name} is "{piece}"; a step from 1 wanted after /')
        if slash and int(step) > high:  # it would come at the first number only
            raise ConfigError(f'{field.name} is "{piece}"; a step to {high} wanted')
        yield from range(low, high + 1, int(step) if slash else 1)


def _number(text: str, field: _Field) -> int:
    if text.lower() in field.names:
        return field.names.index(text.lower()) + field.least
    if re.fullmatch(r"[0-9]{1,3}", text) and field.least <= int(text) <= field.greatest:
        return int(text)
    raise ConfigError(f'{field.name} is "{text}"; {field.wanted} wanted')
