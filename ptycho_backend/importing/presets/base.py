"""Preset of a known layout, and the rules by which it completes a description (spec: data 12)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptycho_backend.importing.description import ImportConfig
from ptycho_backend.importing.geometry import WAVELENGTHS

Found = Mapping[str, Mapping[str, Any]]  # values of the description that a file gives, by section and field

PLACES = ("y", "x", "text", "raster_shape", "step_y", "step_x")
FAR_FIELD = ("distance_m", "detector_pixel_m", "detector_pixel_x_m")
PIXELS = (FAR_FIELD, ("reciprocal_step_per_angstrom",), ("bright_field_radius_px",), ("object_pixel_m",))
ORIENTATION = ("transpose", "flip_y", "flip_x")
CENTRE = ("centre_y_px", "centre_x_px")


@dataclass(frozen=True)
class Filled:
    """
    Description of a scan, completed from its files.

    Parameters
    ----------
    config : ImportConfig
        Description; fields of the user are unchanged.
    patterns : list of str
        Addresses of the arrays with patterns, in the order of the scan; empty for a layout of ``load_scan``.
    attributes : dict
        Plain values of the files that belong to the scan, as ``photon_energy_eV``.
    """

    config: ImportConfig
    patterns: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Preset:
    """
    Known layout of files.

    Parameters
    ----------
    name : str
        Name on the command line.
    title : str
        Programs or instruments that write the layout.
    recognises : callable
        Function of the paths that returns True for files of this layout; it reads no arrays and raises nothing.
    fill : callable
        Function of the paths and of the user's description that returns the completed one.
    by_load_scan : bool
        Layout that ``load_scan`` reads without a description.
    """

    name: str
    title: str
    recognises: Callable[[Sequence[Path]], bool]
    fill: Callable[[Sequence[Path], ImportConfig], Filled]
    by_load_scan: bool = False


def completed(given: ImportConfig, found: Found) -> ImportConfig:
    """
    Return a copy of a description in which values of the files take the place of defaults.

    A field that differs from its default is the user's and stays. Some fields exclude each other, as energy and
    wavelength; others belong together, as the place of the positions and their signs. The user's choice of one of
    these leaves out the values of the files for all.

    Parameters
    ----------
    given : ImportConfig
        Description of the user.
    found : mapping
        Values of the files, by section and field.

    Returns
    -------
    ImportConfig
        Completed copy.

    Notes
    -----
    Spec: data 12.
    """
    config = deepcopy(given)
    for section, values in found.items():
        part = getattr(config, section)
        default = type(part)()
        replaced = _replaced(section, {name for name in vars(part) if getattr(part, name) != getattr(default, name)})
        for name, value in values.items():
            if name not in replaced and value is not None:
                setattr(part, name, value)
    return config


def _replaced(section: str, chosen: set[str]) -> set[str]:
    """Return the fields of a section that the choices of the user decide."""
    replaced = set(chosen)
    if section == "positions" and chosen.intersection(PLACES):
        replaced.update(*_all_fields("positions"))
    if section == "geometry":
        if chosen.intersection(WAVELENGTHS):
            replaced.update(WAVELENGTHS)
        for pixel in PIXELS:
            if chosen.intersection(pixel):
                replaced.update(*(other for other in PIXELS if other != pixel))
        if "detector_pixel_m" in chosen:
            replaced.add("detector_pixel_x_m")
    if section == "detector":
        replaced.update(CENTRE if chosen.intersection((*ORIENTATION, *CENTRE)) else ())
        replaced.update(("mask_convention",) if "mask" in chosen else ())
    if section == "probe" and chosen:
        replaced.update(*_all_fields("probe"))
    return replaced


def _all_fields(section: str) -> list[set[str]]:
    return [set(vars(getattr(ImportConfig(), section)))]
