"""
The data model: one ptychographic scan, checked once and for all when it is built.

Notes
-----
Spec: data 1 (fields), data 2 (rules).
"""

from __future__ import annotations

import copy
import hashlib
import logging
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.errors import DataError, ShapeError
from ptycho_backend.runtime.memory_map import CHUNK, chunks, release

logger = logging.getLogger(__name__)

Measurement = Literal["counts", "amplitude"]
MEASUREMENTS = ("counts", "amplitude")


@dataclass(frozen=True, eq=False)
class Scan:
    """
    A ptychographic scan: patterns, positions and probe, with the object where it is known.

    Parameters
    ----------
    patterns : array, shape (position, y, x), any integer or real dtype, may be memory-mapped
        Measured diffraction, zero frequency at ``[N//2, N//2]``.
    positions_px : float64, shape (position, 2), pixels, (y, x)
        Where pixel ``[N//2, N//2]`` of the probe window falls; integer coordinates are pixel centres.
    probe : complex, shape (mode, y, x), (y, x) or (y, x, 1)
        Probe guess; stored as (mode, y, x) complex64.
    measurement : {"counts", "amplitude"}, optional
        Photons, or their square root. None decides: counts if every value is an integer, else amplitude.
    mask : bool, shape (y, x), optional
        True marks a good detector pixel; None means all are good.
    obj : complex64, shape (y, x), optional
        Known object (simulation, labels), whose pixel (0, 0) lies at `obj_origin_px`.
    obj_origin_px : (float, float), pixels, (y, x)
        Position of the object's pixel (0, 0) in scan coordinates.
    pixel_size_m : (float, float), optional
        Object pixel size, (y, x), metres.
    source : str
        Where the scan comes from, for messages and provenance.

    Raises
    ------
    DataError, ShapeError
        If a rule of the data specification is broken; the message names source and field.
    """

    patterns: NDArray[Any]
    positions_px: NDArray[np.float64]
    probe: NDArray[np.complex64]
    measurement: Measurement = None  # type: ignore[assignment]
    mask: NDArray[np.bool_] = None  # type: ignore[assignment]
    obj: NDArray[np.complex64] | None = None
    obj_origin_px: tuple[float, float] = (0.0, 0.0)
    pixel_size_m: tuple[float, float] | None = None
    source: str = "memory"
    attributes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        put = object.__setattr__  # the class is frozen for users, not for its own canonical forms
        put(self, "patterns", _checked_patterns(self.patterns, self.source))
        put(self, "positions_px", _checked_positions(self.positions_px, len(self.patterns), self.source))
        put(self, "probe", canonical_probe(self.probe, self.N, self.source))
        put(self, "mask", _checked_mask(self.mask, self.N, self.source))
        put(self, "measurement", _checked_measurement(self.measurement, self.patterns, self.source))
        if self.obj is not None:
            put(self, "obj", _checked_object(self.obj, self.source))

    @property
    def N(self) -> int:
        """Side of a pattern, pixels."""
        return int(self.patterns.shape[-1])

    def __len__(self) -> int:
        return len(self.patterns)

    def amplitude(self, rows: NDArray[np.intp] | slice = slice(None)) -> NDArray[np.float32]:
        """Return measured amplitude (square root of counts) of some positions, float32."""
        return np.sqrt(self.counts(rows)) if self.measurement == "counts" else self._real(rows)

    def counts(self, rows: NDArray[np.intp] | slice = slice(None)) -> NDArray[np.float32]:
        """Return measured counts of some positions, float32."""
        values = self._real(rows)
        # Cast before squaring: a squared uint16 would overflow.
        return values if self.measurement == "counts" else values * values

    def subset(self, rows: NDArray[np.intp] | slice) -> Scan:
        """Return a scan of some of the positions."""
        part = copy.copy(self)  # what holds for every pattern holds for some: nothing is read again
        object.__setattr__(part, "patterns", _checked_stack(self.patterns[rows], self.source))
        object.__setattr__(part, "positions_px", self.positions_px[rows])
        return part

    def data_hash(self) -> str:
        """Return the SHA-256 of patterns, positions, probe, mask and measurement domain."""
        digest = hashlib.sha256(f"{self.measurement}{self.patterns.dtype}{self.patterns.shape}".encode())
        for chunk in chunks(self.patterns):
            digest.update(np.ascontiguousarray(chunk).tobytes())
        for array in (self.positions_px, self.probe, self.mask):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def _real(self, rows: NDArray[np.intp] | slice) -> NDArray[np.float32]:
        # A copy in native byte order: frameworks refuse big-endian detector files.
        values = np.asarray(self.patterns[rows]).astype(np.float32)
        release(self.patterns)
        return values


