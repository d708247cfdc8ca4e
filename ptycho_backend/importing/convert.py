"""
Conversion of files of any layout to a scan: preset, arrays, positions, geometry and probe, then a file or a scan.

Notes
-----
Spec: data 12.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import to_dict
from ptycho_backend.data.cxi import JOULE_PER_EV, PLANCK_LIGHT_J_M
from ptycho_backend.data.hdf5_writer import ScanFields, write_hdf5, write_hdf5_blocks
from ptycho_backend.data.npz import write_npz
from ptycho_backend.data.readers import NPZ as NPZ_SUFFIXES
from ptycho_backend.data.readers import load_scan
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import ConfigError, DataError, ShapeError
from ptycho_backend.events import OnEvent, ThrottledProgress, ignore
from ptycho_backend.importing.arrays import ArraySource, concatenated, open_array, split_address
from ptycho_backend.importing.description import DetectorDescription, ImportConfig
from ptycho_backend.importing.detector import DetectorImages
from ptycho_backend.importing.frames import Frames, frames
from ptycho_backend.importing.geometry import (
    bright_field_radius,
    geometry_text,
    needs_bright_field_radius,
    object_pixel_m,
    wavelength_m,
)
from ptycho_backend.importing.layout import Layout, layout_of
from ptycho_backend.importing.limits import require_plausible
from ptycho_backend.importing.optics import optics_probe
from ptycho_backend.importing.positions import scan_positions
from ptycho_backend.importing.stack import scan_shape
from ptycho_backend.importing.target import addresses, checked_target
from ptycho_backend.runtime.memory_map import release, scratch_array

logger = logging.getLogger(__name__)

DESCRIPTION = "import"  # attribute of a scan: the description of its files
STAGE = "import"
MASKS_AT_ONCE = 64  # of a stack, in memory
Pair = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Described:
    """
    Scan that is described completely, with patterns still in its files.

    Parameters
    ----------
    frames : Frames
        Patterns as they are written.
    fields : ScanFields
        Positions, probe, mask and the rest.
    source : str
        Files.
    notes : list of str
        Sentences on what was found: zero frequency, window, geometry.
    """

    frames: Frames
    fields: ScanFields
    source: str
    notes: list[str]

    def blocks(self, on_event: OnEvent = ignore) -> Iterator[NDArray[Any]]:
        """Yield the patterns block by block, (pattern, N, N), and report the progress."""
        progress, done = ThrottledProgress(on_event, STAGE, len(self.frames)), 0
        for block in self.frames.blocks():
            yield block
            done += len(block)
            progress.report(done)
        progress.finish()

    def scan(self, on_event: OnEvent = ignore) -> Scan:
        """Return the scan in memory; a large stack lies in a temporary file."""
        patterns, done = scratch_array(self.frames.shape, self.frames.dtype), 0
        for block in self.blocks(on_event):
            patterns[done : done + len(block)] = block
            done += len(block)
            release(patterns)
        return Scan(patterns=patterns, source=self.source, **vars(self.fields))


def import_scan(
    files: Path | str | Sequence[Path | str],
    config: ImportConfig | None = None,
    output: Path | str | None = None,
    *,
    overwrite: bool = False,
    on_event: OnEvent = ignore,
) -> Scan:
    """
    Make a scan from files of any layout.

    Parameters
    ----------
    files : path or sequence of paths
        Files with the patterns, in the order of the scan; names with ``*`` are expanded and sorted. A preset may need
        further files.
    config : ImportConfig, optional
        Description of the files. None takes what a preset finds.
    output : path, optional
        File to write, ``.h5`` (training layout of ptychodus) or ``.npz``. None keeps the scan in memory, or in a
        temporary file.
    overwrite : bool
        Replace an existing file.
    on_event : callable
        Receives StageEvents.

    Returns
    -------
    Scan

    Raises
    ------
    ConfigError
        If the description is incomplete or contradicts itself.
    DataError, ShapeError
        If a file is missing or damaged, or the arrays do not fit together.
    OutputError
        If the file exists or cannot be written.

    Notes
    -----
    Spec: data 12. Patterns are read block by block, and never twice in memory. The files stay as they are.
    """
    layout = layout_of(files, config)
    output = output_of(layout, output, overwrite)
    described = None if layout.by_load_scan else describe(layout)
    return import_layout(layout, described, output, overwrite, on_event)


def output_of(layout: Layout, output: Path | str | None, overwrite: bool) -> Path | None:
    """
    Return the output of an import after a check before any work; None without one.

    Raises
    ------
    OutputError
        If it exists without `overwrite`, is one of the files that are read, or has another suffix.
    """
    return None if output is None else checked_target(output, _read_files(layout), overwrite)


def import_layout(
    layout: Layout,
    described: Described | None,
    output: Path | None = None,
    overwrite: bool = False,
    on_event: OnEvent = ignore,
) -> Scan:
    """
    Return the scan of a layout, written to a file if there is an output of :func:`output_of`.

    `described` is None for a layout that ``load_scan`` reads.
    """
    if described is None:
        path, *others = layout.filled.patterns if layout.filled else layout.paths
        scan = load_scan(path, patterns=others[0] if others else None)
        return scan if output is None else load_scan(_written(scan, output, overwrite))
    if output is None:
        return described.scan(on_event)
    if output.suffix.lower() in NPZ_SUFFIXES:
        return load_scan(write_npz(described.scan(on_event), output, overwrite))
    blocks, dtype = described.blocks(on_event), described.frames.dtype
    return load_scan(write_hdf5_blocks(output, blocks, dtype, described.fields, overwrite))


def _read_files(layout: Layout) -> list[str]:
    """Return the addresses of all files that an import reads."""
    filled = layout.filled.patterns if layout.filled else []
    return [*map(str, layout.paths), *map(str, filled), *addresses(layout.config)]


def describe(layout: Layout) -> Described:
    """
    Read everything but the patterns, of which only statistics are made.

    Notes
    -----
    Spec: data 12.3 to 12.8.
    """
    config = layout.config
    require_plausible(config)
    source = _patterns(layout)
    # Positions come first: a fault of theirs is found before a large file is read.
    n, raster = scan_shape(source, config.patterns)
    places, unit = scan_positions(config.positions, n, raster)
    images = DetectorImages(_image(config.detector.dark), _image(config.detector.flat), _mask(config.detector, n))
    found = frames(source, config.patterns, config.detector, images)
    pixel_m, wavelength = _object_pixel_m(config, found), wavelength_m(config.geometry)
    positions_px = _in_pixels(places[found.rows], unit, pixel_m)
    fields = ScanFields(
        positions_px=positions_px,
        mask=found.mask,
        measurement=found.measurement,
        probe=_probe(config, found.N, pixel_m),
        pixel_size_m=pixel_m,
        attributes=_attributes(layout, wavelength),
    )
    notes = [*found.notes, geometry_text(pixel_m, wavelength)]
    logger.info("%s", notes[-1])
    return Described(found, fields, layout.source, notes)


def _written(scan: Scan, output: Path | str, overwrite: bool) -> Path:
    write = write_npz if Path(output).suffix.lower() in NPZ_SUFFIXES else write_hdf5
    return write(scan, output, overwrite)


def _patterns(layout: Layout) -> ArraySource:
    """Return the patterns of all files, one after the other."""
    description = layout.config.patterns
    if layout.filled is not None and layout.filled.patterns:
        addresses = layout.filled.patterns
    else:
        addresses = [_with_name(path, description.dataset) for path in layout.paths]
    least = 2 if len(addresses) > 1 else 3
    sources = [_as_stack(open_array(address, description, axes_at_least=least)) for address in addresses]
    return concatenated(sources)


def _with_name(path: Path, dataset: str) -> str:
    return f"{path}:{dataset}" if dataset and not split_address(str(path))[1] else str(path)


def _as_stack(source: ArraySource) -> ArraySource:
    """Return an array of one pattern (y, x), as a file for every pattern has it, as a stack of one."""
    if len(source.shape) != 2:
        return source

    def read(rows: slice) -> NDArray[Any]:
        return source.all()[None][rows]

    return ArraySource(source.name, (1, *source.shape), source.dtype, read)


def _image(address: str) -> NDArray[Any] | None:
    """Return an image of the detector, or None without an address; a stack of one is an image too."""
    if not address:
        return None
    values = open_array(address, axes_at_least=2).all()
    return values[0] if values.ndim == 3 and len(values) == 1 else values


def _mask(detector: DetectorDescription, n_patterns: int) -> NDArray[Any] | None:
    """Return the mask, or None without an address; in a stack of masks, a pixel that is bad in one is bad."""
    if not detector.mask:
        return None
    source = open_array(detector.mask, axes_at_least=2)
    if len(source.shape) != 3 or len(source) == 1:
        values = source.all()
        return values[0] if values.ndim == 3 else values
    if len(source) > n_patterns:
        raise ShapeError(
            "A stack of masks has one for every pattern.",
            expected=f"one mask (y, x), or at most {n_patterns} of them",
            received=f"shape {source.shape} in '{source.name}'",
            fix="choose another array with --detector.mask",
        )
    combined: np.ufunc = np.bitwise_or if source.dtype.kind in "bui" else np.logical_or
    if detector.mask_convention == "good":
        combined = np.logical_and
    starts = range(0, len(source), MASKS_AT_ONCE)
    masks = [combined.reduce(source.read(slice(first, first + MASKS_AT_ONCE)), axis=0) for first in starts]
    result: NDArray[Any] = combined.reduce(masks, axis=0)
    return result


def _object_pixel_m(config: ImportConfig, found: Frames) -> Pair | None:
    radius = None
    if needs_bright_field_radius(config.geometry):
        middle = (found.N // 2, found.N // 2)
        radius = bright_field_radius(found.mean_pattern, middle, found.mask) * config.detector.bin
    return object_pixel_m(config.geometry, (found.size_px, found.size_px), radius)


def _in_pixels(places: NDArray[np.float64], unit: str, pixel_m: Pair | None) -> NDArray[np.float64]:
    if unit == "px":
        return places
    if pixel_m is None:
        raise ConfigError(
            "Positions in metres need the pixel of the object.",
            expected="wavelength or energy with distance and detector pixel, or another way to the pixel",
            received="positions in a unit of length, and no geometry",
            fix="--geometry.energy_kev, --geometry.distance_m and --geometry.detector_pixel_m; "
            "--geometry.object_pixel_m gives the pixel itself",
        )
    return places / np.asarray(pixel_m)


def _probe(config: ImportConfig, N: int, pixel_m: Pair | None) -> NDArray[np.complex64] | None:
    """Return the probe guess (mode, y, x), or None for a search by the reconstruction."""
    description = config.probe
    if description.array:
        _refuse_two_probes(config)
        source = open_array(description.array, axes_at_least=2)
        values = source.all()
        return _checked_probe(values, N, source.name)
    if description.optics != "none" and pixel_m is None:
        raise ConfigError(
            "The optics of a probe need the pixel of the object.",
            expected="a geometry",
            received=f"--probe.optics {description.optics} without one",
            fix="--geometry.energy_kev, --geometry.distance_m and --geometry.detector_pixel_m",
        )
    return optics_probe(description, config.geometry, N, pixel_m or (1.0, 1.0))


def _refuse_two_probes(config: ImportConfig) -> None:
    given = to_dict(config.probe)
    default = to_dict(ImportConfig().probe)
    others = [name for name, value in given.items() if name != "array" and value != default[name]]
    if others:
        raise ConfigError(
            "A probe comes from an array or from optics.",
            expected="--probe.array alone, or --probe.optics with its options",
            received=f"--probe.array with {', '.join(f'--probe.{name}' for name in others)}",
            fix="leave one of them out",
        )


def _checked_probe(values: NDArray[Any], N: int, name: str) -> NDArray[np.complex64]:
    """Return a probe (mode, y, x) of the side N."""
    if values.ndim > 2 and values.shape[-2:] != (N, N) and values.shape[:2] == (N, N):
        values = np.moveaxis(values, (0, 1), (-2, -1))  # modes last, as Matlab programs write them
    modes = values.reshape(-1, *values.shape[-2:])
    if modes.shape[-2:] != (N, N):
        raise DataError.in_field(
            "A probe has the grid of the patterns that are written.",
            *(f"shape (mode, {N}, {N})", f"shape {values.shape}"),
            "--detector.size_px and --detector.bin of the probe's grid, or leave --probe.array out",
            *("probe", name),
        )
    return modes.astype(np.complex64)


def _attributes(layout: Layout, wavelength: float | None) -> dict[str, Any]:
    """Return plain values of the scan: geometry, values of the preset, and the description."""
    attributes: dict[str, Any] = dict(layout.filled.attributes) if layout.filled is not None else {}
    geometry = layout.config.geometry
    if wavelength is not None and geometry.voltage_kv is None:
        attributes["photon_energy_eV"] = PLANCK_LIGHT_J_M / wavelength / JOULE_PER_EV
    if geometry.distance_m is not None:
        attributes["detector_object_distance_m"] = geometry.distance_m
    description = {"files": [str(path) for path in layout.paths], **to_dict(layout.config)}
    return attributes | {DESCRIPTION: description}
