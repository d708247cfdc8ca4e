"""Picture of a comparison with a known object: images, differences, ring correlation and scores."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ptycho_backend.plots import figures
from ptycho_backend.plots.figures import LARGE, NORMAL, SMALL, Extent, Limits, Real, draw_map, robust_limits
from ptycho_backend.plots.objects import draw_amplitude, draw_phase
from ptycho_backend.quality.metrics import RESOLVED, Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Draw = Callable[["Axes", Real, Extent, Limits], "Axes"]


def plot_comparison(path: Path | str, comparison: Comparison, title: str = "") -> None:
    """
    Draw reconstruction, truth and difference, in amplitude and phase, and the Fourier ring correlation.

    Parameters
    ----------
    path : path
        PNG file; replaced as a whole.
    comparison : Comparison
        Result of :func:`ptycho_backend.quality.metrics.compare`; its registered images are drawn.
    title : str
    """
    image, truth = comparison.image, comparison.truth
    extent, _ = figures.extent_of(truth.shape, comparison.area[:2], None)
    figure = figures.new_figure(14.5, 6.9, title)
    grid = figure.add_gridspec(2, 4, width_ratios=(1, 1, 1, 1.15))
    panels = [[figure.add_subplot(grid[row, column]) for column in range(3)] for row in range(2)]
    piston = np.exp(-1j * np.angle(truth.sum()))
    _draw_row(panels[0], np.abs(image), np.abs(truth), np.abs(image) - np.abs(truth), extent, draw_amplitude)
    difference = np.angle(image * np.conj(truth))
    _draw_row(panels[1], np.angle(image * piston), np.angle(truth * piston), difference, extent, draw_phase)
    _label_panels(panels, comparison)
    _draw_correlation(figure.add_subplot(grid[0, 3]), comparison)
    _draw_scores(figure.add_subplot(grid[1, 3]), comparison)
    figures.write_figure(figure, path)


def _draw_row(panels: list[Axes], image: Real, truth: Real, difference: Real, extent: Extent, draw: Draw) -> None:
    limits = robust_limits(truth)  # one scale for both shows a wrong contrast
    draw(panels[0], image, extent, limits)
    draw(panels[1], truth, extent, limits)
    largest = max(abs(v) for v in robust_limits(difference))
    draw_map(panels[2], difference, extent, "RdBu_r", (-largest, largest))


def _label_panels(panels: list[list[Axes]], comparison: Comparison) -> None:
    c = comparison
    for axes, text in zip(panels[0], ("Reconstruction", "Truth", "Difference"), strict=True):
        axes.set_title(text, fontsize=LARGE)
    scores = (
        ("Amplitude", f"{c.amplitude_psnr_db:.1f} dB, SSIM {c.amplitude_ssim:.3f}"),
        ("Phase, rad", f"{c.phase_psnr_db:.1f} dB, SSIM {c.phase_ssim:.3f}"),
    )
    for row, (name, score) in zip(panels, scores, strict=True):
        row[0].set_ylabel(f"{name}\n{score}", fontsize=NORMAL)
    for axes in panels[1]:
        axes.set_xlabel("px", fontsize=SMALL)


def _draw_correlation(axes: Axes, c: Comparison) -> None:
    figures.draw_ring_correlation(axes, c.frc_frequency, c.frc, c.frc_half, RESOLVED)
    crossing = f"0.5 at {c.frc_half:.2f} of Nyquist" if c.frc_half < 1 else "never below 0.5"
    axes.set_title(f"Fourier ring correlation: {crossing}", fontsize=NORMAL)


def _draw_scores(axes: Axes, c: Comparison) -> None:
    rows = [
        f"removed shift     {c.shift_px[0]:+.2f}, {c.shift_px[1]:+.2f} px",
        f"removed ramp      {c.ramp_rad_per_px[0]:+.1e}, {c.ramp_rad_per_px[1]:+.1e} rad/px",
        f"amplitude factor  {c.amplitude_scale:.4f}",
        f"correlation       {c.amplitude_correlation:.3f} amplitude, {c.phase_correlation:.3f} phase",
        f"area              {c.area[2]}×{c.area[3]} px from y={c.area[0]:g}, x={c.area[1]:g}",
    ]
    for warning in c.warnings:
        rows += ["", *textwrap.wrap(f"Warning: {warning}", 46)]
    text = "\n".join(rows)
    axes.text(0.0, 0.95, text, family="monospace", fontsize=SMALL, va="top", transform=axes.transAxes)
    axes.set_axis_off()
