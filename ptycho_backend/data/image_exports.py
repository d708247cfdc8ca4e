"""Images for other programs: TIFF, xarray and napari (spec: data 14)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.output import atomic_path
from ptycho_backend.data.phase_plane import fit_plane, level
from ptycho_backend.errors import ConfigError, OutputError

TIFF = (".tif", ".tiff")
MICROMETRE_M, CENTIMETRE_M = 1e-6, 1e-2
PAGES = ("amplitude", "phase")
POINT_PX = 3  # diameter of a position in napari


def amplitude_and_phase(fields: Mapping[str, Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """
    Return amplitude and phase (rad, wrapped) of an image, float32, shape (y, x).

    Piston and ramp are removed from the phase, because diffraction data leave both free; the coverage weighs the
    pixels of their fit. Pixels of exactly 0 stay 0.
    """
    obj = np.asarray(fields["obj"], dtype=np.complex128)
    levelled = level(obj, fit_plane(obj * fields["coverage"]))
    phase = np.where(obj == 0, 0.0, np.angle(levelled))
    return np.abs(levelled).astype(np.float32), phase.astype(np.float32)


def write_tiff(path: Path | str, fields: Mapping[str, Any], overwrite: bool = False) -> Path:
    """
    Write amplitude and phase of an image as two pages of an OME-TIFF file.

    The resolution tags hold pixels per centimetre, and the OME metadata the pixel in micrometres, where it is known.

    Parameters
    ----------
    path : path
    fields : mapping
        Fields of an :class:`~ptycho_backend.data.image.Image`.
    overwrite : bool

    Raises
    ------
    OutputError

    References
    ----------
    OME-TIFF specification, https://docs.openmicroscopy.org/ome-model/6.3.1/ome-tiff/specification.html
    """
    import tifffile

    target, pixel_m = Path(path), fields["pixel_size_m"]
    if target.suffix.lower() not in TIFF:
        raise OutputError(
            "The suffix of a TIFF file gives its format.",
            expected=f"one of {', '.join(TIFF)}",
            received=f"'{target}'",
            fix=f"image.to_tiff('{target.name}.tif')",
        )
    metadata: dict[str, Any] = {"axes": "CYX", "Channel": {"Name": list(PAGES)}, "Name": fields["name"] or target.stem}
    settings: dict[str, Any] = {}
    if pixel_m is not None:
        y_um, x_um = (side / MICROMETRE_M for side in pixel_m)
        metadata |= {"PhysicalSizeX": x_um, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": y_um, "PhysicalSizeYUnit": "µm"}
        settings = {
            "resolution": (CENTIMETRE_M / pixel_m[1], CENTIMETRE_M / pixel_m[0]),
            "resolutionunit": "CENTIMETER",
        }
    pages = np.stack(amplitude_and_phase(fields))
    with atomic_path(target, overwrite) as unfinished:
        tifffile.imwrite(unfinished, pages, ome=True, photometric="minisblack", metadata=metadata, **settings)
    return target


def dataset(fields: Mapping[str, Any]) -> Any:
    """
    Return an xarray Dataset of an image, given as a mapping of its fields.

    Raises
    ------
    ConfigError
        If xarray is not installed.
    """
    try:
        import xarray
    except ModuleNotFoundError as error:
        raise ConfigError.not_installed("Image.to_xarray", ["xarray"], [str(error.name)], "xarray") from error
    (y, x), unit = coordinates(fields)
    amplitude, phase = amplitude_and_phase(fields)
    names = ("y", "x")
    arrays: dict[str, Any] = {
        "object": (names, fields["obj"], {"long_name": "transmission function"}),
        "amplitude": (names, amplitude, {"long_name": "amplitude", "units": "1"}),
        "phase": (names, phase, {"long_name": "phase without piston and ramp", "units": "rad"}),
        "coverage": (names, fields["coverage"], {"long_name": "summed weights of the patterns"}),
    }
    if (experiment := fields["experiment"]) is not None:
        positions = experiment.positions_px * _pixel(fields)
        arrays |= {
            "probe": (("mode", "probe_y", "probe_x"), experiment.probe, {"long_name": "probe in the solver's scale"}),
            "positions": (("position", "axis"), positions, {"long_name": "scan positions (y, x)", "units": unit}),
            "relative_flux": (("position",), experiment.scales**2, {"units": "1"}),
        }
    axes = {name: (name, values, {"units": unit}) for name, values in zip(names, (y, x), strict=True)}
    if experiment is not None:
        axes["axis"] = ("axis", np.array(names), {})
    known = {key: fields[key] for key in ("name", "photons_per_pattern") if fields[key] not in (None, "")}
    return xarray.Dataset(arrays, coords=axes, attrs=known)


def coordinates(fields: Mapping[str, Any]) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], str]:
    """Return scan coordinates of rows and columns, metres or pixels, and their unit."""
    height, width = fields["obj"].shape
    pixel, (top, left) = _pixel(fields), fields["origin_px"]
    unit = "px" if fields["pixel_size_m"] is None else "m"
    return ((top + np.arange(height)) * pixel[0], (left + np.arange(width)) * pixel[1]), unit


def layers(fields: Mapping[str, Any]) -> list[tuple[Any, dict[str, Any], str]]:
    """
    Return data, settings and kind of napari's layers: amplitude, phase, and positions of an experiment.

    References
    ----------
    LayerDataTuple of napari, https://napari.org/stable/plugins/building_a_plugin/guides.html#the-layerdata-tuple
    """
    known = fields["pixel_size_m"] is not None
    scale = _pixel(fields) / (MICROMETRE_M if known else 1.0)
    name = fields["name"] or "image"
    common = {"scale": scale.tolist(), "metadata": {"unit": "µm" if known else "px"}}
    placed = common | {"translate": (np.asarray(fields["origin_px"]) * scale).tolist()}
    colours = ("gray", "viridis")
    found: list[tuple[Any, dict[str, Any], str]] = [
        (values, {**placed, "name": f"{name} {page}", "colormap": colour}, "image")
        for page, colour, values in zip(PAGES, colours, amplitude_and_phase(fields), strict=True)
    ]
    if (experiment := fields["experiment"]) is not None:
        points = {**common, "name": f"{name} positions", "size": POINT_PX, "visible": False}
        found.append((experiment.positions_px, points, "points"))
    return found


def _pixel(fields: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the object pixel (y, x) in metres; 1 where it is unknown."""
    return np.asarray(fields["pixel_size_m"] or (1.0, 1.0), dtype=np.float64)
