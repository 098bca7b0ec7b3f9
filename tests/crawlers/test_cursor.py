"""The cursor: every post exactly once, whatever is posted and wherever the crawl is cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawlers.cursor import Cursor, PageRequest, check_order, select
from dataset.errors import CrawlError
from tests.crawlers.conftest import MakePost


def page(board: list[int], request: PageRequest, size: int) -> list[int]:
    found = sorted(one for one in board if request.includes(one))
    return found[:size] if request.side == "above" else found[::-1][:size]


def crawl(board: list[int], cursor: Cursor, size: int, *, pages: int) -> tuple[Cursor, list[int]]:
    """Walks at most `pages` pages; returns the cursor and the posts in the order of the visit."""
    seen: list[int] = []
    caught_up = False
    for _ in range(pages):
        request = cursor.next_request(caught_up=caught_up)
        if request is None:
            break
        found = page(board, request, size)
        cursor = cursor.after(request, found)
        caught_up |= request.side == "newest" or (request.side == "above" and not found)
        seen += found
    return cursor, seen


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
    cursor, first = crawl(board, Cursor(), size, pages=cut)
    cursor, second = crawl(board + later, cursor, size, pages=10_000)
    cursor, third = crawl(board + later, cursor, size, pages=10_000)
    assert sorted(first + second) == sorted(board + later)
    assert third == []


def test_the_newest_come_first_then_what_is_new_then_what_is_older() -> None:
    cursor, seen = crawl([1, 2, 3, 4], Cursor(), 2, pages=1)
    assert seen == [4, 3]
    _, seen = crawl([1, 2, 3, 4, 5], cursor, 2, pages=10)
    assert seen == [5, 2, 1]


def test_posts_are_visited_from_the_cursor_outwards(make_post: MakePost) -> None:
    posts = [make_post(n) for n in (9, 8, 7)]
    assert [post.post_id for post in select(PageRequest("above", 6), posts)] == [7, 8, 9]
    assert [post.post_id for post in select(PageRequest("below", 10), posts)] == [9, 8, 7]


def test_posts_that_were_not_requested_for_are_left_out(make_post: MakePost) -> None:
    posts = [make_post(n) for n in (3, 2, 1)]
    assert [post.post_id for post in select(PageRequest("above", 2), posts)] == [3]


def test_a_board_that_ignores_the_search_by_id_stops_the_crawl(make_post: MakePost) -> None:
    with pytest.raises(CrawlError, match="ignores the search by id"):
        select(PageRequest("below", 2), [make_post(5), make_post(4)])


def test_a_page_in_another_order_stops_the_crawl(make_post: MakePost) -> None:
    check_order(PageRequest("below", 9), [make_post(5), make_post(4)])
    with pytest.raises(CrawlError, match="ascending order of ids"):
        check_order(PageRequest("above", 2), [make_post(5), make_post(4)])
