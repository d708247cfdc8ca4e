"""
Scan geometry: whole-pixel windows on a canvas, and Fourier-shifted probes for the sub-pixel rest (spec: physics 8.2).

The object is not interpolated. A Fourier shift is exact for a probe that fits its window.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ptycho_backend.data.image import Image
from ptycho_backend.data.scan import Scan
from ptycho_backend.physics.translation import fourier_shift_ramps
from ptycho_backend.solver.canvas import check_canvas

AXES = (-2, -1)
Rows = slice | NDArray[np.intp]


@dataclass(frozen=True)
class CanvasFrame:
    """Shape of a canvas and scan coordinates of its pixel (0, 0)."""

    shape: tuple[int, int]
    origin_px: tuple[float, float]

    @staticmethod
    def around(positions_px: NDArray[np.float64], N: int, centre_px: tuple[float, float] | None = None) -> CanvasFrame:
        """
        Return the smallest canvas that contains every window.

        Its centre is `centre_px`, by default the midpoint of the positions' bounding box.
        Along an axis of n pixels the centre is pixel (n − 1)/2.
        """
        low, high = positions_px.min(axis=0), positions_px.max(axis=0)
        centre, extent = (low + high) / 2, high - low
        if centre_px is not None:
            centre = np.asarray(centre_px, dtype=np.float64)
            extent = 2 * np.maximum(high - centre, centre - low)
        shape = np.ceil(extent).astype(int) + N + 1
        origin = centre - (shape - 1) / 2
        return CanvasFrame((int(shape[0]), int(shape[1])), (float(origin[0]), float(origin[1])))

    def corners(self, positions_px: NDArray[np.float64], N: int) -> NDArray[np.float64]:
        """Return the canvas coordinates of pixel (0, 0) of each window, rounded to 1e-6 pixels."""
        # Without rounding, the outermost window can lie 1e-16 pixels outside its canvas.
        return np.round(positions_px - N // 2 - np.asarray(self.origin_px), 6)


class ScanGeometry:
    """
    Geometry of a scan: canvas, window corners, and sub-pixel shifts.

    Parameters
    ----------
    scan : Scan

    Attributes
    ----------
    frame : CanvasFrame
    corners_px : int, shape (position, 2)
        Canvas coordinates of pixel (0, 0) of each window.

    Raises
    ------
    DataError
        If the canvas is too large for the memory, or stray positions enlarge it.
    """

    def __init__(self, scan: Scan) -> None:
        check_canvas(scan)
        self.N = scan.N
        self.frame = CanvasFrame.around(scan.positions_px, scan.N)
        corners = self.frame.corners(scan.positions_px, scan.N)
        self.corners_px = np.rint(corners).astype(int)
        self._fraction_px = corners - self.corners_px

    def part(self, rows: Rows) -> ScanGeometry:
        """Return the geometry of some positions, on the same canvas."""
        part = copy.copy(self)
        part.corners_px, part._fraction_px = self.corners_px[rows], self._fraction_px[rows]
        return part

    def moved(self, step_px: NDArray[np.float64]) -> ScanGeometry:
        """Return the geometry with probes moved by `step_px` (position, 2), on the same canvas and windows."""
        moved = copy.copy(self)
        moved._fraction_px = self._fraction_px + step_px
        return moved

    @property
    def canvas_shape(self) -> tuple[int, int]:
        """Shape of the canvas: one row and column more than the frame, so that rounded corners stay inside."""
        height, width = self.frame.shape
        return height + 1, width + 1

    @property
    def shifts_px(self) -> NDArray[np.float64]:
        """Sub-pixel rest of each position, shape (position, 2)."""
        return self._fraction_px

    def canvas(self, start: Image | None = None) -> NDArray[np.complex64]:
        """Return an object of 1 on the canvas; `start` replaces the pixels that it covers, to the nearest pixel."""
        canvas = np.ones(self.canvas_shape, dtype=np.complex64)
        if start is None:
            return canvas
        shift = np.rint(np.asarray(start.origin_px) - np.asarray(self.frame.origin_px)).astype(int)
        low = np.maximum(shift, 0)
        high = np.minimum(shift + start.obj.shape, canvas.shape)
        inner = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        outer = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, shift, strict=True))
        canvas[inner] = np.where(start.coverage[outer] > 0, start.obj[outer], canvas[inner])
        return canvas

    def shift_ramps(self, rows: Rows) -> NDArray[np.complex64]:
        """Return the Fourier factors (position, 1, y, x) that shift a probe to the positions `rows`."""
        # Computed at each call: for all positions of a large scan they take too much memory.
        along_y, along_x = shift_ramps(self._fraction_px[rows], self.N)
        return np.asarray(along_y[:, None, :, None] * along_x[:, None, None, :])

    def window_count(self, half_px: int) -> NDArray[np.float32]:
        """Return the number of squares of side 2·half around the windows' centres that contain each canvas pixel."""
        height, width = self.canvas_shape
        changes = np.zeros((height + 1, width + 1))
        first = self.corners_px + self.N // 2 - half_px
        for sign, (down, right) in zip((1, -1, -1, 1), ((0, 0), (1, 0), (0, 1), (1, 1)), strict=True):
            corner = first + 2 * half_px * np.array([down, right])
            np.add.at(changes, tuple(np.clip(corner, 0, [height, width]).T), sign)
        return changes.cumsum(axis=0).cumsum(axis=1)[:height, :width].astype(np.float32)

    def shifted_probes(self, spectrum: NDArray[np.complex64], rows: Rows) -> NDArray[np.complex64]:
        """Return the probe with this spectrum (mode, y, x) at the positions `rows`: (position, mode, y, x)."""
        return np.asarray(scipy.fft.ifft2(spectrum * self.shift_ramps(rows), axes=AXES, norm="ortho", overwrite_x=True))

    def intensities(self, canvas: NDArray[np.complex64], spectrum: NDArray[np.complex64], rows: Rows) -> Any:
        """Return the far-field intensities (position, y, x) of an object and a probe with this spectrum, centred."""
        waves = self.shifted_probes(spectrum, rows) * self.extract_patches(canvas, rows)
        far_field = scipy.fft.fft2(waves, axes=AXES, norm="ortho", overwrite_x=True)
        return np.fft.fftshift(sum_modes(abs2(far_field)), axes=AXES).astype(np.float64)

    def extract_patches(self, canvas: NDArray[Any], rows: Rows) -> NDArray[Any]:
        """Return copies (position, 1, y, x) of the canvas under the windows `rows`."""
        windows = np.lib.stride_tricks.sliding_window_view(canvas, (self.N, self.N))
        y, x = self.corners_px[rows].T
        return np.asarray(windows[y, x][:, None])

    def scatter_add(self, canvas: NDArray[Any], values: NDArray[Any], rows: Rows) -> None:
        """Add values (position, y, x) to the canvas, in order: adjoint of :meth:`extract_patches`."""
        N = self.N
        for (y, x), value in zip(self.corners_px[rows].tolist(), values, strict=True):
            canvas[y : y + N, x : x + N] += value


