"""
Calibration: the scale between measured counts and the network's units, from the data (spec: physics 4).

With measured amplitude A_k, ``rms_input_scale`` r = sqrt((N/2)² / mean_k Σ A_k²) and x = r·A is what every
network sees. The probe is rescaled to Σ_modes Σ |P|² = (N/2)², so that an object of amplitude 1 reproduces
the mean measured energy. Computed in float64 and cast once.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.errors import DataError
from ptycho_backend.physics.propagation import far_field
from ptycho_backend.runtime.memory_map import chunks

if TYPE_CHECKING:
    from ptycho_backend.config import ModelConfig
    from ptycho_backend.data.scan import Scan

logger = logging.getLogger(__name__)

SUPPORT_FLOOR = 1e-3  # weight of a pixel that the probe does not light, relative to its brightest pixel


@dataclass(frozen=True, eq=False)
class Calibration:
    """
    What ties a model to measured data.

    Parameters
    ----------
    rms_input_scale : float
        r; multiplies measured amplitude.
    probe : complex64, shape (mode, y, x)
        Rescaled (and possibly masked and refined) probe, Σ |P|² = (N/2)².
    photon_scale : float
        Counts per squared unit of the stored data; 1 unless `nphotons` gave amplitude data a unit.
    photons_per_pattern : float
        Mean measured photons per pattern.
    probe_guess_sha256 : str
        Identifies the probe guess that `probe` was made from.
    """

    rms_input_scale: float
    probe: NDArray[np.complex64]
    photon_scale: float = 1.0
    photons_per_pattern: float = 0.0
    probe_guess_sha256: str = ""

    @property
    def N(self) -> int:
        """Side of the window, pixels."""
        return int(self.probe.shape[-1])


def calibrate(
    scan: Scan, model: ModelConfig, nphotons: float | None = None, probe: NDArray[Any] | None = None
) -> Calibration:
    """
    Measure the calibration of a scan.

    Parameters
    ----------
    scan : Scan
    model : ModelConfig
        `probe_mask` cuts the probe before it is scaled.
    nphotons : float, optional
        Mean photons per pattern, for amplitude data without an absolute unit.
    probe : complex, shape (mode, y, x), optional
        A refined probe to use instead of the scan's guess.

    Raises
    ------
    DataError
        If the scan holds no photon at all.
    """
    energy = mean_energy(scan)
    if energy <= 0.0:
        raise DataError(
            "A scan holds photons.",
            expected="some counts above zero on good pixels",
            received=f"an energy of {energy:g} per pattern in '{scan.source}'",
            fix="check the mask and that the right detector channel was saved",
        )
    photon_scale = 1.0
    if nphotons is not None and scan.measurement == "amplitude":
        photon_scale = nphotons / energy
    elif nphotons is not None:
        logger.warning("nphotons has no effect: '%s' holds counts (%.3g per pattern)", scan.source, energy)
    shaped = prepare_probe(scan.probe if probe is None else probe, probe_mask=model.probe_mask)
    r = np.sqrt((scan.N / 2) ** 2 * _good_share(shaped, scan.mask) / energy)
    return Calibration(
        rms_input_scale=float(r),
        probe=shaped,
        photon_scale=photon_scale,
        photons_per_pattern=energy * photon_scale,
        probe_guess_sha256=probe_hash(scan.probe),
    )


def mean_energy(scan: Scan) -> float:
    """Return mean_k Σ A_k² over good pixels, float64."""
    total = 0.0
    for chunk in chunks(scan.patterns):
        counts = np.asarray(chunk, dtype=np.float64)
        counts = counts if scan.measurement == "counts" else counts**2
        total += float((counts * scan.mask).sum())
    return total / len(scan)


def prepare_probe(probe: NDArray[Any], probe_mask: bool) -> NDArray[np.complex64]:
    """Cut the probe to its mask where asked for, and scale it to Σ |P|² = (N/2)²."""
    wide = np.asarray(probe, dtype=np.complex128)
    N = wide.shape[-1]
    if probe_mask:
        wide = wide * disc(N, N / 4)
    return (wide * (N / 2) / np.sqrt((np.abs(wide) ** 2).sum())).astype(np.complex64)


def disc(N: int, radius_px: float) -> NDArray[np.bool_]:
    """Return a disc of True around pixel ``[N//2, N//2]``."""
    y, x = np.indices((N, N)) - N // 2
    return np.asarray(y**2 + x**2 <= radius_px**2)


def probe_weight(probe: NDArray[Any]) -> NDArray[np.float64]:
    """Return how far a pixel of the window can be trusted: Σ_modes |P|² / max + 1e-3, shape (y, x)."""
    intensity = (np.abs(np.asarray(probe, dtype=np.complex128)) ** 2).sum(axis=0)
    return np.asarray(intensity / intensity.max() + SUPPORT_FLOOR)


def probe_hash(probe: NDArray[Any]) -> str:
    """Return the SHA-256 of a probe, to recognise a probe guess again."""
    return hashlib.sha256(np.ascontiguousarray(probe, dtype=np.complex64).tobytes()).hexdigest()


def _good_share(probe: NDArray[np.complex64], mask: NDArray[np.bool_]) -> float:
    """Share of the probe's far-field energy that falls on good pixels: what a masked detector can see."""
    intensity = (np.abs(far_field(probe.astype(np.complex128))) ** 2).sum(axis=0)
    return float((intensity * mask).sum() / intensity.sum())
