"""Learning-rate schedules (config 5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.training.schedules import RateSchedule, rate_factor


def factors(nepochs, **fields):
    execution = ExecutionConfig(**fields)
    return [rate_factor(epoch, nepochs, execution) for epoch in range(nepochs)]


def test_constant():
    assert factors(4, scheduler="constant") == [1.0] * 4


def test_cosine_starts_at_one_is_halfway_in_the_middle_and_ends_at_the_ratio():
    values = factors(5, scheduler="cosine", min_lr_ratio=0.2)
    assert values[0] == 1.0
    assert values[2] == pytest.approx(0.6)
    assert values[1] == pytest.approx(0.2 + 0.8 * (1 + 2**-0.5) / 2)
    assert values[4] == pytest.approx(0.2)


def test_exponential_falls_by_one_factor_an_epoch():
    assert factors(4, scheduler="exponential", min_lr_ratio=0.001) == pytest.approx([1, 0.1, 0.01, 0.001])


@pytest.mark.parametrize("scheduler", ["constant", "cosine", "exponential"])
def test_warm_up_rises_linearly_to_the_full_rate(scheduler):
    values = factors(7, scheduler=scheduler, warmup_epochs=3, min_lr_ratio=0.1)
    assert values[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert values[-1] == pytest.approx(1.0 if scheduler == "constant" else 0.1)


@pytest.mark.parametrize("scheduler", ["constant", "cosine", "exponential"])
def test_one_epoch_uses_the_full_rate(scheduler):
    assert factors(1, scheduler=scheduler) == [1.0]


def test_a_run_shorter_than_its_warm_up_only_warms_up():
    assert factors(2, warmup_epochs=5) == pytest.approx([1 / 6, 2 / 6])


@given(
    scheduler=st.sampled_from(["constant", "cosine", "exponential"]),
    nepochs=st.integers(1, 40),
    warmup=st.integers(0, 10),
    ratio=st.floats(1e-3, 1.0),
)
def test_rates_stay_positive_and_fall_after_the_warm_up(scheduler, nepochs, warmup, ratio):
    values = factors(nepochs, scheduler=scheduler, warmup_epochs=warmup, min_lr_ratio=ratio)
    assert all(0 < value <= 1 + 1e-12 for value in values)
    falling = values[warmup:]
    assert falling == sorted(falling, reverse=True)


def test_multistep_falls_at_each_milestone_and_not_below_the_ratio():
    fields = {"scheduler": "multistep", "scheduler_factor": 0.1, "min_lr_ratio": 0.005}
    assert factors(6, scheduler_milestones=[1, 3, 4], **fields) == pytest.approx([1, 0.1, 0.1, 0.01, 0.005, 0.005])
    assert factors(8, **fields) == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def factors_for(values, state=None, **fields):
    """Return the factors before each epoch and after the last one, for these monitored values."""
    schedule = RateSchedule(99, ExecutionConfig(scheduler="plateau", **fields), state)
    found = [schedule.factor(0)]
    for epoch, value in enumerate(values, start=1):
        schedule.update(value)
        found.append(schedule.factor(epoch))
    return found, schedule.state


def test_plateau_lowers_the_rate_after_patience_and_counts_again():
    fields = {"scheduler_patience": 1, "scheduler_factor": 0.5, "min_lr_ratio": 0.3}
    found, _ = factors_for([3, 2, 2, 2, 2, 2, 1, 1, 1], **fields)
    assert found == pytest.approx([1, 1, 1, 1, 0.5, 0.5, 0.3, 0.3, 0.3, 0.3])
    assert factors_for([1, 2, 2, 3], monitor_mode="max", **fields)[0] == pytest.approx([1] * 5)


@given(st.lists(st.sampled_from([1.0, 2.0, 3.0, float("nan")]), max_size=12), st.integers(0, 2), st.data())
def test_plateau_equals_that_of_torch_without_threshold(values, patience, data):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=patience, threshold=0.0, threshold_mode="abs", min_lr=0.05, eps=0.0
    )
    expected = [1.0]
    for value in values:
        theirs.step(value)
        expected.append(optimizer.param_groups[0]["lr"])
    fields = {"scheduler_patience": patience, "scheduler_factor": 0.5, "min_lr_ratio": 0.05}
    assert factors_for(values, **fields)[0] == pytest.approx(expected)
    cut = data.draw(st.integers(0, len(values)))
    first, state = factors_for(values[:cut], **fields)
    second, _ = factors_for(values[cut:], state, **fields)
    assert first + second[1:] == pytest.approx(expected), "a resumed schedule"
