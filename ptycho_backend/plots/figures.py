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
from ptycho_backend.runtime.quantities import length_unit, photons_text, pixel_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure

Real = NDArray[np.float64]
Extent = tuple[float, float, float, float]
Limits = tuple[float, float]
Pair = tuple[float, float]

DPI = 150
ROBUST_PERCENT = (0.5, 99.5)  # a few wild pixels at the rim must not set the grey scale
NO_DATA = "#d9d9d9"
HIGHLIGHT = "tab:red"
SMALL, NORMAL, LARGE = 8, 9, 11
PIXELS = "px"


def new_figure(width: float, height: float, title: str) -> Figure:
    """Return an empty figure, in inches, outside of pyplot's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=LARGE, parse_math=False)  # names of files may contain $
    return figure


def write_figure(figure: Figure, path: Path | str) -> None:
    """Write a figure as a PNG file, whole or not at all."""
    with atomic_path(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=DPI)


def title_of(name: str, pixel_size_m: Pair | None = None, photons_per_pattern: float | None = None) -> str:
    """
    Return the title of a picture: name of the scan, object pixel and dose.

    Parameters
    ----------
    name : str
    pixel_size_m : (float, float), optional
        (y, x), metres.
    photons_per_pattern : float, optional
        Mean number of photons in a pattern.
    """
    parts = [name]
    if pixel_size_m is not None:
        parts.append(f"pixel {pixel_text(pixel_size_m)}")
    if photons_per_pattern is not None:
        parts.append(f"{photons_text(photons_per_pattern)} photons per pattern")
    return " · ".join(part for part in parts if part)


def scale_of(span_px: tuple[float, ...], pixel_size_m: Pair | None) -> tuple[Pair, str]:
    """Return the size (y, x) of a pixel in the unit of the axes of a picture, and this unit: µm, nm, … or px."""
    if pixel_size_m is None:
        return (1.0, 1.0), PIXELS
    unit, size_m = length_unit(max(n * size for n, size in zip(span_px, pixel_size_m, strict=True)))
    return (pixel_size_m[0] / size_m, pixel_size_m[1] / size_m), unit


def extent_of(shape: tuple[int, ...], origin_px: Pair, pixel_size_m: Pair | None) -> tuple[Extent, str]:
    """Return left, right, bottom, top of an image in scan coordinates, and their unit."""
    scale, unit = scale_of(shape, pixel_size_m)
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


def draw_map(axes: Axes, values: Real, extent: Extent, colours: str, limits: Limits) -> Colorbar:
    """Draw a map with its colour bar, and return the bar; values that are not finite stay light grey."""
    import matplotlib

    colormap = matplotlib.colormaps[colours].with_extremes(bad=NO_DATA)
    low, high = limits
    image = axes.imshow(values, cmap=colormap, vmin=low, vmax=high, extent=extent, interpolation="nearest")
    axes.tick_params(labelsize=SMALL)
    return add_colour_bar(axes, image)


def add_colour_bar(axes: Axes, mappable: Any) -> Colorbar:
    """Add the colour bar of an image or of markers to the right of its axes."""
    bar = axes.figure.colorbar(mappable, ax=axes, fraction=0.046, pad=0.02)
    bar.ax.tick_params(labelsize=SMALL, which="both")
    return bar


def label_axes(axes: Axes, unit: str) -> Axes:
    """Label the axes of a map with x, y and their unit."""
    axes.set_xlabel(f"x, {unit}", fontsize=SMALL)
    axes.set_ylabel(f"y, {unit}", fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    return axes
