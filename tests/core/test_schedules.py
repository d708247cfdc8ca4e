"""Learning rates at the epochs that matter (config 5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.core.schedules import rate_factor


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
