"""Pictures of a scan's positions: as given and as refined, and the residual of every pattern (spec: metrics 7.6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.plots import figures
from ptycho_backend.plots.figures import HIGHLIGHT, NORMAL, SMALL, Limits, Pair, Real, label_axes, scale_of
from ptycho_backend.plots.scale_bar import round_length
from ptycho_backend.runtime.quantities import length_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS_POINTS2 = 4.0e4  # summed area of all markers, points²: neighbours just touch
ARROW_SHARE = 0.9  # of the distance of neighbours: drawn length of a long arrow
MOVED_PX = 1e-6  # rounding errors are no moves
LONG_ARROW_PERCENT = 95  # percentile of the moves that is drawn with that length


def draw_positions(
    axes: Axes, given_px: Real, refined_px: Real | None = None, pixel_size_m: Pair | None = None
) -> Axes:
    """
    Draw the given positions as dots, and the moves to the refined ones as arrows.

    Short arrows are drawn longer by a round factor, which the title gives. The common move of all positions is left
    out: it moves the image only.

    Parameters
    ----------
    axes : Axes
    given_px, refined_px : float64, shape (position, 2), (y, x)
        None draws the given positions alone.
    pixel_size_m : (float, float), optional
        Object pixel (y, x), metres; None labels the axes in pixels.

    Returns
    -------
    Axes
        The given axes.
    """
    given = np.asarray(given_px, dtype=np.float64)
    scale, unit = scale_of(tuple(np.ptp(given, axis=0) + 1), pixel_size_m)
    y, x = (given * scale).T
    move_px = np.zeros_like(given) if refined_px is None else np.asarray(refined_px, dtype=np.float64) - given
    move_px = move_px - move_px.mean(axis=0)
    moved = bool(np.abs(move_px).max() > MOVED_PX)
    axes.scatter(x, y, s=max(1.0, (0.05 if moved else 0.1) * MARKERS_POINTS2 / len(given)), color="0.6", linewidths=0)
    if moved:
        factor = _arrow_factor(given, move_px)
        dy, dx = (move_px * scale * factor).T
        axes.quiver(x, y, dx, dy, angles="xy", scale_units="xy", scale=1, color="tab:blue", width=0.004, headwidth=4)
        title = f"Positions: moved by {_move_text(move_px, pixel_size_m)} (rms)"
        axes.set_title(f"{title}\narrows are {factor:g} times as long" if factor != 1 else title, fontsize=NORMAL)
    else:
        axes.set_title("Positions" if refined_px is None else "Positions: as given", fontsize=NORMAL)
    return _scan_axes(axes, unit)


def draw_residuals(
    axes: Axes,
    positions_px: Real,
    ratio: Real,
    outliers: Sequence[int] = (),
    pixel_size_m: Pair | None = None,
) -> Axes:
    """
    Draw the residual of every pattern over its shot noise, at its position.

    Parameters
    ----------
    axes : Axes
    positions_px : float64, shape (position, 2), (y, x)
    ratio : float64, shape (position,)
        Residual over shot-noise floor; 1 for a perfect image.
    outliers : sequence of int
        Patterns that get a ring.
    pixel_size_m : (float, float), optional
        Object pixel (y, x), metres; None labels the axes in pixels.

    Returns
    -------
    Axes
        The given axes.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    span = np.ceil(np.ptp(positions_px, axis=0)).astype(int) + 1
    scale, unit = scale_of(tuple(span), pixel_size_m)
    y, x = (np.asarray(positions_px) * scale).T
    low, high = residual_limits(ratio)
    size = max(4.0, MARKERS_POINTS2 / len(ratio))
    values, colours = np.maximum(ratio, 1e-3), LogNorm(low, high)
    markers = axes.scatter(x, y, s=size, c=values, cmap="viridis", norm=colours, linewidths=0)
    bar = figures.add_colour_bar(axes, markers)
    bar.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    bar.ax.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}") if high < 10 * low else NullFormatter())
    bar.set_label("residual over shot noise", fontsize=SMALL)
    ringed = list(outliers)
    axes.scatter(x[ringed], y[ringed], s=1.6 * size + 40, facecolors="none", edgecolors=HIGHLIGHT, linewidths=1.2)
    axes.set_title("Residual of each pattern", fontsize=NORMAL)
    return _scan_axes(axes, unit)


def _arrow_factor(given_px: Real, move_px: Real) -> float:
    """Return the round factor, at least 1, that makes long moves nearly as long as the distance of neighbours."""
    span = np.maximum(np.ptp(given_px, axis=0), 1.0)
    neighbours_px = float(np.sqrt(span[0] * span[1] / len(given_px)))
    long_px = float(np.percentile(np.hypot(*move_px.T), LONG_ARROW_PERCENT))
    return max(1.0, round_length(ARROW_SHARE * neighbours_px / max(long_px, MOVED_PX)))


def _move_text(move_px: Real, pixel_size_m: Pair | None) -> str:
    text = f"{_rms(move_px):.2g} px"
    if pixel_size_m is None:
        return text
    return f"{text}, {length_text(float(f'{_rms(move_px * np.array(pixel_size_m)):.3g}'))}"


def _rms(vectors: NDArray[Any]) -> float:
    return float(np.sqrt((vectors**2).sum(axis=1).mean()))


def _scan_axes(axes: Axes, unit: str) -> Axes:
    axes.set_aspect("equal")
    axes.margins(0.06)
    axes.invert_yaxis()
    return label_axes(axes, unit)


def residual_limits(ratio: Real) -> Limits:
    """Return the ends of a scale of residuals over noise, at least 1 and 2: noise must not look like structure."""
    low, high = (float(value) for value in np.percentile(ratio, (1, 99)))
    return min(max(1e-3, low), 1.0), max(high, 2.0)
