"""Ordered map over a thread pool: order, threads, queue length, errors."""

from __future__ import annotations

import threading
import time

import pytest

from ptycho_backend.runtime.thread_map import QUEUED_PER_WORKER, ordered_map


def test_results_have_the_order_of_the_items():
    def slow_at_first(item):
        time.sleep(0.02 if item == 0 else 0)
        return item**2

    assert list(ordered_map(slow_at_first, range(20), 3)) == [item**2 for item in range(20)]


def test_several_threads_work_and_each_is_prepared():
    together, prepared = threading.Barrier(2, timeout=10), []

    def wait_for_both(item):
        together.wait()  # returns only with two threads at once
        return threading.get_ident()

    threads = set(ordered_map(wait_for_both, range(8), 2, lambda: prepared.append(threading.get_ident())))
    assert len(threads) == 2
    assert sorted(prepared) == sorted(threads)


def test_a_single_worker_is_this_thread():
    def thread_of(item):
        return threading.get_ident()

    assert set(ordered_map(thread_of, range(3), 1, pytest.fail)) == {threading.get_ident()}


def test_items_are_drawn_in_advance_up_to_the_limit():
    drawn = []

    def items():
        for item in range(100):
            drawn.append(item)
            yield item

    results = ordered_map(str, items(), 2)
    assert next(results) == "0"
    assert len(drawn) <= 2 * QUEUED_PER_WORKER
    for number in range(1, 90):
        assert next(results) == str(number)
        assert len(drawn) == number + 2 * QUEUED_PER_WORKER  # one new item per result


def test_closing_the_iterator_cancels_queued_items():
    done = []

    def slow(item):
        time.sleep(0.05)
        done.append(item)

    results = ordered_map(slow, range(100), 2)
    next(results)
    results.close()
    assert len(done) <= 2 * QUEUED_PER_WORKER


def test_an_error_reaches_the_caller():
    def fail(item):
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        list(ordered_map(fail, range(5), 2))
