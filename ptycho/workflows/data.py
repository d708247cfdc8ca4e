"""Loading and grouping of scans, with functions of the earlier TensorFlow package (spec: ptychodus_api_spec 4.14)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from ptycho import loader
from ptycho.config.config import TrainingConfig
from ptycho.loader import PtychoDataContainer
from ptycho.raw_data import RawData
from ptycho_backend.errors import DataError

Data = RawData | PtychoDataContainer
POSITION_FIELDS = ("xcoords", "ycoords", "xcoords_start", "ycoords_start", "diff3d", "scan_index")


def load_data(
    file_path: Path | str,
    n_images: int | None = None,
    n_subsample: int | None = None,
    flip_x: bool = False,
    flip_y: bool = False,
    swap_xy: bool = False,
    n_samples: int = 1,
    coord_scale: float = 1.0,
    subsample_seed: int | None = None,
) -> RawData:
    """
    Read a scan, flip or scale its coordinates, and draw some of its positions.

    Parameters
    ----------
    file_path : path
    n_images, n_subsample : int, optional
        Number of positions; `n_subsample` takes precedence.
    flip_x, flip_y, swap_xy : bool
        Change the sign of coordinates, or exchange them.
    n_samples : ignored
    coord_scale : float
    subsample_seed : int, optional

    Raises
    ------
    DataError
    """
    raw = RawData.from_file(file_path)
    size, n = n_subsample if n_subsample is not None else n_images, len(raw.xcoords)
    if size is not None and size < n:
        rows = np.sort(np.random.default_rng(subsample_seed or 0).choice(n, size, replace=False))
        raw = dataclasses.replace(raw, **{name: getattr(raw, name)[rows] for name in POSITION_FIELDS})
    for name, flip in (("xcoords", flip_x), ("ycoords", flip_y)):
        for key in (name, f"{name}_start"):
            setattr(raw, key, getattr(raw, key) * (-coord_scale if flip else coord_scale))
    if swap_xy:
        raw.xcoords, raw.ycoords = raw.ycoords, raw.xcoords
        raw.xcoords_start, raw.ycoords_start = raw.ycoords_start, raw.xcoords_start
    return raw


def create_ptycho_data_container(data: Data, config: TrainingConfig) -> PtychoDataContainer:
    """
    Return the grouped scan; a container is returned unchanged.

    Raises
    ------
    DataError
        For data of another type.
    """
    if isinstance(data, PtychoDataContainer):
        return data
    if not isinstance(data, RawData):
        raise DataError(
            "The data must be a scan.",
            expected="a RawData or a PtychoDataContainer",
            received=f"a {type(data).__name__}",
            fix="read the file with RawData.from_file(path)",
        )
    N = config.model.N or int(np.shape(data.diff3d)[-1])
    model = config.model
    dataset = data.generate_grouped_data(N, K=config.neighbor_count, gridsize=model.gridsize, seed=config.seed)
    return loader.load(lambda: dataset, data.probeGuess)
