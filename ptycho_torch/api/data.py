"""Loader of scans, from a folder of NPZ files or from arrays (spec: ptychodus_api_spec 4.11)."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_backend.data.fields import from_window_middles
from ptycho_backend.data.output import prepare_run_folder
from ptycho_backend.data.scan import Scan
from ptycho_torch.api.configs import ConfigManager
from ptycho_torch.api.scans import training_scan, validation_scan


class DataloaderFormats(Enum):
    """Data formats of the loader; there is one."""

    LIGHTNING_ONLY_MODULE = "lightning_only_module"


class PtychoDataLoader:
    """
    Scans of a folder: ``test_data.npz`` for validation, every other ``*.npz`` for training.

    Parameters
    ----------
    data_dir : path
    config_manager : ConfigManager
    data_format : DataloaderFormats or str
    output_dir : path
        Parent of the run folder.

    Attributes
    ----------
    scan : Scan
    validation : Scan or None
    output_dir : Path or None
        Run folder, ``<output_dir>/run_<time>``.

    Raises
    ------
    DataError, ConfigError, OutputError
    """

    def __init__(
        self,
        data_dir: Path | str,
        config_manager: ConfigManager,
        data_format: DataloaderFormats | str = DataloaderFormats.LIGHTNING_ONLY_MODULE,
        output_dir: Path | str = "training_outputs",
    ) -> None:
        DataloaderFormats(data_format)
        self.scan = training_scan(Path(data_dir), config_manager)
        self.validation = validation_scan(Path(data_dir))
        self.output_dir: Path | None = _run_folder(Path(output_dir))

    @classmethod
    def from_np(cls, diff_patterns: Any, probe: Any, positions: Any, config_manager: ConfigManager) -> PtychoDataLoader:
        """
        Return a loader of one scan in memory, for reconstruction.

        Parameters
        ----------
        diff_patterns : array, shape (position, y, x), counts
            Any integer or real dtype and byte order.
        probe : complex, shape (mode, y, x) or (y, x)
        positions : float, shape (position, 2), pixels, (y, x)
            Positions of the windows' middles, (N − 1)/2.
        config_manager : ignored
        """
        loader = cls.__new__(cls)
        middles = from_window_middles(positions, np.shape(diff_patterns)[-1])
        # Every pattern takes part: the client computes the canvas from all positions.
        searched = ("patterns",)
        loader.scan = Scan(diff_patterns, middles, probe, measurement="counts", source="the client", searched=searched)
        loader.validation = loader.output_dir = None
        return loader


def _run_folder(parent: Path) -> Path:
    """Create the folder of a run under an unused name."""
    name = f"run_{datetime.now():%Y%m%d_%H%M%S}"
    n_existing = len(list(parent.glob(f"{name}*")))
    return prepare_run_folder(parent / (f"{name}_{n_existing + 1}" if n_existing else name))
