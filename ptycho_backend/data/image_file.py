"""
File of an image: a ptychodus product with a group for all that ptychodus does not read (spec: data 3.4, 14).

Commands and :meth:`ptycho_backend.data.image.Image.save` write the same format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.fields import Fields, finite, hdf5_array, opened_hdf5, real_number, wrong_shape
from ptycho_backend.data.hdf5_sources import holds, resolved
from ptycho_backend.data.probe_guess import PROBE_GUESS
from ptycho_backend.data.product import EXTRA_GROUP, NUMBERS, POSITIONS, Product, read_product, write_product
from ptycho_backend.data.rows import measured_rows
from ptycho_backend.errors import DataError, OutputError, nearest_name

RECONSTRUCTION = "reconstruction.h5"  # name in a run folder
SUFFIXES = (".h5", ".hdf5", ".hdf")
EXPERIMENT = "experiment"  # subgroup with the arrays of the experiment
IMAGE = "image"  # entry of the attributes with the plain values of the image and its experiment
BACKGROUND = "background_photons_per_pixel"
# Attributes that follow from other fields when an image is written.
DERIVED = (*NUMBERS, PROBE_GUESS, BACKGROUND, "name", "comments", IMAGE)


def checked_suffix(path: Path | str) -> Path:
    """
    Return the path of an image file.

    Raises
    ------
    OutputError
        If its suffix is not one of HDF5.
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise OutputError(
            "The suffix of an image file gives its format.",
            expected=f"one of {', '.join(SUFFIXES)}",
            received=f"'{target}'",
            fix=f"image.save('{target.name}.h5'), or image.to_tiff for a picture",
        )
    return target


def write_image_file(
    path: Path | str,
    fields: Mapping[str, Any],
    title: str,
    costs: Sequence[float] = (),
    extras: Mapping[str, NDArray[Any]] | None = None,
    overwrite: bool = False,
) -> Path:
    """
    Write an image as a ptychodus product; its probe there is in sqrt(photons).

    Parameters
    ----------
    path : path
    fields : mapping
        Fields of an :class:`~ptycho_backend.data.image.Image`.
    title : str
        Name of the product in ptychodus.
    costs : sequence of float
        Training loss of every epoch, for ptychodus.
    extras : mapping of arrays, optional
        Further datasets for the group of this package.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    OutputError, DataError

    Notes
    -----
    Spec: data 3.4, 14.
    """
    experiment = {} if fields["experiment"] is None else vars(fields["experiment"])
    provenance, scale = dict(fields["provenance"]), fields["counts_per_intensity"] or 1.0
    positions, photons = experiment.get("positions_px", np.empty((0, 2))), fields["photons_per_pattern"]
    product = Product(
        positions_px=positions,
        probe=photon_probe(experiment.get("probe", np.empty((0, 1, 1))), scale),
        obj=fields["obj"],
        obj_origin_px=fields["origin_px"],
        pixel_size_m=fields["pixel_size_m"],
        indexes=measured_rows(len(positions), _of_scan(provenance)) if experiment else np.empty(0, np.int64),
        costs=np.asarray(costs, dtype=np.float64),
        attributes={
            **{key: value for key, value in _of_scan(provenance).items() if key in (*NUMBERS, PROBE_GUESS)},
            **({} if photons is None else {"probe_photon_count": photons}),
            BACKGROUND: experiment.get("background", 0.0) * scale,
            **provenance,
            "name": title,
            IMAGE: _plain_values(fields, experiment),
        },
    )
    arrays = {f"{EXPERIMENT}/{name}": array for name, array in experiment.items() if isinstance(array, np.ndarray)}
    if experiment:
        arrays["relative_flux"] = experiment["scales"] ** 2
    arrays |= {"coverage": fields["coverage"], "errors": np.asarray(fields["errors"], dtype=np.float64)}
    return write_product(path, product, {**arrays, **(extras or {})}, overwrite)


