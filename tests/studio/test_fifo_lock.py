"""FifoLock come in the order of asking, and who gives up is not waited for."""

import threading
import time

from studio.draw import FifoLock


def test_turns_come_in_the_order_of_asking_and_one_at_a_time() -> None:
    lock, came, inside = FifoLock(), [], []

    def take(number: int) -> None:
        with lock.hold():
            inside.append(number)
            came.append((number, len(inside)))
            time.sleep(0.001)
            inside.remove(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    with lock.hold():
        for waiting, thread in enumerate(threads, start=2):
            thread.start()
            while lock.waiting < waiting:
                time.sleep(0.001)
    for thread in threads:
        thread.join(600)
    assert came == [(number, 1) for number in range(8)]
    assert lock.waiting == 0


def test_a_fault_in_a_turn_ends_it() -> None:
    lock = FifoLock()
    try:
        with lock.hold():
            raise KeyError("fault")
    except KeyError:
        assert lock.waiting == 0
    with lock.hold():
        assert lock.waiting == 1
