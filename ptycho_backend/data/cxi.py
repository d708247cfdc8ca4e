"""Reader of CXI files, the format of the Coherent X-ray Imaging Data Bank (spec: data 3.6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.fields import (
    Fields,
    given_probe,
    hdf5_array,
    matched_positions,
    opened_hdf5,
    pattern_stack,
    positive_number,
    wrong_shape,
)
from ptycho_backend.data.hdf5_sources import holds, resolved
from ptycho_backend.errors import DataError, ShapeError

PLANCK_LIGHT_J_M = 6.62607015e-34 * 299792458.0  # h·c, exact by the definition of the SI units
JOULE_PER_EV = 1.602176634e-19
MAX_PHOTON_J = 1e6 * JOULE_PER_EV  # far above coherent sources; larger numbers are in another unit
HAS_SIGNAL = 0x1000  # the one standard bit of a mask that marks a good pixel

DETECTOR = "entry_1/instrument_1/detector_1"
SOURCE = "entry_1/instrument_1/source_1"
SAMPLE = "entry_1/sample_1/geometry_1"
DATA = ("entry_1/data_1/data", f"{DETECTOR}/data")
TRANSLATION = (f"{SAMPLE}/translation", "entry_1/data_1/translation", f"{DETECTOR}/translation")
ILLUMINATION = (f"{SOURCE}/illumination", f"{SOURCE}/probe", f"{DETECTOR}/probe")
MASK = (f"{DETECTOR}/mask",)
DISTANCE = (f"{DETECTOR}/distance",)
BASIS = (f"{DETECTOR}/basis_vectors",)
PIXEL = (f"{DETECTOR}/y_pixel_size", f"{DETECTOR}/x_pixel_size")
ENERGY = (f"{SOURCE}/energy",)
WAVELENGTH = (f"{SOURCE}/wavelength",)


def cxi_fields(path: Path) -> Fields:
    """
    Read the fields of a scan from a CXI file.

    Raises
    ------
    DataError
        If the file is damaged or lacks patterns, translations, geometry or energy.
    """
    source = str(path)
    with opened_hdf5(path) as file:
        patterns = pattern_stack(_array(file, DATA, "the diffraction patterns", source), DATA[0], source)
        place = _found(file, ILLUMINATION)
        probe = None if place is None else given_probe(hdf5_array(file, place, source), place, source)
        translation_m = _array(file, TRANSLATION, "the translation of the sample", source)
        mask = _good_pixels(file, patterns.shape, source)
        basis_m = _basis_m(file, source)
        distance_m = positive_number(_array(file, DISTANCE, "the distance", source), DISTANCE[0], source)
        wavelength_m = _wavelength_m(file, source)
    sides = np.asarray(patterns.shape[-2:])
    pixel_m = wavelength_m * distance_m / (sides * np.linalg.norm(basis_m, axis=1))
    positions = _positions_px(translation_m, basis_m, pixel_m, source)
    return {
        "patterns": patterns,
        "positions_px": matched_positions(positions, len(patterns), source),
        "probe": probe,
        "measurement": "counts",
        "mask": mask,
        "pixel_size_m": (float(pixel_m[0]), float(pixel_m[1])),
        "source": source,
        "attributes": {
            "detector_object_distance_m": distance_m,
            "photon_energy_eV": PLANCK_LIGHT_J_M / wavelength_m / JOULE_PER_EV,
        },
    }


def _positions_px(
    translation_m: NDArray[Any], basis_m: NDArray[np.float64], pixel_m: NDArray[np.float64], source: str
) -> NDArray[np.float64]:
    """Return the positions of the beam on the sample, in object pixels along the detector's axes."""
    if translation_m.ndim != 2 or translation_m.shape[1] not in (2, 3):
        rule, fix = "A translation is a point in space for every pattern.", "write one row for every pattern"
        raise wrong_shape(translation_m, TRANSLATION[0], source, rule, "shape (position, 3): x, y, z", fix)
    axes = basis_m[:, :2] / np.linalg.norm(basis_m, axis=1, keepdims=True)
    # The sample moves by t, so the beam moves by -t over the sample.
    beam_m = -translation_m[:, :2].astype(np.float64)
    return np.asarray(beam_m @ axes.T / pixel_m)


