"""
Where every pattern looks at the canvas: a window of whole pixels, and a probe moved by the rest (spec: physics 8.2).

Nothing is interpolated: a Fourier shift is exact for a probe that fits its window, and the object keeps its pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ptycho_backend.data.image import Image
from ptycho_backend.data.scan import Scan

AXES = (-2, -1)
Rows = slice | NDArray[np.intp]


@dataclass(frozen=True)
class CanvasFrame:
    """Where a canvas lies: its shape and the scan coordinates of its pixel (0, 0)."""

    shape: tuple[int, int]
    origin_px: tuple[float, float]

    @staticmethod
    def around(positions_px: NDArray[np.float64], N: int, centre_px: tuple[float, float] | None = None) -> CanvasFrame:
        """
        Return the canvas that holds every window; its centre is `centre_px`, or else the bounding box's midpoint.

        The centre of a canvas of n pixels is (n − 1)/2, as clients map coordinates.
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
        """Return the canvas coordinates of pixel (0, 0) of each window, to a millionth of a pixel."""
        # Unrounded, the outermost window of a scan can come to lie 1e-16 outside its own canvas.
        return np.round(positions_px - N // 2 - np.asarray(self.origin_px), 6)


class ScanGeometry:
    """
    The geometry of a scan on its canvas.

    Parameters
    ----------
    scan : Scan

    Attributes
    ----------
    frame : CanvasFrame
    whole : int, shape (position, 2)
        Canvas coordinates of pixel (0, 0) of each window.
    """

    def __init__(self, scan: Scan) -> None:
        self.N = scan.N
        self.frame = CanvasFrame.around(scan.positions_px, scan.N)
        corners = self.frame.corners(scan.positions_px, scan.N)
        self.corners_px = np.rint(corners).astype(int)
        self._fraction = corners - self.corners_px

    def canvas(self, start: Image | None = None) -> NDArray[np.complex64]:
        """Return an object of 1 that holds every window, with an image laid on it by whole pixels."""
        canvas = np.ones(tuple(side + 1 for side in self.frame.shape), dtype=np.complex64)
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
        """Return the Fourier factors (position, 1, y, x) that move a probe to some positions."""
        # Made anew each time: for all positions of a large scan they would take N / 2 times the memory of these.
        along_y, along_x = shift_ramps(self._fraction[rows], self.N)
        return np.asarray(along_y[:, None, :, None] * along_x[:, None, None, :])

    def shifted_probes(self, spectrum: NDArray[np.complex64], rows: Rows) -> NDArray[np.complex64]:
        """Return the moved probes (position, mode, y, x) of a probe's spectrum (mode, y, x)."""
        return np.asarray(scipy.fft.ifft2(spectrum * self.shift_ramps(rows), axes=AXES, norm="ortho", overwrite_x=True))

    def extract_patches(self, canvas: NDArray[Any], rows: Rows) -> NDArray[Any]:
        """Return copies (position, 1, y, x) of the canvas under some geometry."""
        everywhere = np.lib.stride_tricks.sliding_window_view(canvas, (self.N, self.N))
        y, x = self.corners_px[rows].T
        return np.asarray(everywhere[y, x][:, None])

    def scatter_add(self, canvas: NDArray[Any], values: NDArray[Any], rows: Rows) -> None:
        """Add values (position, y, x) to the canvas, in the order of the positions; the adjoint of :meth:`cut`."""
        N = self.N
        for (y, x), value in zip(self.corners_px[rows].tolist(), values, strict=True):
            canvas[y : y + N, x : x + N] += value


def shift_ramps(fraction: NDArray[np.float64], N: int) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """Return the Fourier factors (position, N) along y and x that move a probe by a fraction of a pixel."""
    frequency = scipy.fft.fftfreq(N).astype(np.float32)
    both = np.exp(np.complex64(-2j * np.pi) * fraction.astype(np.float32)[:, :, None] * frequency)
    if N % 2 == 0:
        # The Nyquist component of a shifted real-frequency ramp is ambiguous in sign: take its mean, the cosine.
        both[:, :, N // 2] = np.cos(np.pi * fraction)
    return both[:, 0], both[:, 1]


def spectrum_of(probe: NDArray[Any]) -> NDArray[np.complex64]:
    """Return the spectrum (mode, y, x) of a centred probe, in the FFT's own order."""
    return np.asarray(scipy.fft.fft2(np.asarray(probe, dtype=np.complex64), axes=AXES, norm="ortho"))


def probe_of(spectrum: NDArray[Any]) -> NDArray[np.complex64]:
    """Return the centred probe (mode, y, x) of a spectrum."""
    return np.asarray(scipy.fft.ifft2(spectrum, axes=AXES, norm="ortho"), dtype=np.complex64)


def shifted_probe(probe: NDArray[Any], move_px: NDArray[np.float64]) -> NDArray[np.complex64]:
    """Return a centred probe (mode, y, x) moved by (y, x)."""
    along_y, along_x = shift_ramps(np.asarray(move_px, dtype=np.float64)[None], probe.shape[-1])
    return probe_of(spectrum_of(probe) * along_y[0][:, None] * along_x[0])


def sum_modes(values: NDArray[Any]) -> NDArray[Any]:
    """Sum (position, mode, y, x) over modes; a single one is not copied."""
    return values[:, 0] if values.shape[1] == 1 else np.asarray(values.sum(axis=1))


def abs2(wave: NDArray[Any]) -> NDArray[Any]:
    """Return |wave|²."""
    return np.asarray(wave.real**2 + wave.imag**2)
