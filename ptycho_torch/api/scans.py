"""Training and validation scans from a folder of NPZ files (spec: ptychodus_api_spec 4.11)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ptycho_backend.data.fields import from_window_middles
from ptycho_backend.data.join import join_scans
from ptycho_backend.data.npz import npz_fields
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import ConfigError, DataError
from ptycho_torch.api.configs import ConfigManager

VALIDATION_FILE = "test_data.npz"  # every other file of the folder is for training


def training_scan(folder: Path, configs: ConfigManager) -> Scan:
    """
    Return the positions inside the bounds, joined over all training files of a folder.

    Raises
    ------
    DataError, ConfigError
    """
    scans = [_inside_bounds(client_scan(path), configs) for path in _training_files(folder)]
    if len(scans) > 1:
        _check_neighbours(scans, configs)
    return join_scans(scans)


def validation_scan(folder: Path) -> Scan | None:
    """Return the validation scan of a folder, or None."""
    path = folder / VALIDATION_FILE
    return client_scan(path) if path.exists() else None


def client_scan(path: Path) -> Scan:
    """Read an exported scan: counts, unless the file says otherwise, and positions of windows' middles."""
    fields = npz_fields(path)
    positions_px = from_window_middles(fields["positions_px"], fields["patterns"].shape[-1])
    return Scan(**{**fields, "positions_px": positions_px, "measurement": fields["measurement"] or "counts"})


def _training_files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.glob("*.npz") if path.name != VALIDATION_FILE)
    if not files:
        raise DataError(
            "A training folder must hold scans as NPZ files.",
            expected=f"one or more *.npz besides '{VALIDATION_FILE}', the validation scan",
            received=f"none in '{folder}'" + ("" if folder.is_dir() else ", which is no folder"),
            fix="export the training data into it, as 'train_data.npz'",
        )
    return files


def _inside_bounds(scan: Scan, configs: ConfigManager) -> Scan:
    """Return the positions inside the bounds, which are shares of the scan's extent in y and x."""
    bounds = {"y_bounds": configs.data_config.y_bounds, "x_bounds": configs.data_config.x_bounds}
    bad = [f"{name}={value!r}" for name, value in bounds.items() if not 0.0 <= value[0] < value[1] <= 1.0]
    if bad:
        raise ConfigError(
            "Bounds must be two shares of the scan's extent.",
            expected="0 ≤ low < high ≤ 1",
            received=f"DataConfig.{', '.join(bad)}",
            fix="use (0.0, 1.0) for the whole scan",
        )
    low, high = scan.positions_px.min(axis=0), scan.positions_px.max(axis=0)
    first, last = (low + (high - low) * edge for edge in np.array(list(bounds.values())).T)
    inside = np.all((scan.positions_px >= first) & (scan.positions_px <= last), axis=1)
    needed = configs.settings.training.model.channels
    if inside.sum() < needed:
        raise DataError(
            "The bounds must leave enough positions for a group.",
            expected=f"{needed} positions or more in '{scan.source}'",
            received=f"{inside.sum()} of {len(scan)} within DataConfig."
            + ", ".join(f"{k}={v}" for k, v in bounds.items()),
            fix="widen x_bounds and y_bounds, for example to (0.0, 1.0), or lower C and grid_size",
        )
    return scan if inside.all() else scan.subset(np.flatnonzero(inside))


def _check_neighbours(scans: Sequence[Scan], configs: ConfigManager) -> None:
    """Raise a DataError for scans too small to contain the neighbours of their positions."""
    training = configs.settings.training
    needed = 1 + max(training.neighbor_count, training.model.channels - 1) if training.model.gridsize > 1 else 1
    small = [f"{len(scan)} in '{scan.source}'" for scan in scans if len(scan) < needed]
    if small:
        raise DataError(
            "Each of several scans must hold the neighbours of its positions.",
            expected=f"{needed} positions or more, because K={training.neighbor_count}",
            received=", ".join(small),
            fix="lower K, widen x_bounds and y_bounds, or leave the small scan out",
        )