def _basis_m(file: Any, source: str) -> NDArray[np.float64]:
    """Return the step from one detector pixel to the next along (y, x), as rows of (x, y, z) in metres."""
    if _found(file, BASIS) is None:
        y, x = (positive_number(_array(file, (k,), "the pixel size", source), k, source) for k in PIXEL)
        # CXI's default geometry: rows run downwards, columns towards -x.
        return np.array([[0.0, -y, 0.0], [-x, 0.0, 0.0]])
    basis = _array(file, BASIS, "the basis vectors", source).astype(np.float64)
    basis = basis.T if basis.shape == (3, 2) else basis
    length = np.linalg.norm(basis, axis=-1) if basis.shape == (2, 3) else np.zeros(2)
    flat = length.min() > 0 and np.abs(basis[:, 2]).max() < 1e-3 * length.min()
    if not flat or abs(basis[0] @ basis[1]) > 1e-3 * length.prod():
        raise DataError.in_field(
            "The detector is perpendicular to the beam, with orthogonal axes.",
            "two orthogonal basis vectors of shape (2, 3) across the beam",
            f"{basis.tolist()}",
            "project the patterns on a plane across the beam first",
            *(BASIS[0], source),
        )
    return basis


def _wavelength_m(file: Any, source: str) -> float:
    if _found(file, ENERGY) is None and _found(file, WAVELENGTH) is not None:
        return positive_number(_array(file, WAVELENGTH, "the wavelength", source), WAVELENGTH[0], source)
    energy_J = positive_number(_array(file, ENERGY, "the photon energy", source), ENERGY[0], source)
    if energy_J > MAX_PHOTON_J:
        rule, fix = "A CXI file gives the photon energy in joules.", f"multiply electron-volts by {JOULE_PER_EV:.10g}"
        raise DataError.in_field(rule, f"less than {MAX_PHOTON_J:.1g} J", f"{energy_J:g}", fix, ENERGY[0], source)
    return PLANCK_LIGHT_J_M / energy_J


def _good_pixels(file: Any, shape: tuple[int, ...], source: str) -> NDArray[np.bool_] | None:
    if _found(file, MASK) is None:
        return None
    mask = _array(file, MASK, "the mask", source)
    if mask.ndim == 3 and len(mask) == 1:
        mask = mask[0]
    if mask.dtype.kind not in "biu" or mask.shape != tuple(shape[-2:]):
        rule, fix = "The mask has one integer per detector pixel.", "combine the masks of the patterns into one"
        received = f"dtype {mask.dtype}, shape {mask.shape}"
        raise ShapeError.in_field(rule, f"integers of shape {tuple(shape[-2:])}", received, fix, MASK[0], source)
    return np.asarray((mask.astype(np.int64) & ~HAS_SIGNAL) == 0)


def _found(file: Any, paths: tuple[str, ...]) -> str | None:
    """Return the first of several paths that is a dataset, or a link whose target is missing."""
    import h5py

    present = (path for path in paths if holds(file, path))
    return next((path for path in present if not isinstance(resolved(file, path), h5py.Group)), None)


def _array(file: Any, paths: tuple[str, ...], quantity: str, source: str) -> NDArray[Any]:
    """Read the first existing dataset of several paths."""
    path = _found(file, paths)
    if path is None:
        raise DataError(
            f"A CXI scan holds {quantity}.",
            expected=f"the dataset {' or '.join(repr(path) for path in paths)}",
            received=f"none of these in '{source}'",
            fix="add the dataset with h5py, or write the scan as NPZ with all its fields",
        )
    return hdf5_array(file, path, source)
