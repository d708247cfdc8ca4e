"""
Helpers that all pictures share: figures, files, colour maps, axes in scan coordinates (spec: metrics 7).

Neither pyplot nor a global setting of matplotlib is used. Pictures can be drawn in threads, next to the plots of a
host application.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.output import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure

Real = NDArray[np.float64]
Extent = tuple[float, float, float, float]
Limits = tuple[float, float]

DPI = 150
ROBUST_PERCENT = (0.5, 99.5)  # a few wild pixels at the rim must not set the grey scale
NO_DATA = "#d9d9d9"
HIGHLIGHT = "tab:red"
SMALL, NORMAL, LARGE = 8, 9, 11


def new_figure(width: float, height: float, title: str) -> Figure:
    """Return an empty figure, in inches, outside of pyplot's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=LARGE)
    return figure


def write_figure(figure: Figure, path: Path | str) -> None:
    """Write a figure as a PNG file, whole or not at all."""
    with atomic_path(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=DPI)


def extent_of(
    shape: tuple[int, ...], origin_px: tuple[float, float], pixel_size_m: tuple[float, float] | None
) -> tuple[Extent, str]:
    """Return left, right, bottom, top of an image in scan coordinates, and their unit."""
    scale, unit = (1.0, 1.0), "px"
    if pixel_size_m is not None:
        span_m = max(n * size for n, size in zip(shape, pixel_size_m, strict=True))
        factor, unit = (1e6, "µm") if span_m >= 1e-6 else (1e9, "nm")
        scale = (pixel_size_m[0] * factor, pixel_size_m[1] * factor)
    # Integer coordinates are pixel centres, so the picture begins half a pixel before.
    low = [(o - 0.5) * s for o, s in zip(origin_px, scale, strict=True)]
    high = [(o - 0.5 + n) * s for o, n, s in zip(origin_px, shape, scale, strict=True)]
    return (low[1], high[1], high[0], low[0]), unit


def robust_limits(values: Real) -> Limits:
    """Return the 0.5th and 99.5th percentile of the finite values: the ends of a grey scale."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(finite, ROBUST_PERCENT))
    return (low, high) if high - low > 1e-9 else (low - 0.5, high + 0.5)


def draw_map(axes: Axes, values: Real, extent: Extent, colours: str, limits: Limits) -> Axes:
    """Draw a map with its colour bar; values that are not finite stay light grey."""
    import matplotlib

    colormap = matplotlib.colormaps[colours].with_extremes(bad=NO_DATA)
    low, high = limits
    image = axes.imshow(values, cmap=colormap, vmin=low, vmax=high, extent=extent, interpolation="nearest")
    add_colour_bar(axes, image)
    axes.tick_params(labelsize=SMALL)
    return axes


def add_colour_bar(axes: Axes, mappable: Any) -> Colorbar:
    """Add the colour bar of an image or of markers to the right of its axes."""
    bar = axes.figure.colorbar(mappable, ax=axes, fraction=0.046, pad=0.02)
    bar.ax.tick_params(labelsize=SMALL, which="both")
    return bar


def draw_ring_correlation(axes: Axes, frequency: Real, correlation: Real, crossing: float, level: float) -> Axes:
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
    """
    axes.plot(frequency, correlation, color="tab:blue", linewidth=1.6)
    axes.axhline(level, color="0.5", linestyle="--", linewidth=1)
    axes.axvline(crossing, color=HIGHLIGHT, linestyle=":", linewidth=1.4)
    axes.set(xlim=(0, 1), ylim=(min(-0.05, float(correlation.min())), 1.05))
    axes.set_xlabel("spatial frequency, fraction of Nyquist", fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    axes.grid(alpha=0.25)
    return axes


def label_axes(axes: Axes, unit: str) -> Axes:
    """Label the axes of a map with x, y and their unit."""
    axes.set_xlabel(f"x, {unit}", fontsize=SMALL)
    axes.set_ylabel(f"y, {unit}", fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    return axes
