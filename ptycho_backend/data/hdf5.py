"""Reader of ptychodus HDF5 files: training files, and products with their patterns (spec: data 3.3, 3.5)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.fields import (
    Fields,
    from_window_middles,
    good_pixels,
    hdf5_array,
    hdf5_probe,
    matched_positions,
    opened_hdf5,
    pattern_stack,
    positive_number,
    real_number,
    require_keys,
    single_layer,
    stacked,
    text_attribute,
    unexpected_patterns,
    whole_numbers,
)
from ptycho_backend.data.hdf5_sources import holds
from ptycho_backend.data.product import POSITIONS as PRODUCT_POSITIONS
from ptycho_backend.data.product import Extras, read_product
from ptycho_backend.errors import DataError
from ptycho_backend.runtime.memory_map import gather_rows

logger = logging.getLogger(__name__)

TRAINING_POSITIONS = ("probe_position_y_px", "probe_position_x_px")
OBJECT_PIXEL = ("object_pixel_height_m", "object_pixel_width_m")
EXPERIMENT = ("detector_object_distance_m", "photon_energy_eV")
PATTERNS_FILE = "diffraction.h5"  # in the folder of a ptychodus product


def hdf5_fields(path: Path, patterns: Path | None = None) -> Fields:
    """
    Read the fields of a scan from an HDF5 file of either layout.

    Raises
    ------
    DataError
        If the file is damaged, has neither layout, or is a product without a file of patterns.
    """
    with opened_hdf5(path) as file:
        is_product = PRODUCT_POSITIONS[0] in file
        if not is_product:
            require_keys(("patterns", *TRAINING_POSITIONS), file.keys(), str(path))
            if patterns is None:
                return _training_fields(file, str(path))
    if not is_product:
        raise unexpected_patterns(path, patterns)
    if patterns is None:
        sibling = path.parent / PATTERNS_FILE
        raise DataError(
            "A scan needs patterns, and a product holds none.",
            expected="a second file with the dataset 'patterns'",
            received=f"'{path}', a ptychodus product, alone",
            fix=f"load_scan('{path}', patterns='{sibling if sibling.is_file() else PATTERNS_FILE}')",
        )
    return _product_fields(path, patterns)


def _training_fields(file: Any, source: str) -> Fields:
    y, x = (hdf5_array(file, key, source) for key in TRAINING_POSITIONS)
    fields = _detector_fields(file, source)
    pixel_m = [positive_number(hdf5_array(file, k, source), k, source) for k in OBJECT_PIXEL if holds(file, k)]
    obj = single_layer(hdf5_array(file, "object", source), "object", source) if holds(file, "object") else None
    extras = Extras(file, source)
    middles = stacked(y, x, TRAINING_POSITIONS, source)
    positions = from_window_middles(middles, fields["patterns"].shape[-1])
    return fields | {
        "positions_px": matched_positions(positions + extras.origin_px, len(fields["patterns"]), source),
        "probe": hdf5_probe(file, "probe", TRAINING_POSITIONS, source),
        "obj": obj,
        "obj_origin_px": (float(extras.origin_px[0]), float(extras.origin_px[1])),
        "pixel_size_m": (pixel_m[0], pixel_m[1]) if len(pixel_m) == 2 else None,
        "source": source,
        "attributes": {
            key: real_number(hdf5_array(file, key, source), key, source) for key in EXPERIMENT if holds(file, key)
        }
        | extras.attributes,
    }


def _product_fields(path: Path, patterns_path: Path) -> Fields:
    source, name = f"{path} with {patterns_path}", str(patterns_path)
    with opened_hdf5(patterns_path) as file:
        require_keys(("patterns",), file.keys(), name)
        fields = _detector_fields(file, name)
        has_indexes = holds(file, "indexes")
        indexes = whole_numbers(hdf5_array(file, "indexes", name), "indexes", name) if has_indexes else None
    patterns = fields["patterns"]
    product = read_product(path, patterns.shape[-1])
    if indexes is None:
        positions = matched_positions(product.positions_px, len(patterns), source)
    else:
        of_position, of_pattern = _paired(product.indexes, indexes, source)
        positions = product.positions_px[of_position]
        in_order = np.array_equal(of_pattern, np.arange(len(patterns)))
        fields["patterns"] = patterns if in_order else gather_rows(patterns, of_pattern)
    return fields | {
        "positions_px": positions,
        "probe": product.probe if len(product.probe) else None,
        "obj": product.obj,
        "obj_origin_px": product.obj_origin_px,
        "pixel_size_m": product.pixel_size_m,
        "source": source,
        "attributes": product.attributes,
    }


def _detector_fields(file: Any, source: str) -> Fields:
    """Read patterns, mask and measurement domain; ptychodus stores intensities, so the default domain is counts."""
    mask = None
    if holds(file, "bad_pixels"):
        mask = good_pixels(hdf5_array(file, "bad_pixels", source), "bad_pixels", source)
    return {
        "patterns": pattern_stack(hdf5_array(file, "patterns", source), "patterns", source),
        "mask": mask,
        "measurement": text_attribute(file, "measurement", source, default="counts"),
    }


def _paired(
    of_positions: NDArray[np.int64], of_patterns: NDArray[Any], source: str
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows of positions and of patterns with the same index, in the order of the patterns."""
    common, position_rows, pattern_rows = np.intersect1d(of_positions, of_patterns, return_indices=True)
    measured = common >= 0  # a negative index marks a missing pattern
    position_rows, pattern_rows = position_rows[measured], pattern_rows[measured]
    order = np.argsort(pattern_rows)
    if len(order) == 0:
        raise DataError(
            "Positions and patterns are paired by their index.",
            expected="common indexes of both files",
            received=f"none in common, fields 'probe_position_indexes' and 'indexes' of '{source}'",
            fix="check that product and patterns come from the same scan",
        )
    if len(order) < max(len(of_positions), len(of_patterns)):
        logger.warning(
            "'%s': %d positions and %d patterns, of which %d share an index; the others are dropped",
            *(source, len(of_positions), len(of_patterns), len(order)),
        )
    return position_rows[order], pattern_rows[order]
