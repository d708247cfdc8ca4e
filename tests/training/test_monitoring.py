"""Best epoch, early stopping and the monitored metric."""

import logging
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.errors import ConfigError
from ptycho_backend.training.monitoring import BestEpoch, monitored_metric, resolve_monitor

NAMES = ("poisson_train_loss", "poisson_val_loss")


def watch(values, patience=None):
    """Update with values until training stops; return the BestEpoch and the results of its updates."""
    best, improved = BestEpoch("m", patience), []
    for value in values:
        improved.append(best.update({"m": value, "other": -1.0}))
        if best.should_stop:
            break
    return best, improved


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=12))
def test_best_epoch_is_the_first_minimum(values):
    best, improved = watch(values)
    assert best.best == min(values)
    assert best.best_epoch == values.index(min(values)) + 1
    assert improved[0]
    assert improved == [all(value < earlier for earlier in values[:i]) for i, value in enumerate(values)]


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30), st.integers(1, 4))
def test_patience_counts_epochs_since_the_best(values, patience):
    _, improved = watch(values, patience)
    last = max(i for i, better in enumerate(improved) if better)
    stopped_early = len(improved) < len(values)
    assert len(improved) - 1 - last <= patience
    assert not stopped_early or len(improved) - 1 - last == patience


def test_patience_of_one_stops_at_the_first_epoch_without_improvement():
    best, improved = watch([3.0, 2.0, 2.0, 1.0], patience=1)
    assert improved == [True, True, False]
    assert (best.best, best.best_epoch) == (2.0, 2)


def test_without_patience_training_never_stops():
    best, _ = watch([1.0] * 50)
    assert not best.should_stop


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_never_the_best(bad):
    best, improved = watch([bad, 2.0, bad])
    assert improved == [False, True, False]
    assert best.best_epoch == 2


@pytest.mark.parametrize(
    ("monitor", "has_validation", "expected"),
    [
        ("val_loss", True, "poisson_val_loss"),
        ("poisson_val_loss", True, "poisson_val_loss"),
        ("train_loss", True, "poisson_train_loss"),
        ("train_loss", False, "poisson_train_loss"),
        ("poisson_train_loss", True, "poisson_train_loss"),
    ],
)
def test_monitor_names(monitor, has_validation, expected, caplog):
    assert resolve_monitor(monitor, NAMES, has_validation) == expected
    assert monitored_metric(monitor, NAMES, has_validation) == expected
    assert not caplog.records


@pytest.mark.parametrize("monitor", ["val_loss", "poisson_val_loss"])
def test_without_validation_the_training_loss_is_monitored_with_a_warning(monitor, caplog):
    with caplog.at_level(logging.WARNING):
        assert resolve_monitor(monitor, NAMES, has_validation=False) == "poisson_train_loss"
        assert not caplog.records
        assert monitored_metric(monitor, NAMES, has_validation=False) == "poisson_train_loss"
    assert "poisson_train_loss" in caplog.text


def test_an_unknown_metric_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ConfigError) as error:
        resolve_monitor("mae_val_los", NAMES)
    assert "poisson_val_loss" in error.value.expected
    assert "poisson_train_loss" in error.value.expected


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=12), st.integers(1, 3), st.data())
def test_maximum_mirrors_minimum_and_state_continues(values, patience, data):
    def decisions(best, values):
        return [(best.update({"m": value}), best.should_stop, best.best_epoch) for value in values]

    least = decisions(BestEpoch("m", patience), values)
    assert decisions(BestEpoch("m", patience, "max"), [-value for value in values]) == least
    cut = data.draw(st.integers(0, len(values)))
    first = BestEpoch("m", patience)
    found = decisions(first, values[:cut])
    assert found + decisions(BestEpoch("m", patience, state=first.state), values[cut:]) == least
