"""Work on several items at a time, answers in order: processors share batches better than they share one operation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

AHEAD = 2  # items that every worker may be ahead of what has been asked for: memory stays bounded


def ordered_map(
    work: Callable[[Item], Answer],
    items: Iterable[Item],
    workers: int,
    prepare: Callable[[], Any] | None = None,
) -> Iterator[Answer]:
    """
    Yield what `work` makes of each item, in their order.

    Parameters
    ----------
    work : callable
        Safe to call from several threads.
    items : iterable
        Drawn in this thread, a few ahead.
    workers : int
        1 works in this thread.
    prepare : callable, optional
        Called once by every other thread that works.
    """
    if workers == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(workers, initializer=prepare) as pool:
        yield from ordered_pool_map(pool, work, items, AHEAD * workers)


def ordered_pool_map(
    pool: ThreadPoolExecutor, work: Callable[[Item], Answer], items: Iterable[Item], ahead: int
) -> Iterator[Answer]:
    """Yield what a pool makes of each item, in their order; up to `ahead` of them are on their way, none waits."""
    remaining = iter(items)
    begun = deque(pool.submit(work, item) for item in islice(remaining, ahead))
    try:
        while begun:
            yield begun.popleft().result()
            begun.extend(pool.submit(work, item) for item in islice(remaining, 1))
    finally:
        for future in begun:
            future.cancel()  # nobody asks any more