def canonical_probe(probe: Any, N: int, source: str = "memory") -> NDArray[np.complex64]:
    """
    Bring a probe to (mode, y, x) complex64.

    (y, x) becomes one mode; (y, x, 1) is read so only where the last axis cannot be a side of the window.
    """
    array = np.asarray(probe)
    if array.ndim == 2:
        array = array[None]
    if array.ndim == 3 and array.shape[-1] == 1 and array.shape[0] == array.shape[1]:
        array = array[None, :, :, 0]
    if array.ndim != 3 or array.shape[1:] != (N, N) or array.shape[0] == 0:
        raise ShapeError(
            "Probe and diffraction patterns must have the same side length.",
            expected=f"a probe of shape (mode, {N}, {N}) or ({N}, {N})",
            received=f"shape {np.shape(probe)}, field 'probe' of '{source}'",
            fix=f"crop or pad the probe, or the patterns, to one common size (now {N})",
        )
    if not np.issubdtype(array.dtype, np.number) or not np.isfinite(array).all():
        raise _not_finite("probe", source)
    if not np.any(array):
        raise DataError(
            "A probe must transmit light.",
            expected="some non-zero values",
            received=f"zeros only, field 'probe' of '{source}'",
            fix="give a probe guess, for example of the beamline's optics",
        )
    return np.ascontiguousarray(array, dtype=np.complex64)


def _checked_patterns(patterns: Any, source: str) -> NDArray[Any]:
    array = _checked_stack(patterns if isinstance(patterns, np.ndarray) else np.asarray(patterns), source)
    if array.dtype.kind not in "uif":
        raise DataError(
            "Diffraction patterns are real numbers.",
            expected="an integer or real dtype",
            received=f"dtype {array.dtype}, field 'patterns' of '{source}'",
            fix="store counts or amplitudes, not complex waves",
        )
    _refuse_bad_values(array, source)
    return array


def _checked_stack(array: NDArray[Any], source: str) -> NDArray[Any]:
    if array.ndim != 3 or array.shape[1] != array.shape[2]:
        raise ShapeError(
            "Diffraction patterns are a stack of squares.",
            expected="shape (position, N, N)",
            received=f"shape {array.shape}, field 'patterns' of '{source}'",
            fix="crop or pad the patterns to squares; load one scan at a time",
        )
    if len(array) == 0:
        raise DataError(
            "A scan holds at least one pattern.",
            expected="one or more patterns",
            received=f"none, field 'patterns' of '{source}'",
            fix="check that the measurement was written to the file",
        )
    return array


def _refuse_bad_values(patterns: NDArray[Any], source: str) -> None:
    if patterns.dtype.kind == "u":
        return
    for number, chunk in enumerate(chunks(patterns)):
        bad = ~np.isfinite(chunk) | (chunk < 0)
        if bad.any():
            position, y, x = np.argwhere(bad)[0]
            raise DataError(
                "Diffraction patterns are finite and not negative.",
                expected="numbers ≥ 0",
                received=f"{chunk[position, y, x]} at pattern {number * CHUNK + position}, pixel ({y}, {x}), "
                f"field 'patterns' of '{source}'",
                fix="subtract the dark field with clipping at 0 and mark bad pixels in 'bad_pixels'",
            )


