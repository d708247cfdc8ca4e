"""Training with Lightning: windows, losses, orders, data sets, pickling and log messages."""

from __future__ import annotations

import dataclasses
import logging
import math
import pickle

import numpy as np
import pytest

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.errors import TrainingError
from ptycho_backend.events import BatchEvent, EpochEvent, ignore
from ptycho_backend.training.loop import TrainingLoop
from ptycho_backend.training.options import FitOptions
from ptycho_torch.engine.data import BatchDataset, PtychoDataModule
from ptycho_torch.engine.training import TrainingModule, fit, window_weight

CPU = ExecutionConfig(device="cpu", precision="32-true")


def training_loop(model, samples, execution=CPU):
    return TrainingLoop(model, execution, ignore, FitOptions(), len(samples), validated=False)


def test_optimisation_is_automatic(setup):
    # Accumulation, clipping and schedules of a Trainer need automatic optimisation.
    model, samples = setup()
    assert TrainingModule(model, training_loop(model, samples)).automatic_optimization


@pytest.mark.parametrize(
    ("n_train", "batch_size", "k", "expected"),
    [
        (8, 4, 1, [1, 1]),
        (9, 4, 1, [1, 1, 1]),
        (16, 4, 2, [1, 1, 1, 1]),
        (12, 4, 2, [1, 1, 2]),  # Lightning divides the last window of one batch by 2 too
        (14, 4, 2, [1, 1, 4 * 2 / 6, 2 * 2 / 6]),
        (9, 4, 4, [4 * 4 / 9, 4 * 4 / 9, 1 * 4 / 9]),
        (1, 4, 3, [3]),
    ],
)
def test_every_window_is_a_mean_over_its_samples(n_train, batch_size, k, expected):
    execution = dataclasses.replace(CPU, accumulate_grad_batches=k)
    sizes = [min(batch_size, n_train - start) for start in range(0, n_train, batch_size)]
    weights = [window_weight(index, size, n_train, batch_size, execution) for index, size in enumerate(sizes)]
    assert weights == pytest.approx(expected)
    for start in range(0, len(sizes), k):
        window = slice(start, start + k)
        # Lightning sums (weight · batch mean) / k: all samples have the same weight.
        shares = [w / (k * size) for w, size in zip(weights[window], sizes[window], strict=True)]
        assert shares == pytest.approx([1 / sum(sizes[window])] * len(shares))


def test_a_non_finite_loss_stops_training(setup):
    model, samples = setup()
    broken = dataclasses.replace(
        samples, calibration=dataclasses.replace(samples.calibration, rms_input_scale=math.nan)
    )
    before = model.get_weights()
    with pytest.raises(TrainingError, match="epoch 1, batch 1"):
        fit(model, broken, None, CPU, ignore)
    for name, value in model.get_weights().items():
        np.testing.assert_array_equal(value, before[name], err_msg="weights after a non-finite loss")


@pytest.mark.parametrize("k", [1, 2, 5])
def test_batch_events_report_the_mean_loss_of_the_batch(setup, k):
    events = []
    model, samples = setup(training={"learning_rate": 1e-12, "nepochs": 2})
    fit(model, samples, None, dataclasses.replace(CPU, accumulate_grad_batches=k), events.append)
    batches = [event for event in events if isinstance(event, BatchEvent)]
    assert [(e.epoch, e.batch, e.n_batches) for e in batches] == [(e, b, 3) for e in (1, 2) for b in (1, 2, 3)]
    epochs = [event for event in events if isinstance(event, EpochEvent)]
    for number, epoch in enumerate(epochs):
        losses = [event.loss for event in batches[3 * number : 3 * number + 3]]
        mean = np.average(losses, weights=[4, 4, 1])
        assert mean == pytest.approx(epoch.metrics["poisson_train_loss"], rel=1e-5)


def test_the_order_depends_on_the_epoch_number(setup, monkeypatch):
    from ptycho_torch.engine import data

    calls, epoch_order = [], data.epoch_order
    monkeypatch.setattr(data, "epoch_order", lambda *key: calls.append(key) or epoch_order(*key))
    model, samples = setup(training={"nepochs": 3, "seed": 5})
    fit(model, samples, None, CPU, ignore)
    assert calls == [(9, 5, 0), (9, 5, 1), (9, 5, 2)]


def test_the_dataset_yields_whole_batches(setup):
    _, samples = setup()
    dataset = BatchDataset(samples, 4, np.array([8, 1, 3, 0, 2]))
    assert len(dataset) == 2
    np.testing.assert_array_equal(dataset[1].x.numpy(), samples.batch(np.array([2])).x)
    assert len(BatchDataset(samples, 4)) == 3
    np.testing.assert_array_equal(BatchDataset(samples, 4)[2].x.numpy(), samples.batch(slice(8, 9)).x)


def test_module_and_data_can_be_pickled(setup):
    model, samples = setup()
    loop = training_loop(model, samples)
    assert pickle.dumps(TrainingModule(model, loop))
    assert pickle.dumps(PtychoDataModule(loop, samples, None))


def test_lightning_logs_are_filtered_and_log_levels_restored(setup, caplog, capfd):
    names = ("lightning.pytorch", "lightning.fabric")
    before = [logging.getLogger(name).level for name in names]
    model, samples = setup()
    fit(model, samples, None, CPU, ignore)
    assert [logging.getLogger(name).level for name in names] == before
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    assert {record.name.split(".")[0] for record in caplog.records} <= {"ptycho_backend", "ptycho_torch"}


def test_a_model_can_be_trained_twice_and_predicts_afterwards(setup):
    model, samples = setup()
    first = fit(model, samples, None, CPU, ignore)
    second = fit(model, samples, None, CPU, ignore)
    assert second[0]["poisson_train_loss"] < first[0]["poisson_train_loss"]
    assert model.predict_patches(samples.batch(slice(0, 1))).shape == (1, 1, 32, 32)
    assert {p.device.type for p in model.module.parameters()} == {"cpu"}
