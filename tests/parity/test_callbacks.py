"""Callbacks of the framework join a training, and hear of it where other processes train (backend_contract 5.5)."""

from __future__ import annotations

import pytest

from ptycho_backend import api
from ptycho_backend.config import ModelConfig, TrainingConfig
from ptycho_backend.errors import ConfigError
from ptycho_backend.events import BatchEvent, EpochEvent
from ptycho_backend.simulation.simulate import simulate_scan

NAMES = ("poisson_train_loss", "poisson_val_loss")


@pytest.fixture(scope="module")
def training_of():
    def build(name):
        model = ModelConfig(N=32, n_filters_scale=1, unrolled_steps=1)
        return TrainingConfig(model=model, backend=name, nepochs=2, batch_size=8, probe_iterations=0)

    return build


@pytest.fixture(scope="module")
def scan():
    return simulate_scan(N=32, n_positions=16, seed=1)


def make_collector(name):
    """Return a callback of the engine's framework whose class is local, so that it cannot be pickled."""
    if name == "pytorch":
        import lightning.pytorch as pl

        class Collector(pl.Callback):
            def __init__(self):
                self.seen = []

            def on_validation_epoch_end(self, trainer, module):
                self.validation = float(trainer.callback_metrics[NAMES[1]])

            def on_train_epoch_end(self, trainer, module):
                assert not trainer.sanity_checking
                train = float(trainer.callback_metrics[NAMES[0]])
                self.seen.append((trainer.current_epoch, train, self.validation))

        return Collector()
    import keras

    class EpochCollector(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.seen = []

        def on_epoch_end(self, epoch, logs=None):
            self.seen.append((epoch, *(float(logs[name]) for name in NAMES)))

    return EpochCollector()


def test_a_callback_meets_every_epoch_with_its_metrics(backend, execution, scan, training_of):
    collector = make_collector(backend.name)
    run = api.train(scan, training_of(backend.name), execution, callbacks=[collector])
    assert [seen[0] for seen in collector.seen] == [0, 1]
    for row, (_, *values) in zip(run.history, collector.seen, strict=True):
        assert values == pytest.approx([row[name] for name in NAMES])


def test_a_callback_may_end_training(backend, execution, scan, training_of):
    collector, told = make_collector(backend.name), []
    hook = "on_train_epoch_end" if backend.name == "pytorch" else "on_epoch_end"

    def stop(first, *rest, **named):
        told.append(1)
        if backend.name == "pytorch":
            first.should_stop = True
        else:
            collector.model.stop_training = True

    setattr(collector, hook, stop)
    run = api.train(scan, training_of(backend.name), execution, callbacks=[collector])
    assert len(run.history) == len(told) == 1


def test_a_callback_of_something_else_is_refused(backend, execution, scan, training_of):
    with pytest.raises(ConfigError, match="callbacks=object"):
        api.train(scan, training_of(backend.name), execution, callbacks=[object()])


def test_where_others_train_callbacks_are_told_after_every_epoch(backend, execution, scan, training_of):
    from importlib import import_module

    replayed = import_module(
        {"pytorch": "ptycho_torch", "tensorflow": "ptycho"}[backend.name] + ".engine.callbacks"
    ).replayed
    run = api.train(scan, training_of(backend.name), execution)
    collector, heard = make_collector(backend.name), []
    model = [run.model] if backend.name == "pytorch" else []
    listener = replayed([collector], *model, heard.append)
    events = [BatchEvent(1, 2, 1, 1, 0.5), *(EpochEvent(n + 1, 2, row) for n, row in enumerate(run.history))]
    for event in events:
        listener(event)
    assert heard == events
    expected = [(n, *(row[name] for name in NAMES)) for n, row in enumerate(run.history)]
    assert [seen[0] for seen in collector.seen] == [0, 1]
    assert [value for seen in collector.seen for value in seen] == pytest.approx([v for row in expected for v in row])
    assert replayed([], *model, heard.append) == heard.append
