"""Execution options reach Lightning's Trainer and callbacks."""

from __future__ import annotations

import dataclasses
import logging

import lightning.pytorch as pl
import numpy as np
import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from ptycho_backend.compat import legacy
from ptycho_backend.config import ExecutionConfig
from ptycho_backend.data.npz import write_npz
from ptycho_backend.errors import ConfigError
from ptycho_backend.events import ignore
from ptycho_backend.simulation.simulate import simulate_scan
from ptycho_backend.training.checkpoints import CheckpointWriter
from ptycho_backend.training.options import FitOptions
from ptycho_torch.config_factory import create_training_payload, resolve_execution
from ptycho_torch.engine import training as engine_training
from ptycho_torch.workflows.components import _train_with_lightning

CPU = ExecutionConfig(device="cpu", precision="32-true")


@pytest.fixture
def trainers(monkeypatch):
    """Return the list of all Trainers, with their arguments."""
    trainers = []

    class RecordedTrainer(pl.Trainer):
        def __init__(self, **arguments):
            trainers.append((arguments, self))
            super().__init__(**arguments)

    monkeypatch.setattr(engine_training.pl, "Trainer", RecordedTrainer)
    return trainers


@pytest.fixture
def trained_with(setup, trainers, tmp_path):
    """Return a function that trains with some options; it returns the Trainer, its arguments and the history."""

    def train(validated=True, **fields):
        execution = dataclasses.replace(CPU, **fields)
        model, samples = setup(training={"batch_size": 2})
        validation = samples.subset(np.array([0, 1])) if validated else None
        options = FitOptions(checkpoints=CheckpointWriter(tmp_path / "checkpoints", {}, execution))
        history = _train_with_lightning(model, samples, validation, execution, ignore, options)
        arguments, trainer = trainers[-1]
        return arguments, trainer, history

    return train


def callback_of(trainer, kind):
    return next(callback for callback in trainer.callbacks if isinstance(callback, kind))


class TestLightningExecutionConfig:
    """Options of ExecutionConfig are arguments of Lightning's Trainer and callbacks."""

    def test_trainer_receives_accumulation(self, trained_with):
        arguments, trainer, _ = trained_with(
            accumulate_grad_batches=3, gradient_clip_val=0.5, gradient_clip_algorithm="value"
        )
        assert arguments["accumulate_grad_batches"] == trainer.accumulate_grad_batches == 3
        assert (trainer.gradient_clip_val, trainer.gradient_clip_algorithm) == (0.5, "value")
        n_batches = arguments["callbacks"][0].loop.n_batches
        assert trainer.global_step == -(-n_batches // 3), "one optimiser step for three batches, and one for the rest"

    def test_monitor_uses_val_loss_name(self, trained_with, tmp_path):
        _, trainer, history = trained_with(monitor="val_loss", early_stop_patience=2, scheduler="plateau")
        name = "poisson_val_loss"
        assert callback_of(trainer, EarlyStopping).monitor == name
        best = callback_of(trainer, ModelCheckpoint)
        assert best.monitor == name
        assert trainer.lr_scheduler_configs[0].monitor == name
        assert trainer.lr_scheduler_configs[0].reduce_on_plateau
        value = history[0][name]
        assert best.best_model_path == str(tmp_path / "checkpoints" / f"epoch=001-{name}={value:.6g}.h5.zip")
        assert float(best.best_model_score) == pytest.approx(value)

    def test_without_validation_the_training_loss_selects_the_best_checkpoint(self, trained_with, tmp_path, caplog):
        with caplog.at_level(logging.WARNING):
            _, trainer, _ = trained_with(validated=False, monitor="val_loss", early_stop_patience=2)
        name = "poisson_train_loss"
        assert callback_of(trainer, EarlyStopping).monitor == name
        assert callback_of(trainer, ModelCheckpoint).monitor == name
        assert len([record for record in caplog.records if "no validation data" in record.message]) == 1
        saved = sorted(path.name for path in (tmp_path / "checkpoints").glob("*.zip"))
        assert len(saved) == 2
        assert saved[0].startswith(f"epoch=001-{name}=")
        assert saved[1] == "last.h5.zip"

    def test_an_unknown_monitor_is_an_error_with_the_names(self, trained_with):
        with pytest.raises(ConfigError, match=r"poisson_val_loss.*poisson_train_loss"):
            trained_with(monitor="loss")

    def test_monitor_mode_max_reaches_the_callbacks(self, trained_with):
        _, trainer, _ = trained_with(monitor_mode="max", early_stop_patience=1)
        assert callback_of(trainer, EarlyStopping).mode == callback_of(trainer, ModelCheckpoint).mode == "max"

    @pytest.mark.parametrize("k", [-1, 0, 2])
    def test_save_top_k_reaches_the_callback(self, trained_with, k):
        _, trainer, _ = trained_with(save_top_k=k)
        assert callback_of(trainer, ModelCheckpoint).save_top_k == k


class TestTrainingPayload:
    """One function resolves every option, in one order of precedence."""

    @pytest.fixture
    def scan_file(self, tmp_path):
        return write_npz(simulate_scan(N=32, n_positions=9, seed=1), tmp_path / "scan.npz")

    def test_explicit_beats_execution_beats_command_line_beats_default(self):
        cli = ExecutionConfig(accumulate_grad_batches=2, monitor="train_loss", warmup_epochs=5)
        given = ExecutionConfig(accumulate_grad_batches=3, warmup_epochs=1)
        found = resolve_execution({"warmup_epochs": 7}, given, cli)
        assert (found.warmup_epochs, found.accumulate_grad_batches, found.monitor) == (7, 3, "train_loss")
        assert found.scheduler == ExecutionConfig().scheduler
        assert cli.warmup_epochs == 5

    def test_options_reach_their_configurations(self, scan_file, tmp_path):
        payload = create_training_payload(scan_file, tmp_path / "run", gridsize=2, nepochs=3, accumulate_grad_batches=2)
        assert (payload.training.model.N, payload.training.model.gridsize, payload.training.nepochs) == (32, 2, 3)
        assert payload.training.backend == "pytorch"
        assert payload.execution.accumulate_grad_batches == 2
        assert len(payload.scan) == 9

    def test_an_unknown_option_is_an_error(self, scan_file, tmp_path):
        with pytest.raises(ConfigError, match="acumulate"):
            create_training_payload(scan_file, tmp_path, acumulate_grad_batches=2)

    def test_model_settings_reach_the_older_globals_and_execution_never_does(self, scan_file, tmp_path, monkeypatch):
        monkeypatch.setattr(legacy, "cfg", {})
        create_training_payload(scan_file, tmp_path, gridsize=2, accumulate_grad_batches=2, probe_trainable=True)
        assert legacy.cfg["gridsize"] == 2
        assert legacy.cfg["N"] == 32
        assert legacy.cfg["probe.trainable"] is True
        execution_names = {field.name for field in dataclasses.fields(ExecutionConfig)}
        assert not execution_names & set(legacy.cfg)
        with pytest.raises(ConfigError, match="execution"):
            legacy.update_legacy_dict(legacy.cfg, ExecutionConfig())
