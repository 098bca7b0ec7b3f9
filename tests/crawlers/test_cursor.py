"""The window: every post exactly once, whatever is posted and wherever the crawl is cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawlers.cursor import Ask, Window, check_order, take
from dataset.errors import CrawlError
from tests.crawlers.conftest import MakePost


def page(board: list[int], ask: Ask, size: int) -> list[int]:
    found = sorted(one for one in board if ask.wants(one))
    return found[:size] if ask.side == "above" else found[::-1][:size]


def crawl(board: list[int], window: Window, size: int, *, pages: int) -> tuple[Window, list[int]]:
    """Walks at most `pages` pages; returns the window and the posts in the order of the visit."""
    seen: list[int] = []
    caught_up = False
    for _ in range(pages):
        ask = window.ask(caught_up=caught_up)
        if ask is None:
            break
        found = page(board, ask, size)
        window = window.after(ask, found)
        caught_up |= ask.side == "newest" or (ask.side == "above" and not found)
        seen += found
    return window, seen


@settings(deadline=None)  # the machine is shared
@given(
    board=st.lists(st.integers(1, 500), unique=True),
    later=st.lists(st.integers(501, 700), unique=True),
    size=st.integers(1, 7),
    cut=st.integers(0, 30),
)
def test_every_post_is_visited_exactly_once(
    board: list[int], later: list[int], size: int, cut: int
) -> None:
    window, first = crawl(board, Window(), size, pages=cut)
    window, second = crawl(board + later, window, size, pages=10_000)
    window, third = crawl(board + later, window, size, pages=10_000)
    assert sorted(first + second) == sorted(board + later)
    assert third == []


def test_the_newest_come_first_then_what_is_new_then_what_is_older() -> None:
    window, seen = crawl([1, 2, 3, 4], Window(), 2, pages=1)
    assert seen == [4, 3]
    _, seen = crawl([1, 2, 3, 4, 5], window, 2, pages=10)
    assert seen == [5, 2, 1]


def test_posts_are_visited_from_the_window_outwards(make_post: MakePost) -> None:
    posts = [make_post(n) for n in (9, 8, 7)]
    assert [post.post_id for post in take(Ask("above", 6), posts)] == [7, 8, 9]
    assert [post.post_id for post in take(Ask("below", 10), posts)] == [9, 8, 7]


def test_posts_that_were_not_asked_for_are_left_out(make_post: MakePost) -> None:
    posts = [make_post(n) for n in (3, 2, 1)]
    assert [post.post_id for post in take(Ask("above", 2), posts)] == [3]


def test_a_board_that_ignores_the_search_by_id_stops_the_crawl(make_post: MakePost) -> None:
    with pytest.raises(CrawlError, match="ignores the search by id"):
        take(Ask("below", 2), [make_post(5), make_post(4)])


def test_a_page_in_another_order_stops_the_crawl(make_post: MakePost) -> None:
    check_order(Ask("below", 9), [make_post(5), make_post(4)])
    with pytest.raises(CrawlError, match="ascending order of ids"):
        check_order(Ask("above", 2), [make_post(5), make_post(4)])
