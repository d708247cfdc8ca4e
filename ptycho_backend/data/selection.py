"""Selection of the patterns and pixels of a file that make a scan (spec: data 3.8, 9)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.detector_faults import find_bad_pixels
from ptycho_backend.data.fields import Fields
from ptycho_backend.data.odd_frames import usable
from ptycho_backend.data.probe_guess import FROM_PATTERNS, PROBE_GUESS, guess_of
from ptycho_backend.data.rows import EXCLUDED, checked_rows
from ptycho_backend.data.rows import measured_rows as measured_rows
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import ConfigError
from ptycho_backend.runtime.memory_map import gather_rows

logger = logging.getLogger(__name__)

Rows = Sequence[int] | NDArray[np.integer]
Search = Literal["auto", "off"]
SEARCHES = ("auto", "off")
PIXELS, PATTERNS = "pixels", "patterns"  # entries of `Scan.searched`
MAX_SHARE = 0.5  # of the good pixels: a detector with more bad pixels is another kind of problem
OFF = 'bad_pixels="off" in Python, --bad-pixels off on the command line'
KEEP = 'odd_patterns="off" in Python, --odd-patterns off on the command line'


def without_rows(fields: Fields, rows: Rows) -> Fields:
    """
    Remove patterns and their positions from the fields of a scan.

    Parameters
    ----------
    fields : dict
        Keyword arguments of :class:`~ptycho_backend.data.scan.Scan`.
    rows : int, shape (pattern,)
        Numbers of patterns, from 0.

    Raises
    ------
    DataError
        If a number is outside of the scan, or no pattern is left.

    Notes
    -----
    Spec: data 3.8.
    """
    patterns, positions = fields["patterns"], fields["positions_px"]
    attributes = {name: value for name, value in fields.get("attributes", {}).items() if name != EXCLUDED}
    if np.size(rows) == 0 or len(positions) != len(patterns):  # `Scan` raises the error of unequal numbers
        return {**fields, "attributes": attributes}
    excluded = checked_rows(rows, len(patterns), fields["source"])
    left = np.setdiff1d(np.arange(len(patterns)), excluded)
    return {
        **fields,
        "patterns": gather_rows(patterns, left),
        "positions_px": positions[left],
        "attributes": {**attributes, EXCLUDED: excluded.tolist()},
    }


def examined(scan: Scan) -> Scan:
    """
    Mask the bad pixels of a scan and leave out its odd patterns, with a warning for each kind.

    A probe guess that was made from the patterns is made again from those that are left.

    Parameters
    ----------
    scan : Scan
        Its field `searched` names what is not searched again.

    Returns
    -------
    Scan
        The attribute ``excluded_patterns`` has the numbers of all patterns that were left out.

    Raises
    ------
    DataError
        If less than a tenth of the patterns is left.

    Notes
    -----
    Spec: data 2.11, 9.8, 10.6.
    """
    left = _without_odd_patterns(scan)
    if left is scan or scan.attributes.get(PROBE_GUESS) != FROM_PATTERNS:
        return left
    return left.changed(probe=guess_of(left.patterns, left.mask, left.measurement))


def _without_odd_patterns(scan: Scan) -> Scan:
    """Return the scan of good pixels and usable patterns; the same scan if both searches are done."""
    if PIXELS not in scan.searched:
        fields = {name: getattr(scan, name) for name in ("patterns", "mask", "measurement", "source")}
        scan = scan.changed(mask=without_bad_pixels(fields)["mask"], searched=(*scan.searched, PIXELS))
    if PATTERNS in scan.searched:
        return scan
    left, odd = usable(scan)
    attributes = scan.attributes
    if len(odd):
        numbers = measured_rows(len(scan), attributes)
        attributes = {**attributes, EXCLUDED: sorted([*attributes.get(EXCLUDED, []), *numbers[odd.rows].tolist()])}
        text = odd.summary().replace("\n", "; ")
        logger.warning(
            "'%s': %d of %d patterns are left out: %s. To keep them: %s", scan.source, len(odd), len(scan), text, KEEP
        )
    return left.changed(attributes=attributes, searched=(*scan.searched, PATTERNS))


def searched(bad_pixels: Search, odd_patterns: Search) -> tuple[str, ...]:
    """
    Return the field `searched` of a scan for two options.

    Raises
    ------
    ConfigError
        If one of them is another word.
    """
    found = []
    for name, value, entry in (("bad_pixels", bad_pixels, PIXELS), ("odd_patterns", odd_patterns, PATTERNS)):
        if value not in SEARCHES:
            raise ConfigError.unknown(f"search ({name})", str(value), SEARCHES, f"{name}={value!r}")
        found += [entry] if value == "off" else []
    return tuple(found)


def without_bad_pixels(fields: Fields) -> Fields:
    """
    Mask the bad pixels that the statistics of the patterns show, with a warning that names them.

    Parameters
    ----------
    fields : dict
        Keyword arguments of :class:`~ptycho_backend.data.scan.Scan`; fields that break its rules are returned as
        they are.

    Notes
    -----
    Spec: data 9.8.
    """
    if not _examinable(fields):
        return fields
    patterns, mask, source = fields["patterns"], fields.get("mask"), fields["source"]
    found = find_bad_pixels(patterns, mask, fields.get("measurement"))
    if len(found) == 0:
        return fields
    text = found.summary().replace("\n", "; ")
    if len(found) > MAX_SHARE * (len(found) + found.mask.sum()):
        logger.warning("'%s': too many pixels seem bad, so none of them is masked: %s", source, text)
        return fields
    verb = "bad detector pixel is" if len(found) == 1 else "bad detector pixels are"
    logger.warning("'%s': %d %s masked: %s. To keep them: %s", source, len(found), verb, text, OFF)
    return {**fields, "mask": found.mask}


def _examinable(fields: Fields) -> bool:
    """Return True if patterns and mask have the shapes and dtypes of a scan."""
    patterns, mask = fields["patterns"], fields.get("mask")
    sides = np.shape(patterns)[1:]
    square = patterns.ndim == 3 and sides[0] == sides[1] and patterns.size > 0 and patterns.dtype.kind in "uif"
    return bool(square and (mask is None or (np.shape(mask) == sides and np.any(mask))))
