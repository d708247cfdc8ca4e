"""Scan positions from arrays, text files or a raster, in metres or object pixels (spec: data 12)."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.fields import matched_positions, numbers
from ptycho_backend.errors import ConfigError, DataError, ShapeError
from ptycho_backend.importing.arrays import ArraySource, open_array, split_address
from ptycho_backend.importing.description import PositionsDescription
from ptycho_backend.importing.text_columns import chosen_columns, text_columns
from ptycho_backend.runtime.quantities import length_text

logger = logging.getLogger(__name__)

Positions = NDArray[np.float64]
Raster = tuple[int, int]

UNITS_M = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9, "angstrom": 1e-10}
UNIT_OPTION = "--positions.unit"
# Texts that files have in an attribute "units".
UNIT_NAMES = {
    **{name: name for name in (*UNITS_M, "px")},
    **dict.fromkeys(("meter", "meters", "metre", "metres"), "m"),
    **dict.fromkeys(("µm", "μm", "micron", "microns", "micrometer", "micrometers"), "um"),
    **dict.fromkeys(("millimeter", "millimeters"), "mm"),
    **dict.fromkeys(("nanometer", "nanometers"), "nm"),
    **dict.fromkeys(("Å", "Å", "Angstrom", "angstroms"), "angstrom"),
    **dict.fromkeys(("pixel", "pixels"), "px"),
}
SURPLUS, MAX_PLACES = 10, 10**6  # places of an interrupted raster: at most so many times its patterns, or so many
RASTER_FIELDS = ("raster_shape", "step_y", "step_x", "snake", "fast_axis")


@dataclass(frozen=True)
class Read:
    """
    Positions as a file has them.

    Parameters
    ----------
    values : float64, shape (position, 2)
        (y, x) before units, signs and rotation.
    source : str
        File and field, for messages.
    unit : str
        Unit that the file declares; empty for none.
    """

    values: Positions
    source: str
    unit: str = ""


def scan_positions(
    description: PositionsDescription, n_patterns: int, raster: Raster | None = None
) -> tuple[Positions, str]:
    """
    Return the positions of all patterns of the files, before `frames` selects some of them.

    Exchange of the axes, signs, unit and rotation are applied in this order.

    Parameters
    ----------
    description : PositionsDescription
    n_patterns : int
        Number of patterns of all files.
    raster : tuple of int, optional
        Rows and columns of a scan of four axes, whose patterns come row by row.

    Returns
    -------
    positions : float64, shape (position, 2)
        (y, x), y downward, x to the right.
    unit : {"m", "px"}
        Metres, or object pixels.

    Raises
    ------
    ConfigError
        If fields contradict each other or are missing, such as the unit.
    DataError
        If a file has fewer positions than patterns, or values that are not finite numbers.

    Notes
    -----
    Spec: data 12. The axes of the detector are those of the scan after a rotation by θ = `rotation_deg` from +y to
    +x. The result is ``y' = y·cos θ + x·sin θ`` and ``x' = x·cos θ − y·sin θ``, about the middle of the scan.
    """
    kind = _kind(description, raster)
    _refuse_inert(description, kind)
    if kind == "raster":
        read = _raster_positions(description, n_patterns, raster)
    elif kind == "text":
        read = _text_positions(description)
    else:
        read = _array_positions(description, n_patterns, raster)
    read = _matched(read, n_patterns, f"--positions.{kind}" if kind != "raster" else "--positions.raster_shape")
    unit = _unit(description.unit, read)
    values = read.values[:, ::-1] if description.swap else read.values
    values = values * (description.y_sign, description.x_sign) * UNITS_M.get(unit, 1.0)
    return _rotated(values, description.rotation_deg), "px" if unit == "px" else "m"


def _kind(description: PositionsDescription, raster: Raster | None) -> str:
    """Return the source of the positions: "y", "text" or "raster"."""
    arrays = bool(description.y or description.x)
    given = [
        name
        for name, present in (("y", arrays), ("text", description.text), ("raster", description.raster_shape))
        if present
    ]
    if len(given) > 1:
        options = {"y": "--positions.y", "text": "--positions.text", "raster": "--positions.raster_shape"}
        raise ConfigError(
            "Positions come from one place.",
            expected=f"one of {', '.join(options.values())}",
            received=" and ".join(options[name] for name in given),
            fix="leave out all but one",
        )
    if given:
        if given[0] == "y" and not description.y:
            raise ConfigError(
                "Every position has a y and an x.",
                expected="--positions.y and --positions.x",
                received=f"--positions.x {description.x} alone",
                fix="add --positions.y; an array with both is --positions.y alone",
            )
        return given[0]
    if raster is None or (description.step_y is None and description.step_x is None):
        of_raster = f"--positions.step_y for the raster of {raster[0]}x{raster[1]}" if raster else ""
        raise ConfigError(
            "Every pattern has a position on the sample.",
            expected="positions from arrays, a text file or a raster",
            received=f"a raster of {raster[0]}x{raster[1]} without a step" if raster else "none of them",
            fix=f"give {of_raster + ', or ' if of_raster else ''}--positions.y and --positions.x, --positions.text, "
            "or --positions.raster_shape with --positions.step_y",
        )
    return "raster"


def _refuse_inert(description: PositionsDescription, kind: str) -> None:
    """Raise an error for fields without effect on this source of positions."""
    empty = PositionsDescription()
    unused = [name for name in RASTER_FIELDS if getattr(description, name) != getattr(empty, name)]
    if kind == "raster":
        unused = ["columns"] if description.columns else []
    elif description.columns and kind == "y" and description.x:
        unused.append("columns")
    if unused:
        sources = {"y": "arrays", "text": "a text file", "raster": "a raster"}
        raise ConfigError(
            "Every option of the positions has an effect.",
            expected=f"options of positions from {sources[kind]}",
            received=", ".join(f"--positions.{name}" for name in unused),
            fix="leave them out; steps, snake and fast axis are for a raster, columns for text or a single array",
        )


def _array_positions(description: PositionsDescription, n_patterns: int, raster: Raster | None) -> Read:
    """Return the positions of one array with both coordinates, or of two arrays."""
    first = open_array(description.y)
    unit = _file_unit(first)
    if not description.x:
        table = _table(first, n_patterns)
        if not description.columns:
            logger.info("'%s': column 0 is y, column 1 is x", first.name)
        return Read(chosen_columns(table, description.columns, first.name), first.name, unit)
    second = open_array(description.x)
    other = _file_unit(second)
    if unit != other and not description.unit:
        raise ConfigError(
            "y and x have one unit.",
            expected=f"{UNIT_OPTION}, or equal attributes 'units'",
            received=f"'{unit or 'none'}' in '{first.name}', '{other or 'none'}' in '{second.name}'",
            fix=f"give {UNIT_OPTION} if both have the same unit, or convert one of them",
        )
    y, x = (_coordinate(source, raster, f"--positions.{axis}") for source, axis in ((first, "y"), (second, "x")))
    names = f"{first.name}, {second.name}"
    if raster is not None and (len(y), len(x)) == raster and len(y) * len(x) == n_patterns > max(raster):
        y, x = (axis.ravel() for axis in np.meshgrid(y, x, indexing="ij"))  # the two axes of the raster
    if len(y) != len(x):
        raise ShapeError(
            "Every position has a y and an x.",
            expected="arrays of equal length",
            received=f"{len(y)} values in '{first.name}', {len(x)} in '{second.name}'",
            fix="check --positions.y and --positions.x",
        )
    return Read(np.stack([y, x], axis=1), names, unit)


def _coordinate(source: ArraySource, raster: Raster | None, option: str) -> Positions:
    long_axes = sum(side > 1 for side in source.shape)
    if long_axes > 1 and source.shape != raster:
        raise ShapeError.in_field(
            "Scan coordinates are one number for every pattern.",
            f"shape (position,){f' or {raster}' if raster else ''}",
            f"shape {source.shape}",
            f"give another array by {option}, or leave out --positions.x for an array with both coordinates",
            option,
            source.name,
        )
    return numbers(source.all(), option, source.name).astype(np.float64).ravel()


def _table(source: ArraySource, n_patterns: int) -> Positions:
    """Return an array with both coordinates as (position, column)."""
    shape = source.shape
    if len(shape) != 2 or shape[0] == shape[1] or max(shape) <= 3 or min(shape) < 2:
        raise ShapeError.in_field(
            "An array with both coordinates has one row for every pattern.",
            f"shape ({n_patterns}, 2) or (2, {n_patterns}); more columns with --positions.columns",
            f"shape {shape}",
            "give --positions.y and --positions.x, or another array",
            "--positions.y",
            source.name,
        )
    values = numbers(source.all(), "--positions.y", source.name).astype(np.float64)
    return values if shape[0] > shape[1] else np.asarray(values.T)


def _text_positions(description: PositionsDescription) -> Read:
    table, header = text_columns(description.text)
    columns = description.columns
    if not columns and {"y", "x"} <= {name.lower() for name in header}:
        columns = ",".join(next(name for name in header if name.lower() == axis) for axis in "yx")
    if not columns:
        named = f", named {', '.join(header)}" if header else ""
        raise ConfigError(
            "The columns of y and x in a text file are declared, or named y and x.",
            expected="--positions.columns",
            received=f"{table.shape[1]} columns{named}, in '{description.text}'",
            fix="give the columns of y and x in this order, as --positions.columns 0,1",
        )
    return Read(chosen_columns(table, columns, description.text, header), description.text)


def _raster_positions(description: PositionsDescription, n_patterns: int, raster: Raster | None) -> Read:
    """Return the places of a raster in the order of its patterns, in the unit of its steps."""
    rows, columns = _raster_shape(description.raster_shape, raster)
    if description.step_y is None:
        raise ConfigError(
            "A raster has a step.",
            expected="--positions.step_y, and --positions.step_x if it differs",
            received=f"a raster of {rows}x{columns} without --positions.step_y",
            fix="add --positions.step_y and --positions.unit",
        )
    if rows * columns > max(SURPLUS * n_patterns, MAX_PLACES):
        raise ShapeError(
            "A raster has one place for every pattern.",
            expected=f"about {n_patterns} places for {n_patterns} patterns",
            received=f"a raster of {rows}x{columns}",
            fix="correct --positions.raster_shape",
        )
    y, x = np.indices((rows, columns))
    along_x = description.fast_axis == "x"
    if description.snake and along_x:
        x = np.where(y % 2 == 1, columns - 1 - x, x)
    elif description.snake:
        y = np.where(x % 2 == 1, rows - 1 - y, y)
    elif raster is not None and not along_x:
        raise ConfigError(
            "Every option of the positions has an effect.",
            expected="patterns of a scan of four axes, whose order is that of the axes",
            received="--positions.fast_axis y without --positions.snake",
            fix="leave it out, or give the order of the axes by --patterns.axes, as XYyx",
        )
    # The patterns of four axes come row by row.
    order: Literal["C", "F"] = "C" if along_x or raster is not None else "F"
    step_x = description.step_x if description.step_x is not None else description.step_y
    steps = y.ravel(order) * description.step_y, x.ravel(order) * step_x
    return Read(np.stack(steps, axis=1), f"raster of {rows}x{columns}")


def _raster_shape(text: str, raster: Raster | None) -> Raster:
    if not text:
        assert raster is not None
        return raster
    sides = [int(part) if part.isdecimal() else 0 for part in text.lower().replace("×", "x").split("x")]
    if len(sides) != 2 or min(sides) < 1:
        raise ConfigError(
            "A raster has rows and columns.",
            expected="two whole numbers above 0, as 51x51",
            received=f"--positions.raster_shape {text}",
            fix="give rows first, then columns",
        )
    if raster is not None and (sides[0], sides[1]) != raster:
        raise ConfigError(
            "A scan of four axes has its own raster.",
            expected=f"{raster[0]}x{raster[1]}",
            received=f"--positions.raster_shape {text}",
            fix="leave out --positions.raster_shape, or give the order of the axes by --patterns.axes",
        )
    return sides[0], sides[1]


def _matched(read: Read, n_patterns: int, option: str) -> Read:
    """Return finite positions, one for every pattern; surplus ones are dropped with a warning."""
    if len(read.values) < n_patterns:
        raise ShapeError(
            "Every pattern has one position.",
            expected=f"{n_patterns} positions for {n_patterns} patterns",
            received=f"{len(read.values)} positions in '{read.source}'",
            fix=f"check that patterns and positions come from the same scan, and {option}",
        )
    values = matched_positions(read.values, n_patterns, read.source)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        raise DataError(
            "Positions are finite numbers.",
            expected="a y and an x for every pattern",
            received=f"{bad.size} without, first those of patterns {', '.join(map(str, bad[:5]))}, in '{read.source}'",
            fix=f"correct the values, or check {option}; --patterns.frames does not hide them",
        )
    return Read(values, read.source, read.unit)


def _file_unit(source: ArraySource) -> str:
    """Return the text of the attribute "units" of an HDF5 dataset, empty without one."""
    import h5py

    path, name = split_address(source.name)
    if not name or not h5py.is_hdf5(path):
        return ""
    try:
        with h5py.File(path, "r") as file:
            text = file[name].attrs.get("units", "")
    except (OSError, KeyError, TypeError, ValueError, RuntimeError):  # an attribute of an unreadable type
        return ""
    if isinstance(text, np.ndarray) and text.size == 1:
        text = text.flat[0]
    text = text.decode(errors="replace") if isinstance(text, bytes) else text
    return text.strip() if isinstance(text, str) else ""


def _unit(declared: str, read: Read) -> str:
    """Return the declared unit, or else that of the file; an error lists the extents that each unit gives."""
    of_file = UNIT_NAMES.get(read.unit, "")
    if declared:
        if of_file and of_file != declared:
            logger.warning("'%s' has the unit '%s'; %s %s is used", read.source, read.unit, UNIT_OPTION, declared)
        return declared
    if of_file:
        logger.info("'%s' has the unit '%s'", read.source, read.unit)
        return of_file
    extent = float(np.max(np.ptp(read.values, axis=0), initial=0.0))
    choices = ", ".join(f"{unit} gives {length_text(extent * factor)}" for unit, factor in UNITS_M.items())
    raise ConfigError(
        "Positions have a declared unit.",
        expected=f"{UNIT_OPTION}: one of {', '.join(UNITS_M)}, px",
        received=f"extent {extent:.4g}: {choices}, px gives {extent:.4g} px"
        + (f"; unknown unit '{read.unit}'" if read.unit else "")
        + f", in '{read.source}'",
        fix=f"give the unit that gives the size of the scan, as {UNIT_OPTION} um",
    )


def _rotated(values: Positions, angle_deg: float) -> Positions:
    if angle_deg == 0 or not len(values):
        return np.ascontiguousarray(values, dtype=np.float64)
    cosine, sine = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    middle = (values.min(axis=0) + values.max(axis=0)) / 2
    return (values - middle) @ np.array([[cosine, -sine], [sine, cosine]]) + middle
