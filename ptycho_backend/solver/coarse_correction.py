"""
Coarse correction: the smooth phase and log amplitude of an object, from all patterns at once (spec: physics 9.4, 9.5).

Iterations over all patterns converge fast for detail and slowly for what varies over many probes, like relaxation for
a Poisson equation. Every pattern measures the slope of the smooth phase error under its probe. Cubic B-splines are
fitted to all slopes by one sparse least-squares solve, and the object is multiplied by what they give.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray

from ptycho_backend.physics.updates import PhaseSlopes

KNOTS_OF_N = 0.25  # spacing of the knots over the side of a pattern
RIDGE = 1e-4  # of the mean diagonal: holds knots that no pattern determines
SINGULAR = 1e-9  # of the trace: a pattern that does not determine a slope has no weight in it
LARGEST_LOG = 0.5  # of the amplitude factor
FLUX_ITERATIONS = 3  # of the variance of the scales
SMALLEST_VARIANCE = 1e-10  # of the scales
Real = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Correction:
    """
    Factor of the object, and the size of what it corrects.

    Parameters
    ----------
    factor : complex64, shape (y, x)
    phase_rad, log_amplitude : float
        Root mean square over the positions.
    scales : float64, shape (position,), optional
        New amplitude scales of the patterns, where they are fitted.
    """

    factor: NDArray[np.complex64]
    phase_rad: float
    log_amplitude: float
    scales: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class Flux:
    """
    Amplitude scales of the patterns that are fitted together with the object's amplitude.

    Parameters
    ----------
    scales : float64, shape (position,)
    noise_variance : float
        Variance of one measured amplitude.
    free_probe : bool
        The probe is fitted too. An error of its amplitude then adds the same slope to all patterns, and the slopes
        leave a ramp open: it is the object's.
    """

    scales: NDArray[np.float64]
    noise_variance: float
    free_probe: bool = False


def coarse_correction(slopes: PhaseSlopes, shape: tuple[int, int], N: int, flux: Flux | None = None) -> Correction:
    """
    Fit smooth phase and log amplitude to the slopes of all patterns.

    Parameters
    ----------
    slopes : PhaseSlopes
    shape : (int, int)
        Shape of the canvas.
    N : int
        Side of a pattern, pixels; knots stand N/4 apart.
    flux : Flux, optional
        Scales of the patterns, if these are fitted. A smooth factor of the object then explains the same as a smooth
        change of flux. The slopes of the log amplitude separate them, and scales stay small where slopes leave it
        open.
    """
    values, weights = _solved(slopes)
    splines = Splines(slopes.centres_px, shape, KNOTS_OF_N * N)
    along_y, along_x, at_centres = splines.rows(1, 0), splines.rows(0, 1), splines.rows(0, 0)
    phase = splines.fit([along_y, along_x], values[:, :2], weights[:, :2])
    if flux is None:
        logarithm, new_scales = splines.fit([at_centres], values[:, 4:], weights[:, 4:]), None
    else:
        matrices = [along_y, along_x, at_centres]
        data = (values[:, 2:], weights[:, 2:] / flux.noise_variance)
        logarithm, new_scales = _flux(splines, matrices, data, flux, slopes.centres_px)
    phase_rad, size = (float(np.sqrt(np.mean((at_centres @ knots) ** 2))) for knots in (phase, logarithm))
    log_amplitude = np.clip(splines.on_canvas(logarithm), -LARGEST_LOG, LARGEST_LOG)
    factor = np.exp(log_amplitude + 1j * splines.on_canvas(phase)).astype(np.complex64)
    return Correction(factor, phase_rad, size, new_scales)


def _flux(
    splines: Splines, matrices: list[Any], data: tuple[Real, Real], flux: Flux, points_px: Real
) -> tuple[Real, Real]:
    """
    Fit the log amplitude of the object and the scales of the patterns together.

    The sum of both is measured well at every position. The slopes measure the object's part. The scales have a
    normal distribution around 1, whose variance follows from them.
    """
    values, weights = data
    total = values[:, 2] + np.log(flux.scales)
    if flux.free_probe:
        design = np.hstack([np.ones((len(total), 1)), points_px])
        ramp = np.linalg.lstsq(design, total, rcond=None)[0][1:]
        means = (values[:, :2] * weights[:, :2]).sum(axis=0) / np.maximum(weights[:, :2].sum(axis=0), 1e-30)
        values = np.hstack([values[:, :2] + ramp - means, values[:, 2:]])
    variance, knots, rest = float(np.var(total)), np.zeros(0), total
    for _ in range(FLUX_ITERATIONS):
        scatter = 1 / (variance + 1 / weights[:, 2])
        targets = np.stack([values[:, 0], values[:, 1], total], axis=1)
        knots = splines.fit(matrices, targets, np.stack([weights[:, 0], weights[:, 1], scatter], axis=1))
        rest = total - matrices[2] @ knots
        rest = rest - rest.mean()
        variance = max(float(np.var(rest) - np.mean(1 / weights[:, 2])), SMALLEST_VARIANCE)
    return knots, np.exp(rest * variance / (variance + 1 / weights[:, 2]))


def _solved(slopes: PhaseSlopes) -> tuple[Real, Real]:
    """Return slopes and log amplitude of every pattern (position, 5), and their inverse variances over the noise's."""
    information = slopes.information
    trace = np.trace(information, axis1=1, axis2=2)[:, None, None]
    covariance = np.linalg.inv(information + (SINGULAR * trace + np.finfo(float).tiny) * np.eye(5))
    values = (covariance @ slopes.gradient[:, :, None])[..., 0]
    return values, 1.0 / np.maximum(np.diagonal(covariance, axis1=1, axis2=2), np.finfo(float).tiny)


