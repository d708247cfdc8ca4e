"""
Pictures of objects, probes, positions, residuals, curves, comparisons and assessments.

Functions ``draw_...`` draw on matplotlib Axes and return them. Functions ``..._figure`` return a Figure, and functions
``plot_...`` write one to a PNG file.
"""

from ptycho_backend.plots.assessment import assessment_figure, plot_assessment
from ptycho_backend.plots.comparison import comparison_figure, plot_comparison
from ptycho_backend.plots.curves import draw_errors, draw_ring_correlation
from ptycho_backend.plots.figures import title_of
from ptycho_backend.plots.losses import draw_losses, plot_losses
from ptycho_backend.plots.objects import (
    draw_amplitude,
    draw_phase,
    illuminated_part,
    object_figure,
    plot_image,
    plot_object,
)
from ptycho_backend.plots.positions import draw_positions, draw_residuals
from ptycho_backend.plots.probes import draw_far_field, draw_mode, plot_probe, probe_figure
from ptycho_backend.plots.scale_bar import draw_scale_bar, round_length

__all__ = [
    "assessment_figure",
    "comparison_figure",
    "draw_amplitude",
    "draw_errors",
    "draw_far_field",
    "draw_losses",
    "draw_mode",
    "draw_phase",
    "draw_positions",
    "draw_residuals",
    "draw_ring_correlation",
    "draw_scale_bar",
    "illuminated_part",
    "object_figure",
    "plot_assessment",
    "plot_comparison",
    "plot_image",
    "plot_losses",
    "plot_object",
    "plot_probe",
    "probe_figure",
    "round_length",
    "title_of",
]
