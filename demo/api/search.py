"""Search queries of a board: words, metatags and ranges, read by each API flavour's grammar."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Container, Mapping
from typing import Any, TypeVar

from demo.collection import Collection, Entry, Tag

_Item = TypeVar("_Item")
Record = dict[str, Any]
SizeOf = Callable[[Entry, str], int]


class RefusedError(Exception):
    """An error response of the board: HTTP status and JSON body."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body


def is_gone(entry: Entry) -> bool:
    """Whether boards without Danbooru's bans count the post as deleted."""
    return entry.status == "deleted" or entry.banned


def status_word(entry: Entry) -> str:
    """The status as such boards write it: active, pending, flagged or deleted."""
    return "deleted" if is_gone(entry) else entry.status


def as_int(text: str | None, default: int) -> int:
    """A parameter as the boards read numbers: text that is no number counts as missing."""
    # 18 digits: more than any id has, and within int()'s limit.
    if text is None or not re.fullmatch(r"\s*-?[0-9]{1,18}\s*", text):
        return default
    return int(text)


def page_of(items: list[_Item], number: int, size: int) -> list[_Item]:
    """The `number`-th page, counted from 0, of `size` items."""
    return items[number * size : (number + 1) * size]


def page_number(params: Mapping[str, str]) -> int:
    """The parameter `page` (1 is the first), counted from 0."""
    return max(as_int(params.get("page"), 1), 1) - 1


def page_size(params: Mapping[str, str], default: int, largest: int) -> int:
    """The parameter `limit`, clamped to 0 to `largest`."""
    return max(0, min(as_int(params.get("limit"), default), largest))


def tag_record(tag: Tag, types: Mapping[str, int], *, ambiguous: Any) -> Record:
    """A tag as Moebooru and Gelbooru write it; `types` are the dialect's numbers of kinds."""
    return {
        "id": tag.tag_id,
        "name": tag.name,
        "count": tag.post_count,
        "type": types[tag.kind],
        "ambiguous": ambiguous,
    }


def shard(md5: str) -> str:
    """The two folders that boards sort files into: `ab/cd`."""
    return f"{md5[:2]}/{md5[2:4]}"


_NUMBER = r"-?[0-9]{1,18}"
_LOOKS_LIKE_METATAG = re.compile(r"[a-z_]{2,}:\S+")


@dataclasses.dataclass(frozen=True, slots=True)
class Numbers:
    """A closed range of numbers, or a few of them."""

    low: float = -math.inf
    high: float = math.inf
    listed: frozenset[int] | None = None

    def __contains__(self, number: int) -> bool:
        if self.listed is not None:
            return number in self.listed
        return self.low <= number <= self.high


_RANGES: tuple[tuple[re.Pattern[str], Callable[[list[int]], Numbers]], ...] = (
    (re.compile(rf"({_NUMBER})\.\.({_NUMBER})"), lambda n: Numbers(min(n), max(n))),
    (re.compile(rf">=({_NUMBER})|({_NUMBER})\.\."), lambda n: Numbers(low=n[0])),
    (re.compile(rf"<=({_NUMBER})|\.\.({_NUMBER})"), lambda n: Numbers(high=n[0])),
    (re.compile(rf">({_NUMBER})"), lambda n: Numbers(low=n[0] + 1)),
    (re.compile(rf"<({_NUMBER})"), lambda n: Numbers(high=n[0] - 1)),
)


def parse_numbers(text: str) -> Numbers | None:
    """Reads `5`, `1,2,3`, `>5`, `>=5`, `<5`, `<=5`, `5..9`, `5..`, `..9`; else None."""
    if re.fullmatch(rf"{_NUMBER}(,{_NUMBER})*", text):
        return Numbers(listed=frozenset(int(part) for part in text.split(",")))
    for pattern, make in _RANGES:
        found = pattern.fullmatch(text)
        if found:
            return make([int(group) for group in found.groups() if group is not None])
    return None


@dataclasses.dataclass(frozen=True)
class Grammar:
    """The metatags of one dialect.

    `rating` maps a rating's name to the Danbooru letters that it covers, None if it is no
    rating. `orders` are the values of `order_word`. `statuses` are the values of `status_word`,
    each with a test. `free` are the metatags that do not count towards the tag limit.
    `hides` is what a search without a condition on the status leaves out.
    """

    rating: Callable[[str], frozenset[str] | None]
    orders: Mapping[str, str]  # value -> id, id_desc, score, score_asc
    statuses: Mapping[str, Callable[[Entry], bool]]
    order_word: str = "order"
    status_word: str = "status"
    ext_word: str = "filetype"
    free: frozenset[str] = frozenset()
    hides: Callable[[Entry], bool] = lambda entry: entry.status == "deleted"


