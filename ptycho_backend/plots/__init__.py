"""
Pictures of objects, probes, losses, comparisons and assessments.

Functions ``draw_...`` draw on matplotlib Axes and return them. Functions ``plot_...`` write a picture to a PNG file.
"""

from ptycho_backend.plots.assessment import plot_assessment
from ptycho_backend.plots.comparison import plot_comparison
from ptycho_backend.plots.losses import draw_losses, plot_losses
from ptycho_backend.plots.objects import draw_amplitude, draw_phase, plot_image, plot_object
from ptycho_backend.plots.probes import draw_mode, plot_probe

__all__ = [
    "draw_amplitude",
    "draw_losses",
    "draw_mode",
    "draw_phase",
    "plot_assessment",
    "plot_comparison",
    "plot_image",
    "plot_losses",
    "plot_object",
    "plot_probe",
]
