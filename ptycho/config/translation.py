"""Translation of the earlier TensorFlow package's configuration to `ptycho_backend` (spec: ptychodus_api_spec 4.13)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ptycho.config import config as legacy
from ptycho_backend.checks import inert_options
from ptycho_backend.config import ModelConfig, TrainingConfig, fields_of
from ptycho_backend.data.scan import Scan

logger = logging.getLogger(__name__)

MODEL_FIELDS = tuple(name for name in fields_of(ModelConfig) if name in fields_of(legacy.ModelConfig))
TRAINING_FIELDS = tuple(
    name for name in fields_of(TrainingConfig) if name != "model" and name in fields_of(legacy.TrainingConfig)
)
OLD_NAMES: Mapping[str, str] = MappingProxyType({"n_images": "n_groups"})
WITHOUT_EFFECT: Mapping[str, str] = MappingProxyType(
    {
        "probe_scale": "the probe is normalised by its energy",
        "positions_provided": "positions are those of the data",
        "debug": "the logging level selects the messages",
    }
)
STORED_ONLY = ("train_data_file", "test_data_file", "model_path", "output_dir")


def to_training(config: legacy.TrainingConfig, scan: Scan) -> TrainingConfig:
    """
    Return the configuration of `ptycho_backend` for a training on a scan.

    One log warning names all settings without effect. The argument stays unchanged.

    Parameters
    ----------
    config : ptycho.config.config.TrainingConfig
    scan : Scan
        Gives the value for ``N=0`` and the largest number of groups.
    """
    training = TrainingConfig(
        model=ModelConfig(**{name: getattr(config.model, name) for name in MODEL_FIELDS}),
        **{name: getattr(config, name) for name in TRAINING_FIELDS},
    )
    training.model.N = training.model.N or scan.N
    training.n_groups = _n_groups(config, scan)
    if scan.measurement == "counts" and config.nphotons is not None:
        logger.info("nphotons=%g has no effect: '%s' holds counts", config.nphotons, scan.source)
        training.nphotons = None
    messages = [*_without_counterpart(config), *_reset_inert(training)]
    if messages:
        logger.warning("%s", "; ".join(messages))
    return training


def _n_groups(config: legacy.TrainingConfig, scan: Scan) -> int | None:
    n_groups = config.n_groups if config.n_groups is not None else config.n_images
    if n_groups is not None and n_groups > len(scan):
        logger.info("n_groups=%d: '%s' yields %d, one per position", n_groups, scan.source, len(scan))
        return None
    return n_groups


def _without_counterpart(config: legacy.TrainingConfig) -> list[str]:
    messages = []
    for part in (config.model, config):
        default = type(part)()
        for name, reason in WITHOUT_EFFECT.items():
            if hasattr(part, name) and getattr(part, name) != getattr(default, name):
                messages.append(f"{name}={getattr(part, name)!r} has no effect: {reason}")
    return messages


def _reset_inert(training: TrainingConfig) -> list[str]:
    """Set options without effect to their defaults, and return messages with the reasons."""
    messages = inert_options(training)
    default = TrainingConfig()
    for message in messages:
        name = message.split(" ", 1)[0]
        owner: Any = training.model if hasattr(training.model, name) else training
        setattr(owner, name, getattr(default.model if owner is training.model else default, name))
    return messages
