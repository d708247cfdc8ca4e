"""
Tables of PtychoPINN's option names: renamed options, and options without a counterpart (spec: config 10).

The names come from flat or nested YAML files, from `params.cfg` with dotted keys, and from the PyTorch port.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ptycho_backend.compat import deprecated_names, legacy
from ptycho_backend.config import ExecutionConfig, InferenceConfig, ModelConfig, TrainingConfig, fields_of

SECTIONS: Mapping[str, type[Any]] = MappingProxyType(
    {
        "training.model": ModelConfig,
        "training": TrainingConfig,
        "execution": ExecutionConfig,
        "inference": InferenceConfig,
    }
)

# Not listed: fields with unchanged names, dotted keys of `params.cfg`, deprecated names of execution settings.
RENAMED: Mapping[str, str] = MappingProxyType(
    {
        "C": "training.model.gridsize",
        "K": "training.neighbor_count",
        "enable_progress_bar": "execution.progress",
        "epochs": "training.nepochs",
        "grid_size": "training.model.gridsize",
        "inference_batch_size": "inference.batch_size",
        "loss_function": "training.nll_weight",
        "mode": "training.model.model_type",
        "n_images": "training.n_groups",
        "npseed": "training.seed",
        "orchestrator": "execution.logger",
        "plateau_factor": "execution.scheduler_factor",
        "plateau_patience": "execution.scheduler_patience",
        "torch_loss_mode": "training.nll_weight",
        "tv_weight": "training.realspace_weight",
        "use_xla_compile": "execution.compile",
    }
)

_COMMAND_LINE = "given on the command line: "
_SIMULATION = "of simulations: 'ptychopinn simulate' has its own options"
_NETWORK = "of a network that is not here"
_SAMPLING = "groups are drawn from all positions of the scan"
_CANVAS = "the canvas follows from the positions"
_MEASURED = "measured from the data, and stored with the model"
_INTERNAL = "internal to that program"

_REASONS: Mapping[str, str] = MappingProxyType(
    {
        f"{_COMMAND_LINE}'ptychopinn train SCAN'": "train_data_file training_directories",
        f"{_COMMAND_LINE}'ptychopinn reconstruct SCAN'": "test_data_file",
        f"{_COMMAND_LINE}--output": "output_dir h5_path",
        f"{_COMMAND_LINE}--model": "model_path",
        f"{_COMMAND_LINE}--debug": "debug",
        _SIMULATION: (
            "data_source sim_jitter_scale nimgs_train nimgs_test size set_phi big_gridsize default_probe_scale "
            "objects_per_probe diff_per_object object_class image_size probe_paths beamstop_diameter"
        ),
        _NETWORK: (
            "fno_modes fno_width fno_blocks fno_cnn_blocks fno_input_transform generator_output_mode batch_norm "
            "eca_encoder eca_decoder cbam_encoder cbam_bottleneck cbam_decoder spatial_decoder decoder_spatial_kernel "
            "learned_input_channels max_hidden_channels resnet_width decoder_last_c_outer_fraction "
            "decoder_last_amp_channels edge_pad"
        ),
        _SAMPLING: (
            "n_subsample subsample_seed sequential_sampling enable_oversampling neighbor_pool_size K_quadrant "
            "neighbor_function min_neighbor_distance max_neighbor_distance scan_pattern x_bounds y_bounds"
        ),
        _CANVAS: (
            "offset outer_offset_train outer_offset_test max_position_jitter positions_provided middle_trim pad_eval "
            "window"
        ),
        _MEASURED: "intensity_scale normalize data_scaling probe num_datasets",
        "the probe is normalised by its energy": "probe_scale probe_normalize",
        "tv_weight and realspace_mae_weight are multiplied by it": "realspace_weight",
        "training has one stage": (
            "stage_1_epochs stage_2_epochs stage_3_epochs stage_3_lr_factor physics_weight_schedule epochs_fine_tune "
            "fine_tune_gamma"
        ),
        "the optimiser is Adam with its usual constants": "optimizer momentum weight_decay adam_beta1 adam_beta2",
        "the training process makes the batches": "num_workers pin_memory persistent_workers prefetch_factor",
        "the smallest rate is a share of the first: execution.min_lr_ratio": "plateau_min_lr plateau_threshold",
        "total variation has one weight: training.realspace_weight": (
            "amp_loss phase_loss amp_loss_coeff phase_loss_coeff"
        ),
        "written with every run": "experiment_name notes model_name experiment_number",
        _INTERNAL: (
            "label framework nll C_model C_forward phase_subtraction probe_mask_tensor probe_mask_sigma "
            "probe_mask_diameter use_xla_translate enable_checkpointing log_grad_norm "
            "grad_norm_log_freq log_patch_stats patch_stats_limit torch_mae_pred_l2_match_target bigN _version"
        ),
    }
)
WITHOUT: Mapping[str, str] = MappingProxyType(
    {name: text for text, names in _REASONS.items() for name in names.split()}
)
_DOTTED = MappingProxyType({dotted: name for name, dotted in legacy.KEYS.items()})
_CONTAINERS = frozenset({"model", "training", "inference", "execution"})


def without_dot(old: str) -> str:
    """Return the field name of a dotted key of `params.cfg`; return other names unchanged."""
    return _DOTTED.get(old, old)


def target(old: str, section: str = "") -> str | None:
    """
    Return the dotted name of an option's field in this package, or None.

    Parameters
    ----------
    old : str
        Name in PtychoPINN's files, in `params.cfg` or in the PyTorch port.
    section : str
        Section of a nested file; fields of the section "inference" are those of InferenceConfig.
    """
    name = without_dot(old)
    if name in WITHOUT:
        return None
    if section == "inference" and name in fields_of(InferenceConfig):
        return f"inference.{name}"
    if name in RENAMED:
        return RENAMED[name]
    name = deprecated_names.FIELDS.get(name, name)
    for prefix, config in SECTIONS.items():
        if name in fields_of(config) and name not in _CONTAINERS:
            return f"{prefix}.{name}"
    return None


def reason(old: str) -> str | None:
    """Return the reason for a missing counterpart, or None for a name that PtychoPINN does not have."""
    return WITHOUT.get(without_dot(old))
