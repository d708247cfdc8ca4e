"""Reconstructed images in scan coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WELL_COVERED = 0.25  # of the largest coverage


@dataclass(frozen=True, eq=False)
class Image:
    """
    A stitched image in scan coordinates.

    Parameters
    ----------
    obj : complex64, shape (y, x)
        Transmission function; 0 where nothing was measured.
    coverage : float32, shape (y, x)
        Summed weights: how much measured evidence a pixel has, 0 for none.
    origin_px : (float, float), (y, x)
        Scan coordinates of pixel (0, 0).
    """

    obj: NDArray[np.complex64]
    coverage: NDArray[np.float32]
    origin_px: tuple[float, float]


def well_covered(image: Image) -> Image:
    """Return the part of an image, a rectangle, that many patterns have seen: the rim holds little evidence."""
    seen = image.coverage > WELL_COVERED * image.coverage.max()
    if not seen.any():
        return image
    (top, bottom), (left, right) = (np.flatnonzero(seen.any(axis=axis))[[0, -1]] for axis in (1, 0))
    cut = slice(top, bottom + 1), slice(left, right + 1)
    origin = (image.origin_px[0] + float(top), image.origin_px[1] + float(left))
    return Image(image.obj[cut], image.coverage[cut], origin)
