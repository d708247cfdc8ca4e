"""
Table of the keywords of :mod:`ptycho_torch.config_params` and their translation (spec: ptychodus_api_spec 4.11).

:mod:`ptycho_torch.api.rules` holds the rules that need more than one keyword; their rows here describe them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ptycho_backend.compat.deprecated_names import VALUES
from ptycho_torch.api.rows import Keyword, field, fixed, head, ignored, rule

MODES = MappingProxyType({"Unsupervised": "pinn", "Supervised": "supervised"})
NO_CLIPPING = MappingProxyType({0.0: None})
STAGED = rule("with `enable_staged_finetuning`")

DATA: Mapping[str, Keyword] = MappingProxyType(
    {
        "N": field("model.N"),
        "C": rule("`model.gridsize`, the root of the larger of C and the grid, rounded up; reported if they differ"),
        "normalize": fixed("Batch", note="one scale for the whole scan"),
        "neighbor_function": fixed("Nearest", note="members are drawn from the nearest neighbours"),
        "scan_pattern": rule("with `neighbor_function`"),
        "probe_normalize": fixed(True, note="the probe is scaled to the energy of a pattern"),
        "x_bounds": rule("share of the scan's width for training; images show the whole field"),
        "y_bounds": rule("the same of its height"),
        "min_neighbor_distance": rule("with `neighbor_function`"),
        "max_neighbor_distance": rule("with `neighbor_function`"),
        "K_quadrant": rule("with `neighbor_function`"),
        "n_subsample": fixed(1, note="one group for every position"),
        "probe_scale": ignored("the probe is scaled to the energy of a pattern"),
        "K": field("training.neighbor_count", "inference.neighbor_count", values=MappingProxyType({0: 1})),
        "grid_size": rule("(y, x), as `C`; reported if it is not square"),
        "probe_ramp_removal": fixed(False, note="the given or the refined probe is used"),
        "data_scaling": fixed("Parseval", note="one scale in both spaces"),
        "phase_subtraction": fixed(True, note="labels are compared up to a constant phase per group"),
    }
)

MODEL: Mapping[str, Keyword] = MappingProxyType(
    {
        "mode": field("model.model_type", values=MODES),
        "object_big": field("model.object_big"),
        "probe_big": fixed(True, note="the whole window is predicted"),
        "loss_function": fixed("Poisson", "MAE", note='`training.nll_weight` or, for "MAE", `training.mae_weight`'),
        "amp_activation": head("silu"),
        "cbam_encoder": fixed(False, note="no attention"),
        "decoder_last_amp_channels": rule("the network takes each pattern separately; reported if it is not `C`"),
        "use_shared_decoder": head(False, True),
        "intensity_scale_trainable": field("training.intensity_scale_trainable"),
        "intensity_scale": ignored("the scale is measured from the scan's photons"),
        "max_position_jitter": rule("the canvas of a group is measured from its offsets"),
        "num_datasets": rule("the training files are counted"),
        "C_model": rule("reported if it is not `C`"),
        "C_forward": rule("reported if it is not `C`"),
        "amp_loss": rule(
            "`training.realspace_weight` if both are total variation with one weight; others are reported"
        ),
        "phase_loss": rule("as `amp_loss`"),
        "amp_loss_coeff": rule("with `amp_loss`"),
        "phase_loss_coeff": rule("with `phase_loss`"),
        "n_filters_scale": field("model.n_filters_scale"),
        "probe_mask": rule("`model.probe_mask`; a mask array is reported"),
        "eca_decoder": fixed(False, note="no attention"),
        "batch_norm": fixed(False, note="no normalisation layers"),
        "edge_pad": head(10),
        "decoder_last_c_outer_fraction": head(0.125),
        "cbam_bottleneck": fixed(False, note="no attention"),
        "cbam_decoder": fixed(False, note="no attention"),
        "spatial_decoder": fixed(False, note="no attention"),
        "decoder_spatial_kernel": rule("with `spatial_decoder`"),
        "eca_encoder": fixed(False, note="no attention"),
        "offset": head(6),
        "probe_reference_coeff": fixed(0.0, note="no such loss"),
        "amplitude_variance_loss": fixed(False, note="no such loss"),
        "amplitude_variance_coeff": rule("with `amplitude_variance_loss`"),
    }
)

TRAINING: Mapping[str, Keyword] = MappingProxyType(
    {
        "epochs": field("training.nepochs"),
        "batch_size": field("training.batch_size"),
        "learning_rate": field("training.learning_rate"),
        "n_devices": field("execution.devices"),
        "num_workers": fixed(0, note="the training process makes the batches"),
        "accum_steps": field("execution.accumulate_grad_batches"),
        "epochs_fine_tune": fixed(0, note="one training"),
        "fine_tune_gamma": rule("with `epochs_fine_tune`"),
        "gradient_clip_val": field("execution.gradient_clip_val", values=NO_CLIPPING),
        "nll": rule('False has the effect of `loss_function="MAE"`; the keyword that differs from its default wins'),
        "device": field("execution.device", note='"cuda" without a GPU becomes "auto", with a line in the log'),
        "strategy": field("execution.strategy", note="one device always uses this process; others are reported"),
        "framework": fixed("Lightning", note="the loop is Lightning's"),
        "orchestrator": fixed("Lightning", note="the loop is Lightning's"),
        "scheduler": field("execution.scheduler", values=VALUES["scheduler"]),
        "warmup_epochs": field("execution.warmup_epochs"),
        "min_lr_ratio": field("execution.min_lr_ratio", note="0 becomes 1e-6"),
        "notes": rule("stored in the checkpoint"),
        "model_name": rule("stored in the checkpoint"),
        "enable_staged_finetuning": fixed(False, note="one training"),
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
        "lr_warmup_epochs": rule("`execution.warmup_epochs`; takes precedence over `warmup_epochs` unless it is None"),
        "lr_min_ratio": rule("`execution.min_lr_ratio`; takes precedence over `min_lr_ratio` unless it is None"),
    }
)

INFERENCE: Mapping[str, Keyword] = MappingProxyType(
    {
        "batch_size": field("inference.batch_size", note="at most 2²⁴ pixels of patterns"),
        "middle_trim": ignored("pixels are weighted by the probe's intensity"),
        "experiment_number": fixed(0, note="one scan at a time"),
        "patch_weighting": fixed("probe", note="pixels are weighted by the probe's intensity"),
        "pad_eval": fixed(True, note="the image holds every window"),
        "window": ignored("the image holds every window, weighted by coverage at its rim"),
    }
)

KEYWORDS: Mapping[str, Mapping[str, Keyword]] = MappingProxyType(
    {"data_config": DATA, "model_config": MODEL, "training_config": TRAINING, "inference_config": INFERENCE}
)
