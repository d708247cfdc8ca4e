"""Early stopping and checkpoints are equal on every engine, for any metric values (config 5.7; model_file 6.3)."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptycho_backend.events import ignore
from ptycho_backend.training.checkpoints import CheckpointWriter, checkpoint_name
from ptycho_backend.training.loop import TrainingLoop
from ptycho_backend.training.options import FitOptions

NAME = "poisson_train_loss"
VALUES = st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0, math.nan]), min_size=1, max_size=8)


class EmptyFiles(CheckpointWriter):
    """Checkpoint writer whose files are empty."""

    def write(self, path, model, history, state):
        path.write_bytes(b"")


def make_loop(values, execution, writer):
    """Return a training loop without a real model."""
    training = TrainingConfig(model=ModelConfig(N=32), nepochs=len(values))
    owner = SimpleNamespace(training=training, train_loss_name=NAME, val_loss_name="unused", get_weights=dict)
    return TrainingLoop(owner, execution, ignore, FitOptions(checkpoints=writer), n_train=1, validated=False)


def decided_by_pytorch(values, execution, writer):
    """Train an empty model with Lightning, which logs these values."""
    import lightning.pytorch as pl
    import torch

    from ptycho_torch.engine.checkpoint import PortableCheckpointIO
    from ptycho_torch.engine.training import build_callbacks, filtered_lightning_logs

    class Logging(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def training_step(self, batch, index):
            return self.weight * 0.0

        def on_train_epoch_end(self):
            self.log(NAME, values[self.current_epoch])
            self.log("epoch", float(self.current_epoch + 1))
            epochs.append(self.current_epoch + 1)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    epochs = []
    reporter = SimpleNamespace(loop=make_loop(values, execution, writer), checkpoint_callbacks=[])
    callbacks = [callback for callback in build_callbacks(reporter) if callback is not reporter]
    with filtered_lightning_logs():
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=len(values),
            callbacks=callbacks,
            plugins=[PortableCheckpointIO(lambda path: writer.write(path, None, None, None))],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Logging(), torch.utils.data.DataLoader(torch.zeros(1), batch_size=None))
    return epochs[-1]


def decided_by_tensorflow(values, execution, writer):
    """Call the Keras callback in the order in which Keras calls it."""
    from ptycho.engine.callbacks import Reporter

    owner = SimpleNamespace(train_loss_name=NAME, trained=dict, device="cpu")
    reporter = Reporter(owner, make_loop(values, execution, writer))
    optimizer = SimpleNamespace(learning_rate=0.0, iterations=SimpleNamespace(value=0), _momentums=[], _velocities=[])
    reporter.set_model(SimpleNamespace(optimizer=optimizer, stop_training=False))
    for epoch, value in enumerate(values):
        reporter.on_epoch_begin(epoch)
        reporter.loop.loss.add(value, 1.0)
        reporter.on_epoch_end(epoch, {})
        if reporter.model.stop_training:
            break
    return epoch + 1


DECIDED = {"pytorch": decided_by_pytorch, "tensorflow": decided_by_tensorflow}


def expected_of(values, execution):
    """Return the last epoch and the saved epochs by a direct computation."""
    sign = 1.0 if execution.monitor_mode == "min" else -1.0
    worst = math.inf
    scores = [worst if math.isnan(value) else sign * value for value in values]
    best, waited, stop = worst, 0, len(values)
    for epoch, value in enumerate(values, start=1):
        if not math.isnan(value) and sign * value < best:
            best, waited = sign * value, 0
        else:
            waited += 1
        if waited >= execution.early_stop_patience:
            stop = epoch
            break
    kept: list[int] = []
    for index in range(stop):
        if execution.save_top_k < 0 or len(kept) < execution.save_top_k:
            kept.append(index)
        elif kept and scores[index] < max(scores[other] for other in kept):
            # Of equal values the earlier one is removed.
            kept.remove(next(other for other in kept if scores[other] == max(scores[one] for one in kept)))
            kept.append(index)
    return stop, {index + 1 for index in kept}


@given(VALUES, st.integers(1, 3), st.sampled_from(["min", "max"]), st.sampled_from([-1, 0, 1, 2]))
def decisions_agree(backend, folder_of, values, patience, mode, top_k):
    execution = dataclasses.replace(
        ExecutionConfig(), early_stop_patience=patience, monitor_mode=mode, save_top_k=top_k, monitor="train_loss"
    )
    folder = folder_of()
    stop = DECIDED[backend.name](values, execution, EmptyFiles(folder, {}, execution))
    expected, kept = expected_of(values, execution)
    assert stop == expected
    found = {path.name for path in folder.iterdir()}
    assert "last.h5.zip" in found
    assert {int(name[6:9]) for name in found - {"last.h5.zip"}} == kept
    for epoch in kept:
        value = values[epoch - 1]
        value = (math.inf if mode == "min" else -math.inf) if math.isnan(value) else value
        name = checkpoint_name(epoch, NAME, value)
        assert name in found or math.isnan(values[epoch - 1])


def test_engines_stop_and_save_alike(backend, tmp_path_factory):
    decisions_agree(backend, lambda: tmp_path_factory.mktemp("kept"))
