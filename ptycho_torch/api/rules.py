"""What the table of keywords cannot say: rules that need several of them (spec: ptychodus_api_spec 4.11)."""

from __future__ import annotations

import math
from typing import Any, Protocol

from ptycho_backend.training.parallel import STRATEGIES
from ptycho_torch import config_params
from ptycho_torch.api.keywords import KEYWORDS

PARTS = ("data_config", "model_config", "training_config", "inference_config")
LOWEST_RATIO = 1e-6  # a learning rate stays positive


class Configs(Protocol):
    """Whatever holds the client's four configuration objects."""

    data_config: config_params.DataConfig
    model_config: config_params.ModelConfig
    training_config: config_params.TrainingConfig
    inference_config: config_params.InferenceConfig


class Draft:
    """Values on their way, by configuration and field."""

    def __init__(self, configs: Configs) -> None:
        self._configs = configs
        self.values: dict[str, dict[str, Any]] = {"model": {}, "training": {}, "inference": {}, "execution": {}}
        self.unmatched: list[tuple[str, str]] = []

    def take_rows(self) -> None:
        """Do what the table says, row by row."""
        for part, keywords in KEYWORDS.items():
            for name, keyword in keywords.items():
                value = getattr(getattr(self._configs, part), name)
                for target in keyword.fields:
                    config, field = target.split(".")
                    self.values[config][field] = keyword.values.get(value, value)
                if keyword.done is not None and value not in keyword.done:
                    self.name(part, name)

    def name(self, part: str, keyword: str, why: str = "") -> None:
        """Note a keyword that has no counterpart."""
        value = getattr(getattr(self._configs, part), keyword)
        self.unmatched.append((part, f"{keyword}={value!r}" + (f" ({why})" if why else "")))


def _groups(configs: Configs, draft: Draft) -> None:
    data = configs.data_config
    side = math.isqrt(max(data.C, math.prod(data.grid_size), 1) - 1) + 1
    draft.values["model"]["gridsize"] = side
    for keyword, fits in (("C", data.C == side**2), ("grid_size", tuple(data.grid_size) == (side, side))):
        if not fits:
            draft.name("data_config", keyword, f"groups hold {side}×{side} patterns")
    for keyword in ("C_model", "C_forward", "decoder_last_amp_channels"):
        if getattr(configs.model_config, keyword) != data.C:
            draft.name("model_config", keyword, f"C={data.C}")
    if side == 1:  # a pattern alone has no neighbours and nothing to merge with
        del draft.values["training"]["neighbor_count"], draft.values["model"]["object_big"]


def _losses(configs: Configs, draft: Draft) -> None:
    # Each of the two keywords can say it, and what differs from its default is a choice.
    mae = configs.model_config.loss_function == "MAE" or not configs.training_config.nll
    if mae and configs.model_config.mode != "Supervised":  # labels have a loss of their own
        draft.values["training"] |= {"nll_weight": 0.0, "mae_weight": 1.0}


def _total_variation(configs: Configs, draft: Draft) -> None:
    model = configs.model_config
    kinds = {model.amp_loss, model.phase_loss}
    if kinds == {"Total_Variation"} and model.amp_loss_coeff == model.phase_loss_coeff:
        draft.values["training"]["realspace_weight"] = float(model.amp_loss_coeff)
        return
    for keyword in ("amp_loss", "phase_loss"):
        if getattr(model, keyword) is not None:
            draft.name("model_config", keyword)


def _probe_mask(configs: Configs, draft: Draft) -> None:
    mask = configs.model_config.probe_mask
    if isinstance(mask, bool):
        draft.values["model"]["probe_mask"] = mask
    elif mask is not None:
        draft.unmatched.append(("model_config", f"probe_mask=a {type(mask).__name__}"))


def _place(configs: Configs, draft: Draft) -> None:
    training, execution = configs.training_config, draft.values["execution"]
    device = str(training.device).strip().lower()
    execution["device"] = "cuda" if device == "gpu" else device
    if training.n_devices == 1 or training.strategy is None:
        execution["strategy"] = "auto"
    elif training.strategy not in STRATEGIES["pytorch"]:
        execution["strategy"] = "auto"
        draft.name("training_config", "strategy")


def _rates(configs: Configs, draft: Draft) -> None:
    training, execution = configs.training_config, draft.values["execution"]
    if training.lr_warmup_epochs is not None:
        execution["warmup_epochs"] = training.lr_warmup_epochs
    if training.lr_min_ratio is not None:
        execution["min_lr_ratio"] = training.lr_min_ratio
    execution["min_lr_ratio"] = execution["min_lr_ratio"] or LOWEST_RATIO


RULES = (_groups, _losses, _total_variation, _probe_mask, _place, _rates)