def shift_ramps(shift_px: NDArray[np.float64], N: int) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """Return the Fourier factors (position, N) along y and along x that shift a probe."""
    ramps = fourier_shift_ramps(shift_px, N, np.complex64)
    if N % 2 == 0:
        # The Nyquist frequency has no sign: the mean of both signs is the cosine.
        ramps[:, :, N // 2] = np.cos(np.pi * shift_px)
    return ramps[:, 0], ramps[:, 1]


def shift_slopes(ramp: NDArray[np.complex64], shift_px: NDArray[np.float64]) -> NDArray[np.complex64]:
    """Return the derivative (position, N) of the Fourier factors along one axis by the shift (position), in pixels."""
    N = ramp.shape[-1]
    slope = -2j * np.pi * np.fft.fftfreq(N) * ramp
    if N % 2 == 0:
        slope[:, N // 2] = -np.pi * np.sin(np.pi * shift_px)
    return slope.astype(np.complex64)


def spectrum_of(probe: NDArray[Any]) -> NDArray[np.complex64]:
    """Return the spectrum (mode, y, x) of a centred probe, in the FFT's own frequency order."""
    return np.asarray(scipy.fft.fft2(np.asarray(probe, dtype=np.complex64), axes=AXES, norm="ortho"))


def probe_of(spectrum: NDArray[Any]) -> NDArray[np.complex64]:
    """Return the centred probe (mode, y, x) of a spectrum."""
    return np.asarray(scipy.fft.ifft2(spectrum, axes=AXES, norm="ortho"), dtype=np.complex64)


def shifted_probe(probe: NDArray[Any], shift_px: NDArray[np.float64]) -> NDArray[np.complex64]:
    """Return a centred probe (mode, y, x) shifted by (y, x) pixels."""
    along_y, along_x = shift_ramps(np.asarray(shift_px, dtype=np.float64)[None], probe.shape[-1])
    return probe_of(spectrum_of(probe) * along_y[0][:, None] * along_x[0])


def sum_modes(values: NDArray[Any]) -> NDArray[Any]:
    """Return the sum of all modes of (position, mode, y, x); a view if there is one mode."""
    return values[:, 0] if values.shape[1] == 1 else np.asarray(values.sum(axis=1))


def abs2(wave: NDArray[Any]) -> NDArray[Any]:
    """Return |wave|²."""
    return np.asarray(wave.real**2 + wave.imag**2)
