"""Loggers of other packages, kept from saying what is of no use to whoever trains."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def filtered_logs(*names: str, level: int = logging.WARNING) -> Iterator[None]:
    """
    Let loggers say nothing below a level, for as long as the block runs.

    Parameters
    ----------
    *names : str
        Of loggers; those that are stricter already stay so.
    level : int
    """
    before = {log: log.level for log in map(logging.getLogger, names)}
    for log, own in before.items():
        log.setLevel(max(own, level))
    try:
        yield
    finally:
        for log, own in before.items():
            log.setLevel(own)
