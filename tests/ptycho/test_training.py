"""Training with Keras: order, means, accumulation, schedules, events, the best epoch."""

import gc
import threading
import weakref

import numpy as np
import pytest
import tensorflow as tf

from ptycho.engine.backend import TensorFlowBackend
from ptycho_backend.config import ExecutionConfig
from ptycho_backend.data.batching import Samples, epoch_order, split
from ptycho_backend.errors import ConfigError, DataError, DeviceError, PtychoError
from ptycho_backend.events import BatchEvent, EpochEvent, ignore
from ptycho_backend.simulation.simulate import simulate_scan
from ptycho_backend.training.schedules import rate_factor

CNN = {"architecture": "cnn"}  # untrained, it is far from the solution; an untrained "unet" is close to it
STILL = 1e-12  # learning rate that does not change float32 weights


def execution_options(**fields):
    return ExecutionConfig(**{"device": "cpu", "precision": "32-true", "restore_best": False, **fields})


@pytest.fixture
def train(make_model, make_samples):
    """Return a function that trains a model; it returns the model, its history and the events."""

    def run(training, execution=None, n_train=22, n_val=0, model=None, listener=ignore):
        samples = make_samples(training.model)
        model = model or make_model(training)
        events = []
        validation = samples.subset(np.arange(n_train, n_train + n_val)) if n_val else None
        fitted = samples.subset(np.arange(n_train))

        def listen(event):
            events.append(event)
            listener(event)

        history = TensorFlowBackend().fit(model, fitted, validation, execution or execution_options(), listen)
        return model, history, events

    return run


def losses_of(model, samples, rows):
    return model.loss_and_gradients(samples.batch(np.asarray(rows)))[0]


@pytest.mark.slow
def test_training_lowers_the_loss(make_training, make_model, make_samples):
    # 20 patterns teach this network only their mean. 64 of 80 are enough, with the other 16 among them for validation.
    training = make_training(CNN, nepochs=12, batch_size=4, learning_rate=5e-4)
    samples = make_samples(training.model, scan=simulate_scan(N=32, n_positions=80, photons_per_pattern=1e5, seed=3))
    model, rows = make_model(training, calibration=samples.calibration), np.random.default_rng(0).permutation(80)
    untrained, untrained_validation = (losses_of(model, samples, part) for part in (rows[:64], rows[64:]))
    fitted, validation = samples.subset(rows[:64]), samples.subset(rows[64:])
    history = TensorFlowBackend().fit(model, fitted, validation, execution_options(), ignore)
    values = [entry["poisson_train_loss"] for entry in history]
    assert values[-1] < min(values[0], 0.8 * untrained)
    assert history[-1]["poisson_val_loss"] < min(history[0]["poisson_val_loss"], untrained_validation)


@pytest.mark.slow  # tests/parity tests the same on every engine
def test_batches_have_the_common_order_and_epoch_losses_are_means_over_groups(train, make_training, make_samples):
    training = make_training(nepochs=2, learning_rate=STILL, batch_size=8)
    model, history, events = train(training, n_train=20, n_val=3)
    samples = make_samples(training.model)
    reported = [event.loss for event in events if isinstance(event, BatchEvent)]
    expected = [
        losses_of(model, samples, order[start : start + 8])
        for order in (epoch_order(20, training.seed, 0), epoch_order(20, training.seed, 1))
        for start in (0, 8, 16)
    ]
    np.testing.assert_allclose(reported, expected, rtol=1e-4)
    assert len(set(np.round(reported, 6))) > 3  # control: the loss depends on the order
    for entry in history:
        assert entry["poisson_train_loss"] == pytest.approx(losses_of(model, samples, range(20)), rel=1e-4)
        assert entry["poisson_val_loss"] == pytest.approx(losses_of(model, samples, range(20, 23)), rel=1e-4)