class Splines:
    """
    Cubic B-splines on a canvas, and their values at points.

    Parameters
    ----------
    points_px : float64, shape (point, 2), (y, x)
    shape : (int, int)
        Shape of the canvas.
    spacing_px : float
        Distance of the knots.
    """

    def __init__(self, points_px: Real, shape: tuple[int, int], spacing_px: float) -> None:
        self._points, self._canvas, self._spacing = points_px, shape, spacing_px
        self._knots = tuple(int(np.ceil(side / spacing_px)) + 4 for side in shape)

    def rows(self, along_y: int, along_x: int) -> Any:
        """Return the sparse matrix (point, knot) of values, or of first derivatives along y or x, per pixel."""
        iy, wy = self._weights(self._points[:, 0], 0, along_y)
        ix, wx = self._weights(self._points[:, 1], 1, along_x)
        n = len(self._points)
        columns = (iy[:, :, None] * self._knots[1] + ix[:, None, :]).ravel()
        values = (wy[:, :, None] * wx[:, None, :]).ravel()
        shape = (n, self._knots[0] * self._knots[1])
        return scipy.sparse.csr_matrix((values, (np.repeat(np.arange(n), 16), columns)), shape=shape)

    def fit(self, matrices: list[Any], values: Real, weights: Real) -> Real:
        """Return the knots of the weighted least-squares fit; column k of `values` belongs to matrix k."""
        normal: Any = 0
        right: Any = 0
        for k, matrix in enumerate(matrices):
            weighted = scipy.sparse.diags(weights[:, k]) @ matrix
            normal, right = normal + matrix.T @ weighted, right + weighted.T @ values[:, k]
        ridge = RIDGE * float(normal.diagonal().mean())
        eye = scipy.sparse.identity(normal.shape[0], format="csc")
        return np.asarray(scipy.sparse.linalg.spsolve((normal + ridge * eye).tocsc(), right))

    def on_canvas(self, knots: Real) -> Real:
        """Return the spline on every pixel of the canvas."""
        y, x = (self._dense(axis) for axis in range(2))
        return np.asarray(y @ knots.reshape(self._knots) @ x.T)

    def _dense(self, axis: int) -> Real:
        index, weights = self._weights(np.arange(self._canvas[axis], dtype=np.float64), axis, 0)
        matrix = np.zeros((self._canvas[axis], self._knots[axis]))
        np.put_along_axis(matrix, index, weights, axis=1)
        return matrix

    def _weights(self, at_px: Real, axis: int, derivative: int) -> tuple[NDArray[np.intp], Real]:
        """Return the four knots around each coordinate, and their weights."""
        cell = np.clip(np.floor(at_px / self._spacing), 0, self._knots[axis] - 4)
        t = at_px / self._spacing - cell
        if derivative:
            parts = [-((1 - t) ** 2) / 2, (3 * t**2 - 4 * t) / 2, (-3 * t**2 + 2 * t + 1) / 2, t**2 / 2]
            scale = self._spacing
        else:
            parts = [(1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6]
            scale = 1.0
        return cell.astype(np.intp)[:, None] + np.arange(4), np.stack(parts, axis=1) / scale
