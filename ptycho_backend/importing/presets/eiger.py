"""
Preset of the master files of DECTRIS detectors, with linked data files (spec: data 12).

Convention: images are stored row by row from the top left, and are taken as they are. The format holds no positions
and no motors, so the user gives the positions along these rows and columns. Wavelength in Å, energy in eV, lengths in
metres; 0 is an unset value, and so is a beam in the middle of the detector, which is the default. Detectors of
electrons store the energy of the electrons as that of photons; a wavelength beside it is that of photons, and is left
out. Source: DECTRIS, *Header groups of the NeXus files*, dectris.com/en/support/downloads/header-docs/nexus, and a file
of an ARINA.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptycho_backend.data.fields import hdf5_array, opened_hdf5, real_number
from ptycho_backend.errors import DataError
from ptycho_backend.importing.description import ImportConfig
from ptycho_backend.importing.presets.base import Filled, Found, Preset, completed
from ptycho_backend.importing.presets.values import KEV, METRES, address, first, holds, is_array, positive, text

DATA = "entry/data"
BLOCK = re.compile(r"data_\d+")
DETECTOR = "entry/instrument/detector"
SPECIFIC = f"{DETECTOR}/detectorSpecific"
WAVELENGTH = ("entry/instrument/beam/incident_wavelength", "entry/instrument/monochromator/wavelength")
ENERGY = (f"{SPECIFIC}/photon_energy", "entry/instrument/beam/photon_energy", f"{DETECTOR}/photon_energy")
OF_ELECTRONS = {"ARINA", "ELA", "QUADRO", "SINGLA"}  # in the name of the detector
DISTANCE = (f"{DETECTOR}/detector_distance", f"{DETECTOR}/distance")
MASK = (f"{SPECIFIC}/pixel_mask", f"{DETECTOR}/pixel_mask")
SATURATION = (
    *(f"{DETECTOR}/saturation_value", f"{SPECIFIC}/saturation_value"),
    *(f"{SPECIFIC}/countrate_correction_count_cutoff", f"{DETECTOR}/count_rate_correction_count_cutoff"),
)


def recognises(paths: Sequence[Path]) -> bool:
    """Return whether every file is a master file."""
    return bool(paths) and all(holds(path, _is_master) for path in paths)


def fill(paths: Sequence[Path], given: ImportConfig) -> Filled:
    """
    Return the description of one or several master files in a row; positions remain to be given.

    Raises
    ------
    DataError
        If a linked data file is missing, or if a value is invalid.
    """
    patterns: list[str] = []
    for path in paths:
        with opened_hdf5(path) as file:
            names = [given.patterns.dataset] if given.patterns.dataset else _blocks(file, str(path))
        patterns += [address(path, name) for name in names]
    path = paths[0]
    with opened_hdf5(path) as file:
        mask = first(file, MASK, (2,))
        found: Found = {
            "patterns": {"unit": "counts"},
            "geometry": _geometry(file, str(path)),
            "detector": _centre(file, patterns[0].rpartition(":")[2], str(path))
            | {"mask": address(path, mask) if mask else None, "mask_convention": "bad" if mask else None}
            | {"saturation": _set_value(file, SATURATION, str(path))},
        }
    return Filled(completed(given, found), patterns)


def _is_master(file: Any) -> bool:
    import h5py

    blocks = file.get(DATA)
    specific = isinstance(file.get(SPECIFIC), h5py.Group)
    linked = isinstance(blocks, h5py.Group) and any(BLOCK.fullmatch(name) for name in blocks)
    return linked or (specific and is_array(file, f"{DATA}/data", (3,)))


def _blocks(file: Any, source: str) -> list[str]:
    """Return the names of the blocks of patterns, in order."""
    import h5py

    group = file[DATA]
    names = sorted(name for name in group if BLOCK.fullmatch(name)) or ["data"]
    links = {name: group.get(name, getlink=True) for name in names}
    missing = [name for name in names if not is_array(file, f"{DATA}/{name}", (3,))]
    if missing:
        files = [link.filename for name in missing if isinstance(link := links[name], h5py.ExternalLink)]
        raise DataError(
            "The data files of a master file are present.",
            expected=f"a stack of patterns behind each of {', '.join(names)}, next to the master file",
            received=f"none behind {', '.join(files or missing)} of '{source}'",
            fix="copy the data files into the folder of the master file; do not rename them",
        )
    return [f"{DATA}/{name}" for name in names]


def _geometry(file: Any, source: str) -> dict[str, float | None]:
    electrons = not OF_ELECTRONS.isdisjoint(text(file, f"{DETECTOR}/description").upper().split())
    name = None if electrons else _set_name(file, WAVELENGTH, source)
    wavelength = positive(file, name, source, METRES, "angstrom")
    energy = None if wavelength else positive(file, _set_name(file, ENERGY, source), source, KEV, "ev")
    y, x = (positive(file, f"{DETECTOR}/{side}_pixel_size", source, METRES, "m") for side in "yx")
    return {
        "wavelength_m": wavelength,
        "voltage_kv" if electrons else "energy_kev": energy,
        "distance_m": positive(file, _set_name(file, DISTANCE, source), source, METRES, "m"),
        "detector_pixel_m": y or x,
        "detector_pixel_x_m": None if x == y else x,
    }


def _centre(file: Any, block: str, source: str) -> dict[str, float]:
    """Return the centre of the beam; empty for the default, half the sides, and for a beam outside of the image."""
    y, x = (_set_value(file, [f"{DETECTOR}/beam_center_{side}"], source) for side in "yx")
    sides = file[block].shape[-2:] if is_array(file, block, (3,)) else (0, 0)
    if y is None or x is None or (y, x) == (sides[0] / 2, sides[1] / 2) or not (y < sides[0] and x < sides[1]):
        return {}
    return {"centre_y_px": y, "centre_x_px": x}


def _set_value(file: Any, names: Sequence[str], source: str) -> float | None:
    return positive(file, _set_name(file, names, source), source)


def _set_name(file: Any, names: Sequence[str], source: str) -> str | None:
    """Return the first of several names with a value above 0: the detector writes 0 for an unset value."""
    there = (name for name in names if first(file, [name], (0, 1)))
    return next((name for name in there if real_number(hdf5_array(file, name, source), name, source) > 0), None)


PRESET = Preset("eiger", "DECTRIS EIGER and PILATUS master files (_master.h5)", recognises, fill)
