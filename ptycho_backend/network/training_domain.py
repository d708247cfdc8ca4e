"""Under which conditions scans were measured, and which of them a network has seen (spec: metrics 8.7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.scan import Scan
from ptycho_backend.physics.calibration import Calibration

Range = tuple[float, float]

SCAN_CONDITIONS = "conditions"  # in the provenance of a model that one scan has trained
# A network trained on one scan has been seen to serve scans that differ from it by these factors.
LIKE_ONE_SCAN = {"size_px": 2.0, "photons": 10.0, "probe_size": 1.5, "step": 2.0}
# What is measured of a probe and of positions differs from what a recipe asks for.
MEASURED = {"size_px": 1.0, "photons": 1.5, "probe_size": 1.4, "step": 1.4}
WORDS = {
    "size_px": "patterns with a side of",
    "photons": "photons per pattern:",
    "probe_size": "diameter of the probe over N:",
    "step": "step over the diameter of the probe:",
}
ROUNDING = 1e-6


def probe_diameter_px(probe: NDArray[Any]) -> float:
    """
    Return the diameter of the disc over which a probe's photons would be spread evenly, pixels.

    4/π of the squared energy over the summed squares of the intensity, and the root of it: a disc gives its diameter,
    a Gaussian beam that at 1/e² of its intensity.
    """
    intensity = (np.abs(np.asarray(probe, dtype=np.complex128)) ** 2).sum(axis=0)
    area = intensity.sum() ** 2 / (intensity**2).sum()
    return float(2.0 * np.sqrt(area / np.pi))


def mean_step_px(positions_px: NDArray[np.float64]) -> float:
    """Return the side of the square that one position has for itself, or the step along a line; 0 for one position."""
    from scipy.spatial import ConvexHull, QhullError

    n = len(positions_px)
    if n < 2:
        return 0.0
    try:
        area = float(ConvexHull(positions_px).volume)
    except (QhullError, ValueError):
        return float(np.linalg.norm(np.ptp(positions_px, axis=0))) / (n - 1)
    # n positions have √n − 1 steps along a side, not √n.
    return float(np.sqrt(area) / max(np.sqrt(n) - 1.0, 1.0))


@dataclass(frozen=True)
class Conditions:
    """
    What decides whether a network knows a kind of scan: from the lowest to the highest value.

    Parameters
    ----------
    size_px : (float, float)
        Side of a pattern, N.
    photons : (float, float)
        Per pattern.
    probe_size : (float, float)
        Diameter of the probe over N.
    step : (float, float), optional
        Distance of neighbouring positions over the diameter of the probe; None where it is not known.
    """

    size_px: Range
    photons: Range
    probe_size: Range
    step: Range | None = None

    def widened(self, size_px: float, photons: float, probe_size: float, step: float) -> Conditions:
        """Return ranges that begin lower and end higher by a factor each."""
        return Conditions(
            _widened(self.size_px, size_px),
            _widened(self.photons, photons),
            _widened(self.probe_size, probe_size),
            self.step and _widened(self.step, step),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {name: list(value) for name, value in asdict(self).items() if value is not None}


def scan_conditions(scan: Scan, probe: NDArray[Any], photons: float) -> Conditions:
    """Return the conditions under which a scan was measured: with this probe, and photons per pattern."""
    diameter_px = probe_diameter_px(probe)
    step = mean_step_px(scan.positions_px) / diameter_px
    return Conditions(*((value, value) for value in (float(scan.N), photons, diameter_px / scan.N, step)))


def training_domain_of(provenance: Mapping[str, Any], calibration: Calibration) -> Conditions:
    """
    Return the conditions in which a network can be trusted, from what its model file says about its training.

    A network trained on one scan knows scans like that one; one trained on simulated scans of all kinds knows the
    ranges of its recipe.
    """
    recipe = provenance.get("pretraining", {}).get("recipe")
    if recipe:
        return _of_recipe(recipe).widened(**MEASURED)
    stored = provenance.get(SCAN_CONDITIONS)
    if stored:
        return Conditions(**{name: (value[0], value[1]) for name, value in stored.items()}).widened(**LIKE_ONE_SCAN)
    N, photons = float(calibration.N), calibration.photons_per_pattern
    size = probe_diameter_px(calibration.probe) / N
    return Conditions((N, N), (photons, photons), (size, size)).widened(**LIKE_ONE_SCAN)


def outside(found: Conditions, known: Conditions) -> list[str]:
    """Say in which respects a scan is unlike everything that a network has seen."""
    sentences = []
    for name, words in WORDS.items():
        here, there = getattr(found, name), getattr(known, name)
        if there is not None and not there[0] * (1 - ROUNDING) <= here[0] <= there[1] * (1 + ROUNDING):
            sentences.append(f"{words} {here[0]:.3g} (known: {there[0]:.3g} to {there[1]:.3g})")
    return sentences


def _of_recipe(recipe: Mapping[str, Any]) -> Conditions:
    sizes = [float(N) for N, share in recipe["sizes"].items() if share > 0]
    photons, probe_size, step = (
        (float(low), float(high))
        for low, high in (recipe[key] for key in ("photons_per_pattern", "diameter_fraction", "step_of_diameter"))
    )
    return Conditions((min(sizes), max(sizes)), photons, probe_size, step)


def _widened(limits: Range, factor: float) -> Range:
    return (limits[0] / factor, limits[1] * factor)
