"""Descriptions of scans, reconstructions and model files: rows of names and values with units."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.commands.figures import number
from ptycho_backend.engines.model import LOG_SCALE, PROBE
from ptycho_backend.quality.scan_check import neighbour_distance_px, photons_per_pattern, probe_diameter_px
from ptycho_backend.runtime.quantities import length_unit, mode_shares, pixel_text

if TYPE_CHECKING:
    from ptycho_backend.data.product import Product
    from ptycho_backend.data.scan import Scan
    from ptycho_backend.model_file.bundle import Bundle

Rows = list[tuple[str, str]]


def scan_rows(scan: Scan) -> Rows:
    """Return the size, measurement, geometry and attributes of a scan."""
    photons = photons_per_pattern(scan)
    unit = "photons" if scan.measurement == "counts" else "squared units of amplitude"
    bad = 1.0 - float(scan.mask.mean())
    return [
        ("patterns", f"{len(scan)} of {scan.N}×{scan.N} px, {scan.patterns.dtype}, {scan.measurement}"),
        (f"{unit} per pattern", f"{photons.mean():.3g} (from {photons.min():.3g} to {photons.max():.3g})"),
        ("masked pixels", f"{int((~scan.mask).sum())} ({bad:.2%})" if bad else "none"),
        *geometry_rows(scan.positions_px, scan.probe, scan.pixel_size_m),
        ("known object", _object_text(scan.obj, scan.obj_origin_px) if scan.obj is not None else "none"),
        *_attribute_rows(scan.attributes),
        ("SHA-256 of the data", scan.data_hash()),
    ]


def product_rows(product: Product, path: Path) -> Rows:
    """Return the object, geometry, loss and attributes of a reconstruction."""
    obj = product.obj
    losses = product.costs[np.isfinite(product.costs)]
    rows = [("object", "none" if obj is None else _object_text(obj, product.obj_origin_px))]
    if obj is not None:
        amplitude = np.abs(obj[np.abs(obj) > 0])
        rows.append(("amplitude", f"median {np.median(amplitude):.3g}" if amplitude.size else "0 everywhere"))
    rows += geometry_rows(product.positions_px, np.asarray(product.probe), product.pixel_size_m)
    if len(losses):
        rows.append(("loss", f"{losses[-1]:.4g} after {len(losses)} epochs"))
    return [*rows, *_attribute_rows(product.attributes), ("SHA-256 of the file", file_hash(path))]


def model_rows(bundle: Bundle, path: Path) -> Rows:
    """Return the network, training and calibration of a model file."""
    training, model, provenance = bundle.training, bundle.training.model, bundle.provenance
    n_parameters = sum(array.size for name, array in bundle.weights.items() if name not in (LOG_SCALE, PROBE))
    size = f"any pattern size (trained on {model.N}×{model.N})"
    versions = ", ".join(f"{name} {version}" for name, version in provenance.get("versions", {}).items())
    calibration = bundle.calibration
    return [
        ("architecture", f"{model.architecture}, {model.model_type}, {n_parameters:,} parameters"),
        ("patterns", size if model.architecture == "unet" else f"{model.N}×{model.N} px"),
        ("gridsize", f"{model.gridsize} ({model.channels} pattern(s) per group)"),
        ("trained by", f"{provenance.get('backend', training.backend)}, seed {training.seed}"),
        ("epochs", f"{len(bundle.history)}; {_last_losses(bundle.history)}"),
        ("trained on", f"{calibration.photons_per_pattern:.3g} photons per pattern"),
        ("probe", probe_text(calibration.probe)),
        ("versions", versions or "unknown"),
        ("SHA-256 of the data", str(provenance.get("data_sha256", "unknown"))),
        ("SHA-256 of the file", file_hash(path)),
    ]


def geometry_rows(
    positions_px: NDArray[np.float64], probe: NDArray[Any], pixel_size_m: tuple[float, float] | None
) -> Rows:
    """Return extent, step and overlap of a scan."""
    height, width = np.ptp(positions_px, axis=0)
    extent = f"{height:.4g} × {width:.4g} px (y × x)"
    if pixel_size_m is not None:
        unit, size_m = length_unit(max(height * pixel_size_m[0], width * pixel_size_m[1]))
        sides = (height * pixel_size_m[0] / size_m, width * pixel_size_m[1] / size_m)
        extent += f", {sides[0]:.3g} × {sides[1]:.3g} {unit}; pixel {pixel_text(pixel_size_m)}"
    diameter, step = probe_diameter_px(probe), neighbour_distance_px(positions_px)
    measurable = np.isfinite(step) and np.isfinite(diameter)
    return [
        ("scan extent", extent),
        ("neighbour distance", f"{step:.3g} px (median)" if measurable else "n/a"),
        ("probe", probe_text(probe)),
        ("probe overlap", f"{max(0.0, 1 - step / diameter):.0%} of its diameter" if measurable else "n/a"),
    ]


def probe_text(probe: NDArray[Any]) -> str:
    """Return modes, window and diameter of a probe."""
    modes = np.asarray(probe).reshape(-1, *np.shape(probe)[-2:])
    shares = ", ".join(f"{share:.0%}" for share in mode_shares(modes))
    n_modes = f"{len(modes)} modes ({shares})" if len(modes) > 1 else "1 mode"
    return f"{n_modes}, about {probe_diameter_px(modes):.3g} px wide in a window of {modes.shape[-1]} px"


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(2**20), b""):
            digest.update(block)
    return digest.hexdigest()


def _object_text(obj: NDArray[Any], origin_px: tuple[float, float]) -> str:
    y, x = origin_px
    return f"{obj.shape[0]} × {obj.shape[1]} px, pixel (0, 0) at y={y:.5g}, x={x:.5g}"


def _attribute_rows(attributes: dict[str, Any]) -> Rows:
    """Return the plain attributes on one line, without nested ones."""
    plain = {key: value for key, value in attributes.items() if isinstance(value, (str, int, float)) and value != ""}
    shown = {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in plain.items()}
    text = ", ".join(f"{key}={value}" for key, value in shown.items())
    return [("attributes", text)] if text else []


def _last_losses(history: list[dict[str, float]]) -> str:
    if not history:
        return "no losses recorded"
    losses = {name: value for name, value in history[-1].items() if name.endswith("_loss")}
    return "at the end " + ", ".join(f"{name} {number(value, '.4g')}" for name, value in losses.items())
