"""Container of the configuration objects of the earlier PyTorch package (spec: ptychodus_api_spec 4.11)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from ptycho_backend.data.output import json_text
from ptycho_backend.errors import ConfigError
from ptycho_torch.api.translation import Settings, translate
from ptycho_torch.config_params import DataConfig, DatagenConfig, InferenceConfig, ModelConfig, TrainingConfig

Config = TypeVar("Config", DataConfig, ModelConfig, TrainingConfig, InferenceConfig, DatagenConfig)


class ConfigManager:
    """
    Configuration objects of one training or inference; None selects the defaults.

    Parameters
    ----------
    data_config, model_config, training_config, inference_config, datagen_config : configurations or dict, optional
    """

    def __init__(
        self,
        data_config: DataConfig | Mapping[str, Any] | None = None,
        model_config: ModelConfig | Mapping[str, Any] | None = None,
        training_config: TrainingConfig | Mapping[str, Any] | None = None,
        inference_config: InferenceConfig | Mapping[str, Any] | None = None,
        datagen_config: DatagenConfig | Mapping[str, Any] | None = None,
    ) -> None:
        self.data_config = as_config(DataConfig, data_config)
        self.model_config = as_config(ModelConfig, model_config)
        self.training_config = as_config(TrainingConfig, training_config)
        self.inference_config = as_config(InferenceConfig, inference_config)
        self.datagen_config = as_config(DatagenConfig, datagen_config)

    @classmethod
    def from_loaded_model(cls, ptycho_model: Any) -> ConfigManager:
        """Return the configuration of a loaded :class:`~ptycho_torch.api.models.PtychoModel`."""
        module = ptycho_model.module
        return cls(module.data_config, module.model_config, module.training_config, module.inference_config)

    @property
    def settings(self) -> Settings:
        """Translation of the current values to configurations of `ptycho_backend`."""
        return translate(self)

    def validate_arch_compatibility(self, ptycho_model: Any) -> None:
        """
        Raise an error for a model whose configuration differs from this one.

        Raises
        ------
        ConfigError
            A ValueError that lists the differing fields.
        """
        error = ConfigError.changed(
            "The configuration must be that of the model.",
            dataclasses.asdict(ptycho_model.module.trained.config),
            dataclasses.asdict(self.settings.training.model),
            fix="use the configuration of the model: ConfigManager.from_loaded_model",
        )
        if error is not None:
            raise error


def as_config(config_type: type[Config], value: Config | Mapping[str, Any] | None) -> Config:
    """
    Return a configuration object from an object, from plain values, or with defaults.

    Raises
    ------
    ConfigError
        For an unknown keyword.
    """
    if isinstance(value, config_type):
        return value
    names = [field.name for field in dataclasses.fields(config_type)]
    given = dict(value or {})
    unknown = [name for name in given if name not in names]
    if unknown:
        raise ConfigError.unknown(f"{config_type.__name__} keyword", unknown[0], names, ", ".join(unknown))
    return config_type(**{name: tuple(item) if isinstance(item, list) else item for name, item in given.items()})


def plain(config: Any) -> dict[str, Any]:
    """Return a configuration as JSON values; arrays and tensors become lists."""
    given = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    values: dict[str, Any] = json.loads(json_text(given, type(config).__name__, "the client"))
    return values
