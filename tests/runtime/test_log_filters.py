"""Loggers are quiet inside a block, and as they were after it."""

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


def test_loggers_say_nothing_below_the_level(loggers, caplog):
    with caplog.at_level(logging.DEBUG), filtered_logs(ONE, OTHER):
        for log in loggers:
            log.info("a hint")
            log.warning("a warning")
    assert [(record.name, record.message) for record in caplog.records] == [(ONE, "a warning"), (OTHER, "a warning")]


def test_levels_come_back_also_after_an_error(loggers):
    inside = []
    with contextlib.suppress(ZeroDivisionError), filtered_logs(ONE, OTHER, level=logging.ERROR):
        inside += [log.level for log in loggers]
        _ = 1 / 0
    assert inside == [logging.ERROR] * 2
    assert [log.level for log in loggers] == [logging.DEBUG, logging.INFO]


def test_a_stricter_logger_stays_strict(loggers):
    loggers[0].setLevel(logging.CRITICAL)
    with filtered_logs(ONE):
        assert loggers[0].level == logging.CRITICAL
