"""Detection of processes that `fork` made after a framework had started its threads."""

from __future__ import annotations

import functools
import os

from ptycho_backend.errors import ProcessError


def require_own_process(engine: str) -> None:
    """
    Check that an engine runs in the process that started it.

    A fork copies the memory of a process without its threads. The locks and thread pools of PyTorch and TensorFlow
    then wait for threads that do not exist, without end. The solver in NumPy makes its threads for each call and
    works after a fork.

    Parameters
    ----------
    engine : str
        Name of the engine; the first call in a process registers it.

    Raises
    ------
    ProcessError
        In a child that was made by fork.

    Notes
    -----
    Source: Python documentation of `multiprocessing`, contexts and start methods.
    """
    started_in = _first_process(engine)
    if started_in != os.getpid():
        raise ProcessError(
            "A framework does not survive a fork.",
            expected=f"'{engine}' used first in this process, {os.getpid()}",
            received=f"a child made by fork from process {started_in}, which has used '{engine}' already",
            fix='use "spawn": multiprocessing.get_context("spawn"), or mp_context for ProcessPoolExecutor',
        )


@functools.cache
def _first_process(engine: str) -> int:
    """Return the number of the process in which an engine was used first; a fork copies the cache."""
    return os.getpid()
