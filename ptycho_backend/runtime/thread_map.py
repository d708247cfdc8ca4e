"""Ordered map over a thread pool: processors share batches better than they share one operation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

QUEUED_PER_WORKER = 2  # bounds the memory of results that the caller has not taken yet


def ordered_map(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    prepare: Callable[[], Any] | None = None,
) -> Iterator[Result]:
    """
    Yield the result of `work` for each item, in the order of the items.

    Parameters
    ----------
    work : callable
        Safe to call from several threads.
    items : iterable
        Drawn in this thread, `QUEUED_PER_WORKER` per worker in advance.
    workers : int
        Number of threads; 1 calls `work` in this thread.
    prepare : callable, optional
        Called once in every new thread.
    """
    if workers == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(workers, initializer=prepare) as pool:
        yield from ordered_pool_map(pool, work, items, QUEUED_PER_WORKER * workers)


def ordered_pool_map(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], n_queued: int
) -> Iterator[Result]:
    """Yield the result of `work` for each item in order, with up to `n_queued` items in the pool."""
    remaining = iter(items)
    queue = deque(pool.submit(work, item) for item in islice(remaining, n_queued))
    try:
        while queue:
            yield queue.popleft().result()
            queue.extend(pool.submit(work, item) for item in islice(remaining, 1))
    finally:
        for future in queue:  # the caller takes no further results
            future.cancel()
