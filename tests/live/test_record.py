"""Record of a running command: its content, its file, and its end."""

import json
import logging

import pytest

from ptycho_backend.data.run_claim import PROGRESS, claimed, control_folder
from ptycho_backend.events import BatchEvent, EpochEvent, StageEvent, ignore
from ptycho_backend.live import record as record_module
from ptycho_backend.live.record import MAX_MESSAGES, MAX_POINTS, recorded
from ptycho_backend.live.state import RunState


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Write the record at every event."""
    monkeypatch.setattr(record_module, "WRITE_EVERY_S", 0.0)


@pytest.fixture
def target(tmp_path):
    """Return a claimed run folder."""
    with claimed(tmp_path / "first"):
        yield tmp_path / "first"


def record_of(target):
    return json.loads((control_folder(target) / PROGRESS).read_text(encoding="utf-8"))


def test_events_are_recorded_and_forwarded(target):
    received = []
    events = [
        StageEvent("probe", 1, 3),
        BatchEvent(1, 2, 3, 4, 0.5),
        EpochEvent(1, 2, {"a_train_loss": 0.5, "a_val_loss": float("nan")}),
        StageEvent("iterations", 2, 5, "error 0.25", error=0.25),
    ]
    with recorded(target, received.append) as on_event:
        for event in events:
            on_event(event)
        record = record_of(target)
    assert received == events
    assert [entry["stage"] for entry in record["stages"]] == ["probe", "training", "iterations"]
    assert record["stages"][1] == {"stage": "training", "done": 3, "total": 8, "message": "epoch 1/2, loss 0.5"}
    assert record["errors"] == [{"stage": "iterations", "done": 2, "error": 0.25}]
    assert record["epochs"] == [{"epoch": 1, "a_train_loss": 0.5, "a_val_loss": None}]
    assert not (control_folder(target) / PROGRESS).exists()


def test_messages_are_recorded(target):
    wrong = logging.LogRecord("other", logging.ERROR, "", 1, "%d", ("no number",), None)
    with recorded(target, ignore):
        logging.getLogger("ptycho_backend.somewhere").warning("\x1b[2J%s", "w" * 1000)
        logging.getLogger("other").info("not ours")
        logging.getLogger().handlers[-1].emit(wrong)
        logging.getLogger("other").error("an error")
        messages = record_of(target)["messages"]
    assert [message["level"] for message in messages] == ["warning", "error"]
    assert messages[0]["text"].startswith("\\x1b[2Jwww")
    assert len(messages[0]["text"]) == 500
    logging.getLogger("other").error("after the end")
    assert not (control_folder(target) / PROGRESS).exists()


def test_the_record_stays_small(target, monkeypatch):
    with recorded(target, ignore) as on_event:
        monkeypatch.setattr(on_event, "_next_write_s", float("inf"))
        for number in range(3 * MAX_POINTS):
            on_event.log("INFO", f"message {number}")
            on_event._record_stage(StageEvent("iterations", number, 9, error=1.0))
        monkeypatch.setattr(on_event, "_next_write_s", 0.0)
        on_event(StageEvent("iterations", 3 * MAX_POINTS, 9, error=0.5))
        record = record_of(target)
    assert len(record["messages"]) == MAX_MESSAGES
    assert len(record["errors"]) <= MAX_POINTS
    assert record["errors"][-1]["error"] == 0.5
    done = [entry["done"] for entry in record["errors"]]
    assert done == sorted(done)


def test_writing_is_throttled(target, monkeypatch):
    monkeypatch.setattr(record_module, "WRITE_EVERY_S", 100.0)
    with recorded(target, ignore) as on_event:
        for done in (1, 2):
            on_event(StageEvent("iterations", done, 5))
        assert record_of(target)["stages"][0]["done"] == 1


def test_a_failure_to_write_costs_no_work(tmp_path):
    received = []
    with recorded(tmp_path / "no claim", received.append) as on_event:
        on_event(StageEvent("iterations", 1, 2))
    assert len(received) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_work_removes_the_record(target):
    def fail():
        with recorded(target, ignore) as on_event:
            on_event(StageEvent("iterations", 1, 2))
            assert (control_folder(target) / PROGRESS).exists()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not (control_folder(target) / PROGRESS).exists()
    assert len([each for each in logging.getLogger().handlers if isinstance(each, record_module._Messages)]) == 0


def test_the_view_shows_the_record(target, monkeypatch):
    monkeypatch.setattr("ptycho_backend.live.state.REFRESH_S", 0.0)
    state = RunState(target)
    with recorded(target, ignore) as on_event:
        on_event(EpochEvent(1, 2, {"a_train_loss": 0.5}))
        on_event(StageEvent("iterations", 2, 5, "error 0.25", error=0.25))
        values = json.loads(state.document().content)
    assert values["stages"][0]["done"] == 2
    assert values["errors"] == [{"name": "iterations", "x": [2.0], "y": [0.25]}]
    assert values["losses"] == [{"name": "a_train_loss", "x": [1.0], "y": [0.5]}]