@pytest.mark.slow  # tests/parity tests the same on every engine
def test_events_and_history_agree(train, make_training):
    training = make_training(nepochs=3, learning_rate=2e-3)
    execution = execution_options(scheduler="cosine", warmup_epochs=1, min_lr_ratio=0.1)
    _, history, events = train(training, execution, n_train=12, n_val=4)
    batches = [(e.epoch, e.batch) for e in events if isinstance(e, BatchEvent)]
    assert batches == [(epoch, batch) for epoch in (1, 2, 3) for batch in (1, 2)]
    assert all(e.n_batches == 2 and e.nepochs == 3 for e in events if isinstance(e, BatchEvent))
    assert [dict(e.metrics) for e in events if isinstance(e, EpochEvent)] == history
    assert [entry["epoch"] for entry in history] == [1, 2, 3]
    rates = [2e-3 * rate_factor(epoch, 3, execution) for epoch in range(3)]
    assert [entry["lr"] for entry in history] == rates
    assert set(history[0]) == {"epoch", "lr", "poisson_train_loss", "poisson_val_loss"}


def test_the_schedule_reaches_the_optimiser(train, make_training):
    def step(**fields):
        model, _, _ = train(make_training(learning_rate=1e-2, batch_size=24), execution_options(**fields), n_train=8)
        return model.get_weights()["log_scale"]

    assert abs(step()) == pytest.approx(1e-2, rel=1e-3)  # Adam's first step
    assert abs(step(warmup_epochs=1)) == pytest.approx(5e-3, rel=1e-3)


@pytest.mark.slow  # tests/parity tests the same on every engine
def test_k_batches_of_b_groups_equal_one_batch_of_k_times_b(train, make_training):
    def end(batch_size, k):
        training = make_training({"gridsize": 2}, batch_size=batch_size)
        execution = execution_options(accumulate_grad_batches=k, gradient_clip_val=1e-2)
        return train(training, execution, n_train=13)[0].get_weights()

    few, many = end(8, 1), end(2, 4)  # steps of 8 and, flushed at the end of the epoch, 2 + 2 + 1 groups
    moved = [np.abs(few[name] - many[name]) for name in few]
    # Adam turns a gradient of rounding noise into a full step: a few weights may differ.
    differences = np.concatenate([value.ravel() for value in moved])
    assert np.quantile(differences, 0.99) < 2e-5
    assert differences.mean() < 2e-6


