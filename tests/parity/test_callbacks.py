"""Callbacks of the framework run in a training, or after each epoch of worker processes (backend_contract 5.5)."""

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
                self.epochs = []

            def on_validation_epoch_end(self, trainer, module):
                self.validation = float(trainer.callback_metrics[NAMES[1]])

            def on_train_epoch_end(self, trainer, module):
                assert not trainer.sanity_checking
                train = float(trainer.callback_metrics[NAMES[0]])
                self.epochs.append((trainer.current_epoch, train, self.validation))

        return Collector()
    import keras

    class EpochCollector(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.epochs = []

        def on_epoch_end(self, epoch, logs=None):
            self.epochs.append((epoch, *(float(logs[name]) for name in NAMES)))

    return EpochCollector()


def test_a_callback_gets_every_epoch_with_its_metrics(backend, execution, scan, training_of):
    collector = make_collector(backend.name)
    run = api.train(scan, training_of(backend.name), execution, callbacks=[collector])
    assert [row[0] for row in collector.epochs] == [0, 1]
    for row, (_, *values) in zip(run.history, collector.epochs, strict=True):
        assert values == pytest.approx([row[name] for name in NAMES])


def test_a_callback_can_end_training(backend, execution, scan, training_of):
    collector, calls = make_collector(backend.name), []
    hook = "on_train_epoch_end" if backend.name == "pytorch" else "on_epoch_end"

    def stop(first, *rest, **named):
        calls.append(1)
        if backend.name == "pytorch":
            first.should_stop = True
        else:
            collector.model.stop_training = True

    setattr(collector, hook, stop)
    run = api.train(scan, training_of(backend.name), execution, callbacks=[collector])
    assert len(run.history) == len(calls) == 1


def test_a_callback_of_another_class_is_an_error(backend, execution, scan, training_of):
    with pytest.raises(ConfigError, match="callbacks=object"):
        api.train(scan, training_of(backend.name), execution, callbacks=[object()])


def test_with_worker_processes_callbacks_are_replayed_after_every_epoch(backend, execution, scan, training_of):
    from importlib import import_module

    replayed = import_module(
        {"pytorch": "ptycho_torch", "tensorflow": "ptycho"}[backend.name] + ".engine.callbacks"
    ).replayed
    run = api.train(scan, training_of(backend.name), execution)
    collector, received = make_collector(backend.name), []
    model = [run.model] if backend.name == "pytorch" else []
    listener = replayed([collector], *model, received.append)
    events = [BatchEvent(1, 2, 1, 1, 0.5), *(EpochEvent(n + 1, 2, row) for n, row in enumerate(run.history))]
    for event in events:
        listener(event)
    assert received == events
    expected = [(n, *(row[name] for name in NAMES)) for n, row in enumerate(run.history)]
    assert [row[0] for row in collector.epochs] == [0, 1]
    assert [value for row in collector.epochs for value in row] == pytest.approx([v for row in expected for v in row])
    assert replayed([], *model, received.append) == received.append
