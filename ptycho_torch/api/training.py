"""Training for clients."""

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
    Trains a model on what a loader has loaded.

    Clients append callbacks to ``._trainer.callbacks`` before they call :meth:`train`.

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
                plugins=[LightningEnvironment()],  # whatever cluster this process may be part of
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
        self._own = tuple(self._trainer.callbacks)

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
        Train, and leave everything in the loader's run folder.

        That is ``checkpoints/best-checkpoint.ckpt`` and ``checkpoints/last.ckpt``, and an ordinary run beside them.

        Parameters
        ----------
        orchestration : str
            "lightning".
        experiment_name : str
            Kept with the run.

        Raises
        ------
        ConfigError, DataError, ShapeError, DeviceError, OutputError, TrainingError, TrainingStopped
        """
        _check_orchestration(orchestration)
        settings, folder, listener = self._configs.settings, self._folder(), _Listener()
        settings.warn()
        run = train(
            self._data.scan,
            settings.training,
            on_this_machine(settings.execution, devices()),
            on_event=listener,
            checkpoints=folder / FOLDER,
            validation=self._data.validation,
            callbacks=[callback for callback in self._trainer.callbacks if callback not in self._own],
        )
        if experiment_name:
            run.provenance["experiment"] = experiment_name
        self._model.module.adopt(run.model)
        run.save(folder, overwrite=True)
        write_checkpoints(self._model.module, run, folder / FOLDER, listener.n_batches)
        return run

    def _folder(self) -> Path:
        if self._data.output_dir is None:
            raise ConfigError(
                "A training has a folder.",
                expected="a loader of a folder: PtychoDataLoader(data_dir=..., output_dir=...)",
                received="a loader of arrays, from PtychoDataLoader.from_np",
                fix="write the scan with ptycho_backend.write_npz, or train with ptycho_backend.train",
            )
        return self._data.output_dir


class _Listener(EventLog):
    """Logs epochs, and counts the batches of one."""

    n_batches = 0

    def __call__(self, event: Event) -> None:
        """Take in an event."""
        if isinstance(event, BatchEvent):
            self.n_batches = event.n_batches
        super().__call__(event)


def _check_orchestration(orchestration: str) -> None:
    if orchestration != ORCHESTRATION:
        raise ConfigError(
            "Training is orchestrated by Lightning.",
            expected=f"orchestration={ORCHESTRATION!r}",
            received=f"orchestration={orchestration!r}",
            fix="an MLflow run is written with ExecutionConfig(logger='mlflow') of ptycho_backend",
        )
