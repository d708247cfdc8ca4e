"""Check of a scan with its grade, and the statistics of a scan that several checks share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.odd_frames import OddFrames
from ptycho_backend.data.pixel_statistics import CHUNK_PIXELS, sampled
from ptycho_backend.data.scan import Scan
from ptycho_backend.runtime.memory_map import CHUNK, release

Real = NDArray[np.float64]
Rows = NDArray[np.intp]
Grade = Literal["good", "doubtful", "wrong"]
GRADES: tuple[Grade, ...] = ("good", "doubtful", "wrong")
FULL_RANGE = 0.95  # of the largest value: values above it are compared with those at the largest
ENERGY_SHARE = 0.8  # share of the probe's energy inside the measured circle


@dataclass(frozen=True)
class Check:
    """
    Result of one check of a scan.

    Parameters
    ----------
    name : str
        Subject of the check.
    grade : {"good", "doubtful", "wrong"}
        "wrong" for a scan that gives no usable image as it is.
    found : str
        Number that the check found, with its unit.
    reason : str
        Reason for a grade that is not good; empty for "good".
    fix : str
        Option that corrects the scan, in the words of the command line; empty for "good".
    """

    name: str
    grade: Grade
    found: str
    reason: str = ""
    fix: str = ""

    @staticmethod
    def of(name: str, found: str, faults: list[tuple[Grade, str, str]]) -> Check:
        """Return the check with the worst of some faults, each (grade, reason, fix); "good" without a fault."""
        if not faults:
            return Check(name, "good", found)
        worst = max((grade for grade, _, _ in faults), key=GRADES.index)
        _, reason, fix = next(fault for fault in faults if fault[0] == worst)
        return Check(name, worst, found, reason, fix)

    def to_dict(self) -> dict[str, str]:
        """Return the fields by name."""
        return asdict(self)


class ScanNumbers:
    """
    Statistics of a scan, each computed at its first use.

    A sample of a large stack is read.

    Parameters
    ----------
    scan : Scan
    odd : OddFrames, optional
        Patterns that take no part; None for a scan without odd ones.

    Attributes
    ----------
    rows : int, shape (pattern,)
        Numbers of the patterns in the sample.
    """

    def __init__(self, scan: Scan, odd: OddFrames | None = None) -> None:
        self.scan, self.odd = scan, odd or OddFrames()
        usual = np.setdiff1d(np.arange(len(scan)), self.odd.rows)
        usual = usual if len(usual) else np.arange(len(scan))
        self.rows: Rows = usual[:: max(1, len(scan) // max(len(sampled(scan.patterns)), 1))]

    def blocks(self) -> list[Rows]:
        """Return the numbers of the sampled patterns, block by block."""
        size = max(1, CHUNK_PIXELS // self.scan.N**2)
        return [self.rows[start : start + size] for start in range(0, len(self.rows), size)]

    def values(self, rows: Rows) -> NDArray[Any]:
        """Return the raw values (position, pixel) of good pixels of some patterns."""
        values = np.asarray(self.scan.patterns[rows])[:, self.scan.mask]
        release(self.scan.patterns)
        return values

    @cached_property
    def mean(self) -> Real:
        """Mean counts of the sampled patterns, shape (y, x), 0 on bad pixels."""
        total = np.zeros((self.scan.N, self.scan.N))
        for rows in self.blocks():
            total += self.scan.counts(rows).sum(axis=0, dtype=np.float64)
        return total / len(self.rows)

    @cached_property
    def largest(self) -> tuple[float, int, int, int]:
        """Largest value, number of values there, of patterns with one, and of values from 95 % of it up to it."""
        most = max(float(self.values(rows).max()) for rows in self.blocks())
        at, patterns, near = 0, 0, 0
        for rows in self.blocks():
            values = self.values(rows)
            full = values == most
            at, patterns = at + int(full.sum()), patterns + int(full.any(axis=1).sum())
            near += int((values >= FULL_RANGE * most).sum())
        return most, at, patterns, near - at


def photons_per_pattern(scan: Scan) -> Real:
    """Return the total counts of every pattern on good pixels."""
    starts = range(0, len(scan), CHUNK)
    sums = [(scan.counts(slice(i, i + CHUNK)) * scan.mask).sum(axis=(1, 2), dtype=np.float64) for i in starts]
    return np.concatenate(sums)


def probe_diameter_px(probe: NDArray[Any]) -> float:
    """
    Return the diameter of a uniform disc with the spread of a probe, pixels.

    A circle around the centre of mass holds 80 % of the energy of both.
    Faint tails and speckle have little influence on it.
    """
    intensity = probe_intensity(probe)
    total = float(intensity.sum())
    if total <= 0.0:
        return float("nan")
    y, x = np.indices(intensity.shape)
    centre_y, centre_x = float((y * intensity).sum()) / total, float((x * intensity).sum()) / total
    radius = np.hypot(y - centre_y, x - centre_x).ravel()
    order = np.argsort(radius, kind="stable")
    inside = int(np.searchsorted(np.cumsum(intensity.ravel()[order]), ENERGY_SHARE * total))
    # The number of pixels inside gives the area; the radius of the last pixel would be a step function.
    return float(2 * np.sqrt((inside + 1) / ENERGY_SHARE / np.pi))


def probe_intensity(probe: NDArray[Any]) -> Real:
    """Return the intensity (y, x) of all modes."""
    modes = np.asarray(probe, dtype=np.complex128).reshape(-1, *np.shape(probe)[-2:])
    return np.asarray((np.abs(modes) ** 2).sum(axis=0))


def neighbour_distance_px(positions_px: Real) -> float:
    """Return the median distance of a position to its nearest neighbour, pixels; NaN for one position."""
    from scipy.spatial import cKDTree

    if len(positions_px) < 2:
        return float("nan")
    distances, _ = cKDTree(positions_px).query(positions_px, k=2)
    return float(np.median(distances[:, 1]))


def count_text(n: int, noun: str) -> str:
    """Return a number with a noun in the singular or plural."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