@dataclasses.dataclass(frozen=True)
class Query:
    """A parsed search: tests that must all pass, the order and the limit of the results."""

    tests: tuple[Callable[[Entry, frozenset[str]], bool], ...] = ()
    order: str = "id_desc"
    limit: int | None = None
    counted_words: int = 0  # against the dialect's tag limit
    by_status: bool = False  # whether the search has a condition on the status
    ignored: tuple[str, ...] = ()  # words that the board silently ignores


def parse_query(text: str, grammar: Grammar, known_tags: Container[str]) -> Query:
    """Reads a search as the board's dialect would.

    Words that look like a metatag the board does not have, and metatags with a value it does
    not understand, are silently ignored, as on the real boards; a plain tag that no post
    has finds nothing.
    """
    query = Query()
    either: list[str] = []
    for word in dict.fromkeys(text.lower().split()):
        negated, bare = word.startswith("-") and len(word) > 1, word.lstrip("-~") or word
        name, _, value = bare.partition(":")
        if value and name in _metatags(grammar):
            counted = 0 if name in grammar.free else 1
            query = dataclasses.replace(query, counted_words=query.counted_words + counted)
            query = _with_metatag(query, grammar, (word, name, value), negated=negated)
        elif _LOOKS_LIKE_METATAG.fullmatch(bare) and bare not in known_tags:
            query = dataclasses.replace(query, ignored=(*query.ignored, word))
        else:
            query = dataclasses.replace(query, counted_words=query.counted_words + 1)
            if word.startswith("~") and len(word) > 1:
                either.append(bare)
            else:
                query = _with_test(query, _tag_test(bare), negated=negated)
    if either:
        tests = [_tag_test(bare) for bare in either]
        query = _with_test(query, lambda e, tags: any(test(e, tags) for test in tests))
    if not query.by_status:
        query = _with_test(query, lambda entry, _: not grammar.hides(entry))
    return query


def search(collection: Collection, query: Query) -> list[Entry]:
    """Every post that the query finds, in its order."""
    found = [
        entry
        for entry in collection
        if all(test(entry, collection.tag_sets[entry.post_id]) for test in query.tests)
    ]
    if query.order == "id":
        return found
    if query.order == "id_desc":
        return found[::-1]
    sign = -1 if query.order == "score" else 1
    return sorted(found, key=lambda entry: (sign * entry.score, -entry.post_id))


def _metatags(grammar: Grammar) -> frozenset[str]:
    named = {grammar.order_word, grammar.status_word, grammar.ext_word}
    return frozenset(named | {"rating", "id", "md5", "score", "limit"})


def _with_test(
    query: Query, test: Callable[[Entry, frozenset[str]], bool], *, negated: bool = False
) -> Query:
    added = (lambda entry, tags: not test(entry, tags)) if negated else test
    return dataclasses.replace(query, tests=(*query.tests, added))


def _tag_test(name: str) -> Callable[[Entry, frozenset[str]], bool]:
    if "*" not in name:
        return lambda _, tags: name in tags
    pattern = re.compile(".*".join(re.escape(part) for part in name.split("*")))
    return lambda _, tags: any(pattern.fullmatch(tag) for tag in tags)


def _with_metatag(
    query: Query, grammar: Grammar, parts: tuple[str, str, str], *, negated: bool
) -> Query:
    word, name, value = parts
    if name == grammar.order_word and value in grammar.orders:
        return dataclasses.replace(query, order=grammar.orders[value])
    if name == "limit" and re.fullmatch(r"[0-9]{1,18}", value):
        return dataclasses.replace(query, limit=int(value))
    if name == grammar.status_word and value in grammar.statuses:
        status_test = grammar.statuses[value]
        query = dataclasses.replace(query, by_status=True)
        return _with_test(query, lambda entry, _: status_test(entry), negated=negated)
    test = _field_test(grammar, name, value)
    if test is None:
        return dataclasses.replace(query, ignored=(*query.ignored, word))
    return _with_test(query, lambda entry, _: test(entry), negated=negated)


def _field_test(grammar: Grammar, name: str, value: str) -> Callable[[Entry], bool] | None:
    """The test of a metatag about one field of the record; None if the value is invalid."""
    if name == "rating":
        covered = [letters for part in value.split(",") if (letters := grammar.rating(part))]
        ratings = frozenset().union(*covered)
        return (lambda entry: entry.rating in ratings) if covered else None
    if name in ("id", "score"):
        numbers = parse_numbers(value)
        if numbers is None:
            return None
        if name == "id":
            return lambda entry: entry.post_id in numbers
        return lambda entry: entry.score in numbers
    if name == "md5":
        md5s = frozenset(value.split(","))
        return lambda entry: entry.md5 in md5s and not entry.withheld
    if name == grammar.ext_word:
        exts = frozenset(value.split(","))
        return lambda entry: entry.ext in exts
    return None
