"""Scan with the names of the earlier TensorFlow package (spec: ptychodus_api_spec 4.14)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from ptycho import params
from ptycho.grouped_data import draw_groups, grouped_arrays
from ptycho.lazy_values import GroupedData
from ptycho.raw_inputs import RawFields, check_options, fields_of, npz_extras, to_scan
from ptycho_backend.checks import check_size
from ptycho_backend.config import ModelConfig
from ptycho_backend.data.readers import NPZ, load_scan
from ptycho_backend.data.scan import Scan

GROUPING_STREAM = 3  # stream of random numbers in reconstruct(), so that both draw the same groups


class RawData(RawFields):
    """Unchecked patterns, coordinates and probe; :meth:`to_scan` checks them."""

    @classmethod
    def from_coords(cls, *values: Any, **fields: Any) -> RawData:
        """Build from all fields, in the order of the class."""
        return cls(*values, **fields)

    @classmethod
    def from_coords_without_pc(
        cls, xcoords: Any, ycoords: Any, diff3d: Any, probeGuess: Any, scan_index: Any = None, objectGuess: Any = None
    ) -> RawData:
        """
        Build from uncorrected coordinates, which are also the start coordinates.

        A probe of shape (mode, y, x) comes from ptychodus; its patterns are counts.
        """
        modes_first = np.ndim(probeGuess) == 3 and np.shape(probeGuess)[1:] == np.shape(diff3d)[1:]
        raw = cls(xcoords, ycoords, xcoords, ycoords, diff3d, probeGuess, scan_index, objectGuess)
        return dataclasses.replace(raw, measurement="counts") if modes_first else raw

    @classmethod
    def from_file(cls, train_data_file_path: Path | str) -> RawData:
        """
        Read a file in any format of :func:`ptycho_backend.load_scan`.

        In NPZ files of other programs, coordinates are those of windows' middles. Patterns are counts if the file
        holds "bad_pixels", the mark of ptychodus.
        """
        path = Path(train_data_file_path)
        raw = cls.from_scan(load_scan(path))
        return dataclasses.replace(raw, **npz_extras(path, len(raw.xcoords))) if path.suffix.lower() in NPZ else raw

    @classmethod
    def from_scan(cls, scan: Scan) -> RawData:
        """Return a scan with the older names."""
        return cls(**fields_of(scan))

    def to_scan(self) -> Scan:
        """
        Return the scan, checked.

        Raises
        ------
        DataError, ShapeError
        """
        return to_scan(self)

    def generate_grouped_data(
        self, N: int, K: int = 7, nsamples: int = 1, gridsize: int | None = None, seed: int | None = None, **unused: Any
    ) -> GroupedData:
        """
        Return groups of gridsize² neighbours as arrays, C = gridsize².

        Parameters
        ----------
        N : int
            Side of the patterns.
        K : int
            Number of nearest neighbours to draw members from; at least C − 1.
        nsamples : int
            Up to 16: groups per position, so that 1 covers the scan; more: total number of groups.
        gridsize : int, optional
            None selects the value in `params.cfg`, or else 1.
        seed : int, optional
        **unused
            Options of earlier releases without effect.

        Returns
        -------
        dict
            Arrays listed in :func:`ptycho.grouped_data.grouped_arrays`.

        Raises
        ------
        ShapeError, DataError
        """
        check_options(unused)
        scan = self.to_scan()
        check_size(ModelConfig(N=N), scan)
        rng = np.random.default_rng([seed or 0, GROUPING_STREAM])
        gridsize = int(params.get("gridsize", 1)) if gridsize is None else gridsize
        return grouped_arrays(self, scan, draw_groups(scan, gridsize, K, nsamples, rng))
