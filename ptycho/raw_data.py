"""
A scan under the names that existing users know.

Notes
-----
Spec: ptychodus_api_spec 4.14.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho import params
from ptycho.grouped_data import GroupedData, draw_groups, grouped_arrays
from ptycho_backend.checks import check_size
from ptycho_backend.config import ModelConfig
from ptycho_backend.data.fields import from_window_middles, numbers, single_layer, stacked
from ptycho_backend.data.npz import npz_array
from ptycho_backend.data.readers import NPZ, load_scan
from ptycho_backend.data.scan import Measurement, Scan
from ptycho_backend.errors import ConfigError, nearest_name

GROUPING_STREAM = 3  # of random numbers: that of reconstruct(), so that both draw the same groups
UNUSED = ("dataset_path", "sequential_sampling", "enable_oversampling", "neighbor_pool_size")


@dataclass(eq=False)
class RawData:
    """
    Patterns, coordinates and probe as they come; :meth:`to_scan` checks them.

    Parameters
    ----------
    xcoords, ycoords : float, shape (position,), pixels of the object grid
        See `middles`.
    xcoords_start, ycoords_start : float, shape (position,), pixels
        Coordinates before a correction; passed on, never used.
    diff3d : any real dtype, shape (position, y, x)
        Counts where every value is an integer, else amplitude, unless `measurement` says it.
    probeGuess : complex, shape (mode, y, x), (y, x) or (y, x, 1)
    scan_index : int, shape (position,), optional
    objectGuess : complex, shape (y, x), optional
        Labels where a training needs them; an empty one counts as none.
    bad_pixels : bool, shape (y, x), optional
    measurement : {"counts", "amplitude"}, optional
    obj_origin_px : (float, float), (y, x)
        Scan coordinates of the object's pixel (0, 0).
    source : str
    middles : bool
        Coordinates say where the windows' middles fall, (N − 1)/2, as ptychodus counts; False: where pixel
        ``[N//2, N//2]`` falls, as a Scan counts. The two differ by half a pixel.
    """

    xcoords: NDArray[Any]
    ycoords: NDArray[Any]
    xcoords_start: NDArray[Any]
    ycoords_start: NDArray[Any]
    diff3d: NDArray[Any]
    probeGuess: NDArray[Any]
    scan_index: NDArray[Any] | None = None
    objectGuess: NDArray[Any] | None = None
    bad_pixels: NDArray[Any] | None = None
    measurement: Measurement | None = None
    obj_origin_px: tuple[float, float] = (0.0, 0.0)
    source: str = "memory"
    middles: bool = True

    @classmethod
    def from_coords(cls, *values: Any, **fields: Any) -> RawData:
        """Build from all fields, with start coordinates, in the order of the class."""
        return cls(*values, **fields)

    @classmethod
    def from_coords_without_pc(
        cls, xcoords: Any, ycoords: Any, diff3d: Any, probeGuess: Any, scan_index: Any = None, objectGuess: Any = None
    ) -> RawData:
        """Build from coordinates that were not corrected: they are the start coordinates too."""
        return cls(xcoords, ycoords, xcoords, ycoords, diff3d, probeGuess, scan_index, objectGuess)

    @classmethod
    def from_file(cls, train_data_file_path: Path | str) -> RawData:
        """
        Read a file that :func:`ptycho_backend.load_scan` reads.

        Coordinates of an NPZ file are those of windows' middles, unless this package has written it, which its key
        "measurement" shows.

        Raises
        ------
        DataError
        """
        path = Path(train_data_file_path)
        is_npz = path.suffix.lower() in NPZ
        raw = cls.from_scan(load_scan(path))
        raw.middles = is_npz and npz_array(path, "measurement") is None
        for name in ("xcoords_start", "ycoords_start", "scan_index") if is_npz else ():
            found = npz_array(path, name)
            if found is not None and found.size >= len(raw.xcoords):
                setattr(raw, name, numbers(found, name, raw.source).ravel()[: len(raw.xcoords)])
        return raw

    @classmethod
    def from_scan(cls, scan: Scan) -> RawData:
        """Show a scan under the older names."""
        y, x = scan.positions_px.T
        return cls(
            *(x, y, x, y, scan.patterns, scan.probe),
            scan_index=np.zeros(len(scan), dtype=int),
            objectGuess=scan.obj,
            bad_pixels=~scan.mask,
            measurement=scan.measurement,
            obj_origin_px=scan.obj_origin_px,
            source=scan.source,
            middles=False,
        )

    def to_scan(self) -> Scan:
        """
        Return the scan, checked.

        Raises
        ------
        DataError, ShapeError
        """
        obj = None if self.objectGuess is None else single_layer(self.objectGuess, "objectGuess", self.source)
        coordinates = stacked(self.ycoords, self.xcoords, ("ycoords", "xcoords"), self.source)
        return Scan(
            patterns=self.diff3d,
            positions_px=from_window_middles(coordinates, np.shape(self.diff3d)[-1]) if self.middles else coordinates,
            probe=self.probeGuess,
            measurement=self.measurement,  # type: ignore[arg-type]
            mask=None if self.bad_pixels is None else ~np.asarray(self.bad_pixels, dtype=bool),  # type: ignore[arg-type]
            obj=obj,
            obj_origin_px=self.obj_origin_px,
            source=self.source,
        )

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
            Options of earlier releases about caching and sampling; they have no effect.

        Returns
        -------
        dict
            "X_full" and "diffraction" (B, N, N, C): normalised amplitude, and patterns as they came. "Y": patches of
            `objectGuess`, or None. "coords_nn" (B, 1, 2, C): coordinates, **x before y**; "coords_offsets"
            (B, 1, 2, 1): their mean, where the group lies; "coords_relative" (B, 1, 2, C): **mean minus member**. The
            same three of the start coordinates. "nn_indices" (B, C). "objectGuess".

        Raises
        ------
        ShapeError, DataError
        """
        _refuse_unknown(unused)
        scan = self.to_scan()
        check_size(ModelConfig(N=N), scan)
        rng = np.random.default_rng([seed or 0, GROUPING_STREAM])
        gridsize = int(params.get("gridsize", 1)) if gridsize is None else gridsize
        return grouped_arrays(self, scan, draw_groups(scan, gridsize, K, nsamples, rng))


def _refuse_unknown(options: dict[str, Any]) -> None:
    unknown = [name for name in options if name not in UNUSED]
    if unknown:
        raise ConfigError(
            "generate_grouped_data() knows its options.",
            expected=f"N, K, nsamples, gridsize, seed; {', '.join(UNUSED)} are accepted without effect",
            received=", ".join(unknown),
            fix=f"did you mean {nearest_name(unknown[0], ('nsamples', 'gridsize', 'seed', *UNUSED)) or 'seed'!r}?",
        )
