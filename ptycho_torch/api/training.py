"""Trainer class of the earlier PyTorch package (spec: ptychodus_api_spec 4.11)."""

from __future__ import annotations

import logging
from pathlib import Path

import lightning.pytorch as pl
from lightning.fabric.plugins.environments import LightningEnvironment

from ptycho_backend.api import train
from ptycho_backend.errors import ConfigError
from ptycho_backend.events import BatchEvent, Event
from ptycho_backend.model_file.run import Run
from ptycho_backend.runtime.progress import EventLog
from ptycho_backend.training.checkpoints import FOLDER
from ptycho_torch.api.configs import ConfigManager
from ptycho_torch.api.data import PtychoDataLoader
from ptycho_torch.api.models import PtychoModel
from ptycho_torch.api.results import write_checkpoints
from ptycho_torch.api.translation import on_this_machine
from ptycho_torch.engine.device import devices
from ptycho_torch.engine.training import filtered_lightning_logs

logger = logging.getLogger(__name__)

ORCHESTRATION = "lightning"


class Trainer:
    """
    Training of a model on the scans of a loader.

    Clients can append callbacks to ``._trainer.callbacks`` before :meth:`train`.

    Parameters
    ----------
    model : PtychoModel
    dataloader : PtychoDataLoader
    config_manager : ConfigManager
    """

    def __init__(self, model: PtychoModel, dataloader: PtychoDataLoader, config_manager: ConfigManager) -> None:
        self._model, self._data, self._configs = model, dataloader, config_manager
        with filtered_lightning_logs():
            self._trainer = pl.Trainer(
                devices=1,
                max_epochs=config_manager.training_config.epochs,
                plugins=[LightningEnvironment()],  # no detection of a cluster
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
        self._default_callbacks = tuple(self._trainer.callbacks)

    @classmethod
    def _from_lightning(
        cls,
        model: PtychoModel,
        dataloader: PtychoDataLoader,
        orchestration: str = ORCHESTRATION,
        config_manager: ConfigManager | None = None,
    ) -> Trainer:
        _check_orchestration(orchestration)
        return cls(model, dataloader, config_manager or model.config_manager)

    def train(self, orchestration: str = ORCHESTRATION, experiment_name: str = "") -> Run:
        """
        Train the model, and write results into the loader's run folder.

        Results are ``checkpoints/best-checkpoint.ckpt``, ``checkpoints/last.ckpt``, and the files of a Run.

        Parameters
        ----------
        orchestration : str
            "lightning".
        experiment_name : str
            Stored in the run's provenance.

        Raises
        ------
        ConfigError, DataError, ShapeError, DeviceError, OutputError, TrainingError, TrainingStopped
        """
        _check_orchestration(orchestration)
        settings, folder, counter = self._configs.settings, self._folder(), _BatchCounter()
        settings.warn()
        run = train(
            self._data.scan,
            settings.training,
            on_this_machine(settings.execution, devices()),
            on_event=counter,
            checkpoints=folder / FOLDER,
            validation=self._data.validation,
            callbacks=[callback for callback in self._trainer.callbacks if callback not in self._default_callbacks],
        )
        if experiment_name:
            run.provenance["experiment"] = experiment_name
        self._model.module.set_trained(run.model)
        run.save(folder, overwrite=True)
        write_checkpoints(self._model.module, run, folder / FOLDER, counter.n_batches)
        return run

    def _folder(self) -> Path:
        if self._data.output_dir is None:
            raise ConfigError(
                "A training needs a run folder.",
                expected="a loader of a folder: PtychoDataLoader(data_dir=..., output_dir=...)",
                received="a loader of arrays, from PtychoDataLoader.from_np",
                fix="write the scan with ptycho_backend.write_npz, or train with ptycho_backend.train",
            )
        return self._data.output_dir


class _BatchCounter(EventLog):
    """Log of epochs that also stores the number of batches per epoch."""

    n_batches = 0

    def __call__(self, event: Event) -> None:
        """Store the number of batches, and log the event."""
        if isinstance(event, BatchEvent):
            self.n_batches = event.n_batches
        super().__call__(event)


def _check_orchestration(orchestration: str) -> None:
    if orchestration != ORCHESTRATION:
        raise ConfigError(
            "Lightning is the only orchestration of a training.",
            expected=f"orchestration={ORCHESTRATION!r}",
            received=f"orchestration={orchestration!r}",
            fix="for an MLflow run, use ExecutionConfig(logger='mlflow') of ptycho_backend",
        )
