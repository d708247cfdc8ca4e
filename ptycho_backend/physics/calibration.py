"""
Calibration: the scale between measured counts and the network's units, from the data (spec: physics 4).

A_k is the measured amplitude of pattern k. ``rms_input_scale`` is r = sqrt((N/2)² / mean_k Σ A_k²), and every
network receives x = r·A. The probe is rescaled to Σ_modes Σ |P|² = (N/2)²: an object of amplitude 1 then reproduces
the mean measured energy. All sums are float64, cast once.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.scan import masked_as_zero
from ptycho_backend.errors import DataError
from ptycho_backend.physics.propagation import far_field
from ptycho_backend.runtime.memory_map import chunks

if TYPE_CHECKING:
    from ptycho_backend.config import ModelConfig
    from ptycho_backend.data.scan import Scan

logger = logging.getLogger(__name__)

MEAN_INTENSITY = 0.25  # of a pixel, in normalised units (physics 4.1)
SUPPORT_FLOOR = 1e-3  # weight of a pixel without illumination, relative to the brightest pixel


@dataclass(frozen=True, eq=False)
class Calibration:
    """
    Scale and probe that connect a model to measured data.

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
        Hash of the probe guess that `probe` was made from.
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

    @property
    def counts_per_intensity(self) -> float:
        """Photons of a pixel over its normalised intensity."""
        return float(self.photon_scale / self.rms_input_scale**2)


def calibrate(
    scan: Scan, model: ModelConfig, nphotons: float | None = None, probe: NDArray[Any] | None = None
) -> Calibration:
    """
    Compute the calibration of a scan.

    Parameters
    ----------
    scan : Scan
    model : ModelConfig
        `probe_mask` masks the probe before it is scaled.
    nphotons : float, optional
        Mean photons per pattern, for amplitude data without an absolute unit.
    probe : complex, shape (mode, y, x), optional
        Refined probe; replaces the scan's guess.

    Raises
    ------
    DataError
        If the scan contains no photons.
    """
    energy = mean_energy(scan)
    if energy <= 0.0:
        raise DataError(
            "A scan contains photons.",
            expected="some counts above zero on good pixels",
            received=f"an energy of {energy:g} per pattern in '{scan.source}'",
            fix="check the mask and that the right detector channel was saved",
        )
    photon_scale = 1.0
    if nphotons is not None and scan.measurement == "amplitude":
        photon_scale = nphotons / energy
    elif nphotons is not None:
        logger.warning("nphotons has no effect: '%s' holds counts (%.3g per pattern)", scan.source, energy)
    scaled_probe = prepare_probe(scan.probe if probe is None else probe, probe_mask=model.probe_mask)
    r = np.sqrt((scan.N / 2) ** 2 * _good_share(scaled_probe, scan.mask) / energy)
    return Calibration(
        rms_input_scale=float(r),
        probe=scaled_probe,
        photon_scale=photon_scale,
        photons_per_pattern=energy * photon_scale,
        probe_guess_sha256=probe_hash(scan.probe),
    )


def mean_energy(scan: Scan) -> float:
    """Return mean_k Σ A_k² over good pixels, float64."""
    total = 0.0
    for chunk in chunks(scan.patterns):
        values = masked_as_zero(chunk, scan.mask).astype(np.float64)
        total += float((values if scan.measurement == "counts" else values**2).sum())
    return total / len(scan)


def prepare_probe(probe: NDArray[Any], probe_mask: bool) -> NDArray[np.complex64]:
    """Scale a probe to Σ |P|² = (N/2)²; `probe_mask` first sets it to 0 outside a disc of radius N/4."""
    probe = np.asarray(probe, dtype=np.complex128)
    N = probe.shape[-1]
    if probe_mask:
        probe = probe * disc(N, N / 4)
    return (probe * (N / 2) / np.sqrt((np.abs(probe) ** 2).sum())).astype(np.complex64)


def disc(N: int, radius_px: float) -> NDArray[np.bool_]:
    """Return a disc of True around pixel ``[N//2, N//2]``."""
    y, x = np.indices((N, N)) - N // 2
    return np.asarray(y**2 + x**2 <= radius_px**2)


def probe_weight(probe: NDArray[Any]) -> NDArray[np.float64]:
    """Return the weight of each window pixel: Σ_modes |P|² / max + 1e-3, shape (y, x)."""
    intensity = (np.abs(np.asarray(probe, dtype=np.complex128)) ** 2).sum(axis=0)
    return np.asarray(intensity / intensity.max() + SUPPORT_FLOOR)


def probe_hash(probe: NDArray[Any]) -> str:
    """Return the SHA-256 of a probe; equal probe guesses have equal hashes."""
    return hashlib.sha256(np.ascontiguousarray(probe, dtype=np.complex64).tobytes()).hexdigest()


def _good_share(probe: NDArray[np.complex64], mask: NDArray[np.bool_]) -> float:
    """Return the share of the probe's far-field energy on good pixels: the part that a masked detector measures."""
    intensity = (np.abs(far_field(probe.astype(np.complex128))) ** 2).sum(axis=0)
    return float((intensity * mask).sum() / intensity.sum())
