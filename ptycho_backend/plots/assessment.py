"""The picture that says where a reconstruction can be trusted (spec: metrics 8.8)."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ptycho_backend.data.scan import Scan
from ptycho_backend.plots import pictures
from ptycho_backend.plots.pictures import NORMAL, SMALL
from ptycho_backend.quality.assessment import Assessment
from ptycho_backend.quality.half_datasets import LEVEL, HalfDatasets

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RING = "tab:red"
WIDTH = 200  # characters of a line of warnings
POINTS_PER_MAP = 4.0e4  # area of all markers together, points²: they just touch


def plot_assessment(path: Path | str, assessment: Assessment, scan: Scan, title: str = "") -> None:
    """
    Draw the residual of every pattern at its position, what two half scans differ in, and their ring correlation.

    Parameters
    ----------
    path : path
        PNG file; replaced as a whole.
    assessment : Assessment
    scan : Scan
        That was assessed.
    title : str
    """
    lines = [line for text in assessment.warnings for line in textwrap.wrap(f"• {text}", WIDTH)]
    room = 0.3 + 0.19 * max(1, len(lines))
    figure = pictures.new_figure(14.5, 4.6 + room, title)
    grid = figure.add_gridspec(2, 3, height_ratios=(4.6, room), width_ratios=(1, 1, 0.95))
    residuals, difference, correlation = (figure.add_subplot(grid[0, column]) for column in range(3))
    _residuals(residuals, assessment, scan)
    if assessment.halves is None:
        _absent(difference, "Difference of two half scans", assessment.no_halves)
        _absent(correlation, "Their Fourier ring correlation", assessment.no_halves)
    else:
        _difference(difference, assessment.halves, scan)
        _correlation(correlation, assessment.halves)
    words = figure.add_subplot(grid[1, :])
    words.set_axis_off()
    text = "\n".join(lines) or "No alarm was raised; the numbers above say how far to trust it."
    words.text(0.0, 1.0, text, fontsize=NORMAL, va="top", color=RING if lines else "0.3", transform=words.transAxes)
    pictures.write_figure(figure, path)


def _residuals(axes: Axes, assessment: Assessment, scan: Scan) -> None:
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    ratio = assessment.residual_per_pattern / np.maximum(assessment.floor_per_pattern, 1e-30)
    span = np.ceil(np.ptp(scan.positions_px, axis=0)).astype(int) + 1
    (left, right, bottom, top), unit = pictures.extent_of(tuple(span), (0.0, 0.0), scan.pixel_size_m)
    y, x = (scan.positions_px * [(bottom - top) / span[0], (right - left) / span[1]]).T
    low, high = max(1e-3, float(np.percentile(ratio, 1))), float(np.percentile(ratio, 99))
    # A scale of at least one to two: shot noise must not look like structure.
    low, high = min(low, 1.0), max(high, 2.0)
    colours = LogNorm(low, high)
    size = max(4.0, POINTS_PER_MAP / len(ratio))
    dots = axes.scatter(x, y, s=size, c=np.maximum(ratio, 1e-3), cmap="viridis", norm=colours, linewidths=0)
    bad = list(assessment.outliers)
    axes.scatter(x[bad], y[bad], s=1.6 * size + 40, facecolors="none", edgecolors=RING, linewidths=1.2)
    bar = axes.figure.colorbar(dots, ax=axes, fraction=0.046, pad=0.02)
    bar.ax.tick_params(labelsize=SMALL, which="both")
    bar.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    bar.ax.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}") if high < 10 * low else NullFormatter())
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.margins(0.06)
    whole = assessment.residual / max(assessment.shot_noise_floor, 1e-30)
    ringed = f"; {len(bad)} misfits ringed" if bad else ""
    axes.set_title(
        f"Residual of each pattern over shot noise\n{whole:.3g} on average (1 is perfect){ringed}", fontsize=NORMAL
    )
    _label(axes, unit)


def _difference(axes: Axes, halves: HalfDatasets, scan: Scan) -> None:
    extent, unit = pictures.extent_of(halves.difference.shape, halves.origin_px, scan.pixel_size_m)
    percent = 100.0 * halves.difference
    pictures.show_map(axes, percent, extent, "magma", (0.0, max(1e-6, float(np.percentile(percent, 99.5)))))
    axes.set_title(
        "Half the difference of two half scans, % of the amplitude\n"
        f"rms {halves.spread_amplitude:.2%} in amplitude, {halves.spread_phase_rad:.2g} rad in phase",
        fontsize=NORMAL,
    )
    _label(axes, unit)


def _correlation(axes: Axes, halves: HalfDatasets) -> None:
    axes.plot(halves.frequency, halves.correlation, color="tab:blue", linewidth=1.6)
    axes.axhline(LEVEL, color="0.5", linestyle="--", linewidth=1)
    axes.text(0.99, LEVEL + 0.015, "1/7", fontsize=SMALL, color="0.4", ha="right")
    axes.axvline(halves.resolution, color=RING, linestyle=":", linewidth=1.4)
    axes.set(xlim=(0, 1), ylim=(min(-0.05, float(halves.correlation.min())), 1.05))
    reached = f"1/7 at {halves.resolution:.2f} of Nyquist" if halves.resolution < 1 else "never below 1/7"
    axes.set_title(f"Fourier ring correlation of the half scans\n{reached}", fontsize=NORMAL)
    axes.set_xlabel("spatial frequency, fraction of Nyquist", fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    axes.grid(alpha=0.25)


def _absent(axes: Axes, title: str, reason: str) -> None:
    axes.set_title(title, fontsize=NORMAL)
    axes.text(0.5, 0.5, "\n".join(textwrap.wrap(reason, 40)), fontsize=NORMAL, ha="center", va="center", color="0.4")
    axes.set(xticks=[], yticks=[])


def _label(axes: Axes, unit: str) -> None:
    axes.set_xlabel(f"x, {unit}", fontsize=SMALL)
    axes.set_ylabel(f"y, {unit}", fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)
