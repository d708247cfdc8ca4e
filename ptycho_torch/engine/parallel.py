"""Process group of PyTorch: exchanges beside DDP's gradients, and Lightning's strategy (spec: config 6.4)."""

from __future__ import annotations

import torch
import torch.distributed
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

from ptycho_backend.training.parallel import ProcessRank, check_address


class ProcessGroup:
    """
    Sums over the processes of a training, beside those of Lightning's strategy over gradients.

    Parameters
    ----------
    process : ProcessRank
    device : torch.device
        Device of the model: NCCL exchanges tensors on GPUs only.
    """

    def __init__(self, process: ProcessRank, device: torch.device) -> None:
        self.process, self._device = process, device

    def total(self, value: float) -> float:
        """Return the sum of a value over all processes."""
        if self.process.world == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=self._device)
        torch.distributed.all_reduce(tensor)
        return float(tensor)

    def any(self, value: bool) -> bool:
        """Return whether the value is true in any process."""
        return self.total(float(value)) > 0


class StartedProcess(LightningEnvironment):
    """
    Environment of a process that a launcher has started: for Lightning a node with one device.

    The model has chosen the device, because on some clusters each process sees only its own GPU and on others all.

    Raises
    ------
    ConfigError
        If the environment lacks address or port of the first process.
    """

    creates_processes_externally = True

    def __init__(self, process: ProcessRank) -> None:
        super().__init__()
        self._process = process
        check_address()

    def node_rank(self) -> int:
        """Return the rank of the process, which is a node."""
        return self._process.rank

    def local_rank(self) -> int:
        """Return 0: each node has one device."""
        return 0

    def teardown(self) -> None:
        """Keep WORLD_SIZE, which `process_rank` reads again after training."""


def strategy_of(process: ProcessRank) -> DDPStrategy | str:
    """Return Lightning's strategy."""
    return "auto" if process.world == 1 else DDPStrategy(cluster_environment=StartedProcess(process))
