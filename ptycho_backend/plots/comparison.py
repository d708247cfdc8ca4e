"""Picture of a comparison with a known object: images, differences, ring correlation and scores."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ptycho_backend.plots import figures
from ptycho_backend.plots.curves import draw_ring_correlation
from ptycho_backend.plots.figures import LARGE, NORMAL, SMALL, Extent, Limits, Real, draw_map, label_axes, robust_limits
from ptycho_backend.plots.inputs import ComparisonLike
from ptycho_backend.plots.objects import draw_phase_map
from ptycho_backend.plots.scale_bar import draw_scale_bar
from ptycho_backend.runtime.quantities import RESOLVED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Draw = Callable[["Axes", Real, Extent, Limits], object]


def comparison_figure(comparison: ComparisonLike, title: str = "") -> Figure:
    """
    Return a figure of reconstruction, truth and difference, in amplitude and phase, and of the ring correlation.

    Parameters
    ----------
    comparison : Comparison
        Result of :func:`ptycho_backend.evaluate`; its registered images are drawn.
    title : str

    Returns
    -------
    Figure
    """
    image, truth = comparison.image, comparison.truth
    extent, unit = figures.extent_of(truth.shape, comparison.area[:2], comparison.pixel_size_m)
    figure = figures.new_figure(15.0, 7.2, title)
    grid = figure.add_gridspec(2, 4, width_ratios=(1, 1, 1, 1.15))
    panels = [[figure.add_subplot(grid[row, column]) for column in range(3)] for row in range(2)]
    piston = np.exp(-1j * np.angle(truth.sum()))
    _draw_row(panels[0], np.abs(image), np.abs(truth), np.abs(image) - np.abs(truth), extent, _draw_amplitude)
    difference = np.angle(image * np.conj(truth))
    _draw_row(panels[1], np.angle(image * piston), np.angle(truth * piston), difference, extent, draw_phase_map)
    for axes in [*panels[0], *panels[1]]:
        draw_scale_bar(label_axes(axes, unit), unit)
    _label_panels(panels, comparison)
    c = comparison
    draw_ring_correlation(figure.add_subplot(grid[0, 3]), c.frc_frequency, c.frc, c.frc_half, RESOLVED, c.pixel_size_m)
    _draw_scores(figure.add_subplot(grid[1, 3]), comparison)
    return figure


def plot_comparison(path: Path | str, comparison: ComparisonLike, title: str = "") -> None:
    """
    Write a picture of a comparison.

    Parameters
    ----------
    path : path
        PNG file; replaced as a whole.
    comparison, title
        Parameters of :func:`comparison_figure`.
    """
    figures.write_figure(comparison_figure(comparison, title), path)


def _draw_amplitude(axes: Axes, values: Real, extent: Extent, limits: Limits) -> None:
    draw_map(axes, values, extent, "gray", limits).set_label("amplitude, no unit", fontsize=SMALL)


def _draw_row(panels: list[Axes], image: Real, truth: Real, difference: Real, extent: Extent, draw: Draw) -> None:
    limits = robust_limits(truth)  # one scale for both shows a wrong contrast
    draw(panels[0], image, extent, limits)
    draw(panels[1], truth, extent, limits)
    largest = max(abs(v) for v in robust_limits(difference))
    draw_map(panels[2], difference, extent, "RdBu_r", (-largest, largest)).set_label("difference", fontsize=SMALL)


def _label_panels(panels: list[list[Axes]], comparison: ComparisonLike) -> None:
    c = comparison
    for axes, text in zip(panels[0], ("Reconstruction", "Truth", "Difference"), strict=True):
        axes.set_title(text, fontsize=LARGE)
    scores = (
        ("Amplitude", f"{c.amplitude_psnr_db:.1f} dB, SSIM {c.amplitude_ssim:.3f}"),
        ("Phase, rad", f"{c.phase_psnr_db:.1f} dB, SSIM {c.phase_ssim:.3f}"),
    )
    for row, (name, score) in zip(panels, scores, strict=True):
        row[0].set_ylabel(f"{name}\n{score}\n{row[0].get_ylabel()}", fontsize=NORMAL)


def _draw_scores(axes: Axes, c: ComparisonLike) -> None:
    rows = [
        f"removed shift     {c.shift_px[0]:+.2f}, {c.shift_px[1]:+.2f} px",
        f"removed ramp      {c.ramp_rad_per_px[0]:+.1e}, {c.ramp_rad_per_px[1]:+.1e} rad/px",
        f"amplitude factor  {c.amplitude_scale:.4f}",
        f"correlation       {c.amplitude_correlation:.3f} in amplitude,",
        f"                  {c.phase_correlation:.3f} in phase",
        f"area              {c.area[2]}×{c.area[3]} px,",
        f"                  from y={c.area[0]:g}, x={c.area[1]:g}",
    ]
    for warning in c.warnings:
        rows += ["", *textwrap.wrap(f"Warning: {warning}", 42)]
    text = "\n".join(rows)
    axes.text(0.0, 0.95, text, family="monospace", fontsize=SMALL, va="top", transform=axes.transAxes)
    axes.set_axis_off()
