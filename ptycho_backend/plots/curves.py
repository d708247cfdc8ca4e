"""Curves of a reconstruction: Fourier ring correlation, and error over the iterations (spec: metrics 7.7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ptycho_backend.errors import DataError
from ptycho_backend.plots.figures import HIGHLIGHT, NORMAL, SMALL, Pair, Real
from ptycho_backend.runtime.quantities import RESOLVED_BY_HALVES, length_unit, resolution_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVELS = {RESOLVED_BY_HALVES: "1/7"}  # names of levels that are no short decimal


def draw_ring_correlation(
    axes: Axes,
    frequency: Real,
    correlation: Real,
    crossing: float,
    level: float = RESOLVED_BY_HALVES,
    pixel_size_m: Pair | None = None,
) -> Axes:
    """
    Draw a Fourier ring correlation, the level that counts as resolved, and its first crossing.

    Parameters
    ----------
    axes : Axes
    frequency, correlation : float64, shape (ring,)
        Frequency as a fraction of Nyquist.
    crossing : float
        Frequency of the first crossing; 1 for none.
    level : float
    pixel_size_m : (float, float), optional
        Object pixel (y, x), metres; with it the upper axis gives the frequency as the inverse of a length.

    Returns
    -------
    Axes
        The given axes; the title gives the crossing.

    Notes
    -----
    Spec: metrics 5.3, 7.7. For sides of different length the longer one counts.
    """
    name = LEVELS.get(level, f"{level:g}")
    axes.plot(frequency, correlation, color="tab:blue", linewidth=1.6)
    axes.axhline(level, color="0.5", linestyle="--", linewidth=1)
    axes.axvline(crossing, color=HIGHLIGHT, linestyle=":", linewidth=1.4)
    axes.text(0.01, level + 0.015, name, fontsize=SMALL, color="0.4")
    axes.set(xlim=(0, 1), ylim=(min(-0.05, float(np.min(correlation))), 1.05))
    axes.set_xlabel("spatial frequency, fraction of Nyquist", fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    axes.grid(alpha=0.25)
    if pixel_size_m is not None:
        _add_frequency_axis(axes, 2 * max(pixel_size_m))
    start = f"{name} at" if crossing < 1 else f"never below {name}, up to"
    axes.set_title(f"Fourier ring correlation\n{start} {resolution_text(crossing, pixel_size_m)}", fontsize=NORMAL)
    return axes


def draw_errors(axes: Axes, errors: Sequence[float], floor: float | None = None) -> Axes:
    """
    Draw the error of a reconstruction over its iterations.

    Parameters
    ----------
    axes : Axes
    errors : sequence of float
        One per iteration.
    floor : float, optional
        Error that photon noise alone causes.

    Returns
    -------
    Axes
        The given axes; logarithmic if every error is above 0.

    Raises
    ------
    DataError
        If there is no error.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    values = np.asarray(errors, dtype=np.float64)
    if values.size == 0:
        raise DataError(
            "A history of errors has one error per iteration.",
            expected="at least one number",
            received="an empty sequence",
            fix="draw the errors of an image that the solver made",
        )
    axes.plot(np.arange(1, len(values) + 1), values, marker="o", markersize=3, linewidth=1.6, color="tab:blue")
    if floor is not None:
        axes.axhline(floor, color="0.35", linestyle=":", linewidth=1.2)
        axes.text(len(values), floor, "shot noise", fontsize=SMALL, color="0.35", ha="right", va="bottom")
    finite = values[np.isfinite(values)]
    if finite.size and (finite > 0).all():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("iteration", fontsize=SMALL)
    axes.set_ylabel("error", fontsize=SMALL)
    axes.tick_params(labelsize=SMALL, which="both")
    axes.grid(alpha=0.25, which="both")
    return axes


def _add_frequency_axis(axes: Axes, shortest_period_m: float) -> None:
    """Add an upper axis in inverse lengths; the shortest period is that of Nyquist."""
    unit, size_m = length_unit(shortest_period_m)
    nyquist = size_m / shortest_period_m
    both_ways = (lambda fraction: np.asarray(fraction) * nyquist, lambda inverse: np.asarray(inverse) / nyquist)
    upper = axes.secondary_xaxis("top", functions=both_ways)
    upper.set_xlabel(f"1/{unit}", fontsize=SMALL)
    upper.tick_params(labelsize=SMALL)
