"""Reconstructed image in scan coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WELL_COVERED = 0.25  # of the largest coverage


@dataclass(frozen=True, eq=False)
class Experiment:
    """
    Experiment as the solver found it, together with the object.

    Parameters
    ----------
    probe : complex64, shape (mode, y, x)
        Probe in the calibration's scale.
    positions_px : float64, shape (position, 2), (y, x)
        Fitted positions; those of the scan where they are not fitted.
    windows_px : float64, shape (position, 2), (y, x)
        Positions of the windows, from which the solver moved the probe: those of the scan, after its orientation and
        the correction of an affine error.
    scales : float64, shape (position,)
        Amplitude of each pattern over the calibration's; 1 where it is not fitted.
    background : float
        Normalised intensity that every pixel of every pattern contains; 0 where it is not fitted.
    unfitted : tuple of str
        "positions", "flux" or "background": fits that are switched off and needed.
    left_out : tuple of int
        Patterns that contradict all others and were left out during the iterations; nothing of them is fitted.
    orientation : str
        Orientation of the positions against those that were given (data 11).
    """

    probe: NDArray[np.complex64]
    positions_px: NDArray[np.float64]
    windows_px: NDArray[np.float64]
    scales: NDArray[np.float64]
    background: float = 0.0
    unfitted: tuple[str, ...] = ()
    left_out: tuple[int, ...] = ()
    orientation: str = "+y+x"

    @classmethod
    def given(cls, probe: NDArray[np.complex64], positions_px: NDArray[np.float64]) -> Experiment:
        """Return an experiment as the scan describes it, of which nothing is fitted."""
        return cls(probe, positions_px, positions_px, np.ones(len(positions_px)))


@dataclass(frozen=True, eq=False)
class Image:
    """
    Stitched image in scan coordinates.

    Parameters
    ----------
    obj : complex64, shape (y, x)
        Transmission function; 0 outside of the scan.
    coverage : float32, shape (y, x)
        Summed weights of the patterns that cover a pixel.
    origin_px : (float, float), (y, x)
        Scan coordinates of pixel (0, 0).
    experiment : Experiment, optional
        Probe, positions, flux and background of this image; None for an image that the solver did not make.
    """

    obj: NDArray[np.complex64]
    coverage: NDArray[np.float32]
    origin_px: tuple[float, float]
    experiment: Experiment | None = None


def well_covered(image: Image) -> Image:
    """Return the bounding rectangle of the well-covered part of an image; its rim is covered by few patterns."""
    covered = image.coverage > WELL_COVERED * image.coverage.max()
    if not covered.any():
        return image
    (top, bottom), (left, right) = (np.flatnonzero(covered.any(axis=axis))[[0, -1]] for axis in (1, 0))
    crop = slice(top, bottom + 1), slice(left, right + 1)
    origin = (image.origin_px[0] + float(top), image.origin_px[1] + float(left))
    return Image(image.obj[crop], image.coverage[crop], origin, image.experiment)