def _checked_positions(positions_px: Any, n_patterns: int, source: str) -> NDArray[np.float64]:
    positions = np.asarray(positions_px, dtype=np.float64)
    if positions.ndim != 2 or positions.shape[1] != 2:
        raise ShapeError(
            "Positions are (y, x) pairs.",
            expected="shape (position, 2)",
            received=f"shape {positions.shape}, field 'positions_px' of '{source}'",
            fix="stack y and x: numpy.stack([y_px, x_px], axis=1)",
        )
    if len(positions) != n_patterns:
        raise ShapeError(
            "Every pattern has one position.",
            expected=f"{n_patterns} positions, one for every pattern",
            received=f"{len(positions)} positions in '{source}'",
            fix="check that patterns and positions come from the same scan",
        )
    if not np.isfinite(positions).all():
        raise _not_finite("positions_px", source)
    return positions


def _checked_mask(mask: Any, N: int, source: str) -> NDArray[np.bool_]:
    if mask is None:
        return np.ones((N, N), dtype=bool)
    array = np.asarray(mask)
    if array.shape != (N, N):
        raise ShapeError(
            "The mask covers the detector.",
            expected=f"shape ({N}, {N})",
            received=f"shape {array.shape}, field 'mask' of '{source}'",
            fix="crop or pad the mask together with the patterns",
        )
    if not array.any():
        raise DataError(
            "Some detector pixels are good.",
            expected="True for good pixels",
            received=f"no good pixel, field 'mask' of '{source}'",
            fix="invert it: mask is True where a pixel is good, 'bad_pixels' where it is bad",
        )
    return array.astype(bool)


def _checked_measurement(measurement: str | None, patterns: NDArray[Any], source: str) -> str:
    if measurement is None:
        decided = "counts" if all(_whole(chunk) for chunk in chunks(patterns)) else "amplitude"
        logger.info("'%s' declares no measurement domain: taken as %s", source, decided)
        return decided
    if measurement not in MEASUREMENTS:
        raise DataError(
            "A measurement domain is 'counts' or 'amplitude'.",
            expected="one of these two words",
            received=f"{measurement!r}, field 'measurement' of '{source}'",
            fix="say 'counts' for photons, 'amplitude' for their square root",
        )
    if measurement == "amplitude" and patterns.dtype.kind in "ui":
        raise DataError(
            "The declared measurement domain must agree with the data.",
            expected="real numbers, because the data are declared as amplitude",
            received=f"integers of dtype {patterns.dtype}, field 'patterns' of '{source}'",
            fix="declare measurement='counts'",
        )
    if measurement == "counts":
        _check_counts(patterns, source)
    return measurement


def _check_counts(patterns: NDArray[Any], source: str) -> None:
    """Refuse counts that hold less than one photon a pattern: they are normalised, or amplitudes."""
    total = 0.0
    for chunk in chunks(patterns):
        total += float(chunk.sum(dtype=np.float64))
        if total >= len(patterns):
            break
    else:
        raise DataError(
            "The declared measurement domain must agree with the data.",
            expected="at least one photon per pattern on average, because the data are declared as counts",
            received=f"{total / len(patterns):.3g} per pattern, field 'patterns' of '{source}'",
            fix="undo the normalisation, or declare measurement='amplitude' for square roots of counts",
        )
    if not _whole(patterns[:CHUNK]):
        logger.info("'%s' declares counts with fractions: taken as gain-corrected photons", source)


def _whole(values: NDArray[Any]) -> bool:
    return values.dtype.kind in "ui" or bool((values == np.rint(values)).all())


def _checked_object(obj: Any, source: str) -> NDArray[np.complex64]:
    array = np.asarray(obj)
    if array.ndim != 2:
        raise ShapeError(
            "An object is one image.",
            expected="shape (y, x)",
            received=f"shape {array.shape}, field 'obj' of '{source}'",
            fix="give one layer of the object",
        )
    if not np.isfinite(array).all():
        raise _not_finite("obj", source)
    return array.astype(np.complex64)


def _not_finite(name: str, source: str) -> DataError:
    return DataError(
        "Numbers in a scan are finite.",
        expected="no NaN and no infinity",
        received=f"non-finite values, field '{name}' of '{source}'",
        fix="repair the file that wrote them",
    )