def image_fields(path: Path | str) -> Fields:
    """
    Return the fields of the image in a file or a run folder; the experiment is a mapping, or None.

    Raises
    ------
    DataError
        If there is no such file, or it is no product, or it is damaged.

    Notes
    -----
    Spec: data 3.4, 14.
    """
    file = _image_path(Path(path))
    source = str(file)
    with opened_hdf5(file) as content:
        _check_kind(content, source)
        extras = _Extras(content, source)
    without_probe = extras.values.get(EXPERIMENT, {}) is None
    product = read_product(file, N=1 if without_probe else None)
    if product.obj is None:
        raise DataError(
            "An image file holds an object.", "an array (y, x) under 'object'", f"none in '{source}'", "choose another"
        )
    obj = np.array(product.obj, dtype=np.complex64)
    attributes = product.attributes
    photons = extras.number("photons_per_pattern", attributes.get("probe_photon_count"))
    scale = extras.number("counts_per_intensity", None if EXPERIMENT in extras.values else _energy_scale(product.probe))
    return {
        "obj": obj,
        "coverage": extras.array("coverage", obj.shape, np.float32, obj != 0),
        "origin_px": product.obj_origin_px,
        "experiment": None if without_probe else extras.experiment(product, scale or 1.0),
        "pixel_size_m": product.pixel_size_m,
        "errors": tuple(extras.array("errors", None, np.float64, np.empty(0)).tolist()),
        "name": str(extras.values.get("name", attributes.get("name", file.stem))),
        "photons_per_pattern": photons,
        "provenance": _provenance(attributes),
        "counts_per_intensity": scale,
    }


def photon_probe(probe: NDArray[Any], counts_per_intensity: float) -> NDArray[np.complex64]:
    """Return a probe in sqrt(photons): with it and the object, |far field|² is the expected counts."""
    return np.asarray(probe * np.sqrt(counts_per_intensity), dtype=np.complex64)


class _Extras:
    """Values of this package in a product, with those of an earlier version or another program as defaults."""

    def __init__(self, file: Any, source: str) -> None:
        from ptycho_backend.data.product import Extras

        self.source, self.arrays = source, {}
        values = Extras(file, source).attributes.get(IMAGE, {})
        if not isinstance(values, dict) or not isinstance(values.get(EXPERIMENT, {}), dict | None):
            raise self._wrong(IMAGE, "a mapping", type(values).__name__)
        self.values: dict[str, Any] = values
        if holds(file, EXTRA_GROUP):
            group = resolved(file, EXTRA_GROUP)
            names = [name for name in ("coverage", "errors", "relative_flux") if holds(group, name)]
            names += [f"{EXPERIMENT}/{name}" for name in (group[EXPERIMENT] if holds(group, EXPERIMENT) else ())]
            self.arrays = {name: finite(hdf5_array(group, name, source), name, source, "biufc") for name in names}

    def number(self, key: str, default: float | None) -> float | None:
        """Return a number above zero, or None."""
        value = self.values.get(key, default)
        if value is None or value == 0:
            return None
        number = real_number(value, key, self.source)
        if number < 0:
            raise self._wrong(key, "a number above zero", f"{number:g}")
        return number

    def array(self, key: str, shape: tuple[int, ...] | None, dtype: Any, default: Any) -> NDArray[Any]:
        """Return an array of the group in memory; `shape` None stands for any list of numbers."""
        array = np.array(self.arrays.get(key, default))
        if array.shape != shape if shape is not None else array.ndim != 1:
            rule, fix = "Arrays of an image agree in shape.", "write the image again"
            raise wrong_shape(array, key, self.source, rule, f"shape {shape or '(entry,)'}", fix)
        return array.astype(dtype)

    def experiment(self, product: Product, scale: float) -> dict[str, Any]:
        """Return the fields of the experiment."""
        n, probe = len(product.positions_px), (product.probe / np.sqrt(scale)).astype(np.complex64)
        flux = np.sqrt(self.array("relative_flux", (n,), np.float64, np.ones(n)))
        shown = {name.partition("/")[2]: array for name, array in self.arrays.items() if "/" in name}
        background = real_number(self._attribute(product, BACKGROUND), BACKGROUND, self.source) / scale
        return {
            "windows_px": product.positions_px,  # of a file of another program, or of an earlier version
            **{name: np.array(array) for name, array in shown.items()},
            "probe": self.array(f"{EXPERIMENT}/probe", probe.shape, np.complex64, probe),
            "positions_px": self.array(f"{EXPERIMENT}/positions_px", (n, 2), np.float64, product.positions_px),
            "scales": self.array(f"{EXPERIMENT}/scales", (n,), np.float64, flux),
            "background": background,
            **{name: _checked(name, value, self.source) for name, value in self.values.get(EXPERIMENT, {}).items()},
        }

    @staticmethod
    def _attribute(product: Product, key: str) -> Any:
        return product.attributes.get(key, 0.0)

    def _wrong(self, key: str, expected: str, received: str) -> DataError:
        rule, fix = "The values of an image are plain.", "write the image again"
        return DataError.in_field(rule, expected, received, fix, key, self.source)


