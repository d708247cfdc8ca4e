"""Checks of the patterns of a scan: unit, saturation, bad pixels, background, zero frequency, odd frames."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.detector_faults import BadPixels, find_bad_pixels
from ptycho_backend.data.odd_frames import MIN_SHARE
from ptycho_backend.data.selection import PATTERNS, PIXELS, measured_rows
from ptycho_backend.errors import DataError
from ptycho_backend.quality.scan_check import Check, Grade, ScanNumbers, count_text
from ptycho_backend.solver.canvas import listed

Faults = list[tuple[Grade, str, str]]

SMALL_PHOTONS = 20.0  # squares up to this multiple of the smallest are whole numbers, if amplitudes are roots of counts
ROOT_TOLERANCE = 0.05  # distance from a whole number
ROOT_SHARE = 0.9  # of the small values; 0.1 of evenly spread ones come as near
NORMALISED = 1.0  # photons per pattern: less is no number of photons
TIES = 8  # values at the largest one, in detectors that do not saturate
MIN_FULL = 64.0  # counts: a smaller largest value occurs often by chance
TILES = 8  # along a side of the detector, for the level of the darkest region
DARKEST, DARK = 0.05, 0.30  # shares of the tiles whose levels are compared
FLAT = 1.25  # ratio of these levels that a background alone does not exceed
BACKGROUND_SHARE, LARGE_BACKGROUND = 0.02, 0.3  # of the mean level of all pixels
CENTRE_SHARE, FAR_CENTRE = 1 / 32, 1 / 8  # of the detector's side
MIN_CENTRE_PX = 1.5
TAIL = 2  # empty patterns at the end of a scan, which its file was made for
LISTED = 12  # groups of patterns in a line


def check_unit(numbers: ScanNumbers) -> Check:
    """Check dtype and measurement domain: undeclared fractions, normalised data."""
    scan, faults = numbers.scan, _no_faults()
    photons = float(numbers.mean.sum())
    found = f"{scan.patterns.dtype}, {scan.measurement}{', not declared' if scan.inferred else ''}"
    found += f", mean {photons:.3g} per pattern{' (squared)' if scan.measurement == 'amplitude' else ''}"
    if scan.measurement == "amplitude" and scan.inferred and not _are_roots(numbers):
        reason = "values with fractions and no declared unit are read as amplitude; intensities look the same"
        fix = "ptychopinn import --patterns.unit counts for intensities, --patterns.unit amplitude for square roots"
        faults.append(("doubtful", reason, fix))
    elif photons < NORMALISED:
        reason = "normalised data: the number of photons, and so the shot noise, is unknown"
        fix = "--training.nphotons gives the photons per pattern; better undo the normalisation"
        faults.append(("doubtful", reason, fix))
    return Check.of("unit", found, faults)


def check_saturation(numbers: ScanNumbers) -> Check:
    """Check how many values lie at the largest one, as those of a full counter do."""
    scan = numbers.scan
    most, at, patterns, near = numbers.largest
    counts = most if scan.measurement == "counts" else most**2
    full = scan.patterns.dtype.kind == "u" and most == np.iinfo(scan.patterns.dtype).max
    found = f"largest value {most:.6g}, {count_text(at, 'time')} in {count_text(patterns, 'pattern')}"
    if not full and (at < TIES or counts < MIN_FULL or at <= near):
        return Check("saturation", "good", found)
    grade: Grade = "wrong" if patterns > len(numbers.rows) / 2 else "doubtful"
    reason = "many values at the largest one: the counter is full there, and the real counts are higher"
    return Check("saturation", grade, found, reason, f"ptychopinn import --detector.saturation {most:.6g} masks them")


def check_pixels(numbers: ScanNumbers) -> Check:
    """Check for hot, dead, negative and marked pixels that are not masked."""
    scan = numbers.scan
    found = find_bad_pixels(scan.patterns, scan.mask, scan.measurement)
    masked = int((~scan.mask).sum())
    text = f"{_kinds(found) or 'none'} among the good pixels, {masked} masked"
    if masked:
        within = _of_mask(find_bad_pixels(scan.patterns, None, scan.measurement), ~scan.mask)
        text += f" ({within})" if within else ""
    if not len(found):
        return Check("bad pixels", "good", text)
    reason = "pixels that do not measure light change the image"
    fix = "--bad-pixels auto masks them" if PIXELS in scan.searched else "they are masked when the scan is used"
    return Check("bad pixels", "doubtful", text, reason, fix)


def check_background(numbers: ScanNumbers) -> Check:
    """Check the level of the darkest region against the mean level: a flat one is a background."""
    level, ratio = _dark_levels(numbers.mean, numbers.scan.mask)
    mean = float(numbers.mean.sum() / numbers.scan.mask.sum())
    share = level / mean if mean > 0 else 0.0
    found = f"{level:.3g} counts per pixel in the darkest region, {share:.1%} of the mean"
    if share <= BACKGROUND_SHARE or ratio > FLAT:
        return Check("background", "good", found)
    grade: Grade = "wrong" if share > LARGE_BACKGROUND else "doubtful"
    reason = "the darkest regions have one level: light or dark current that no probe explains"
    fix = "--inference.fit_background on, or ptychopinn import --detector.dark FILE subtracts a dark frame"
    return Check("background", grade, found, reason, fix)


def check_zero_frequency(numbers: ScanNumbers) -> Check:
    """Check the place of the zero frequency: in the corner, or off the middle by some pixels."""
    from ptycho_backend.importing.centre import found_centre_px, is_in_corner

    mean, mask, middle = numbers.mean, numbers.scan.mask, numbers.scan.N // 2
    if is_in_corner(mean, mask):
        reason = "the light of the mean pattern lies in the four corners, as FFT code keeps it"
        fix = "ptychopinn import --detector.fftshift on moves it to the middle"
        return Check("zero frequency", "wrong", "in the corner", reason, fix)
    try:
        y, x = found_centre_px(mean, mask)
    except DataError as error:
        fix = "check the mask, and that the right detector channel was saved"
        return Check("zero frequency", "doubtful", "not found", error.received, fix)
    off = float(np.hypot(y - middle, x - middle))
    found = f"at (y, x) = ({y:.1f}, {x:.1f}), {off:.1f} px off the middle ({middle}, {middle})"
    if off <= max(MIN_CENTRE_PX, CENTRE_SHARE * numbers.scan.N):
        return Check("zero frequency", "good", found)
    grade: Grade = "wrong" if off > FAR_CENTRE * numbers.scan.N else "doubtful"
    reason = "patterns off the middle give an object with a phase ramp, or lose light at the rim"
    fix = f"ptychopinn import --detector.centre_y_px {y:.1f} --detector.centre_x_px {x:.1f}"
    return Check("zero frequency", grade, found, reason, fix)


def check_frames(numbers: ScanNumbers) -> Check:
    """Check for empty, saturated and mad patterns, and for an unwritten tail."""
    scan = numbers.scan
    odd, rows = numbers.odd, measured_rows(len(scan), scan.attributes)
    texts = [f"{len(k)} {reason} ({_numbers(rows[k])})" for reason, k in odd.by_reason().items() if len(k)]
    tail, faults = _tail(odd.empty, len(scan)), _no_faults()
    fix = (
        "they are left out when the scan is used"
        if PATTERNS not in scan.searched
        else "--odd-patterns auto leaves them out"
    )
    if len(scan) - len(odd) < MIN_SHARE * len(scan):
        faults.append(("wrong", "hardly a pattern shows light through the object", "check shutter, detector and mask"))
    if tail >= TAIL:
        texts.append(f"the last {tail} hold no photon")
        first = rows[len(scan) - tail]
        reason = "the end of the scan was never written: it stopped early, or the file is not complete"
        faults.append(("doubtful", reason, f"--exclude {first}-{rows[-1]}"))
    if len(odd):
        faults.append(("doubtful", "patterns that cannot belong to the scan by their own statistics", fix))
    return Check.of("frames", "; ".join(texts) or f"all {len(scan)} alike", faults)


def _no_faults() -> Faults:
    return []


def _are_roots(numbers: ScanNumbers) -> bool:
    """Return True for amplitudes whose squares are whole multiples of the smallest one."""
    values = numbers.values(numbers.blocks()[0]).astype(np.float64)
    squares = values[values > 0] ** 2
    if not squares.size:
        return False
    multiples = squares / squares.min()
    small = multiples[multiples <= SMALL_PHOTONS]
    near = np.abs(small - np.rint(small)) <= ROOT_TOLERANCE
    # Half of the light on one value, as of an empty object, shows no unit.
    return bool(len(np.unique(np.rint(small))) > 2 and near.mean() >= ROOT_SHARE)


def _dark_levels(mean: NDArray[np.float64], mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the level of the darkest tiles, and the ratio of that of brighter ones to it."""
    edges = np.linspace(0, len(mean), TILES + 1).astype(int)
    sides = [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]
    tiles = list(itertools.product(sides, sides))
    levels = [float(mean[tile][mask[tile]].mean()) for tile in tiles if mask[tile].any()]
    low, high = np.quantile(levels, [DARKEST, DARK])
    return float(low), float(high / low) if low > 0 else float("inf")


def _tail(empty: NDArray[np.intp], n: int) -> int:
    """Return the number of empty patterns at the end of a scan of `n` patterns."""
    last = set(empty.tolist())
    return next((k for k in range(n) if n - 1 - k not in last), n)


def _kinds(found: BadPixels) -> str:
    return ", ".join(f"{len(pixels)} {kind}" for kind, pixels in found.by_kind().items() if len(pixels))


def _of_mask(found: BadPixels, masked: NDArray[np.bool_]) -> str:
    """Return the number of masked pixels of each kind."""
    numbers = {kind: int(masked[tuple(pixels.T)].sum()) for kind, pixels in found.by_kind().items()}
    return ", ".join(f"{n} {kind}" for kind, n in numbers.items() if n)


def _numbers(rows: NDArray[np.intp]) -> str:
    groups = listed(rows).split(",")
    return ", ".join(groups[:LISTED]) + (", …" if len(groups) > LISTED else "")
