"""Likely causes of a poor fit, from what the solver found about the experiment (spec: metrics 8.9)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ptycho_backend.data.image import Image
from ptycho_backend.data.scan import Scan

MEAN_INTENSITY = 0.25  # of a pixel, in normalised units (physics 4.1)
# Sentences for fits that are needed and switched off.
UNFITTED = {
    "positions": "The positions are not those of the patterns: a fit would move them (fit_positions='auto').",
    "flux": "The flux differs between patterns: a fit would scale them (fit_flux='auto').",
    "background": "The patterns share a background: a fit would subtract it (fit_background='auto').",
}
MOVED_AND_UNEXPLAINED = 0.03  # share of the variance; fitted positions of the right axes leave 0.001


@dataclass(frozen=True)
class ExperimentFigures:
    """
    Differences of the experiment from what was given.

    Parameters
    ----------
    moved_px : float
        Root mean square distance of fitted and given positions.
    flux_spread : float
        Standard deviation of the fitted flux of the patterns, over its mean.
    background_share : float
        Fitted background over the mean intensity of a pixel.
    unfitted : tuple of str
        "positions", "flux" or "background": fits that are switched off and needed.
    """

    moved_px: float = 0.0
    flux_spread: float = 0.0
    background_share: float = 0.0
    unfitted: tuple[str, ...] = ()

    @staticmethod
    def of(scan: Scan, image: Image) -> ExperimentFigures:
        """Return the figures of an image of a scan; all 0 without an experiment."""
        experiment = image.experiment
        if experiment is None:
            return ExperimentFigures()
        step_px, flux = experiment.positions_px - scan.positions_px, experiment.scales**2
        return ExperimentFigures(
            moved_px=float(np.sqrt((step_px**2).sum(axis=1).mean())),
            flux_spread=float(flux.std() / flux.mean()),
            background_share=experiment.background / MEAN_INTENSITY,
            unfitted=experiment.unfitted,
        )

    def rows(self) -> list[tuple[str, str]]:
        """Return names and texts of what was fitted; [] where the experiment is as given."""
        texts = {
            "positions": f"moved by {self.moved_px:.2g} px (root mean square)" if self.moved_px else "",
            "flux": f"differs by {self.flux_spread:.1%} between patterns" if self.flux_spread else "",
            "background": f"{self.background_share:.2%} of the mean intensity" if self.background_share else "",
        }
        return [(name, text) for name, text in texts.items() if text]

    def warnings(self, unexplained_variance: float) -> Iterator[str]:
        """Yield a sentence for each likely cause of errors in the image, with a remedy."""
        yield from (UNFITTED[name] for name in self.unfitted)
        if self.moved_px and unexplained_variance > MOVED_AND_UNEXPLAINED:
            yield (
                f"The fit moved the positions by {self.moved_px:.1f} px, and the patterns still contradict each other: "
                "the positions, their order, their unit or their axes are wrong."
            )
