"""Pictures of objects: amplitude and phase in scan coordinates (spec: metrics 7.2, 7.3)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.plots import figures
from ptycho_backend.plots.figures import NORMAL, Extent, Limits, Real, draw_map, extent_of, label_axes, robust_limits
from ptycho_backend.solver.registration import fit_plane, level

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_DRAWN_PX = 2048  # per side; every second, third … pixel of a larger object is drawn
WRAPPING_SPAN_RAD = 1.6 * np.pi  # phases with a larger range are drawn on a cyclic colour scale


def plot_object(
    path: Path | str,
    obj: NDArray[Any],
    origin_px: tuple[float, float] = (0.0, 0.0),
    pixel_size_m: tuple[float, float] | None = None,
    title: str = "",
) -> None:
    """
    Draw amplitude and phase of an object next to each other.

    Piston and ramp of the phase are removed; the title of the phase gives the ramp. Pixels of exactly 0 lie outside of
    every pattern and stay light grey.

    Parameters
    ----------
    path : path
        PNG file; replaced as a whole.
    obj : complex, shape (y, x)
    origin_px : (float, float), pixels, (y, x)
        Scan coordinates of pixel (0, 0).
    pixel_size_m : (float, float), optional
        (y, x), metres; None labels the axes in pixels.
    title : str
    """
    step = max(1, -(-max(np.shape(obj)) // MAX_DRAWN_PX))  # a picture has fewer pixels than a large object
    drawn = np.asarray(obj[::step, ::step], dtype=np.complex128)
    plane = fit_plane(drawn)
    covered = np.abs(drawn) > 0
    extent, unit = extent_of(np.shape(obj), origin_px, pixel_size_m)
    figure = figures.new_figure(10.0, 4.8, title)
    left, right = figure.subplots(1, 2)
    draw_amplitude(left, np.where(covered, np.abs(drawn), np.nan), extent)
    draw_phase(right, np.where(covered, np.angle(level(drawn, plane)), np.nan), extent)
    left.set_title("Amplitude", fontsize=NORMAL)
    right.set_title(
        f"Phase, rad\npiston removed, and a ramp of y {plane[1] / step:+.1e}, x {plane[2] / step:+.1e} rad/px",
        fontsize=NORMAL,
    )
    for axes in (left, right):
        label_axes(axes, unit)
    figures.write_figure(figure, path)


def plot_image(path: Path | str, values: NDArray[Any], title: str, is_phase: bool = False) -> None:
    """
    Draw one real image.

    Parameters
    ----------
    path : path
        PNG file; replaced as a whole.
    values : float, shape (y, x)
    title : str
    is_phase : bool
        Values are radians.
    """
    extent, unit = extent_of(values.shape, (0.0, 0.0), None)
    figure = figures.new_figure(5.4, 4.8, title)
    draw = draw_phase if is_phase else draw_amplitude
    label_axes(draw(figure.subplots(), np.asarray(values, dtype=np.float64), extent), unit)
    figures.write_figure(figure, path)


def draw_amplitude(axes: Axes, values: Real, extent: Extent, limits: Limits | None = None) -> Axes:
    """Draw an amplitude (y, x) in grey; `limits` default to robust percentiles."""
    return draw_map(axes, values, extent, "gray", limits or robust_limits(values))


def draw_phase(axes: Axes, values: Real, extent: Extent, limits: Limits | None = None) -> Axes:
    """Draw a phase (y, x), rad; a phase that may wrap gets a cyclic colour scale from −π to π."""
    low, high = limits or robust_limits(values)
    if high - low > WRAPPING_SPAN_RAD:
        return draw_map(axes, values, extent, "twilight", (-np.pi, np.pi))
    return draw_map(axes, values, extent, "cividis", (low, high))
