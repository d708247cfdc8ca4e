"""Progress events: pickling, immutability, defaults."""

import dataclasses
import pickle

import pytest

from ptycho_backend.events import BatchEvent, EpochEvent, StageEvent, ignore

EVENTS = [
    StageEvent("iterations", 3, 20, "error 0.1"),
    BatchEvent(epoch=1, nepochs=5, batch=2, n_batches=7, loss=0.25),
    EpochEvent(epoch=5, nepochs=5, metrics={"epoch": 5.0, "poisson_train_loss": 0.3, "lr": 1e-3}),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_survive_pickling(event):
    assert pickle.loads(pickle.dumps(event)) == event  # noqa: S301 - our own


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_are_immutable(event):
    name = dataclasses.fields(event)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, name, None)


def test_epoch_events_have_separate_metrics():
    assert EpochEvent(1, 2).metrics == {}
    assert EpochEvent(1, 2).metrics is not EpochEvent(1, 2).metrics


def test_ignore_returns_none():
    assert [ignore(event) for event in EVENTS] == [None, None, None]
