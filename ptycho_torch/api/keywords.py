"""
What becomes of each keyword of :mod:`ptycho_torch.config_params`, one row for each (spec: ptychodus_api_spec 4.11).

The rules that need more than one keyword stand in :mod:`ptycho_torch.api.translation`; their rows say so in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ptycho_backend.compat.deprecated_names import VALUES
from ptycho_torch.api.rows import Keyword, field, head, missing, only, rule

MODES = MappingProxyType({"Unsupervised": "pinn", "Supervised": "supervised"})
NO_CLIPPING = MappingProxyType({0.0: None})
STAGED = rule("with `enable_staged_finetuning`")

DATA: Mapping[str, Keyword] = MappingProxyType(
    {
        "N": field("model.N"),
        "C": rule("`model.gridsize`, the root of C or of the grid (the larger), rounded up; named if they differ"),
        "normalize": only("Batch", note="one scale for the whole scan"),
        "neighbor_function": only("Nearest", note="members are drawn from the nearest neighbours"),
        "scan_pattern": rule("with `neighbor_function`"),
        "probe_normalize": only(True, note="the probe is scaled to the energy of a pattern"),
        "x_bounds": rule("share of the scan's width that is trained on; an image is always of the whole field"),
        "y_bounds": rule("the same of its height"),
        "min_neighbor_distance": rule("with `neighbor_function`"),
        "max_neighbor_distance": rule("with `neighbor_function`"),
        "K_quadrant": rule("with `neighbor_function`"),
        "n_subsample": only(1, note="one group for every position"),
        "probe_scale": missing("the probe is scaled to the energy of a pattern"),
        "K": field("training.neighbor_count", "inference.neighbor_count", values=MappingProxyType({0: 1})),
        "grid_size": rule("(y, x), see `C`; named if it is not square"),
        "probe_ramp_removal": only(False, note="the probe is used as it is, or refined"),
        "data_scaling": only("Parseval", note="one scale in both spaces"),
        "phase_subtraction": only(True, note="labels are compared up to one constant phase for each group"),
    }
)

MODEL: Mapping[str, Keyword] = MappingProxyType(
    {
        "mode": field("model.model_type", values=MODES),
        "object_big": field("model.object_big"),
        "probe_big": only(True, note="the whole window is predicted"),
        "loss_function": only("Poisson", "MAE", note='`training.nll_weight` or, for "MAE", `training.mae_weight`'),
        "amp_activation": head("silu"),
        "cbam_encoder": only(False, note="no attention"),
        "decoder_last_amp_channels": rule("every pattern goes through the network by itself; named if it is not `C`"),
        "use_shared_decoder": head(False, True),
        "intensity_scale_trainable": field("training.intensity_scale_trainable"),
        "intensity_scale": missing("the scale is measured from the scan's photons"),
        "max_position_jitter": rule("the canvas of a group is measured from its offsets"),
        "num_datasets": rule("the training files are counted"),
        "C_model": rule("named if it is not `C`"),
        "C_forward": rule("named if it is not `C`"),
        "amp_loss": rule("`training.realspace_weight`, if both losses are total variation with one weight; else named"),
        "phase_loss": rule("as `amp_loss`"),
        "amp_loss_coeff": rule("with `amp_loss`"),
        "phase_loss_coeff": rule("with `phase_loss`"),
        "n_filters_scale": field("model.n_filters_scale"),
        "probe_mask": rule("`model.probe_mask`; a mask of one's own is named"),
        "eca_decoder": only(False, note="no attention"),
        "batch_norm": only(False, note="no normalisation layers"),
        "edge_pad": head(10),
        "decoder_last_c_outer_fraction": head(0.125),
        "cbam_bottleneck": only(False, note="no attention"),
        "cbam_decoder": only(False, note="no attention"),
        "spatial_decoder": only(False, note="no attention"),
        "decoder_spatial_kernel": rule("with `spatial_decoder`"),
        "eca_encoder": only(False, note="no attention"),
        "offset": head(6),
        "probe_reference_coeff": only(0.0, note="no such loss"),
        "amplitude_variance_loss": only(False, note="no such loss"),
        "amplitude_variance_coeff": rule("with `amplitude_variance_loss`"),
    }
)

TRAINING: Mapping[str, Keyword] = MappingProxyType(
    {
        "epochs": field("training.nepochs"),
        "batch_size": field("training.batch_size"),
        "learning_rate": field("training.learning_rate"),
        "n_devices": field("execution.devices"),
        "num_workers": only(0, note="batches are made in the training process, whatever the number"),
        "accum_steps": field("execution.accumulate_grad_batches"),
        "epochs_fine_tune": only(0, note="one training"),
        "fine_tune_gamma": rule("with `epochs_fine_tune`"),
        "gradient_clip_val": field("execution.gradient_clip_val", values=NO_CLIPPING),
        "nll": rule('False is the same as `loss_function="MAE"`: whichever differs from its default decides'),
        "device": field("execution.device", note='"cuda" where there is no GPU is "auto", with a line in the log'),
        "strategy": field("execution.strategy", note="always this process for one device; an unknown one is named"),
        "framework": only("Lightning", note="the loop is Lightning's"),
        "orchestrator": only("Lightning", note="the loop is Lightning's"),
        "scheduler": field("execution.scheduler", values=VALUES["scheduler"]),
        "warmup_epochs": field("execution.warmup_epochs"),
        "min_lr_ratio": field("execution.min_lr_ratio", note="0 is 1e-6"),
        "notes": rule("kept in the checkpoint"),
        "model_name": rule("kept in the checkpoint"),
        "enable_staged_finetuning": only(False, note="one training"),
        "finetune_stage1_epochs": STAGED,
        "finetune_stage2_epochs": STAGED,
        "finetune_stage3_epochs": STAGED,
        "finetune_stage1_lr_decoder": STAGED,
        "finetune_stage2_lr_encoder_top": STAGED,
        "finetune_stage2_lr_decoder": STAGED,
        "finetune_stage2_lr_phase_head": STAGED,
        "finetune_stage3_lr_encoder_bottom": STAGED,
        "finetune_stage3_lr_encoder_top": STAGED,
        "finetune_stage3_lr_decoder": STAGED,
        "finetune_stage3_lr_phase_head": STAGED,
        "finetune_skip_stage3": STAGED,
        "finetune_early_stop_patience": STAGED,
        "finetune_val_split": STAGED,
        "lr_warmup_epochs": rule("`execution.warmup_epochs`, before `warmup_epochs`, where it is not None"),
        "lr_min_ratio": rule("`execution.min_lr_ratio`, before `min_lr_ratio`, where it is not None"),
    }
)

INFERENCE: Mapping[str, Keyword] = MappingProxyType(
    {
        "batch_size": field("inference.batch_size", note="fewer where their patterns would exceed 2²⁴ pixels"),
        "middle_trim": missing("pixels count by how brightly the probe lights them"),
        "experiment_number": only(0, note="one scan at a time"),
        "patch_weighting": only("probe", note="pixels count by how brightly the probe lights them"),
        "pad_eval": only(True, note="the image holds every window"),
        "window": missing("the image holds every window; its rim counts by coverage"),
    }
)

KEYWORDS: Mapping[str, Mapping[str, Keyword]] = MappingProxyType(
    {"data_config": DATA, "model_config": MODEL, "training_config": TRAINING, "inference_config": INFERENCE}
)
