"""Stages of `train` and `reconstruct`: their order, and durations that follow from other stages."""

from __future__ import annotations

from ptycho_backend.config import InferenceConfig
from ptycho_backend.runtime.progress import TRAINING
from ptycho_backend.runtime.stage_plan import StagePlan

SOLVER = "iterations"
# Half of the patterns take half the time of an iteration; one residual costs about one iteration.
RATIOS = {"residual": (SOLVER, 0.05), "half 1": (SOLVER, 0.5), "half 2": (SOLVER, 0.5)}


def reconstruction_stages(inference: InferenceConfig, network: bool) -> StagePlan:
    """Return the stages of a reconstruction; `network` for an initial object by a network."""
    return StagePlan(("probe", *_stages(inference, network)), RATIOS)


def training_stages(inference: InferenceConfig, reconstruct: bool) -> StagePlan:
    """Return the stages of a training, with `reconstruct` also those of the image after it."""
    network = inference.start in ("auto", "network")
    return StagePlan(("probe", TRAINING, *(_stages(inference, network) if reconstruct else ())), RATIOS)


def _stages(inference: InferenceConfig, network: bool) -> tuple[str, ...]:
    prediction = ("reconstruction", "phase alignment", "stitching") if network else ()
    halves = ("half 1", "half 2") if inference.half_datasets else ()
    return (*prediction, SOLVER, "residual", *(("agreement",) if network else ()), *halves)
