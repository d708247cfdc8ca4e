"""Group of torch.distributed for reconstructions: gloo on processors, NCCL on GPUs (spec: backend_contract 10.8)."""

from __future__ import annotations

import atexit
import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ptycho_backend.errors import first_line
from ptycho_backend.training.parallel import ProcessGroup, ProcessRank, check_address, lost_process

TIMEOUT = timedelta(minutes=10)  # longest wait for a slower process; gloo reports one that has ended at once


class TorchProcessGroup(ProcessGroup):
    """
    Exchange of NumPy arrays and tensors.

    Parameters
    ----------
    process : ProcessRank
    group : torch.distributed.ProcessGroup, optional
        None is the default group.
    """

    def __init__(self, process: ProcessRank, group: dist.ProcessGroup | None = None) -> None:
        self.process, self._group = process, group

    def holds(self, array: Any) -> bool:
        """Return whether the array is a tensor or a NumPy array."""
        return isinstance(array, (Tensor, np.ndarray))

    def sum(self, array: Any) -> Any:
        """Return the sum over all processes; the argument may be overwritten."""
        return self._exchange(array, False, functools.partial(dist.all_reduce, group=self._group))

    def from_first(self, array: Any) -> Any:
        """Return a copy of the array of process 0."""
        return self._exchange(array, True, functools.partial(dist.broadcast, src=0, group=self._group))

    # Results of kernels are inference tensors, which only this mode lets an exchange overwrite.
    @torch.inference_mode()
    def _exchange(self, array: Any, copied: bool, exchange: Callable[[Tensor], Any]) -> Any:
        tensor = array if isinstance(array, Tensor) else torch.from_numpy(np.array(array) if copied else array)
        tensor = tensor.clone() if copied and tensor is array else tensor.resolve_conj().contiguous()
        try:
            exchange(torch.view_as_real(tensor) if tensor.is_complex() else tensor)
        except RuntimeError as error:
            raise lost_process(self.process, _reason(error)) from error
        return tensor if isinstance(array, Tensor) else tensor.numpy()


@functools.cache
def joined_group(process: ProcessRank) -> TorchProcessGroup:
    """
    Join the group of the launched processes.

    Raises
    ------
    ConfigError
        If the environment lacks address or port of the first process.
    ProcessError
        If another process does not join.
    """
    check_address()
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        if dist.is_initialized():  # by a training, whose group may exchange tensors of one device only
            return TorchProcessGroup(process, dist.new_group(backend=backend, timeout=TIMEOUT))
        dist.init_process_group(backend, rank=process.rank, world_size=process.world, timeout=TIMEOUT)
    except RuntimeError as error:
        raise lost_process(process, _reason(error)) from error
    atexit.register(dist.destroy_process_group)
    return TorchProcessGroup(process)


def _reason(error: RuntimeError) -> str:
    """Return the first sentence of an error of torch.distributed."""
    return first_line(error).partition(". ")[0]
