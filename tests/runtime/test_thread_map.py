"""Several items are worked on at a time, and nobody can tell from the answers."""

from __future__ import annotations

import threading
import time

import pytest

from ptycho_backend.runtime.thread_map import AHEAD, ordered_map


def test_answers_come_in_the_order_of_the_items():
    def slow_at_first(item):
        time.sleep(0.02 if item == 0 else 0)
        return item**2

    assert list(ordered_map(slow_at_first, range(20), 3)) == [item**2 for item in range(20)]


def test_several_threads_work_and_each_is_prepared():
    together, prepared = threading.Barrier(2, timeout=10), []

    def meet(item):
        together.wait()  # nobody passes alone
        return threading.get_ident()

    seen = set(ordered_map(meet, range(8), 2, lambda: prepared.append(threading.get_ident())))
    assert len(seen) == 2
    assert sorted(prepared) == sorted(seen)


def test_a_single_worker_is_this_thread():
    def where(item):
        return threading.get_ident()

    assert set(ordered_map(where, range(3), 1, pytest.fail)) == {threading.get_ident()}


def test_items_are_drawn_a_few_ahead():
    drawn = []

    def items():
        for item in range(100):
            drawn.append(item)
            yield item

    answers = ordered_map(str, items(), 2)
    assert next(answers) == "0"
    assert len(drawn) <= 2 * AHEAD
    for taken in range(1, 90):
        assert next(answers) == str(taken)
        assert len(drawn) == taken + 2 * AHEAD  # an item for every answer: workers never wait for each other


def test_who_stops_asking_is_not_kept_waiting():
    done = []

    def slow(item):
        time.sleep(0.05)
        done.append(item)

    answers = ordered_map(slow, range(100), 2)
    next(answers)
    answers.close()
    assert len(done) <= 2 * AHEAD


def test_an_error_reaches_the_caller():
    def fail(item):
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        list(ordered_map(fail, range(5), 2))
