"""
A scan under the names that existing users know.

Notes
-----
Spec: ptychodus_api_spec 4.14.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from ptycho import params
from ptycho.grouped_data import draw_groups, grouped_arrays
from ptycho.lazy_values import GroupedData
from ptycho.raw_inputs import RawFields, fields_of, npz_extras, refuse_unknown, scan_of
from ptycho_backend.checks import check_size
from ptycho_backend.config import ModelConfig
from ptycho_backend.data.readers import NPZ, load_scan
from ptycho_backend.data.scan import Scan

GROUPING_STREAM = 3  # of random numbers: that of reconstruct(), so that both draw the same groups


class RawData(RawFields):
    """Patterns, coordinates and probe as they come; :meth:`to_scan` checks them."""

    @classmethod
    def from_coords(cls, *values: Any, **fields: Any) -> RawData:
        """Build from all fields, in the order of the class."""
        return cls(*values, **fields)

    @classmethod
    def from_coords_without_pc(
        cls, xcoords: Any, ycoords: Any, diff3d: Any, probeGuess: Any, scan_index: Any = None, objectGuess: Any = None
    ) -> RawData:
        """
        Build from coordinates that were not corrected: they are the start coordinates too.

        A probe of shape (mode, y, x) is how ptychodus hands it over; its patterns are counts.
        """
        modes_first = np.ndim(probeGuess) == 3 and np.shape(probeGuess)[1:] == np.shape(diff3d)[1:]
        raw = cls(xcoords, ycoords, xcoords, ycoords, diff3d, probeGuess, scan_index, objectGuess)
        return dataclasses.replace(raw, measurement="counts") if modes_first else raw

    @classmethod
    def from_file(cls, train_data_file_path: Path | str) -> RawData:
        """
        Read a file that :func:`ptycho_backend.load_scan` reads.

        In an NPZ file that this package has not written, coordinates are those of windows' middles; where it holds
        "bad_pixels", ptychodus has written it, and patterns are counts.
        """
        path = Path(train_data_file_path)
        raw = cls.from_scan(load_scan(path))
        return dataclasses.replace(raw, **npz_extras(path, len(raw.xcoords))) if path.suffix.lower() in NPZ else raw

    @classmethod
    def from_scan(cls, scan: Scan) -> RawData:
        """Show a scan under the older names."""
        return cls(**fields_of(scan))

    def to_scan(self) -> Scan:
        """
        Return the scan, checked.

        Raises
        ------
        DataError, ShapeError
        """
        return scan_of(self)

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
            Nearest neighbours that members are drawn from; at least C − 1 are taken.
        nsamples : int
            Up to 16, groups for every position, so that 1 covers the scan; more, groups in all.
        gridsize : int, optional
            None takes that of `params.cfg`, else 1.
        seed : int, optional
        **unused
            Options of earlier releases; they have no effect.

        Returns
        -------
        dict
            See :func:`ptycho.grouped_data.grouped_arrays`.

        Raises
        ------
        ShapeError, DataError
        """
        refuse_unknown(unused)
        scan = self.to_scan()
        check_size(ModelConfig(N=N), scan)
        rng = np.random.default_rng([seed or 0, GROUPING_STREAM])
        gridsize = int(params.get("gridsize", 1)) if gridsize is None else gridsize
        return grouped_arrays(self, scan, draw_groups(scan, gridsize, K, nsamples, rng))
