"""
Data model of a ptychographic scan, checked at construction.

Notes
-----
Spec: data 1 (fields), data 2 (rules).
"""

from __future__ import annotations

import copy
import hashlib
import logging
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.fields import numbers, unpaired_patterns, wrong_shape
from ptycho_backend.data.number_checks import check_range, largest_value, not_finite, object_origin, object_pixel
from ptycho_backend.data.pixel_statistics import always_marked
from ptycho_backend.data.probe_guess import FROM_PATTERNS, PROBE_GUESS, guess_of, out_of_corner
from ptycho_backend.data.rows import EXCLUDED, checked_rows
from ptycho_backend.data.scan_summary import scan_facts, scan_picture
from ptycho_backend.errors import DataError
from ptycho_backend.runtime.memory_map import CHUNK, chunks, gather_rows, release

logger = logging.getLogger(__name__)

Measurement = Literal["counts", "amplitude"]
MEASUREMENTS = ("counts", "amplitude")


@dataclass(frozen=True, eq=False)
class Scan:
    """
    Ptychographic scan: patterns, positions and probe, with a known object if available.

    Parameters
    ----------
    patterns : array, shape (position, y, x), any integer or real dtype, may be memory-mapped
        Measured diffraction, zero frequency at ``[N//2, N//2]``.
    positions_px : float64, shape (position, 2), pixels, (y, x)
        Scan coordinates of pixel ``[N//2, N//2]`` of the probe window; integer coordinates are pixel centres.
    probe : complex, shape (mode, y, x), (y, x) or (y, x, 1), optional
        Probe guess; stored as (mode, y, x) complex64. A probe in four pieces at the corners of its array is moved to
        the middle. None makes a guess without defocus from the patterns. Both give a warning.
    measurement : {"counts", "amplitude"}, optional
        Photons, or their square root. None selects counts if every value is an integer, else amplitude.
    mask : bool, shape (y, x), optional
        True marks a good detector pixel; None marks all pixels as good. Other pixels may hold any value. Pixels with a
        marker in every pattern (NaN, a negative number, the largest value of the dtype) are masked with a warning.
    obj : complex64, shape (y, x), optional
        Known object of a simulation, or of labelled data.
    obj_origin_px : (float, float), pixels, (y, x)
        Scan coordinates of the object's pixel (0, 0).
    pixel_size_m : (float, float), optional
        Object pixel size, (y, x), metres.
    source : str
        File or origin of the scan, for messages and provenance.
    attributes : dict
        Further plain values from the file. ``probe_guess`` is "patterns" for a guess that was made from them.
    searched : tuple of str
        "pixels" and "patterns" where the search for bad ones is done, or not wanted (data 9.8, 10.6).
    inferred : bool
        Measurement domain that the values gave, because none was declared.

    Raises
    ------
    DataError, ShapeError
        If the data violate the specification; the message names source and field.
    """

    patterns: NDArray[Any]
    positions_px: NDArray[np.float64]
    probe: NDArray[np.complex64] = None  # type: ignore[assignment]
    measurement: Measurement = None  # type: ignore[assignment]
    mask: NDArray[np.bool_] = None  # type: ignore[assignment]
    obj: NDArray[np.complex64] | None = None
    obj_origin_px: tuple[float, float] = (0.0, 0.0)
    pixel_size_m: tuple[float, float] | None = None
    source: str = "memory"
    attributes: dict[str, Any] = field(default_factory=dict)
    searched: tuple[str, ...] = ()
    inferred: bool = False

    def __post_init__(self) -> None:
        put = object.__setattr__  # the only assignments to the frozen fields
        put(self, "patterns", _checked_patterns(self.patterns, self.source))
        put(self, "positions_px", _checked_positions(self.positions_px, len(self.patterns), self.source))
        if self.probe is not None:
            put(self, "probe", out_of_corner(canonical_probe(self.probe, self.N, self.source), self.source))
        mask = _checked_mask(self.mask, self.N, self.source)
        put(self, "mask", _without_markers(self.patterns, mask, self.source))
        largest = largest_value(self.patterns, self.mask, self.source)
        put(self, "inferred", self.inferred or self.measurement is None)
        put(self, "measurement", _checked_measurement(self))
        check_range(largest, self.measurement, self.source)
        put(self, "pixel_size_m", object_pixel(self.pixel_size_m, self.source))
        put(self, "obj_origin_px", object_origin(self.obj_origin_px, self.source))
        if self.obj is not None:
            put(self, "obj", _checked_object(self.obj, self.source))
        probe, attributes = _guessed_probe(self)
        put(self, "probe", probe)
        put(self, "attributes", attributes)

    @property
    def N(self) -> int:
        """Side of a pattern, pixels."""
        return int(self.patterns.shape[-1])

    def __len__(self) -> int:
        return len(self.patterns)

    def amplitude(self, rows: NDArray[np.intp] | slice = slice(None)) -> NDArray[np.float32]:
        """Return measured amplitude (square root of counts) of some positions, float32; 0 on masked pixels."""
        return np.sqrt(self.counts(rows)) if self.measurement == "counts" else self._real(rows)

    def counts(self, rows: NDArray[np.intp] | slice = slice(None)) -> NDArray[np.float32]:
        """Return measured counts of some positions, float32; 0 on masked pixels."""
        values = self._real(rows)
        # Cast before squaring: a squared uint16 would overflow.
        return values if self.measurement == "counts" else values * values

    def __repr__(self) -> str:
        return f"<Scan '{self.source}': {', '.join(scan_facts(self).values())}>"

    def _repr_html_(self) -> str:
        from ptycho_backend.plots.notebook import html_summary

        return html_summary(f"Scan {self.source}", scan_facts(self), partial(scan_picture, self))

    def subset(self, rows: NDArray[np.intp] | slice) -> Scan:
        """Return a scan of some of the positions."""
        patterns = self.patterns[rows] if isinstance(rows, slice) else _gathered(self.patterns, rows)
        # Numbers of patterns count within the part: those of the whole file would not fit its length.
        attributes = {name: value for name, value in self.attributes.items() if name != EXCLUDED}
        patterns = _checked_stack(patterns, self.source)
        return self.changed(patterns=patterns, positions_px=self.positions_px[rows], attributes=attributes)

    def changed(self, **fields: Any) -> Scan:
        """Return the scan with some fields replaced, without the checks of a new one, which read all patterns."""
        changed = copy.copy(self)
        for name, value in fields.items():
            object.__setattr__(changed, name, value)
        return changed

    def without(self, rows: NDArray[np.intp]) -> Scan:
        """
        Return the scan without some positions.

        Raises
        ------
        DataError
            If a row is outside of the scan, or no position is left.

        Notes
        -----
        Spec: data 10.5.
        """
        if np.size(rows) == 0:
            return self
        return self.subset(np.setdiff1d(np.arange(len(self)), checked_rows(rows, len(self), self.source)))

    def data_hash(self) -> str:
        """Return the SHA-256 of patterns (masked pixels as 0), positions, probe, mask and measurement domain."""
        digest = hashlib.sha256(f"{self.measurement}{self.patterns.dtype}{self.patterns.shape}".encode())
        for chunk in chunks(self.patterns):
            digest.update(np.ascontiguousarray(masked_as_zero(chunk, self.mask)).tobytes())
        for array in (self.positions_px, self.probe, self.mask):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def _real(self, rows: NDArray[np.intp] | slice) -> NDArray[np.float32]:
        # A copy in native byte order: frameworks refuse big-endian detector files.
        values = masked_as_zero(np.asarray(self.patterns[rows]), self.mask).astype(np.float32)
        release(self.patterns)
        return values


