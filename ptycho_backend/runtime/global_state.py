"""Global state of the caller's process: random numbers and warning filters."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def preserved_global_state() -> Iterator[None]:
    """
    Restore the random numbers of Python and NumPy and the warning filters at the end of the block.

    Libraries draw random numbers and add filters, some of them during their import. An engine restores the random
    numbers of its own framework.
    """
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
