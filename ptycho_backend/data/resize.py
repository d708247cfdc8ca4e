"""Crop or zero-padding of the detector, with the changes to positions, probe and mask (spec: data 3.7)."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.fields import Fields, numbers, wrong_shape
from ptycho_backend.errors import DataError
from ptycho_backend.physics.propagation import far_field, near_field
from ptycho_backend.runtime.memory_map import release, rows_per_block, scratch_array

logger = logging.getLogger(__name__)


def resized(fields: Fields, N: int) -> Fields:
    """
    Crop or pad the detector of a scan to N×N pixels about its zero frequency.

    A smaller detector gives a larger object pixel, by old side / N. Positions are scaled, and the far field of the
    probe is cropped alike. An object on the old grid is dropped.

    Parameters
    ----------
    fields : dict
        Keyword arguments of :class:`~ptycho_backend.data.scan.Scan`; patterns need not be square.
    N : int
        New side, pixels.

    Returns
    -------
    dict
        New fields; patterns keep their dtype, and the mask marks padded pixels as bad.

    Notes
    -----
    Spec: data 3.7.
    """
    source, patterns = fields["source"], fields["patterns"]
    if isinstance(N, bool) or not isinstance(N, (int, np.integer)) or N < 1:
        raise DataError(
            "The side of a detector is a whole number of pixels.",
            expected="N ≥ 1",
            received=f"N={N!r} for '{source}'",
            fix="leave N out to keep the patterns as they are",
        )
    if patterns.ndim != 3 or patterns.shape[1:] == (N, N):
        return fields  # `Scan` raises the error of a wrong number of axes
    sides = np.asarray(patterns.shape[1:])
    mask = fields.get("mask")
    mask = np.ones(sides, dtype=bool) if mask is None else np.asarray(mask)
    _check_sides(mask, "mask", sides, source)
    probe = _resized_probe(fields["probe"], N, sides, source)
    size_m = fields.get("pixel_size_m")
    if fields.get("obj") is not None:
        logger.warning("the object of '%s' is dropped: its pixels are those of the old detector", source)
    logger.info("'%s': detector of %d×%d pixels brought to %d×%d", source, *sides, N, N)
    return {
        **fields,
        "patterns": _centred_stack(patterns, N),
        "positions_px": fields["positions_px"] * (N / sides),
        "probe": probe,
        "mask": centred(mask, N),
        "obj": None,
        "obj_origin_px": (0.0, 0.0),
        "pixel_size_m": None if size_m is None else tuple(float(s) for s in size_m * sides / N),
    }


def centred(array: NDArray[Any], N: int) -> NDArray[Any]:
    """Crop or zero-pad the last two axes to N; pixel ``[side // 2, side // 2]`` moves to ``[N // 2, N // 2]``."""
    y, x = (_overlap(side, N) for side in array.shape[-2:])
    part = array[..., y[0], x[0]]
    if part.shape[-2:] == (N, N):
        # A view of a memory map takes no memory; a view of an array would keep the whole array in memory.
        return part if isinstance(array, np.memmap) else part.copy()
    canvas = np.zeros((*array.shape[:-2], N, N), dtype=array.dtype)
    canvas[..., y[1], x[1]] = part
    return canvas


def _centred_stack(patterns: NDArray[Any], N: int) -> NDArray[Any]:
    """Crop patterns to a view, or pad them block by block."""
    if min(patterns.shape[1:]) >= N:
        return centred(patterns, N)
    stack = scratch_array((len(patterns), N, N), patterns.dtype)
    step = rows_per_block(stack)
    for start in range(0, len(stack), step):
        rows = slice(start, start + step)
        stack[rows] = centred(patterns[rows], N)
        release(stack)
        release(patterns)
    return stack


def _overlap(side: int, N: int) -> tuple[slice, slice]:
    """Return the common pixels of old and new axis, as a slice of each."""
    shift = side // 2 - N // 2
    first, last = max(shift, 0), min(shift + N, side)
    return slice(first, last), slice(first - shift, last - shift)


def _resized_probe(probe: Any, N: int, sides: NDArray[Any], source: str) -> NDArray[np.complex64]:
    stack = numbers(probe, "probe", source, kinds="biufc")
    if stack.ndim == 3 and stack.shape[-1] == 1 and stack.shape[:2] == tuple(sides):
        stack = stack[..., 0]
    _check_sides(stack, "probe", sides, source)
    wave = far_field(stack.astype(np.complex128))
    resized_wave = centred(wave, N)
    old_energy, new_energy = (float((np.abs(w) ** 2).sum()) for w in (wave, resized_wave))
    if old_energy > 0 and new_energy < 0.99 * old_energy:
        percent = 100 * new_energy / old_energy
        logger.warning("only %.1f %% of the probe of '%s' falls on the new detector", percent, source)
    return near_field(resized_wave).astype(np.complex64)


def _check_sides(array: NDArray[Any], key: str, sides: NDArray[Any], source: str) -> None:
    if array.shape[-2:] != tuple(sides) or array.ndim > 3:
        expected = f"last axes ({sides[0]}, {sides[1]}), those of the patterns"
        fix = "crop or pad it to the size of the patterns"
        raise wrong_shape(array, key, source, "Patterns, mask and probe have the same sides.", expected, fix)
