"""Processes that train together, as Lightning and torch see them (spec: config 6.4)."""

from __future__ import annotations

import os

import torch
import torch.distributed
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy

from ptycho_backend.errors import ConfigError
from ptycho_backend.training.parallel import ProcessRank


class ProcessGroup:
    """
    What processes tell each other, beside the gradients that Lightning's strategy adds up.

    Parameters
    ----------
    rank : ProcessRank
    device : torch.device
        Of the model: what crosses between GPUs starts on one.
    """

    def __init__(self, rank: ProcessRank, device: torch.device) -> None:
        self.rank, self._device = rank, device

    def total(self, value: float) -> float:
        """Return the sum of every process's value."""
        if self.rank.world == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=self._device)
        torch.distributed.all_reduce(tensor)
        return float(tensor)

    def any(self, value: bool) -> bool:
        """Return whether one of the processes says yes."""
        return self.total(float(value)) > 0


class StartedProcesses(ClusterEnvironment):
    """
    Processes that somebody has started, each of them a node with one device for Lightning.

    Which device that is, the model has decided: on some clusters each process sees its own GPU alone, on others all.
    """

    def __init__(self, rank: ProcessRank) -> None:
        super().__init__()
        self._rank = rank

    @property
    def creates_processes_externally(self) -> bool:
        """True: Lightning starts none."""
        return True

    @property
    def main_address(self) -> str:
        """Where the first process listens."""
        return _required("MASTER_ADDR")

    @property
    def main_port(self) -> int:
        """The port on which it listens."""
        return int(_required("MASTER_PORT"))

    @staticmethod
    def detect() -> bool:
        """False: chosen, never found."""
        return False

    def world_size(self) -> int:
        """Return the number of processes."""
        return self._rank.world

    def set_world_size(self, size: int) -> None:
        """Do nothing: whoever started the processes has decided."""

    def global_rank(self) -> int:
        """Return this process's number."""
        return self._rank.rank

    def set_global_rank(self, rank: int) -> None:
        """Do nothing: whoever started the processes has decided."""

    def local_rank(self) -> int:
        """Return 0: one device in this node."""
        return 0

    def node_rank(self) -> int:
        """Return this process's number: it is the node."""
        return self._rank.rank


def strategy_of(rank: ProcessRank) -> DDPStrategy | str:
    """Return Lightning's strategy."""
    if rank.world == 1:
        return "auto"
    return DDPStrategy(cluster_environment=StartedProcesses(rank))


def _required(name: str) -> str:
    if name not in os.environ:
        raise ConfigError(
            "Processes that train together must find the first one.",
            expected="its address in MASTER_ADDR and a free port of it in MASTER_PORT",
            received=f"no {name} in the environment",
            fix="set both before srun, see docs/how-to/several-devices.md; torchrun sets them itself",
        )
    return os.environ[name]
