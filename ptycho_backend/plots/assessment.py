"""Picture of an assessment: residual of every pattern, half datasets, and warnings (spec: metrics 8.8)."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ptycho_backend.data.scan import Scan
from ptycho_backend.plots import figures
from ptycho_backend.plots.figures import HIGHLIGHT, NORMAL, SMALL, label_axes
from ptycho_backend.quality.metrics import RESOLVED_BY_HALVES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ptycho_backend.quality.assessment import Assessment
    from ptycho_backend.quality.half_datasets import HalfDatasets

WARNING_COLUMNS = 200  # characters per line
MARKERS_POINTS2 = 4.0e4  # summed area of all markers, points²: neighbours just touch


def plot_assessment(path: Path | str, assessment: Assessment, scan: Scan, title: str = "") -> None:
    """
    Draw the residual of every pattern at its position, the difference of the half datasets, and their correlation.

    Parameters
    ----------
    path : path
        PNG file; replaced as a whole.
    assessment : Assessment
    scan : Scan
        Assessed scan.
    title : str
    """
    lines = [line for text in assessment.warnings for line in textwrap.wrap(f"• {text}", WARNING_COLUMNS)]
    text_height = 0.3 + 0.19 * max(1, len(lines))
    figure = figures.new_figure(14.5, 4.6 + text_height, title)
    grid = figure.add_gridspec(2, 3, height_ratios=(4.6, text_height), width_ratios=(1, 1, 0.95))
    residuals, difference, correlation = (figure.add_subplot(grid[0, column]) for column in range(3))
    _draw_residuals(residuals, assessment, scan)
    if assessment.halves is None:
        _draw_reason(difference, "Difference of the half datasets", assessment.no_halves)
        _draw_reason(correlation, "Their Fourier ring correlation", assessment.no_halves)
    else:
        _draw_difference(difference, assessment.halves, scan)
        _draw_correlation(correlation, assessment.halves)
    words = figure.add_subplot(grid[1, :])
    words.set_axis_off()
    text = "\n".join(lines) or "No warnings."
    colour = HIGHLIGHT if lines else "0.3"
    words.text(0.0, 1.0, text, fontsize=NORMAL, va="top", color=colour, transform=words.transAxes)
    figures.write_figure(figure, path)


def _draw_residuals(axes: Axes, assessment: Assessment, scan: Scan) -> None:
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    ratio = assessment.residual_per_pattern / np.maximum(assessment.floor_per_pattern, 1e-30)
    span = np.ceil(np.ptp(scan.positions_px, axis=0)).astype(int) + 1
    (left, right, bottom, top), unit = figures.extent_of(tuple(span), (0.0, 0.0), scan.pixel_size_m)
    y, x = (scan.positions_px * [(bottom - top) / span[0], (right - left) / span[1]]).T
    low, high = max(1e-3, float(np.percentile(ratio, 1))), float(np.percentile(ratio, 99))
    # A scale of at least one to two: shot noise must not look like structure.
    low, high = min(low, 1.0), max(high, 2.0)
    size = max(4.0, MARKERS_POINTS2 / len(ratio))
    values, colours = np.maximum(ratio, 1e-3), LogNorm(low, high)
    markers = axes.scatter(x, y, s=size, c=values, cmap="viridis", norm=colours, linewidths=0)
    bar = figures.add_colour_bar(axes, markers)
    bar.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    bar.ax.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}") if high < 10 * low else NullFormatter())
    outliers = list(assessment.outliers)
    axes.scatter(x[outliers], y[outliers], s=1.6 * size + 40, facecolors="none", edgecolors=HIGHLIGHT, linewidths=1.2)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.margins(0.06)
    mean = assessment.residual / max(assessment.shot_noise_floor, 1e-30)
    ringed = f"; {len(outliers)} outliers ringed" if outliers else ""
    axes.set_title(
        f"Residual of each pattern over shot noise\n{mean:.3g} on average (1 is perfect){ringed}", fontsize=NORMAL
    )
    label_axes(axes, unit)


def _draw_difference(axes: Axes, halves: HalfDatasets, scan: Scan) -> None:
    extent, unit = figures.extent_of(halves.difference.shape, halves.origin_px, scan.pixel_size_m)
    percent = 100.0 * halves.difference
    figures.draw_map(axes, percent, extent, "magma", (0.0, max(1e-6, float(np.percentile(percent, 99.5)))))
    axes.set_title(
        "Half the difference of the half datasets, % of the amplitude\n"
        f"rms {halves.spread_amplitude:.2%} in amplitude, {halves.spread_phase_rad:.2g} rad in phase",
        fontsize=NORMAL,
    )
    label_axes(axes, unit)


def _draw_correlation(axes: Axes, halves: HalfDatasets) -> None:
    level = RESOLVED_BY_HALVES
    figures.draw_ring_correlation(axes, halves.frequency, halves.correlation, halves.resolution, level)
    axes.text(0.99, level + 0.015, "1/7", fontsize=SMALL, color="0.4", ha="right")
    crossing = f"1/7 at {halves.resolution:.2f} of Nyquist" if halves.resolution < 1 else "never below 1/7"
    axes.set_title(f"Fourier ring correlation of the half datasets\n{crossing}", fontsize=NORMAL)


def _draw_reason(axes: Axes, title: str, reason: str) -> None:
    axes.set_title(title, fontsize=NORMAL)
    axes.text(0.5, 0.5, "\n".join(textwrap.wrap(reason, 40)), fontsize=NORMAL, ha="center", va="center", color="0.4")
    axes.set(xticks=[], yticks=[])
