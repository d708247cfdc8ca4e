"""Translation of the earlier PyTorch package's configurations to `ptycho_backend` (spec: ptychodus_api_spec 4.11)."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass

from ptycho_backend.config import ExecutionConfig, InferenceConfig, TrainingConfig, from_dict
from ptycho_torch.api.rules import RULES, Configs, Translation

logger = logging.getLogger(__name__)

SOURCE = "the client's settings (ptycho_torch.config_params)"
MAX_BATCH_PIXELS = 2**24  # pixels of one inference batch; its features need a few GB


@dataclass(frozen=True)
class Settings:
    """
    Translated configurations.

    Parameters
    ----------
    training, inference, execution : configurations
    unmatched : tuple of (str, str)
        Keywords without a counterpart: name of the configuration, and keyword with value.
    """

    training: TrainingConfig
    inference: InferenceConfig
    execution: ExecutionConfig
    unmatched: tuple[tuple[str, str], ...]

    def warn(self, *parts: str) -> None:
        """Log one warning with all keywords without a counterpart, of all or of some configurations."""
        keywords = [text for part, text in self.unmatched if not parts or part in parts]
        if keywords:
            logger.warning("keywords without a counterpart, and so without effect: %s", ", ".join(keywords))


def translate(configs: Configs) -> Settings:
    """
    Translate the client's configuration objects.

    Raises
    ------
    ConfigError
        One error that lists all invalid values.
    """
    translation = Translation(configs)
    translation.apply_table()
    for rule in RULES:
        rule(configs, translation)
    values = translation.values
    training = from_dict(TrainingConfig, {"backend": "pytorch", **values["training"], "model": values["model"]}, SOURCE)
    inference = from_dict(InferenceConfig, values["inference"], SOURCE)
    execution = from_dict(ExecutionConfig, values["execution"], SOURCE)
    # Patches do not depend on the batch size, so memory limits it.
    max_batch_size = MAX_BATCH_PIXELS // (training.model.channels * training.model.N**2)
    inference.batch_size = min(inference.batch_size, max(1, max_batch_size))
    return Settings(training, inference, execution, tuple(translation.unmatched))


def on_this_machine(execution: ExecutionConfig, devices: tuple[str, ...]) -> ExecutionConfig:
    """Return execution settings with "auto" for "cuda" on a machine without a GPU, as clients expect."""
    if not execution.device.startswith("cuda") or len(devices) > 1:
        return execution
    logger.info("device=%r: there is no GPU, training runs on the CPU", execution.device)
    return dataclasses.replace(execution, device="auto")