@pytest.mark.slow  # tests/parity tests the same on every engine
@pytest.mark.parametrize("restore", [True, False])
def test_restore_best_selects_the_final_weights(train, make_training, make_model, make_samples, restore):
    training = make_training(nepochs=3, batch_size=16)
    model = make_model(training)

    def spoil(event):
        if isinstance(event, EpochEvent) and event.epoch == 2:
            model.set_weights({**model.get_weights(), "log_scale": np.float32(1.0)})

    _, history, _ = train(training, execution_options(restore_best=restore), 16, 4, model, spoil)
    values = [entry["poisson_val_loss"] for entry in history]
    assert values[2] > 10 * min(values)
    expected = min(values) if restore else values[-1]
    assert losses_of(model, make_samples(training.model), range(16, 20)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow  # tests/parity tests the same on every engine
def test_training_stops_when_nothing_improves(train, make_training):
    training = make_training(nepochs=6, learning_rate=STILL)
    _, history, _ = train(training, execution_options(early_stop_patience=1), n_train=8, n_val=4)
    assert 1 < len(history) < 6


@pytest.mark.slow  # tests/parity tests the same on every engine
def test_only_trained_weights_change(train, make_training, make_model):
    training = make_training(intensity_scale_trainable=False, probe_trainable=True)
    before = make_model(training).get_weights()
    after = train(training, n_train=8)[0].get_weights()
    assert {name for name in before if np.array_equal(before[name], after[name])} == {"log_scale"}


def test_bfloat16_training_lowers_the_loss_and_keeps_float32_weights(train, make_training):
    training = make_training(CNN, nepochs=3, batch_size=4)
    model, history, _ = train(training, execution_options(precision="bf16-mixed"), n_train=20)
    assert history[-1]["poisson_train_loss"] < history[0]["poisson_train_loss"]
    kernel = model.get_weights()["cnn/encoder0/conv0/kernel"]
    assert kernel.dtype == np.float32
    assert (kernel.view(np.uint32) & 0xFFFF).any()  # bits that bfloat16 does not have


@pytest.mark.slow  # tests/parity tests the same on every engine
def test_a_non_finite_loss_is_an_error_with_epoch_and_batch(train, make_training, make_model):
    training = make_training(nepochs=2)
    model = make_model(training)
    model.set_weights({**model.get_weights(), "log_scale": np.float32(60.0)})
    with pytest.raises(PtychoError, match="epoch 1, batch 1") as error:
        train(training, n_train=8, model=model)
    assert "learning_rate" in error.value.fix


def test_an_unknown_monitor_is_an_error_before_training(train, make_training):
    with pytest.raises(ConfigError, match="valloss"):
        train(make_training(), execution_options(monitor="valloss"), n_train=8)


def test_errors_of_data_and_listener_keep_their_type(make_model, make_samples, make_training, monkeypatch):
    training = make_training()
    model, samples = make_model(training), make_samples(training.model)

    class Cancelled(Exception):
        pass

    def cancel(event):
        raise Cancelled

    with pytest.raises(Cancelled):
        TensorFlowBackend().fit(model, samples, None, execution_options(), cancel)

    def broken(self, *args):
        raise DataError("The disk is gone.")

    monkeypatch.setattr(Samples, "batches", broken)
    with pytest.raises(DataError, match="disk is gone"):
        TensorFlowBackend().fit(model, samples, None, execution_options(), ignore)


def test_another_device_or_engine_is_an_error(make_model, make_samples, make_training):
    training = make_training()
    samples = make_samples(training.model)
    with pytest.raises(DeviceError):
        TensorFlowBackend().fit(make_model(training), samples, None, execution_options(device="cuda:7"), ignore)
    with pytest.raises(PtychoError, match="own models"):
        TensorFlowBackend().fit(object(), samples, None, execution_options(), ignore)


def test_equal_seeds_train_equally_also_in_parallel_threads(train, make_training):
    training = make_training(nepochs=2)
    _, alone, _ = train(training, n_train=16)
    together = {}

    def work(number):
        together[number] = train(training, n_train=16)[1]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for history in together.values():
        assert history[-1]["poisson_train_loss"] == pytest.approx(alone[-1]["poisson_train_loss"], rel=1e-3)


@pytest.mark.slow
def test_a_second_fit_continues_from_the_first(train, make_training, caplog):
    training = make_training(CNN, batch_size=4)
    model, first, _ = train(training, n_train=16)
    assert set(first[0]) == {"epoch", "lr", "poisson_train_loss"}
    assert "'poisson_train_loss' is monitored" in caplog.text  # no validation data
    _, second, _ = train(training, n_train=16, model=model)
    assert second[0]["poisson_train_loss"] < first[0]["poisson_train_loss"]


def test_the_smallest_data_set_trains(make_model, make_samples, make_training):
    training = make_training({"gridsize": 2})
    samples = make_samples(training.model, n=2)
    rows, validation = split(2, 0.05, 0)
    train, held_out = samples.subset(rows), samples.subset(validation)
    history = TensorFlowBackend().fit(make_model(training), train, held_out, execution_options(), ignore)
    assert np.isfinite(history[0]["poisson_val_loss"])


@pytest.mark.slow
def test_a_finished_run_frees_data_and_graphs(make_model, make_samples, make_training):
    training = make_training()

    def run():
        samples = make_samples(training.model, n=8)
        rows = np.arange(8)
        train, validation = samples.subset(rows[:6]), samples.subset(rows[6:])
        TensorFlowBackend().fit(make_model(training), train, validation, execution_options(), ignore)
        return weakref.ref(train), weakref.ref(validation)

    def graphs():
        gc.collect()
        return sum(isinstance(value, tf.Graph) for value in gc.get_objects())

    run()
    before = graphs()
    references = run()
    assert graphs() == before
    assert [reference() for reference in references] == [None, None]
