"""Model classes of the earlier PyTorch package, around a trained model (spec: ptychodus_api_spec 4.11)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.engines.model import loss_names_of
from ptycho_backend.errors import TrainingError
from ptycho_torch.api.checkpoint import load_weights, read_checkpoint
from ptycho_torch.api.configs import ConfigManager
from ptycho_torch.config_params import DataConfig, InferenceConfig, ModelConfig, TrainingConfig
from ptycho_torch.engine.model import TorchModel
from ptycho_torch.engine.module import TensorBatch


class PtychoPINN_Lightning(pl.LightningModule):
    """
    Lightning module with its configuration; training or a checkpoint adds the network.

    The network needs a calibration by data, so a new module has none.

    Parameters
    ----------
    model_config, data_config, training_config, inference_config : configurations or dict, optional

    Notes
    -----
    :meth:`ptycho_torch.api.training.Trainer.train` trains it.
    """

    def __init__(
        self,
        model_config: ModelConfig | Mapping[str, Any] | None = None,
        data_config: DataConfig | Mapping[str, Any] | None = None,
        training_config: TrainingConfig | Mapping[str, Any] | None = None,
        inference_config: InferenceConfig | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        manager = ConfigManager(data_config, model_config, training_config, inference_config)
        self.data_config, self.model_config = manager.data_config, manager.model_config
        self.training_config, self.inference_config = manager.training_config, manager.inference_config
        self.loss_name, self.val_loss_name = loss_names_of(manager.settings.training)
        self._trained: TorchModel | None = None

    @property
    def trained(self) -> TorchModel:
        """
        The trained model.

        Raises
        ------
        TrainingError
            If the module is new.
        """
        if self._trained is None:
            raise TrainingError(
                "Only a trained or loaded model can reconstruct.",
                expected="a model from Trainer.train, or from PtychoPINN_Lightning.load_from_checkpoint",
                received="a new, untrained model",
                fix="train it, or load a checkpoint",
            )
        return self._trained

    def set_trained(self, model: TorchModel) -> None:
        """Set the trained model; its network becomes this module's `network`."""
        self._trained, self.network = model, model.module

    def forward(self, batch: TensorBatch, amplitude_constraint: bool = False) -> Tensor:
        """Return object patches (group, channel, y, x)."""
        return self.trained.module(batch, amplitude_constraint)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Path | str, **overrides: Any) -> PtychoPINN_Lightning:
        """
        Load a trained model onto a GPU if available, independent of the training device.

        Parameters
        ----------
        checkpoint_path : path
        **overrides
            `model_config`, `data_config`, `training_config` and `inference_config`, which replace those in the file.

        Raises
        ------
        ModelFileError
        """
        content = read_checkpoint(checkpoint_path)
        module = cls(**{**content.configs, **overrides})
        module.set_trained(TorchModel(content.training, content.calibration, ExecutionConfig()))
        load_weights(module, content)
        return module


class PtychoModel:
    """
    A model and its configuration; clients assign `model`, or call `_new_model`.

    Parameters
    ----------
    model_config, data_config, training_config, inference_config : configurations or dict, optional
    """

    def __init__(
        self,
        model_config: Any = None,
        data_config: Any = None,
        training_config: Any = None,
        inference_config: Any = None,
    ) -> None:
        self.config_manager = ConfigManager(data_config, model_config, training_config, inference_config)
        self.model: PtychoPINN_Lightning | None = None

    @property
    def module(self) -> PtychoPINN_Lightning:
        """The Lightning module."""
        if self.model is None:
            raise TrainingError("A PtychoModel needs a module.", received="model=None", fix="assign its `model`")
        return self.model

    @classmethod
    def _new_model(cls, model: type[PtychoPINN_Lightning], config_manager: ConfigManager) -> PtychoModel:
        parts = (
            config_manager.model_config,
            config_manager.data_config,
            config_manager.training_config,
            config_manager.inference_config,
        )
        created = cls(*parts)
        created.model = model(*parts)
        return created

    @staticmethod
    def _extract_configs_from_checkpoint(
        checkpoint_path: Path | str,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Return the plain configurations in a checkpoint: data, model, training, inference."""
        configs = read_checkpoint(checkpoint_path).configs
        data, model = configs["data_config"], configs["model_config"]
        return data, model, configs["training_config"], configs["inference_config"]
