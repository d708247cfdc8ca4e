"""Short description of a scan as text, and its picture for a notebook."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.runtime.quantities import photons_text, pixel_text

SAMPLE = 16  # patterns, spread over the scan, whose mean stands for all in a description


class ScanLike(Protocol):
    """Scan, as :class:`ptycho_backend.data.scan.Scan`."""

    @property
    def patterns(self) -> NDArray[Any]:
        """Measured patterns (position, y, x)."""

    @property
    def positions_px(self) -> NDArray[np.float64]:
        """Positions (position, 2), pixels, (y, x)."""

    @property
    def probe(self) -> NDArray[np.complex64]:
        """Probe guess (mode, y, x)."""

    @property
    def measurement(self) -> str:
        """Domain of the patterns: counts or amplitude."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """True for good pixels, shape (y, x)."""

    @property
    def obj(self) -> NDArray[np.complex64] | None:
        """Known object (y, x), or None."""

    @property
    def pixel_size_m(self) -> tuple[float, float] | None:
        """Object pixel (y, x), metres, or None."""

    @property
    def attributes(self) -> dict[str, Any]:
        """Further plain values."""

    def counts(self, rows: NDArray[np.intp] | slice = ...) -> NDArray[np.float32]:
        """Counts of some positions, float32."""


def scan_facts(scan: ScanLike) -> dict[str, str]:
    """
    Return label and short text: patterns, pixel, dose, probe and known object.

    The dose is that of 16 patterns, because a description must not read a large file.
    """
    n, height, width = scan.patterns.shape
    texts = {"patterns": f"{n} patterns of {height} × {width} px ({scan.patterns.dtype} {scan.measurement})"}
    if scan.pixel_size_m is not None:
        texts["pixel"] = f"pixel {pixel_text(scan.pixel_size_m)}"
    if scan.measurement == "counts":
        photons = float(sampled_counts(scan).sum(axis=(1, 2), dtype=np.float64).mean())
        texts["dose"] = f"about {photons_text(photons)} photons per pattern"
    modes = len(scan.probe)
    guessed = " (guess from the patterns)" if scan.attributes.get("probe_guess") == "patterns" else ""
    texts["probe"] = f"{modes} probe mode{'s' * (modes != 1)}{guessed}"
    bad = int(np.count_nonzero(~scan.mask))
    if bad:
        texts["mask"] = f"{bad} masked pixels"
    if scan.obj is not None:
        texts["object"] = "known object"
    return texts


def sampled_counts(scan: ScanLike) -> NDArray[np.float32]:
    """Return the counts of at most 16 patterns, spread over the scan."""
    n = len(scan.patterns)
    return scan.counts(np.unique(np.linspace(0, n - 1, min(SAMPLE, n)).astype(np.intp)))


def scan_picture(scan: ScanLike) -> bytes:
    """Return a small PNG of the mean of some patterns, and of the positions."""
    from ptycho_backend.plots.notebook import pattern_png

    return pattern_png(sampled_counts(scan).mean(axis=0), scan.positions_px)
