"""The budget that threads share."""

import threading

import pytest

from dataset.media import ByteBudget


def test_no_more_than_the_room_is_in_use_at_once() -> None:
    budget, lock = ByteBudget(10), threading.Lock()
    in_use, most = 0, 0

    def take(part: int) -> None:
        nonlocal in_use, most
        with budget.reserved(part):
            with lock:
                in_use += part
                most = max(most, in_use)
            threading.Event().wait(0.001)
            with lock:
                in_use -= part

    threads = [threading.Thread(target=take, args=(1 + number % 10,)) for number in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    assert 0 < most <= 10
    assert in_use == 0
    with budget.reserved(10):  # all of it is there again
        pass


def test_a_large_part_is_not_passed_by_small_ones_for_ever() -> None:
    budget, order = ByteBudget(10), list[str]()
    holding, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with budget.reserved(4):
            holding.set()
            let_go.wait(600)

    def take(name: str, part: int) -> None:
        with budget.reserved(part):
            order.append(name)

    first = threading.Thread(target=hold)
    first.start()
    holding.wait(600)
    large = threading.Thread(target=take, args=("large", 10))
    large.start()
    while not budget.has_waiting:
        threading.Event().wait(0.001)
    small = threading.Thread(target=take, args=("small", 1))
    small.start()
    small.join(0.05)
    assert order == []
    let_go.set()
    for thread in (first, large, small):
        thread.join(600)
    assert order == ["large", "small"]


def test_a_part_comes_back_after_an_error() -> None:
    budget = ByteBudget(3)
    with pytest.raises(RuntimeError), budget.reserved(3):
        raise RuntimeError
    with budget.reserved(3):
        pass


def test_a_part_beyond_the_room_is_refused_not_waited_for() -> None:
    with pytest.raises(ValueError, match="11 of a budget of 10"), ByteBudget(10).reserved(11):
        pass
