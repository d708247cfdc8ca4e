"""
The reconstruction problem: a scan's amplitudes, mask and geometry, in the scale of its calibration.

It is built once per scan and handed to the solver, which hands it to the kernels of an engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.scan import Scan
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.solver.scan_geometry import AXES, Rows, ScanGeometry


@dataclass(frozen=True, eq=False)
class Problem:
    """
    Data of an iterative reconstruction.

    Parameters
    ----------
    scan : Scan
        Its patterns may be mapped from a file; they are read chunk by chunk.
    calibration : Calibration
        Scale of the data, and the probe.
    geometry : ScanGeometry
    """

    scan: Scan
    calibration: Calibration
    geometry: ScanGeometry

    @staticmethod
    def of(scan: Scan, calibration: Calibration) -> Problem:
        """Build the problem of a scan."""
        return Problem(scan, calibration, ScanGeometry(scan))

    def part(self, rows: Rows) -> Problem:
        """Return the problem of some positions, on the canvas of all; its patterns are a view."""
        return Problem(self.scan.subset(rows), self.calibration, self.geometry.part(rows))

    def __len__(self) -> int:
        return len(self.scan)

    @property
    def N(self) -> int:
        """Side of a pattern, pixels."""
        return self.scan.N

    @cached_property
    def good(self) -> NDArray[np.float32] | None:
        """Mask (y, x) in the order of the FFT, 1 for good pixels; None where all are good."""
        return None if self.scan.mask.all() else np.fft.ifftshift(self.scan.mask).astype(np.float32)

    @property
    def good_pixels(self) -> int:
        """Number of good pixels of a pattern."""
        return int(self.scan.mask.sum())

    def amplitudes(self, rows: Rows) -> NDArray[np.float32]:
        """Return normalised amplitudes (position, y, x) in the order of the FFT, 0 on bad pixels."""
        x = np.fft.ifftshift(self.scan.amplitude(rows), axes=AXES) * np.float32(self.calibration.rms_input_scale)
        good = self.good
        return x if good is None else x * good
