"""Training domain: ranges of scan conditions that the training of a network covers (spec: metrics 8.7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import ModelFileError
from ptycho_backend.physics.calibration import Calibration

Range = tuple[float, float]

SCAN_CONDITIONS = "conditions"  # key in the provenance of a model trained on one scan
# Measured: a network trained on one scan reconstructs scans that differ by up to these factors.
SINGLE_SCAN_FACTORS = {"size_px": 2.0, "photons": 10.0, "probe_size": 1.5, "step": 2.0}
# Measured values of a simulated scan differ from the values of its recipe by up to these factors.
RECIPE_FACTORS = {"size_px": 1.0, "photons": 1.5, "probe_size": 1.4, "step": 1.4}
DESCRIPTIONS = {
    "size_px": "patterns with a side of",
    "photons": "photons per pattern:",
    "probe_size": "diameter of the probe over N:",
    "step": "step over the diameter of the probe:",
}
ROUNDING = 1e-6


def probe_diameter_px(probe: NDArray[Any]) -> float:
    """
    Return the effective diameter of a probe, sqrt(4/π·(Σ I)² / Σ I²), pixels.

    A uniform disc gives its diameter, a Gaussian beam its diameter at 1/e² of the intensity.
    """
    intensity = (np.abs(np.asarray(probe, dtype=np.complex128)) ** 2).sum(axis=0)
    area = intensity.sum() ** 2 / (intensity**2).sum()
    return float(2.0 * np.sqrt(area / np.pi))


def mean_step_px(positions_px: NDArray[np.float64]) -> float:
    """Return the mean step: the root of the area per position, or the step of a line scan; 0 for one position."""
    from scipy.spatial import ConvexHull, QhullError

    n = len(positions_px)
    if n < 2:
        return 0.0
    try:
        area = float(ConvexHull(positions_px).volume)
    except (QhullError, ValueError):
        return float(np.linalg.norm(np.ptp(positions_px, axis=0))) / (n - 1)
    # A square of n positions has √n − 1 steps along a side, not √n.
    return float(np.sqrt(area) / max(np.sqrt(n) - 1.0, 1.0))


@dataclass(frozen=True)
class Conditions:
    """
    Ranges of scan conditions, each from the lowest to the highest value.

    Parameters
    ----------
    size_px : (float, float)
        Side of a pattern, N.
    photons : (float, float)
        Photons per pattern.
    probe_size : (float, float)
        Diameter of the probe over N.
    step : (float, float), optional
        Distance of neighbouring positions over the diameter of the probe; None if unknown.
    """

    size_px: Range
    photons: Range
    probe_size: Range
    step: Range | None = None

    def expanded(self, factors: Mapping[str, float]) -> Conditions:
        """Return ranges with lower limits divided and upper limits multiplied by a factor for each condition."""
        limits = {name: getattr(self, name) for name in factors}
        return Conditions(
            **{name: value and (value[0] / factors[name], value[1] * factors[name]) for name, value in limits.items()}
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the known ranges as lists, by name."""
        return {name: list(value) for name, value in asdict(self).items() if value is not None}


def scan_conditions(scan: Scan, probe: NDArray[Any], photons: float) -> Conditions:
    """Return the conditions of one scan for a probe and a number of photons per pattern."""
    diameter_px = probe_diameter_px(probe)
    step = mean_step_px(scan.positions_px) / diameter_px
    return Conditions(*((value, value) for value in (float(scan.N), photons, diameter_px / scan.N, step)))


def training_domain_of(provenance: Mapping[str, Any], calibration: Calibration) -> Conditions:
    """
    Return the training domain of a network from the provenance of its model file.

    Pretraining covers the ranges of its recipe. Training on one scan covers the conditions of that scan, expanded by
    :data:`SINGLE_SCAN_FACTORS`. Without stored conditions the calibration gives them.

    Raises
    ------
    ModelFileError
        If the provenance holds conditions that are no ranges of positive numbers.
    """
    try:
        return _stored_domain(provenance, calibration)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise ModelFileError(
            "The provenance of a model holds the scan conditions of its training.",
            expected=f"ranges of positive numbers by name: {', '.join(DESCRIPTIONS)}",
            received=f"{type(error).__name__} for {error}",
            fix="copy the model file again from the run folder, or train again",
        ) from None


def _stored_domain(provenance: Mapping[str, Any], calibration: Calibration) -> Conditions:
    recipe = provenance.get("pretraining", {}).get("recipe")
    if recipe:
        return _recipe_conditions(recipe).expanded(RECIPE_FACTORS)
    stored = provenance.get(SCAN_CONDITIONS)
    if stored:
        conditions = Conditions(**{name: _range(name, value) for name, value in stored.items()})
    else:
        N, photons = float(calibration.N), calibration.photons_per_pattern
        size = probe_diameter_px(calibration.probe) / N
        conditions = Conditions((N, N), (photons, photons), (size, size))
    return conditions.expanded(SINGLE_SCAN_FACTORS)


def _range(name: str, limits: Any) -> Range:
    low, high = (float(value) for value in limits)
    if not 0 <= low <= high < np.inf:
        raise ValueError(f"{name} from {low} to {high}")
    return low, high


def outside(conditions: Conditions, domain: Conditions) -> list[str]:
    """Return one description for each condition of a scan that lies outside a training domain."""
    descriptions = []
    for name, words in DESCRIPTIONS.items():
        value, limits = getattr(conditions, name), getattr(domain, name)
        if limits is not None and not limits[0] * (1 - ROUNDING) <= value[0] <= limits[1] * (1 + ROUNDING):
            descriptions.append(f"{words} {value[0]:.3g} (training: {limits[0]:.3g} to {limits[1]:.3g})")
    return descriptions


def _recipe_conditions(recipe: Mapping[str, Any]) -> Conditions:
    sizes = [float(N) for N, share in recipe["sizes"].items() if share > 0]
    photons, probe_size, step = (
        _range(key, recipe[key]) for key in ("photons_per_pattern", "diameter_fraction", "step_of_diameter")
    )
    return Conditions((min(sizes), max(sizes)), photons, probe_size, step)
