"""From the client's configuration objects to those of the front door (spec: ptychodus_api_spec 4.11)."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass

from ptycho_backend.config import ExecutionConfig, InferenceConfig, TrainingConfig, from_dict
from ptycho_torch.api.rules import RULES, Configs, Draft

logger = logging.getLogger(__name__)

SOURCE = "the client's settings (ptycho_torch.config_params)"
PIXELS_PER_PASS = 2**24  # patterns of one inference batch, which a few GB of features still hold


@dataclass(frozen=True)
class Settings:
    """
    What the front door is told.

    Parameters
    ----------
    training, inference, execution : configurations
    unmatched : tuple of (str, str)
        What has no counterpart: the client's configuration, and keyword with value.
    """

    training: TrainingConfig
    inference: InferenceConfig
    execution: ExecutionConfig
    unmatched: tuple[tuple[str, str], ...]

    def warn(self, *parts: str) -> None:
        """Log one warning that names every keyword without a counterpart, of all or of some configurations."""
        named = [text for part, text in self.unmatched if not parts or part in parts]
        if named:
            logger.warning("without a counterpart here, and so without effect: %s", ", ".join(named))


def settle(configs: Configs) -> Settings:
    """
    Translate the client's configuration objects.

    Raises
    ------
    ConfigError
        One error that lists every value that is not allowed.
    """
    draft = Draft(configs)
    draft.take_rows()
    for rule in RULES:
        rule(configs, draft)
    values = draft.values
    training = from_dict(TrainingConfig, {"backend": "pytorch", **values["training"], "model": values["model"]}, SOURCE)
    inference = from_dict(InferenceConfig, values["inference"], SOURCE)
    execution = from_dict(ExecutionConfig, values["execution"], SOURCE)
    # A group's image does not depend on its batch, so that memory may decide.
    room = PIXELS_PER_PASS // (training.model.channels * training.model.N**2)
    inference.batch_size = min(inference.batch_size, max(1, room))
    return Settings(training, inference, execution, tuple(draft.unmatched))


def on_this_machine(execution: ExecutionConfig, found: tuple[str, ...]) -> ExecutionConfig:
    """Return the execution on a device that exists: clients ask for "cuda" and promise the processor without one."""
    if not execution.device.startswith("cuda") or len(found) > 1:
        return execution
    logger.info("device=%r: no GPU is seen here, training runs on the processor", execution.device)
    return dataclasses.replace(execution, device="auto")
