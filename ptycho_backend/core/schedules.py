"""Learning rates, epoch by epoch: one formula for both engines (spec: config 5)."""

from __future__ import annotations

import math

from ptycho_backend.config import ExecutionConfig


def rate_factor(epoch: int, nepochs: int, execution: ExecutionConfig) -> float:
    """
    Return the learning rate of an epoch (counted from 0) over the configured one.

    Warm-up rises linearly to 1 over its epochs; the schedule fills the rest and ends at `min_lr_ratio`.
    """
    warmup = execution.warmup_epochs
    if epoch < warmup:
        return (epoch + 1) / (warmup + 1)
    progress = (epoch - warmup) / max(1, nepochs - warmup - 1)
    low = execution.min_lr_ratio
    if execution.scheduler == "cosine":
        return low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
    if execution.scheduler == "exponential":
        return float(low ** min(progress, 1.0))
    return 1.0
