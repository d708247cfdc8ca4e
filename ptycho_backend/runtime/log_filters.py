"""Log filters: raised levels of other packages' loggers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def filtered_logs(*names: str, level: int = logging.WARNING) -> Iterator[None]:
    """
    Suppress log records below a level while the block runs.

    Parameters
    ----------
    *names : str
        Names of loggers; a higher level of their own stays.
    level : int
    """
    previous = {log: log.level for log in map(logging.getLogger, names)}
    for log, own_level in previous.items():
        log.setLevel(max(own_level, level))
    try:
        yield
    finally:
        for log, own_level in previous.items():
            log.setLevel(own_level)
