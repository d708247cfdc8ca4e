"""Scans as clients hand them over: a folder of NPZ files to train on, or arrays to reconstruct."""

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
from ptycho_torch.api.scans import held_out_scan, training_scan


class DataloaderFormats(Enum):
    """Ways to load data, by the word that clients know them by; there is one."""

    LIGHTNING_ONLY_MODULE = "lightning_only_module"


class PtychoDataLoader:
    """
    The scans of a folder, to train on: every ``*.npz`` but ``test_data.npz``, which is held out.

    Parameters
    ----------
    data_dir : path
    config_manager : ConfigManager
    data_format : DataloaderFormats or str
    output_dir : path
        In which the run gets a folder of its own.

    Attributes
    ----------
    scan : Scan
    validation : Scan or None
    output_dir : Path or None
        Folder of the run: ``<output_dir>/run_<time>``.

    Raises
    ------
    DataError, ConfigError, OutputError

    Notes
    -----
    Spec: ptychodus_api_spec 4.11.
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
        self.validation = held_out_scan(Path(data_dir))
        self.output_dir: Path | None = _run_folder(Path(output_dir))

    @classmethod
    def from_np(cls, diff_patterns: Any, probe: Any, positions: Any, config_manager: ConfigManager) -> PtychoDataLoader:
        """
        Return a loader of one scan in memory, whole, to reconstruct.

        Parameters
        ----------
        diff_patterns : array, shape (position, y, x), counts
            Any integer or real dtype and byte order.
        probe : complex, shape (mode, y, x) or (y, x)
        positions : float, shape (position, 2), pixels, (y, x)
            Of the windows' middles, (N − 1)/2.
        config_manager : ConfigManager
            Not used: the model knows how it was trained.
        """
        loader = cls.__new__(cls)
        middles = from_window_middles(positions, np.shape(diff_patterns)[-1])
        loader.scan = Scan(diff_patterns, middles, probe, measurement="counts", source="the client")
        loader.validation = loader.output_dir = None
        return loader


def _run_folder(parent: Path) -> Path:
    """Make the folder of a run, under a name that is free."""
    name = f"run_{datetime.now():%Y%m%d_%H%M%S}"
    taken = len(list(parent.glob(f"{name}*")))
    return prepare_run_folder(parent / (f"{name}_{taken + 1}" if taken else name))
