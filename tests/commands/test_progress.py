"""Progress: bars on a terminal, lines in a log."""

import io
import logging

import pytest
from rich.console import Console

from ptycho_backend.events import BatchEvent, EpochEvent, StageEvent
from ptycho_backend.runtime import progress
from ptycho_backend.runtime.progress import Bars, EventLog, Terminal, progress_bars

METRICS = {"epoch": 1.0, "poisson_val_loss": 0.5, "poisson_train_loss": 0.25, "lr": 1e-3}


def run_of(nepochs=2, n_batches=3):
    yield from (StageEvent("iterations", done, 4, f"error {done}") for done in range(1, 5))
    for epoch in range(1, nepochs + 1):
        yield from (BatchEvent(epoch, nepochs, batch, n_batches, 1.5) for batch in range(1, n_batches + 1))
        yield EpochEvent(epoch, nepochs, METRICS)
    yield StageEvent("reconstruction", 32, 36)
    yield StageEvent("reconstruction", 36, 36)


@pytest.fixture
def clock(monkeypatch):
    """Return a clock with a settable time."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(progress.time, "perf_counter", lambda: Clock.now)
    return Clock


def test_long_stage_logs_the_time_left(caplog, clock):
    log = EventLog()
    with caplog.at_level(logging.INFO):
        for done in range(0, 1001):  # 10 a second
            clock.now = 100.0 + done / 10
            log(StageEvent("reconstruction", done, 1000))
        clock.now = 300.0
        log(StageEvent("iterations", 0.25, 16))
        clock.now = 400.0
        log(StageEvent("iterations", 0.5, 16))
        log(StageEvent("iterations", 0.51, 16))
    assert [record.getMessage() for record in caplog.records] == [
        "reconstruction: 300 of 1000, about 70 s left",
        "reconstruction: 600 of 1000, about 40 s left",
        "reconstruction: 900 of 1000, about 10 s left",
        "reconstruction: 1000 of 1000",
        "iterations: 0.5 of 16, about 103 min left",
    ]


def test_repeated_stage_restarts_its_bar():
    with progress_bars(screen()) as bars:
        for done in (1, 2):
            bars(StageEvent("iterations", done, 2))
        first = bars._progress.tasks[0].finished_time
        bars(StageEvent("iterations", 0.5, 2))
        (task,) = bars._progress.tasks
        assert first is not None
        assert (task.completed, task.finished) == (0.5, False)


def screen(width=80):
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)


def test_one_log_line_per_stage_and_epoch(caplog):
    with caplog.at_level(logging.INFO):
        log = EventLog()
        for event in run_of():
            log(event)
    messages = [record.getMessage() for record in caplog.records]
    assert [message.split(",")[0] for message in messages] == [
        "iterations: 4 of 4",
        "epoch 1/2: poisson_train_loss 0.25",
        "epoch 2/2: poisson_train_loss 0.25",
        "reconstruction: 36 of 36",
    ]
    assert "poisson_val_loss 0.5, lr 0.001, " in messages[1]


def test_bars_end_full():
    console = screen()
    with progress_bars(console) as bars:
        for event in run_of():
            bars(event)
        tasks = {task.description: task for task in bars._progress.tasks}
    assert list(tasks) == ["iterations", "training", "reconstruction"]
    assert all(task.completed == task.total for task in tasks.values())
    assert tasks["training"].total == 6
    assert tasks["training"].fields["note"] == "epoch 2/2, train 0.25, val 0.5"
    assert "100%" in console.file.getvalue()


def test_batches_move_the_training_bar():
    with progress_bars(screen()) as bars:
        assert [task.description for task in bars._progress.tasks] == ["preparing"]
        bars(BatchEvent(2, 4, 1, 5, 0.123456))
        (task,) = bars._progress.tasks
        assert (task.completed, task.total) == (6, 20)
        assert task.fields["note"] == "epoch 2/4, loss 0.123"


def test_bar_fits_80_columns():
    console = screen(80)
    with progress_bars(console) as bars:
        bars(BatchEvent(100, 100, 1, 5, 0.123456))
        bars(EpochEvent(100, 100, {"supervised_train_loss": 0.123456, "supervised_val_loss": 0.123456}))
        bars._progress.refresh()
    assert "epoch 100/100, train 0.123, val 0.123" in console.file.getvalue()


@pytest.mark.parametrize("metrics", [{"mae_train_loss": 0.5}, {"mae_train_loss": 0.5, "mae_val_loss": float("nan")}])
def test_missing_loss_is_omitted(metrics):
    with progress_bars(screen()) as bars:
        bars(BatchEvent(1, 1, 1, 1, 0.5))
        bars(EpochEvent(1, 1, metrics))
        (task,) = bars._progress.tasks
        assert task.fields["note"] == "epoch 1/1, train 0.5"


def test_bars_are_removed_after_a_failure():
    console = screen()

    def fail():
        with progress_bars(console) as bars:
            bars(BatchEvent(1, 1, 1, 2, 0.5))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not console._live_stack
    assert console.file.getvalue().endswith("\x1b[?25h")  # the cursor is visible again


@pytest.mark.parametrize(
    ("out", "err", "quiet", "wanted", "expected"),
    [
        (True, True, False, True, Bars),
        (False, True, False, True, EventLog),
        (True, False, False, True, EventLog),
        (True, True, True, True, EventLog),
        (True, True, False, False, EventLog),
    ],
)
def test_bars_on_interactive_terminals_only(out, err, quiet, wanted, expected, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal(quiet=quiet)
    terminal.out = Console(file=io.StringIO(), force_terminal=out)
    terminal.err = Console(file=io.StringIO(), force_terminal=err)
    with terminal.progress(wanted) as listener:
        assert isinstance(listener, expected)


def test_text_is_not_wrapped():
    terminal = Terminal()
    terminal.out = Console(file=io.StringIO(), width=20)
    terminal.show("a/path[with]/brackets-and-more-than-twenty-letters")
    assert terminal.out.file.getvalue() == "a/path[with]/brackets-and-more-than-twenty-letters\n"


@pytest.mark.parametrize(
    ("level", "shown"), [(logging.ERROR, "error: x"), (logging.WARNING, "warning: x"), (logging.INFO, "x")]
)
def test_levels_are_words(level, shown):
    terminal = Terminal()
    terminal.err = Console(file=io.StringIO())
    terminal.log(level, "x")
    assert terminal.err.file.getvalue() == f"{shown}\n"
