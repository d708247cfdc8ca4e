"""Pictures of objects: amplitude and phase in scan coordinates, cropped to the illuminated part (spec: metrics 7)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.phase_plane import fit_plane, level
from ptycho_backend.plots import figures
from ptycho_backend.plots.figures import (
    NORMAL,
    SMALL,
    Extent,
    Limits,
    Pair,
    Real,
    draw_map,
    extent_of,
    label_axes,
    robust_limits,
)
from ptycho_backend.plots.scale_bar import draw_scale_bar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PHASE = "phase, rad"
MAX_DRAWN_PX = 2048  # per side; every second, third … pixel of a larger object is drawn
WRAPPING_SPAN_RAD = 1.6 * np.pi  # phases with a larger range are drawn on a cyclic colour scale
ILLUMINATED = 0.25  # of the largest coverage
MAX_PANEL_INCHES = 8.0
BESIDE_INCHES, BELOW_INCHES = 1.7, 0.9  # for labels, colour bar and title of a panel
WIDE = 1.7  # width over height from which amplitude and phase stand one above the other


@dataclass(frozen=True, eq=False)
class View:
    """
    Illuminated part of an object: its bounding rectangle, thinned out where it has more pixels than a picture.

    Parameters
    ----------
    obj : complex128, shape (y, x)
    covered : bool, shape (y, x)
        Pixels that patterns cover.
    extent : (float, float, float, float)
        Left, right, bottom, top in the unit of the axes.
    unit : str
    step_px : int
        Distance of two drawn pixels.
    """

    obj: NDArray[np.complex128]
    covered: NDArray[np.bool_]
    extent: Extent
    unit: str
    step_px: int

    def levelled(self) -> tuple[NDArray[np.complex128], Real]:
        """Return the object without piston and ramp, and the removed plane."""
        plane = fit_plane(np.where(self.covered, self.obj, 0))
        return level(self.obj, plane), plane


def illuminated_part(obj: NDArray[Any], coverage: NDArray[Any] | None = None) -> tuple[slice, slice]:
    """
    Return rows and columns of the bounding rectangle of the illuminated part of an object.

    Parameters
    ----------
    obj : complex, shape (y, x)
    coverage : float, shape (y, x), optional
        Summed weights of the patterns; pixels above a quarter of the largest are illuminated. None: pixels that are
        not exactly 0 are.

    Returns
    -------
    (slice, slice)
        The whole object where no pixel is illuminated.

    Notes
    -----
    Spec: metrics 7.3.
    """
    inside = np.asarray(obj) != 0
    if coverage is not None and np.any(coverage):
        inside = np.asarray(coverage) > ILLUMINATED * np.max(coverage)
    if not inside.any():
        return slice(0, inside.shape[0]), slice(0, inside.shape[1])
    (top, bottom), (left, right) = (np.flatnonzero(inside.any(axis=axis))[[0, -1]].tolist() for axis in (1, 0))
    return slice(top, bottom + 1), slice(left, right + 1)


def view_of(
    obj: NDArray[Any],
    coverage: NDArray[Any] | None = None,
    origin_px: Pair = (0.0, 0.0),
    pixel_size_m: Pair | None = None,
    max_px: int | None = None,
) -> View:
    """Return the illuminated part of an object with at most `max_px` or 2048 pixels a side."""
    rows, columns = illuminated_part(obj, coverage)
    shape = rows.stop - rows.start, columns.stop - columns.start
    step = max(1, -(-max(shape) // (max_px or MAX_DRAWN_PX)))
    drawn = np.asarray(obj[rows, columns][::step, ::step], dtype=np.complex128)
    covered = (drawn != 0) & np.isfinite(drawn)
    extent, unit = extent_of(shape, (origin_px[0] + rows.start, origin_px[1] + columns.start), pixel_size_m)
    return View(drawn, covered, extent, unit, step)


def draw_amplitude(
    axes: Axes,
    obj: NDArray[Any],
    coverage: NDArray[Any] | None = None,
    origin_px: Pair = (0.0, 0.0),
    pixel_size_m: Pair | None = None,
    limits: Limits | None = None,
) -> Axes:
    """
    Draw the amplitude of an object in grey, with a scale bar and a colour bar.

    Parameters
    ----------
    axes : Axes
    obj : complex, shape (y, x)
        Pixels of exactly 0 lie outside of every pattern; they are light grey.
    coverage : float, shape (y, x), optional
        Summed weights of the patterns; the picture is cropped to what they illuminate.
    origin_px : (float, float), pixels, (y, x)
        Scan coordinates of pixel (0, 0).
    pixel_size_m : (float, float), optional
        (y, x), metres; None labels the axes in pixels.
    limits : (float, float), optional
        Amplitudes of black and white; None takes the 0.5th and the 99.5th percentile.

    Returns
    -------
    Axes
        The given axes.

    Notes
    -----
    Spec: metrics 7.
    """
    view = view_of(obj, coverage, origin_px, pixel_size_m)
    values = np.where(view.covered, np.abs(view.obj), np.nan)
    bar = draw_map(axes, values, view.extent, "gray", limits or robust_limits(values))
    bar.set_label(_amplitude_label(values[view.covered]), fontsize=SMALL)
    axes.set_title("Amplitude", fontsize=NORMAL)
    return _measured(axes, view.unit)


def draw_phase(
    axes: Axes,
    obj: NDArray[Any],
    coverage: NDArray[Any] | None = None,
    origin_px: Pair = (0.0, 0.0),
    pixel_size_m: Pair | None = None,
    limits: Limits | None = None,
) -> Axes:
    """
    Draw the phase of an object without its constant and its ramp, with a scale bar and a colour bar.

    The colour scale is perceptual; a phase that may wrap gets a cyclic one from −π to π.

    Parameters
    ----------
    axes : Axes
    obj, coverage, origin_px, pixel_size_m
        Parameters of :func:`draw_amplitude`.
    limits : (float, float), optional
        Ends of the colour scale, rad; None takes the 0.5th and the 99.5th percentile.

    Returns
    -------
    Axes
        The given axes; the title gives the removed ramp.

    Notes
    -----
    Spec: metrics 7.
    """
    view = view_of(obj, coverage, origin_px, pixel_size_m)
    levelled, plane = view.levelled()
    values = np.where(view.covered, np.angle(levelled), np.nan)
    draw_phase_map(axes, values, view.extent, limits or robust_limits(values))
    ramp = f"y {plane[1] / view.step_px:+.1e}, x {plane[2] / view.step_px:+.1e} rad/px"
    axes.set_title(f"Phase without constant and ramp\n{ramp}", fontsize=NORMAL)
    return _measured(axes, view.unit)


def draw_phase_map(axes: Axes, values: Real, extent: Extent, limits: Limits) -> Axes:
    """Draw a phase (y, x), rad: on a cyclic scale if it may wrap, else on a perceptual one."""
    low, high = limits
    if high - low > WRAPPING_SPAN_RAD:
        bar = draw_map(axes, values, extent, "twilight", (-np.pi, np.pi))
        bar.set_ticks([-np.pi, -np.pi / 2, 0, np.pi / 2, np.pi], labels=["−π", "−π/2", "0", "π/2", "π"])
    else:
        bar = draw_map(axes, values, extent, "cividis", limits)
    bar.set_label(PHASE, fontsize=SMALL)
    return axes


def object_figure(
    obj: NDArray[Any],
    coverage: NDArray[Any] | None = None,
    origin_px: Pair = (0.0, 0.0),
    pixel_size_m: Pair | None = None,
    title: str = "",
) -> Figure:
    """
    Return a figure of amplitude and phase: next to each other, or one above the other for a wide object.

    Parameters
    ----------
    obj, coverage, origin_px, pixel_size_m
        Parameters of :func:`draw_amplitude`.
    title : str
        For example from :func:`title_of`.

    Returns
    -------
    Figure
    """
    rows, columns = illuminated_part(obj, coverage)
    aspect = (columns.stop - columns.start) / (rows.stop - rows.start)
    if pixel_size_m is not None:
        aspect *= pixel_size_m[1] / pixel_size_m[0]
    stacked = aspect > WIDE
    height = min(max((7.0 if stacked else 3.9) / aspect, 0.8), MAX_PANEL_INCHES)
    width = height * aspect + BESIDE_INCHES if stacked else 2 * (max(height * aspect, 1.2) + BESIDE_INCHES)
    height += BELOW_INCHES
    figure = figures.new_figure(width, (2 if stacked else 1) * height + (0.4 if title else 0.0), title)
    panels = figure.subplots(2, 1) if stacked else figure.subplots(1, 2)
    draw_amplitude(panels[0], obj, coverage, origin_px, pixel_size_m)
    draw_phase(panels[1], obj, coverage, origin_px, pixel_size_m)
    return figure


def plot_object(
    path: Path | str,
    obj: NDArray[Any],
    origin_px: Pair = (0.0, 0.0),
    pixel_size_m: Pair | None = None,
    title: str = "",
    coverage: NDArray[Any] | None = None,
) -> None:
    """
    Write a picture of amplitude and phase of an object.

    Parameters
    ----------
    path : path
        PNG file; replaced as a whole.
    obj, origin_px, pixel_size_m, title, coverage
        Parameters of :func:`object_figure`.
    """
    figures.write_figure(object_figure(obj, coverage, origin_px, pixel_size_m, title), path)


def plot_image(path: Path | str, values: NDArray[Any], title: str, is_phase: bool = False) -> None:
    """
    Write a picture of one real image.

    Parameters
    ----------
    path : path
        PNG file; replaced as a whole.
    values : float, shape (y, x)
    title : str
    is_phase : bool
        Values are radians.
    """
    drawn = np.asarray(values, dtype=np.float64)
    extent, unit = extent_of(drawn.shape, (0.0, 0.0), None)
    figure = figures.new_figure(5.4, 4.8, title)
    axes = figure.subplots()
    if is_phase:
        draw_phase_map(axes, drawn, extent, robust_limits(drawn))
    else:
        draw_map(axes, drawn, extent, "gray", robust_limits(drawn))
    label_axes(axes, unit)
    figures.write_figure(figure, path)


def _amplitude_label(covered: Real) -> str:
    """Return the label of a colour bar: a scan fixes the product of object and probe, so amplitudes have no unit."""
    return f"amplitude, no unit (mean {covered.mean():.3g})" if covered.size else "amplitude, no unit"


def _measured(axes: Axes, unit: str) -> Axes:
    """Label the axes of a map and add its scale bar."""
    return draw_scale_bar(label_axes(axes, unit), unit)
