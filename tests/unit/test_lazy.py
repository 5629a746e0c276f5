"""Attributes computed when they are first read."""

import threading

from rowmint.lazy import lazy
from tests.waiting import PATIENCE


class Model:
    """Has an attribute that waits until it may be computed."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.computed = 0

    @lazy
    def tables(self) -> list[int]:
        """Tables."""
        self.begun.set()
        assert self.may_end.wait(PATIENCE)
        self.computed += 1
        return []


def test_it_is_computed_once():
    model = Model()
    model.may_end.set()
    assert model.tables is model.tables
    assert model.computed == 1


def test_one_that_is_computed_stops_no_other():
    slow, fast = Model(), Model()
    thread = threading.Thread(target=lambda: slow.tables)
    thread.start()
    assert slow.begun.wait(PATIENCE)
    fast.may_end.set()
    assert fast.tables == []
    assert slow.computed == 0
    slow.may_end.set()
    thread.join()


def test_two_that_read_at_once_get_the_same():
    model, found = Model(), []
    threads = [threading.Thread(target=lambda: found.append(model.tables)) for _ in range(2)]
    for thread in threads:
        thread.start()
    model.may_end.set()
    for thread in threads:
        thread.join()
    assert found[0] is found[1]