def _checked(name: str, value: Any, source: str) -> Any:
    """Return a plain value of the experiment: a number, a text, or a tuple of them."""
    if isinstance(value, list) and all(isinstance(item, int | float | str) for item in value):
        return tuple(value)
    if isinstance(value, int | float | str):
        return value
    rule, fix = "The values of an experiment are plain.", "write the image again"
    raise DataError.in_field(rule, "a number, a text or a list", type(value).__name__, fix, name, source)


def _plain_values(fields: Mapping[str, Any], experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of an image and its experiment that are no arrays, for JSON."""
    plain = {name: value for name, value in experiment.items() if not isinstance(value, np.ndarray)}
    values = {name: fields[name] for name in ("name", "photons_per_pattern", "counts_per_intensity")}
    return {**values, EXPERIMENT: plain if experiment else None}


def _of_scan(provenance: Mapping[str, Any]) -> Mapping[str, Any]:
    scan = provenance.get("scan")
    return scan if isinstance(scan, Mapping) else {}


def _provenance(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the origin of an image: the attributes of its file without those that follow from other fields."""
    values = {key: value for key, value in attributes.items() if key not in DERIVED}
    numbers = {key: attributes[key] for key in (*NUMBERS, PROBE_GUESS) if key in attributes}
    numbers.pop("probe_photon_count", None)
    if numbers and "scan" not in values:
        values["scan"] = numbers
    return values


def _energy_scale(probe: NDArray[Any]) -> float:
    """Return the photons per normalised intensity of a probe of another program, for Σ |P|² = (N/2)²."""
    energy = float((np.abs(probe.astype(np.complex128)) ** 2).sum())
    return energy / (probe.shape[-1] / 2) ** 2


def _image_path(path: Path) -> Path:
    """Return the path of an existing image file; of a run folder, that of its reconstruction."""
    rule, expected = "An image is a file or a run folder.", f"a product ({', '.join(SUFFIXES)}) or a run folder"
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
        names = sorted(item.name for item in (path if is_folder else path.parent).iterdir())
    except (OSError, ValueError) as error:  # a missing or closed folder, or a name that the system refuses
        is_folder, is_file, names = False, False, []
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(rule, expected, f"{path.name[:40]!r}: {reason}", "check the path") from error
    if is_folder:
        if RECONSTRUCTION in names and (path / RECONSTRUCTION).is_file():
            return path / RECONSTRUCTION
        files = [name for name in names if Path(name).suffix.lower() in SUFFIXES]
        fix = f"name one file in it: {', '.join(files[:5])}" if files else "give the folder of ptychopinn reconstruct"
        raise DataError(rule, expected, f"folder {str(path)!r} without {RECONSTRUCTION}", fix)
    if not is_file:
        nearest = nearest_name(path.name, names)
        fix = f"did you mean '{nearest}'?" if nearest else "check the path"
        raise DataError(rule, expected, f"{str(path)!r}, which does not exist", fix)
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(rule, expected, repr(str(path)), "load_scan reads scans, load_model reads models")
    return path


def _check_kind(file: Any, source: str) -> None:
    """Raise an error for an HDF5 file that is no product."""
    missing = [key for key in ("object", *POSITIONS) if not holds(file, key)]
    if missing:
        raise DataError(
            "An image file is a ptychodus product.",
            expected=f"the datasets object, {', '.join(POSITIONS)}",
            received=f"'{source}' without {', '.join(missing)}",
            fix="give a reconstruction.h5 of 'ptychopinn train' or 'reconstruct', or a file of image.save",
        )
