"""The client's configuration objects, together (spec: ptychodus_api_spec 4.11)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from ptycho_backend.data.output import json_text
from ptycho_backend.errors import ConfigError, nearest_name
from ptycho_torch.api.translation import Settings, settle
from ptycho_torch.config_params import DataConfig, DatagenConfig, InferenceConfig, ModelConfig, TrainingConfig

Config = TypeVar("Config", DataConfig, ModelConfig, TrainingConfig, InferenceConfig, DatagenConfig)


class ConfigManager:
    """
    Holds the configuration objects of one training or inference; None stands for defaults.

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
        """Return the configuration that a loaded :class:`~ptycho_torch.api.models.PtychoModel` carries."""
        module = ptycho_model.module
        return cls(module.data_config, module.model_config, module.training_config, module.inference_config)

    @property
    def settings(self) -> Settings:
        """What the front door is told, as the objects stand now."""
        return settle(self)

    def validate_arch_compatibility(self, ptycho_model: Any) -> None:
        """
        Refuse a model that has been built otherwise than this configuration says.

        Raises
        ------
        ConfigError
            A ValueError that lists the differing fields.
        """
        asked = dataclasses.asdict(self.settings.training.model)
        built = dataclasses.asdict(ptycho_model.module.trained.config)
        differing = [name for name in asked if asked[name] != built[name]]
        if differing:
            raise ConfigError(
                "A configuration describes the model that it is used with.",
                expected=", ".join(f"{name}={built[name]!r}" for name in differing),
                received=", ".join(f"{name}={asked[name]!r}" for name in differing),
                fix="take the configuration from the model: ConfigManager.from_loaded_model",
            )


def as_config(config_type: type[Config], value: Config | Mapping[str, Any] | None) -> Config:
    """
    Return a configuration object, from one, from its plain values, or from nothing.

    Raises
    ------
    ConfigError
        For a keyword that does not exist.
    """
    if isinstance(value, config_type):
        return value
    names = [field.name for field in dataclasses.fields(config_type)]
    given = dict(value or {})
    unknown = [name for name in given if name not in names]
    if unknown:
        raise ConfigError(
            f"{config_type.__name__} has no such keyword.",
            expected=f"of {', '.join(names)}" if names else "no keyword",
            received=", ".join(unknown),
            fix=f"did you mean '{nearest_name(unknown[0], names)}'?",
        )
    return config_type(**{name: tuple(item) if isinstance(item, list) else item for name, item in given.items()})


def plain(config: Any) -> dict[str, Any]:
    """Return a configuration as values that JSON knows; arrays and tensors become lists."""
    given = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    listed = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in given.items()}
    values: dict[str, Any] = json.loads(json_text(listed, type(config).__name__, "the client"))
    return values
