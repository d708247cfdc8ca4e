"""Scans as CXI files, the format of the Coherent X-ray Imaging Data Bank (spec: data 3.6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.fields import (
    Fields,
    first_plane,
    hdf5_array,
    matched_positions,
    opened_hdf5,
    pattern_stack,
    positive_number,
)
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import DataError, ShapeError

PLANCK_LIGHT_J_M = 6.62607015e-34 * 299792458.0  # h·c, exact by the definition of the SI units
JOULE_PER_EV = 1.602176634e-19
HARDEST_PHOTON_J = 1e6 * JOULE_PER_EV  # no coherent source comes near; larger numbers are in another unit
HAS_SIGNAL = 0x1000  # the one standard bit of a mask that marks a good pixel

INSTRUMENT = "entry_1/instrument_1"
DATA = ("entry_1/data_1/data", f"{INSTRUMENT}/detector_1/data")
TRANSLATION = (
    "entry_1/sample_1/geometry_1/translation",
    "entry_1/data_1/translation",
    f"{INSTRUMENT}/detector_1/translation",
)
ILLUMINATION = (
    f"{INSTRUMENT}/source_1/illumination",
    f"{INSTRUMENT}/source_1/probe",
    f"{INSTRUMENT}/detector_1/probe",
)
MASK = (f"{INSTRUMENT}/detector_1/mask",)
DISTANCE = (f"{INSTRUMENT}/detector_1/distance",)
BASIS = (f"{INSTRUMENT}/detector_1/basis_vectors",)
PIXEL = (f"{INSTRUMENT}/detector_1/y_pixel_size", f"{INSTRUMENT}/detector_1/x_pixel_size")
ENERGY = (f"{INSTRUMENT}/source_1/energy",)
WAVELENGTH = (f"{INSTRUMENT}/source_1/wavelength",)


def read_cxi(path: Path | str) -> Scan:
    """Read a scan from a CXI file (spec: data 3.6)."""
    return Scan(**cxi_fields(Path(path)))


def cxi_fields(path: Path) -> Fields:
    """
    Read the fields of a scan from a CXI file.

    Raises
    ------
    DataError
        If the file is damaged, or lacks patterns, translations, geometry, energy or illumination.
    """
    source = str(path)
    with opened_hdf5(path) as file:
        patterns = pattern_stack(_array(file, DATA, "the diffraction patterns", source), DATA[0], source)
        illumination = _array(file, ILLUMINATION, "the illumination (the probe at the sample)", source)
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
        "probe": first_plane(illumination, ILLUMINATION[0], source),
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
    """Return where the beam meets the sample, in object pixels along the detector's own axes."""
    if translation_m.ndim != 2 or translation_m.shape[1] not in (2, 3):
        raise ShapeError(
            "A translation is a point in space for every pattern.",
            expected="shape (position, 3): x, y, z",
            received=f"shape {translation_m.shape}, field '{TRANSLATION[0]}' of '{source}'",
            fix="write one row for every pattern",
        )
    axes = basis_m[:, :2] / np.linalg.norm(basis_m, axis=1, keepdims=True)
    # The sample moves by t, so the beam moves by -t over the sample.
    beam_m = -translation_m[:, :2].astype(np.float64)
    return np.asarray(beam_m @ axes.T / pixel_m)


def _basis_m(file: Any, source: str) -> NDArray[np.float64]:
    """Return the step from one detector pixel to the next along (y, x), as rows of (x, y, z) in metres."""
    if _found(file, BASIS) is None:
        y, x = (positive_number(_array(file, (k,), "the pixel size", source), k, source) for k in PIXEL)
        # What CXI lays down for a detector without basis vectors: rows go down, columns to -x.
        return np.array([[0.0, -y, 0.0], [-x, 0.0, 0.0]])
    basis = _array(file, BASIS, "the basis vectors", source).astype(np.float64)
    basis = basis.T if basis.shape == (3, 2) else basis
    length = np.linalg.norm(basis, axis=-1) if basis.shape == (2, 3) else np.zeros(2)
    flat = length.min() > 0 and np.abs(basis[:, 2]).max() < 1e-3 * length.min()
    if not flat or abs(basis[0] @ basis[1]) > 1e-3 * length.prod():
        raise DataError(
            "The detector stands upright in the beam, with square corners.",
            expected="two orthogonal basis vectors of shape (2, 3) across the beam",
            received=f"{basis.tolist()}, field '{BASIS[0]}' of '{source}'",
            fix="project the patterns on a plane across the beam first",
        )
    return basis


def _wavelength_m(file: Any, source: str) -> float:
    if _found(file, ENERGY) is None and _found(file, WAVELENGTH) is not None:
        return positive_number(_array(file, WAVELENGTH, "the wavelength", source), WAVELENGTH[0], source)
    energy_J = positive_number(_array(file, ENERGY, "the photon energy", source), ENERGY[0], source)
    if energy_J > HARDEST_PHOTON_J:
        raise DataError(
            "A CXI file gives the photon energy in joules.",
            expected=f"less than {HARDEST_PHOTON_J:.1g} J",
            received=f"{energy_J:g}, field '{ENERGY[0]}' of '{source}'",
            fix=f"multiply electron-volts by {JOULE_PER_EV:.10g}",
        )
    return PLANCK_LIGHT_J_M / energy_J


def _good_pixels(file: Any, shape: tuple[int, ...], source: str) -> NDArray[np.bool_] | None:
    if _found(file, MASK) is None:
        return None
    mask = _array(file, MASK, "the mask", source)
    if mask.ndim == 3 and len(mask) == 1:
        mask = mask[0]
    if mask.dtype.kind not in "biu" or mask.shape != tuple(shape[-2:]):
        raise ShapeError(
            "The mask covers the detector, one integer for every pixel.",
            expected=f"integers of shape {tuple(shape[-2:])}",
            received=f"dtype {mask.dtype}, shape {mask.shape}, field '{MASK[0]}' of '{source}'",
            fix="combine the masks of the patterns into one",
        )
    return np.asarray((mask.astype(np.int64) & ~HAS_SIGNAL) == 0)


def _found(file: Any, paths: tuple[str, ...]) -> str | None:
    import h5py

    return next((path for path in paths if isinstance(file.get(path), h5py.Dataset)), None)


def _array(file: Any, paths: tuple[str, ...], what: str, source: str) -> NDArray[Any]:
    """Read the first of several datasets that exists."""
    path = _found(file, paths)
    if path is None:
        raise DataError(
            f"A CXI scan holds {what}.",
            expected=f"the dataset {' or '.join(repr(path) for path in paths)}",
            received=f"none of these in '{source}'",
            fix="add the dataset with h5py, or write the scan as NPZ with all its fields",
        )
    return hdf5_array(file, path, source)
