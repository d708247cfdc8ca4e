"""Translation rules that need several keywords (spec: ptychodus_api_spec 4.11)."""

from __future__ import annotations

import math
from typing import Any, Protocol

from ptycho_backend.training.parallel import STRATEGIES
from ptycho_torch import config_params
from ptycho_torch.api.keywords import KEYWORDS

PARTS = ("data_config", "model_config", "training_config", "inference_config")
MIN_RATIO = 1e-6  # keeps the learning rate positive


class Configs(Protocol):
    """Object with the four configuration objects."""

    data_config: config_params.DataConfig
    model_config: config_params.ModelConfig
    training_config: config_params.TrainingConfig
    inference_config: config_params.InferenceConfig


class Translation:
    """Translated values by configuration and field, and keywords without a counterpart."""

    def __init__(self, configs: Configs) -> None:
        self._configs = configs
        self.values: dict[str, dict[str, Any]] = {"model": {}, "training": {}, "inference": {}, "execution": {}}
        self.unmatched: list[tuple[str, str]] = []

    def apply_table(self) -> None:
        """Translate every keyword by its row of the table."""
        for part, keywords in KEYWORDS.items():
            for name, keyword in keywords.items():
                value = getattr(getattr(self._configs, part), name)
                for target in keyword.fields:
                    config, field = target.split(".")
                    self.values[config][field] = keyword.values.get(value, value)
                if keyword.supported is not None and value not in keyword.supported:
                    self.report(part, name)

    def report(self, part: str, keyword: str, reason: str = "") -> None:
        """Record a keyword without a counterpart."""
        value = getattr(getattr(self._configs, part), keyword)
        self.unmatched.append((part, f"{keyword}={value!r}" + (f" ({reason})" if reason else "")))


def _gridsize(configs: Configs, translation: Translation) -> None:
    data = configs.data_config
    side = math.isqrt(max(data.C, math.prod(data.grid_size), 1) - 1) + 1
    translation.values["model"]["gridsize"] = side
    for keyword, fits in (("C", data.C == side**2), ("grid_size", tuple(data.grid_size) == (side, side))):
        if not fits:
            translation.report("data_config", keyword, f"groups hold {side}×{side} patterns")
    for keyword in ("C_model", "C_forward", "decoder_last_amp_channels"):
        if getattr(configs.model_config, keyword) != data.C:
            translation.report("model_config", keyword, f"C={data.C}")
    if side == 1:  # a single pattern has no neighbours and no merge
        del translation.values["training"]["neighbor_count"], translation.values["model"]["object_big"]


def _losses(configs: Configs, translation: Translation) -> None:
    # Either keyword selects the loss; the one that differs from its default wins.
    mae = configs.model_config.loss_function == "MAE" or not configs.training_config.nll
    if mae and configs.model_config.mode != "Supervised":  # labels have their own loss
        translation.values["training"] |= {"nll_weight": 0.0, "mae_weight": 1.0}


def _total_variation(configs: Configs, translation: Translation) -> None:
    model = configs.model_config
    losses = {model.amp_loss, model.phase_loss}
    if losses == {"Total_Variation"} and model.amp_loss_coeff == model.phase_loss_coeff:
        translation.values["training"]["realspace_weight"] = float(model.amp_loss_coeff)
        return
    for keyword in ("amp_loss", "phase_loss"):
        if getattr(model, keyword) is not None:
            translation.report("model_config", keyword)


def _probe_mask(configs: Configs, translation: Translation) -> None:
    mask = configs.model_config.probe_mask
    if isinstance(mask, bool):
        translation.values["model"]["probe_mask"] = mask
    elif mask is not None:
        translation.unmatched.append(("model_config", f"probe_mask=a {type(mask).__name__}"))


def _device_and_strategy(configs: Configs, translation: Translation) -> None:
    training, execution = configs.training_config, translation.values["execution"]
    device = str(training.device).strip().lower()
    execution["device"] = "cuda" if device == "gpu" else device
    if training.n_devices == 1 or training.strategy is None:
        execution["strategy"] = "auto"
    elif training.strategy not in STRATEGIES["pytorch"]:
        execution["strategy"] = "auto"
        translation.report("training_config", "strategy")


def _learning_rates(configs: Configs, translation: Translation) -> None:
    training, execution = configs.training_config, translation.values["execution"]
    if training.lr_warmup_epochs is not None:
        execution["warmup_epochs"] = training.lr_warmup_epochs
    if training.lr_min_ratio is not None:
        execution["min_lr_ratio"] = training.lr_min_ratio
    execution["min_lr_ratio"] = execution["min_lr_ratio"] or MIN_RATIO


RULES = (_gridsize, _losses, _total_variation, _probe_mask, _device_and_strategy, _learning_rates)
