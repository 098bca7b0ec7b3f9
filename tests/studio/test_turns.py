"""Turns come in the order of asking, and who gives up is not waited for."""

import threading
import time

from studio.turns import Turns


def test_turns_come_in_the_order_of_asking_and_one_at_a_time() -> None:
    turns, came, inside = Turns(), [], []

    def take(number: int) -> None:
        with turns.turn():
            inside.append(number)
            came.append((number, len(inside)))
            time.sleep(0.001)
            inside.remove(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    with turns.turn():
        for waiting, thread in enumerate(threads, start=2):
            thread.start()
            while turns.asking < waiting:
                time.sleep(0.001)
    for thread in threads:
        thread.join(600)
    assert came == [(number, 1) for number in range(8)]
    assert turns.asking == 0


def test_a_fault_in_a_turn_ends_it() -> None:
    turns = Turns()
    try:
        with turns.turn():
            raise KeyError("fault")
    except KeyError:
        assert turns.asking == 0
    with turns.turn():
        assert turns.asking == 1
