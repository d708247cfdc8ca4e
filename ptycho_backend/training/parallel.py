"""
Training in more than one process: who is who, and which groups are whose (spec: config 6.4).

Each process runs the engine's ordinary `fit` on its share of every batch; the engine adds up what belongs together.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.errors import ConfigError, DeviceError
from ptycho_backend.runtime.devices import choose_device

if TYPE_CHECKING:
    from ptycho_backend.engines.model import History, Model
    from ptycho_backend.model_file.trainer_state import TrainerState
    from ptycho_backend.training.monitoring import BestEpoch

STRATEGIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"pytorch": ("auto", "ddp", "ddp_spawn"), "tensorflow": ("auto", "mirrored", "multiworker")}
)
ONE_DEVICE_COMPILERS = ("tensorflow",)  # XLA knows no reduction over a distribution strategy's replicas
# Rank, number of processes and rank on this machine, as torchrun and srun give them to every process they start.
STARTERS = (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"))


@dataclass(frozen=True)
class ProcessRank:
    """
    One process among those that train together.

    Parameters
    ----------
    rank : int
        Its number; 0 is the one that writes.
    world : int
        How many there are.
    local_rank : int
        Its number on this machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    def share(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """
        Return this process's part of a batch.

        Where there are fewer groups than processes it may be a group that counts for nothing (see `counted`):
        every process has to take every step, because the others wait for it.
        """
        own: NDArray[np.intp] = np.array_split(rows, self.world)[self.rank]
        return own if len(own) else rows[:1]

    def counted(self, n: int) -> int:
        """Return how many groups of a batch of n count in this process."""
        return n // self.world + int(self.rank < n % self.world)


def world_size(execution: ExecutionConfig) -> int:
    """Return the number of processes, one per device; "mirrored" is one process with many devices."""
    return 1 if execution.strategy == "mirrored" else execution.devices * execution.num_nodes


def process_rank(execution: ExecutionConfig) -> ProcessRank:
    """Return the place that whoever started this process has given it; alone where nobody has."""
    world = world_size(execution)
    for rank, size, local_rank in STARTERS:
        if world > 1 and os.environ.get(size) == str(world) and rank in os.environ:
            return ProcessRank(int(os.environ[rank]), world, int(os.environ.get(local_rank, "0")))
    return ProcessRank()


def must_launch(execution: ExecutionConfig) -> bool:
    """Whether a training needs processes that nobody has started yet."""
    return world_size(execution) > 1 and process_rank(execution).world == 1


def check_processes(execution: ExecutionConfig, engine: str, found: tuple[str, ...]) -> None:
    """
    Refuse what an engine cannot do with several devices, before any work.

    Parameters
    ----------
    execution : ExecutionConfig
    engine : str
    found : tuple of str
        Devices that the engine sees here.

    Raises
    ------
    ConfigError, DeviceError
    """
    known = STRATEGIES.get(engine, (execution.strategy,))
    if execution.strategy not in known:
        raise ConfigError(
            f"The engine '{engine}' does not know the strategy '{execution.strategy}'.",
            expected=f"one of {', '.join(known)}",
            received=f"strategy={execution.strategy!r}",
            fix="strategy='auto' suits every engine",
        )
    if execution.strategy == "mirrored" and execution.num_nodes > 1:
        raise ConfigError(
            "The strategy 'mirrored' is one process on one machine.",
            expected="num_nodes=1",
            received=f"strategy='mirrored', num_nodes={execution.num_nodes}",
            fix="use strategy='multiworker'",
        )
    if execution.compile and engine in ONE_DEVICE_COMPILERS and execution.devices * execution.num_nodes > 1:
        raise ConfigError(
            f"The engine '{engine}' compiles the training step of one device only.",
            expected="compile=False with several devices",
            received=f"compile=True, devices={execution.devices}, num_nodes={execution.num_nodes}",
            fix="leave compile out, or use one device",
        )
    if must_launch(execution):
        _check_nodes(execution)
        _check_devices(execution, engine, found)


def on_own_device(execution: ExecutionConfig, found: tuple[str, ...], rank: ProcessRank) -> ExecutionConfig:
    """Return the configuration of one process: its own GPU where several are in sight."""
    gpus = [name for name in found if name.startswith("cuda")]
    if rank.world == 1 or execution.device == "cpu" or len(gpus) < 2:
        return execution
    return dataclasses.replace(execution, device=gpus[rank.local_rank % len(gpus)])


@dataclass(eq=False)
class SilentCheckpointWriter:
    """The writer of the processes that write nothing, beside that of the one that does."""

    folder: Path
    save_top_k: int

    @property
    def last(self) -> Path:
        """The checkpoint that the first process keeps."""
        from ptycho_backend.training.checkpoints import LAST

        return self.folder / LAST

    def check_room(self, model: Model) -> None:
        """Do nothing."""

    def write(self, path: Path, model: Model, history: History, state: TrainerState) -> None:
        """Do nothing."""

    def keep_epoch(self, model: Model, history: History, state: TrainerState, best: BestEpoch) -> None:
        """Do nothing."""


def _check_nodes(execution: ExecutionConfig) -> None:
    if execution.num_nodes == 1:
        return
    world = world_size(execution)
    names = sorted({name for starter in STARTERS for name in starter[:2]} & set(os.environ))
    raise ConfigError(
        "On several nodes every process is started from outside, one for each device.",
        expected=f"{world} processes (devices × num_nodes) started by srun or torchrun, which tell each its rank",
        received=", ".join(f"{name}={os.environ[name]}" for name in names) or "no rank in the environment",
        fix="start with 'srun --ntasks', see docs/how-to/several-devices.md; or set num_nodes=1",
    )


def _check_devices(execution: ExecutionConfig, engine: str, found: tuple[str, ...]) -> None:
    if choose_device(execution.device, found, engine) == "cpu":
        return
    if execution.device.startswith("cuda:") or execution.devices >= len(found):
        raise DeviceError(
            "Every process needs a GPU of its own.",
            expected=f"device='auto' or 'cuda', and at most {len(found) - 1} devices; or device='cpu'",
            received=f"device={execution.device!r}, devices={execution.devices}",
            fix="lower devices",
        )
