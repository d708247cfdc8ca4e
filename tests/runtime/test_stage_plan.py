"""Numbers and times of stages."""

import logging

import pytest

from ptycho_backend.commands.stages import reconstruction_stages, training_stages
from ptycho_backend.config import InferenceConfig
from ptycho_backend.events import StageEvent
from ptycho_backend.runtime import progress, stage_plan
from ptycho_backend.runtime.progress import EventLog
from ptycho_backend.runtime.stage_plan import StagePlan


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

    monkeypatch.setattr(stage_plan.time, "perf_counter", lambda: Clock.now)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: Clock.now)
    return Clock


def test_labels():
    plan = StagePlan(("probe", "iterations", "half 1"))
    assert plan.label("probe") == "1/3 probe"
    assert plan.label("half 1: iterations") == "3/3 half 1: iterations"
    assert plan.label("half 10") == "half 10"
    assert plan.label("orientation") == "orientation"
    assert StagePlan().label("probe") == "probe"


def test_total_time_left_follows_from_durations(clock):
    ratios = {"half 1": ("iterations", 0.5), "half 2": ("iterations", 0.5)}
    plan = StagePlan(("probe", "iterations", "half 1", "half 2"), ratios)
    plan.start("probe")
    assert plan.total_left_s(9.0) is None, "the duration of the iterations is unknown"
    clock.now = 10.0
    plan.start("iterations")
    clock.now = 30.0
    assert plan.total_left_s(20.0) == pytest.approx(20 + 2 * 0.5 * 40)
    clock.now = 50.0
    plan.start("half 1: probe")
    plan.start("half 1: iterations")
    clock.now = 55.0
    assert plan.total_left_s(5.0) == pytest.approx(5 + 0.5 * 40)
    plan.start("half 2: iterations")
    assert plan.total_left_s(7.0) is None, "the time left of the last stage is the total"
    plan.start("elsewhere")
    assert plan.total_left_s(7.0) is None


def test_log_lines_have_numbers_and_the_total(clock, caplog):
    log = EventLog(reconstruction_stages(InferenceConfig(), network=False))
    with caplog.at_level(logging.INFO):
        log(StageEvent("probe", 20, 20))
        for done in range(0, 101):
            clock.now = float(done)
            log(StageEvent("iterations", done, 100))
    assert [record.getMessage() for record in caplog.records] == [
        "1/5 probe: 20 of 20",
        "2/5 iterations: 30 of 100, about 70 s left, 3 min in all",
        "2/5 iterations: 60 of 100, about 40 s left, 2 min in all",
        "2/5 iterations: 90 of 100, about 10 s left, 115 s in all",
        "2/5 iterations: 100 of 100",
    ]


def test_stages_of_the_commands():
    whole, short = InferenceConfig(), InferenceConfig(half_datasets=False, start="flat")
    assert reconstruction_stages(short, network=False).stages == ("probe", "iterations", "residual")
    assert reconstruction_stages(whole, network=True).stages[1:5] == (
        *("reconstruction", "phase alignment", "stitching"),
        "iterations",
    )
    assert training_stages(whole, reconstruct=False).stages == ("probe", "training")
    assert training_stages(short, reconstruct=True).stages == ("probe", "training", "iterations", "residual")
