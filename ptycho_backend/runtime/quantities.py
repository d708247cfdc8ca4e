"""Lengths, resolutions and photon numbers as text, levels of a ring correlation, and shares of probe modes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pair = tuple[float, float]

LENGTHS = (("m", 1.0), ("mm", 1e-3), ("µm", 1e-6), ("nm", 1e-9), ("pm", 1e-12))
RESOLVED = 0.5  # ring correlation with the truth that counts as resolved
# Ring correlation of half datasets: the image of all patterns then correlates with the truth at 0.5.
RESOLVED_BY_HALVES = 1 / 7
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def length_unit(length_m: float) -> tuple[str, float]:
    """Return the largest unit that is not longer than a length, at least pm, and its size in metres."""
    size = abs(length_m)
    return next(((name, value) for name, value in LENGTHS if size >= value), LENGTHS[-1])


def length_text(length_m: float) -> str:
    """Return a length with four digits and a fitting unit, as 8.4 nm."""
    unit, size_m = length_unit(length_m)
    return f"{length_m / size_m:.4g} {unit}"


def pixel_text(pixel_m: Pair) -> str:
    """Return the sides (y, x) of a pixel as text: one length for a square pixel."""
    texts = [length_text(side) for side in pixel_m]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} × {texts[1]} (y, x)"


def resolution_m(fraction: float, pixel_size_m: Pair | None) -> float | None:
    """
    Return the period of the finest resolved detail, metres.

    Parameters
    ----------
    fraction : float
        Spatial frequency as a fraction of Nyquist. 1 is the detector's edge: a period of two pixels.
    pixel_size_m : (float, float), optional
        Object pixel (y, x), metres. The longer side counts.

    Returns
    -------
    float or None
        None for an unknown pixel, and for a frequency of 0 or of a non-finite value: nothing is resolved.

    Notes
    -----
    Spec: metrics 5.3. A full period, not half of it: a line and the gap beside it.
    """
    if pixel_size_m is None or not math.isfinite(fraction) or fraction <= 0:
        return None
    return 2 * max(pixel_size_m) / fraction


def resolution_text(fraction: float, pixel_size_m: Pair | None) -> str:
    """Return a fraction of Nyquist, and the period in a unit of length where the pixel is known."""
    period_m = resolution_m(fraction, pixel_size_m)
    text = f"{fraction:.2f} of Nyquist"
    return text if period_m is None else f"{text} (period {period_text(period_m)})"


def period_text(period_m: float) -> str:
    """Return a resolved period with three digits, as 23.5 nm."""
    unit, size_m = length_unit(period_m)
    value = period_m / size_m
    return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"


def photons_text(photons: float) -> str:
    """Return a number of photons with two digits, from 10⁴ on as a power of ten: 1.2·10⁵."""
    if photons != 0 and not 1e-2 <= abs(photons) < 9.95e3:
        mantissa, _, exponent = f"{photons:.1e}".partition("e")
        return f"{mantissa}·10{str(int(exponent)).translate(SUPERSCRIPTS)}" if exponent else mantissa  # nan, inf
    return f"{photons:.2g}" if abs(photons) < 100 else f"{photons:.0f}"


def mode_shares(probe: NDArray[Any]) -> NDArray[np.float64]:
    """Return the share of each mode (mode, y, x) in the light, shape (mode,)."""
    energy = (np.abs(probe.astype(np.complex128)) ** 2).sum(axis=(1, 2))
    return np.asarray(energy / max(float(energy.sum()), np.finfo(float).tiny))
