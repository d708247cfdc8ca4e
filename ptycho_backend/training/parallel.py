"""
Processes that work together: their ranks, and the share of the work that each computes (spec: config 6.4).

In a training each process runs the engine's ordinary `fit` on its share of every batch; the engine sums gradients and
losses over the processes. In a reconstruction each process computes the sums over its share of the patterns.
"""

from __future__ import annotations

import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.errors import ConfigError, DeviceError, ProcessError
from ptycho_backend.runtime.devices import choose_device

STRATEGIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"pytorch": ("auto", "ddp", "ddp_spawn"), "tensorflow": ("auto", "mirrored", "multiworker")}
)
ONE_DEVICE_COMPILERS = ("tensorflow",)  # XLA has no reduction over the replicas of a distribution strategy
# Variables of rank, number of processes and rank on this machine, as torchrun and srun set them for every process.
LAUNCHERS = (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"))
ADDRESS, PORT = "MASTER_ADDR", "MASTER_PORT"  # variables of the address of the first process


@dataclass(frozen=True)
class ProcessRank:
    """
    Rank of a process in its process group.

    Parameters
    ----------
    rank : int
        Number of the process; process 0 writes the files.
    world : int
        Number of processes.
    local_rank : int
        Number of the process on this machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    def share(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """
        Return this process's part of a batch.

        It holds at least one group, because every process takes every step. With fewer groups than processes that
        group may have no weight (see `counted`).
        """
        local: NDArray[np.intp] = np.array_split(rows, self.world)[self.rank]
        return local if len(local) else rows[:1]

    def counted(self, n: int) -> int:
        """Return the number of groups, out of n in a batch, that have weight in this process."""
        return n // self.world + int(self.rank < n % self.world)


class ProcessGroup(ABC):
    """
    Exchange of arrays between the processes of a reconstruction (spec: backend_contract 10.8).

    Every process calls the same methods in the same order. Each method raises a ProcessError if another process has
    ended or does not answer.
    """

    process: ProcessRank

    @abstractmethod
    def holds(self, array: Any) -> bool:
        """Return whether the group exchanges arrays of this class; it always exchanges NumPy arrays."""

    @abstractmethod
    def sum(self, array: Any) -> Any:
        """Return the sum over all processes, with equal bits in each; the argument may be overwritten."""

    @abstractmethod
    def from_first(self, array: Any) -> Any:
        """Return a copy of the array of process 0."""


def world_size(execution: ExecutionConfig) -> int:
    """Return the number of processes, one per device; "mirrored" is one process with many devices."""
    return 1 if execution.strategy == "mirrored" else execution.devices * execution.num_nodes


def process_rank(execution: ExecutionConfig) -> ProcessRank:
    """Return this process's rank in a training, from its launcher; without a launcher it is alone."""
    world = world_size(execution)
    return next((process for process in _ranks_in_environment() if process.world == world > 1), ProcessRank())


def launched_rank() -> ProcessRank:
    """
    Return this process's rank in a reconstruction, from its launcher; without a launcher it is alone.

    Processes work together if the environment also holds the address of the first one: tasks of Slurm without it may
    be independent programs.
    """
    if ADDRESS not in os.environ:
        return ProcessRank()
    return next((process for process in _ranks_in_environment() if process.world > 1), ProcessRank())


def check_address() -> None:
    """
    Check that this process can find the first one.

    Raises
    ------
    ConfigError
    """
    missing = [name for name in (ADDRESS, PORT) if name not in os.environ]
    if missing:
        raise ConfigError(
            "Processes that work together must find the first one.",
            expected=f"its address in {ADDRESS} and a free port of it in {PORT}",
            received=f"no {' and no '.join(missing)} in the environment",
            fix="set both before srun, see docs/how-to/several-devices.md; torchrun sets them itself",
        )


def lost_process(process: ProcessRank, reason: str) -> ProcessError:
    """Return the error of an exchange that another process does not take part in."""
    return ProcessError(
        "A process of the group has ended or does not answer.",
        expected=f"{process.world} processes that work together",
        received=f"in process {process.rank}: {reason}",
        fix="read the first error of the other processes, and start all of them again",
    )


def must_launch(execution: ExecutionConfig) -> bool:
    """Whether the training needs several processes and no launcher has started them."""
    return world_size(execution) > 1 and process_rank(execution).world == 1


def check_processes(execution: ExecutionConfig, engine: str, found: tuple[str, ...]) -> None:
    """
    Check before any work that an engine can train on the requested devices.

    Parameters
    ----------
    execution : ExecutionConfig
    engine : str
    found : tuple of str
        Devices of the engine on this machine.

    Raises
    ------
    ConfigError, DeviceError
    """
    known = STRATEGIES.get(engine, (execution.strategy,))
    if execution.strategy not in known:
        raise ConfigError(
            f"The engine '{engine}' has no strategy '{execution.strategy}'.",
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


def on_own_device(execution: ExecutionConfig, found: tuple[str, ...], process: ProcessRank) -> ExecutionConfig:
    """Return the configuration of one process, with its own GPU if the process sees several."""
    gpus = [name for name in found if name.startswith("cuda")]
    if process.world == 1 or execution.device == "cpu" or len(gpus) < 2:
        return execution
    return dataclasses.replace(execution, device=gpus[process.local_rank % len(gpus)])


def _ranks_in_environment() -> list[ProcessRank]:
    """Return the rank that each launcher gives this process, torchrun's first."""
    return [
        ProcessRank(int(os.environ[rank]), int(os.environ[size]), int(os.environ.get(local_rank, "0")))
        for rank, size, local_rank in LAUNCHERS
        if rank in os.environ and size in os.environ
    ]


def _check_nodes(execution: ExecutionConfig) -> None:
    if execution.num_nodes == 1:
        return
    names = sorted({name for launcher in LAUNCHERS for name in launcher[:2]} & set(os.environ))
    raise ConfigError(
        "On several nodes every process is started from outside, one for each device.",
        expected=f"{world_size(execution)} processes (devices × num_nodes) of srun or torchrun, each with its rank",
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
