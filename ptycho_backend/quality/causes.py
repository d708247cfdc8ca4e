"""Likely causes of a poor fit, from what the solver found about the experiment (spec: metrics 8.9)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ptycho_backend.data.image import Image
from ptycho_backend.data.orientation import better_orientation_text
from ptycho_backend.data.scan import Scan
from ptycho_backend.data.selection import measured_rows
from ptycho_backend.physics.calibration import MEAN_INTENSITY
from ptycho_backend.quality.affine import AffinePart, affine_part
from ptycho_backend.runtime.quantities import mode_shares

# Sentences for fits that are needed and switched off.
UNFITTED = {
    "positions": "The positions are not those of the patterns: a fit would move them (fit_positions='auto').",
    "flux": "The flux differs between patterns: a fit would scale them (fit_flux='auto').",
    "background": "The patterns share a background: a fit would subtract it (fit_background='auto').",
}
MAX_NAMED = 8  # pattern numbers in a warning
MUCH_BACKGROUND = 0.05  # of the mean intensity; 1 % costs nothing visible
MUCH_FLICKER = 0.2  # of the flux; 10 % costs nothing visible
MOVED_AND_UNEXPLAINED = 0.03  # share of the variance; fitted positions of the right axes leave 0.001


@dataclass(frozen=True)
class ExperimentFigures:
    """
    Differences of the experiment from what was given.

    Parameters
    ----------
    moved_px : float
        Root mean square distance of fitted and given positions.
    affine : AffinePart, optional
        Common part of these steps; None without a fit of positions.
    flux_spread : float
        Standard deviation of the fitted flux of the patterns, over its mean.
    background_share : float
        Fitted background over the mean intensity of a pixel.
    unfitted : tuple of str
        "positions", "flux" or "background": fits that are switched off and needed.
    left_out : tuple of int
        Numbers of patterns that contradict all others and were left out during the iterations.
    mode_shares : tuple of float
        Share of each probe mode in the light.
    better_orientation : str
        Orientation that explains the patterns clearly better than the given one; "" for none.
    """

    moved_px: float = 0.0
    flux_spread: float = 0.0
    background_share: float = 0.0
    unfitted: tuple[str, ...] = ()
    left_out: tuple[int, ...] = ()
    mode_shares: tuple[float, ...] = ()
    better_orientation: str = ""
    affine: AffinePart | None = None

    @staticmethod
    def of(scan: Scan, image: Image, better_orientation: str = "") -> ExperimentFigures:
        """Return the figures of an image of a scan; all 0 without an experiment."""
        experiment = image.experiment
        if experiment is None:
            return ExperimentFigures(better_orientation=better_orientation)
        step_px, flux = experiment.positions_px - scan.positions_px, experiment.scales**2
        return ExperimentFigures(
            moved_px=float(np.sqrt((step_px**2).sum(axis=1).mean())),
            flux_spread=float(flux.std() / flux.mean()),
            background_share=experiment.background / MEAN_INTENSITY,
            unfitted=experiment.unfitted,
            left_out=tuple(
                measured_rows(len(scan), scan.attributes)[np.array(experiment.left_out, dtype=np.intp)].tolist()
            ),
            mode_shares=tuple(float(share) for share in mode_shares(experiment.probe)),
            better_orientation=better_orientation,
            affine=affine_part(scan.positions_px, experiment.positions_px) if step_px.any() else None,
        )

    def rows(self) -> list[tuple[str, str]]:
        """Return names and texts of what was fitted; [] where the experiment is as given."""
        texts = {
            "positions": f"moved by {self.moved_px:.2g} px (root mean square)" if self.moved_px else "",
            "of which": self.affine.text() if self.affine else "",
            "flux": f"differs by {self.flux_spread:.1%} between patterns" if self.flux_spread else "",
            "background": f"{self.background_share:.2%} of the mean intensity" if self.background_share else "",
            "probe modes": ", ".join(f"{share:.1%}" for share in self.mode_shares) if len(self.mode_shares) > 1 else "",
        }
        return [(name, text) for name, text in texts.items() if text]

    def warnings(self, unexplained_variance: float) -> Iterator[str]:
        """Yield a sentence for each likely cause of errors in the image, with a remedy."""
        if self.better_orientation:
            yield better_orientation_text(self.better_orientation)
        yield from (UNFITTED[name] for name in self.unfitted)
        if self.left_out:
            yield (
                f"{len(self.left_out)} patterns contradict all others and were left out during the iterations (numbers "
                f"from 0: {listed(self.left_out)}). Check their places."
            )
        if self.flux_spread > MUCH_FLICKER:
            yield (
                f"The flux differs by {self.flux_spread:.0%} between patterns (beam intensity or exposure). It is "
                "fitted, but a monitor of the beam would give it better."
            )
        if self.background_share > MUCH_BACKGROUND:
            yield (
                f"The patterns contain a background of {self.background_share:.0%} of the mean intensity, such as "
                "stray light or dark counts. It is fitted, but its noise stays: shield the detector, or count longer."
            )
        if self.moved_px and unexplained_variance > MOVED_AND_UNEXPLAINED:
            yield (
                f"The fit moved the positions by {self.moved_px:.1f} px, and the patterns still contradict each other: "
                "the positions, their order, their unit or their axes are wrong."
            )


def listed(numbers: Sequence[int]) -> str:
    """Return the first numbers of patterns, with dots for the others."""
    first = ", ".join(str(number) for number in numbers[:MAX_NAMED])
    return first + (", …" if len(numbers) > MAX_NAMED else "")
