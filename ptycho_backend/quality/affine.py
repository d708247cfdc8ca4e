"""Affine part of fitted positions: scale, rotation and shear, as errors of unit, axes or stage cause (metrics 8.9)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class AffinePart:
    """
    Common part of the steps from given to fitted positions.

    Parameters
    ----------
    scale_percent : (float, float), (y, x)
        Growth of the scan along each axis.
    rotation_deg : float
        From y towards x.
    shear_deg : float
        Change of the angle between the axes.
    rest_px : float
        Root mean square of what is not affine.
    """

    scale_percent: tuple[float, float]
    rotation_deg: float
    shear_deg: float
    rest_px: float

    def text(self) -> str:
        """Return the figures in words."""
        y, x = self.scale_percent
        return (
            f"scale {y:+.2f} % along y and {x:+.2f} % along x, rotation {self.rotation_deg:+.2f}°, "
            f"shear {self.shear_deg:+.2f}°; rest {self.rest_px:.2g} px"
        )


def affine_part(given_px: NDArray[np.float64], fitted_px: NDArray[np.float64]) -> AffinePart | None:
    """
    Return the least-squares affine part of the steps; None for positions on a line, or fewer than three.

    Parameters
    ----------
    given_px, fitted_px : float64, shape (position, 2), (y, x)
    """
    given, fitted = (each - each.mean(axis=0) for each in (given_px, fitted_px))
    if np.linalg.matrix_rank(given) < 2:
        return None
    matrix = np.linalg.lstsq(given, fitted, rcond=None)[0].T  # fitted = matrix @ given
    along_y, along_x = matrix[:, 0], matrix[:, 1]  # what the two axes become
    angle_y, angle_x = np.arctan2(along_y[1], along_y[0]), np.arctan2(-along_x[0], along_x[1])
    return AffinePart(
        scale_percent=(100 * float(np.hypot(*along_y) - 1), 100 * float(np.hypot(*along_x) - 1)),
        rotation_deg=float(np.degrees((angle_y + angle_x) / 2)),
        shear_deg=float(np.degrees(angle_x - angle_y)),
        rest_px=float(np.sqrt(((fitted - given @ matrix.T) ** 2).sum(axis=1).mean())),
    )
