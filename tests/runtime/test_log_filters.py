"""Log filters raise levels inside a block and restore them after it."""

from __future__ import annotations

import contextlib
import logging

import pytest

from ptycho_backend.runtime.log_filters import filtered_logs

ONE, OTHER = "ptycho_backend.test_quiet.one", "ptycho_backend.test_quiet.other"


@pytest.fixture
def loggers():
    """Two loggers; their levels are reset."""
    both = logging.getLogger(ONE), logging.getLogger(OTHER)
    both[0].setLevel(logging.DEBUG)
    both[1].setLevel(logging.INFO)
    yield both
    for log in both:
        log.setLevel(logging.NOTSET)


def test_records_below_the_level_are_suppressed(loggers, caplog):
    with caplog.at_level(logging.DEBUG), filtered_logs(ONE, OTHER):
        for log in loggers:
            log.info("a hint")
            log.warning("a warning")
    assert [(record.name, record.message) for record in caplog.records] == [(ONE, "a warning"), (OTHER, "a warning")]


def test_levels_are_restored_after_an_error(loggers):
    inside = []
    with contextlib.suppress(ZeroDivisionError), filtered_logs(ONE, OTHER, level=logging.ERROR):
        inside += [log.level for log in loggers]
        _ = 1 / 0
    assert inside == [logging.ERROR] * 2
    assert [log.level for log in loggers] == [logging.DEBUG, logging.INFO]


def test_a_higher_level_stays(loggers):
    loggers[0].setLevel(logging.CRITICAL)
    with filtered_logs(ONE):
        assert loggers[0].level == logging.CRITICAL
