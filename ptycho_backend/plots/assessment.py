"""Picture of an assessment: residual of every pattern, half datasets, and warnings (spec: metrics 8.8)."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ptycho_backend.plots import figures
from ptycho_backend.plots.curves import draw_ring_correlation
from ptycho_backend.plots.figures import HIGHLIGHT, NORMAL, SMALL, label_axes
from ptycho_backend.plots.inputs import AssessmentLike, HalvesLike, ScanLike
from ptycho_backend.plots.positions import draw_residuals
from ptycho_backend.plots.scale_bar import draw_scale_bar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WARNING_COLUMNS = 200  # characters per line


def assessment_figure(assessment: AssessmentLike, scan: ScanLike, title: str = "") -> Figure:
    """
    Return a figure of the residual of every pattern, the difference of the half datasets, and their correlation.

    Parameters
    ----------
    assessment : Assessment
    scan : Scan
        Assessed scan.
    title : str

    Returns
    -------
    Figure
    """
    lines = [line for text in assessment.warnings for line in textwrap.wrap(f"• {text}", WARNING_COLUMNS)]
    text_height = 0.3 + 0.19 * max(1, len(lines))
    figure = figures.new_figure(15.0, 4.6 + text_height, title)
    grid = figure.add_gridspec(2, 3, height_ratios=(4.6, text_height), width_ratios=(1, 1, 0.95))
    residuals, difference, correlation = (figure.add_subplot(grid[0, column]) for column in range(3))
    _draw_residuals(residuals, assessment, scan)
    halves = assessment.halves
    if halves is None:
        _draw_reason(difference, "Difference of the half datasets", assessment.no_halves)
        _draw_reason(correlation, "Their Fourier ring correlation", assessment.no_halves)
    else:
        _draw_difference(difference, halves, scan)
        draw_ring_correlation(
            correlation, halves.frequency, halves.correlation, halves.resolution, pixel_size_m=scan.pixel_size_m
        )
        text = correlation.get_title().replace("correlation", "correlation of the half datasets")
        correlation.set_title(text, fontsize=NORMAL)
    words = figure.add_subplot(grid[1, :])
    words.set_axis_off()
    text = "\n".join(lines) or "No warnings."
    colour = HIGHLIGHT if lines else "0.3"
    words.text(0.0, 1.0, text, fontsize=NORMAL, va="top", color=colour, transform=words.transAxes)
    return figure


def plot_assessment(path: Path | str, assessment: AssessmentLike, scan: ScanLike, title: str = "") -> None:
    """
    Write a picture of an assessment.

    Parameters
    ----------
    path : path
        PNG file; replaced as a whole.
    assessment, scan, title
        Parameters of :func:`assessment_figure`.
    """
    figures.write_figure(assessment_figure(assessment, scan, title), path)


def _draw_residuals(axes: Axes, assessment: AssessmentLike, scan: ScanLike) -> None:
    ratio = assessment.residual_per_pattern / np.maximum(assessment.floor_per_pattern, 1e-30)
    draw_residuals(axes, scan.positions_px, ratio, assessment.outliers, scan.pixel_size_m)
    mean = assessment.residual / max(assessment.shot_noise_floor, 1e-30)
    ringed = f"; {len(assessment.outliers)} outliers ringed" if assessment.outliers else ""
    axes.set_title(
        f"Residual of each pattern over shot noise\n{mean:.3g} on average (1 is perfect){ringed}", fontsize=NORMAL
    )


def _draw_difference(axes: Axes, halves: HalvesLike, scan: ScanLike) -> None:
    extent, unit = figures.extent_of(halves.difference.shape, halves.origin_px, scan.pixel_size_m)
    percent = 100.0 * halves.difference
    bar = figures.draw_map(axes, percent, extent, "magma", (0.0, max(1e-6, float(np.percentile(percent, 99.5)))))
    bar.set_label("% of the mean amplitude", fontsize=SMALL)
    axes.set_title(
        "Half the difference of the half datasets\n"
        f"rms {halves.spread_amplitude:.2%} in amplitude, {halves.spread_phase_rad:.2g} rad in phase",
        fontsize=NORMAL,
    )
    draw_scale_bar(label_axes(axes, unit), unit)


def _draw_reason(axes: Axes, title: str, reason: str) -> None:
    axes.set_title(title, fontsize=NORMAL)
    axes.text(0.5, 0.5, "\n".join(textwrap.wrap(reason, 40)), fontsize=NORMAL, ha="center", va="center", color="0.4")
    axes.set(xticks=[], yticks=[])