def masked_as_zero(patterns: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    """
    Return patterns (..., y, x) with masked pixels as 0, in their own dtype.

    Masked pixels may hold NaN, which a multiplication by 0 would keep. Patterns without masked pixels are not copied.

    Notes
    -----
    Spec: data 2.8.
    """
    if mask.all():
        return patterns
    values = np.array(patterns)
    values[..., ~mask] = 0
    return values


def canonical_probe(probe: Any, N: int, source: str = "memory") -> NDArray[np.complex64]:
    """
    Return a probe as (mode, y, x) complex64.

    (y, x) becomes one mode. (y, x, 1) is one mode too, if its first two axes are equal.
    """
    array = np.asarray(probe)
    if array.ndim == 2:
        array = array[None]
    if array.ndim == 3 and array.shape[-1] == 1 and array.shape[0] == array.shape[1]:
        array = array[None, :, :, 0]
    if array.ndim != 3 or array.shape[1:] != (N, N) or array.shape[0] == 0:
        rule, expected = "Probe and diffraction patterns have the same side length.", f"({N}, {N}) or (mode, {N}, {N})"
        fix = f"crop or pad the probe, or the patterns, to one common size (now {N})"
        raise wrong_shape(probe, "probe", source, rule, f"a probe of shape {expected}", fix)
    if not np.issubdtype(array.dtype, np.number):
        raise not_finite("probe", source)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        canonical = np.ascontiguousarray(array, dtype=np.complex64)
    if not np.isfinite(canonical).all():
        raise not_finite("probe", source)
    if not np.any(canonical):
        fix = "give a probe guess, for example of the beamline's optics"
        raise DataError.in_field("A probe is not dark.", "some non-zero values", "zeros only", fix, "probe", source)
    return canonical


def _guessed_probe(scan: Scan) -> tuple[NDArray[np.complex64], dict[str, Any]]:
    """Return the probe of a scan, made from its patterns if none is given, and attributes that agree with it."""
    attributes, missing = scan.attributes, scan.probe is None
    if not missing and attributes.get(PROBE_GUESS) != FROM_PATTERNS:
        return scan.probe, attributes
    guess = guess_of(scan.patterns, scan.mask, scan.measurement)
    if not missing:  # another probe has taken the place of a guess that was made
        same = np.array_equal(scan.probe, guess)
        kept = {name: value for name, value in attributes.items() if same or name != PROBE_GUESS}
        return scan.probe, kept
    if not guess.any():
        rule, fix = "A scan contains photons.", "check the mask and that the right detector channel was saved"
        received = "0 on all good pixels"
        raise DataError.in_field(rule, "some values above zero", received, fix, "patterns", scan.source)
    logger.warning(
        "'%s' holds no probe guess: a spot without defocus is made from the mean pattern. Reconstruction and training "
        "search for its defocus first, unless probe_iterations is 0: the image is then wrong if the sample was out of "
        "focus. A guess of your own saves this time",
        scan.source,
    )
    return guess, {**attributes, PROBE_GUESS: FROM_PATTERNS}


def _gathered(patterns: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[Any]:
    """Return a copy of some patterns; a large one lies in a file, as `patterns` does."""
    return gather_rows(patterns, np.arange(len(patterns))[rows])


def _checked_patterns(patterns: Any, source: str) -> NDArray[Any]:
    array = _checked_stack(numbers(patterns, "patterns", source, kinds="biufcO"), source)
    if array.dtype.kind not in "uif":
        rule, fix = "Diffraction patterns are real numbers.", "store counts or amplitudes, not complex waves"
        received = f"dtype {array.dtype}"
        raise DataError.in_field(rule, "an integer or real dtype", received, fix, "patterns", source)
    return array


def _checked_stack(array: NDArray[Any], source: str) -> NDArray[Any]:
    if array.ndim != 3 or array.shape[1] != array.shape[2]:
        rule, fix = "Diffraction patterns are a stack of squares.", "crop or pad the patterns of one scan to squares"
        raise wrong_shape(array, "patterns", source, rule, "shape (position, N, N)", fix)
    if len(array) == 0:
        rule, fix = "A scan holds at least one pattern.", "check that the measurement was written to the file"
        raise DataError.in_field(rule, "one or more patterns", "none", fix, "patterns", source)
    return array


def _checked_positions(positions_px: Any, n_patterns: int, source: str) -> NDArray[np.float64]:
    positions = np.asarray(numbers(positions_px, "positions_px", source), dtype=np.float64)
    if positions.ndim != 2 or positions.shape[1] != 2:
        rule, fix = "Positions are (y, x) pairs.", "stack y and x: numpy.stack([y_px, x_px], axis=1)"
        raise wrong_shape(positions, "positions_px", source, rule, "shape (position, 2)", fix)
    if len(positions) != n_patterns:
        expected = f"{n_patterns} positions, one for every pattern"
        raise unpaired_patterns(expected, f"{len(positions)} positions in '{source}'")
    if not np.isfinite(positions).all():
        raise not_finite("positions_px", source)
    return positions


def _checked_mask(mask: Any, N: int, source: str) -> NDArray[np.bool_]:
    if mask is None:
        return np.ones((N, N), dtype=bool)
    array = np.asarray(mask)
    if array.shape != (N, N):
        rule, fix = "The mask covers the detector.", "crop or pad the mask together with the patterns"
        raise wrong_shape(array, "mask", source, rule, f"shape ({N}, {N})", fix)
    if not array.any():
        rule, fix = "Some detector pixels are good.", "invert the mask: True marks a good pixel, unlike in 'bad_pixels'"
        raise DataError.in_field(rule, "True for good pixels", "no good pixel", fix, "mask", source)
    return array.astype(bool)


def _without_markers(patterns: NDArray[Any], mask: NDArray[np.bool_], source: str) -> NDArray[np.bool_]:
    """Return the mask without the pixels that hold a marker in every pattern, with a warning."""
    marked = always_marked(patterns, mask)
    if not marked.any() or np.array_equal(marked, mask):
        return mask
    y, x = np.argwhere(marked)[0]
    logger.warning(
        "'%s': %d good pixels hold a marker instead of counts in every pattern, such as %s at (y, x) = (%d, %d): "
        "they are masked as a gap of the detector or saturated",
        *(source, int(marked.sum()), patterns[0, y, x], y, x),
    )
    return mask & ~marked


def _checked_measurement(scan: Scan) -> str:
    measurement, patterns, source = scan.measurement, scan.patterns, scan.source
    if measurement is None:
        inferred = "counts" if all(_are_integers(chunk, scan.mask) for chunk in chunks(patterns)) else "amplitude"
        logger.info("'%s' declares no measurement domain: read as %s", source, inferred)
        return inferred
    if measurement not in MEASUREMENTS:
        rule = "A measurement domain is 'counts' or 'amplitude'."
        fix = "use 'counts' for photons, 'amplitude' for their square root"
        raise DataError.in_field(rule, "one of these two words", f"{measurement!r}", fix, "measurement", source)
    if measurement == "amplitude" and patterns.dtype.kind in "ui":
        expected = "real numbers, because the data are declared as amplitude"
        raise _wrong_domain(expected, f"integers of dtype {patterns.dtype}", "declare measurement='counts'", source)
    if measurement == "counts":
        _check_counts(patterns, scan.mask, source)
    return measurement


def _check_counts(patterns: NDArray[Any], mask: NDArray[np.bool_], source: str) -> None:
    """Raise an error for counts below one photon per pattern: they are normalised, or amplitudes."""
    total = 0.0
    for chunk in chunks(patterns):
        total += float(masked_as_zero(chunk, mask).sum(dtype=np.float64))
        if total >= len(patterns):
            break
    else:
        if total == 0.0:
            rule, fix = "A scan contains photons.", "check the mask and that the right detector channel was saved"
            received = "0 on all good pixels"
            raise DataError.in_field(rule, "some counts above zero", received, fix, "patterns", source)
        raise _wrong_domain(
            "at least one photon per pattern on average, because the data are declared as counts",
            f"{total / len(patterns):.3g} per pattern",
            "undo the normalisation, or declare measurement='amplitude' for square roots of counts",
            source,
        )
    if not _are_integers(patterns[:CHUNK], mask):
        logger.info("'%s' declares counts with fractions: read as gain-corrected photons", source)


def _are_integers(values: NDArray[Any], mask: NDArray[np.bool_]) -> bool:
    if values.dtype.kind in "ui":
        return True
    values = masked_as_zero(values, mask)
    return bool((values == np.rint(values)).all())


def _checked_object(obj: Any, source: str) -> NDArray[np.complex64]:
    array = np.asarray(obj)
    if array.ndim != 2:
        rule, fix = "An object is one image.", "give one layer of the object"
        raise wrong_shape(array, "obj", source, rule, "shape (y, x)", fix)
    with np.errstate(over="ignore"):
        canonical: NDArray[np.complex64] = numbers(array, "obj", source, kinds="biufc").astype(np.complex64)
    if not np.isfinite(canonical).all():
        raise not_finite("obj", source)
    return canonical


def _wrong_domain(expected: str, received: str, fix: str, source: str) -> DataError:
    rule = "The declared measurement domain must agree with the data."
    return DataError.in_field(rule, expected, received, fix, "patterns", source)
