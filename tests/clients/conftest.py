"""
Fixtures for the installed ptychodus application, called as its processing queue calls it.

ptychodus is unmodified: its libraries build the payloads, and its child processes import this package.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

import ptycho_backend as pb

PITCH_M = 10e-9
OFFSET_M = (3.2e-6, -1.7e-6)  # (y, x) of the stage's zero, different from the zero of pixel coordinates


@dataclass(frozen=True)
class ClientScan:
    """
    A simulated scan with its known object, and the same scan as an input of ptychodus.

    A position in ptychodus is a window's middle, (N - 1)/2; here it is pixel N//2, half a pixel further.
    """

    truth: pb.Scan
    parameters: Any

    def image_of(self, product: Any) -> pb.Image:
        """Return a product's object at the client's position, in the coordinates of the known object."""
        obj, centre = product.object_.get_layer(0), product.object_.get_center()
        middle = (np.array([centre.y_m, centre.x_m]) - OFFSET_M) / PITCH_M
        origin = middle - (np.array(obj.shape) - 1) / 2
        return pb.Image(obj.astype(np.complex64), _coverage(self.truth, obj.shape, origin), tuple(origin))


def _coverage(truth: pb.Scan, shape: tuple[int, int], origin: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the number of illuminated window centres that contain each pixel."""
    coverage, half = np.zeros(shape, np.float32), truth.N // 5
    for y, x in np.rint(truth.positions_px - origin).astype(int):
        coverage[max(0, y - half) : y + half, max(0, x - half) : x + half] += 1
    return coverage


def asymmetric(scan: pb.Scan) -> pb.Scan:
    """Return a part of a scan that is wider than high and lacks a corner, so that mean and midpoint differ."""
    low, high = scan.positions_px.min(axis=0), scan.positions_px.max(axis=0)
    y, x = ((scan.positions_px - low) / (high - low)).T
    return scan.subset(np.flatnonzero((y < 0.7) & ~((y < 0.35) & (x < 0.35))))


def as_client(scan: pb.Scan, known_object: bool = True) -> ClientScan:
    """Return a scan as an input of ptychodus, on the object grid of ptychodus for these positions."""
    from ptychodus.api.geometry import PixelGeometry
    from ptychodus.api.object import Object, compute_object_geometry
    from ptychodus.api.probe import ProbeGeometry, ProbeSequence
    from ptychodus.api.probe_positions import ProbePosition, ProbePositionSequence
    from ptychodus.api.product import Product, ProductMetadata
    from ptychodus.api.reconstruct import ReconstructInput

    half_px = scan.N // 2 - (scan.N - 1) / 2
    metres = (scan.positions_px - half_px) * PITCH_M + OFFSET_M
    positions = ProbePositionSequence([ProbePosition(n, x, y) for n, (y, x) in enumerate(metres)])
    grid = compute_object_geometry(positions, ProbeGeometry(scan.N, scan.N, PITCH_M, PITCH_M))
    obj = _on_grid(scan, grid) if known_object else np.ones((grid.height_px, grid.width_px), np.complex64)
    pixel = PixelGeometry(PITCH_M, PITCH_M)
    product = Product(
        metadata=ProductMetadata("scan", "", 1.0, 8000.0, 0.0, 1.0, 0.0, 0.0),
        probe_positions=positions,
        probes=ProbeSequence(scan.probe[None].astype(np.complex128), None, pixel),
        object_=Object(obj, pixel, grid.get_center()),
        losses=[],
    )
    return ClientScan(scan, ReconstructInput(np.asarray(scan.patterns), ~scan.mask, product))


def _on_grid(scan: pb.Scan, grid: Any) -> NDArray[np.complex64]:
    middle = (np.array([grid.center_y_m, grid.center_x_m]) - OFFSET_M) / PITCH_M
    start = middle - (np.array([grid.height_px, grid.width_px]) - 1) / 2 - scan.obj_origin_px
    pixels = np.indices((grid.height_px, grid.width_px)) + start[:, None, None]
    real, imaginary = (
        map_coordinates(part, pixels, order=3, mode="nearest") for part in (scan.obj.real, scan.obj.imag)
    )
    return (real + 1j * imaginary).astype(np.complex64)


@pytest.fixture(scope="session")
def client_scan() -> ClientScan:
    """Return an asymmetric simulated scan."""
    full = pb.simulate_scan(N=64, n_positions=256, photons_per_pattern=1e6, seed=5)
    return as_client(asymmetric(full))


@pytest.fixture(scope="session")
def star(star_path: Path) -> ClientScan:
    """Return the measured star as an input of ptychodus; its object is unknown."""
    return as_client(pb.load_scan(star_path), known_object=False)


@pytest.fixture(scope="session")
def star_reference(star: ClientScan) -> pb.Image:
    """Return the image of the star after 20 iterations over object and probe in mini-batches."""
    from ptycho_backend.engines.numpy.solver import NumpyKernels
    from ptycho_backend.physics.calibration import calibrate
    from ptycho_backend.solver.probe_refinement import drift_px
    from ptycho_backend.solver.problem import Problem
    from ptycho_backend.solver.solver import MiniBatches, SolverOptions, solve

    scan = star.truth
    calibration = calibrate(scan, pb.ModelConfig(N=scan.N), None)
    options = SolverOptions(20, update_probe=True, batches=MiniBatches(20, np.random.default_rng(3)))
    found = solve(Problem.of(scan, calibration), NumpyKernels(), None, options)
    # Object and probe drift together; the positions belong to the probe guess.
    y, x = np.asarray(found.image.origin_px) - drift_px(found.probe, calibration.probe)
    return replace(found.image, origin_px=(float(y), float(x)))


@dataclass
class Client:
    """A reconstructor library of ptychodus and its working folder."""

    library: Any
    folder: Path

    def set_options(self, settings: Mapping[str, Any]) -> None:
        """Set values by 'group.name', as the dialogs do."""
        for name, value in settings.items():
            group, field = name.split(".")
            getattr(getattr(self.library, f"{group}_settings"), field).set_value(value)

    def reconstructor(self, name: str) -> Any:
        """Return one of the library's reconstructors."""
        return next(each for each in self.library if each.name == name)

    def train(self, name: str, training: ClientScan) -> tuple[Any, list[Any]]:
        """Export training data and train in the client's child process; return the reconstructor and its outputs."""
        reconstructor = self.reconstructor(name)
        data, out = self.folder / "data", self.folder / "out"
        for folder in (data, out):
            folder.mkdir(exist_ok=True)
        reconstructor.export_training_data(data / "train_data.npz", training.parameters)
        validation = replace(
            training.parameters,
            diffraction_patterns=training.parameters.diffraction_patterns[::8],
            product=replace(
                training.parameters.product, probe_positions=training.parameters.product.probe_positions[::8]
            ),
        )
        reconstructor.export_training_data(data / "test_data.npz", validation)
        return reconstructor, list(reconstructor.train(data, out))

    def reconstruct(self, reconstructor: Any, scan: ClientScan) -> pb.Image:
        """Reconstruct in the client's child process; return the image in the coordinates of the known object."""
        (output,) = reconstructor.reconstruct(scan.parameters)
        image = scan.image_of(output.product)
        assert np.isfinite(image.obj).all()
        return image

    def reload(self, reconstructor: Any) -> Any:
        """Save a model to a file; return a new reconstructor that has loaded it."""
        path = self.folder / f"saved{reconstructor.get_model_file_extension()}"
        reconstructor.save_model(path)
        fresh = make_library(type(self.library))
        loaded = next(each for each in fresh if each.name == reconstructor.name)
        assert not loaded.is_model_loaded()
        loaded.load_model_from_file(path)
        return loaded


def make_library(kind: type) -> Any:
    """Return a library of ptychodus with its default settings."""
    from ptychodus.api.settings import SettingsRegistry

    return kind(SettingsRegistry(), is_developer_mode_enabled=False)


@pytest.fixture
def make_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Callable[[str], Client]:
    """Return a function that creates a library of ptychodus: "ptychopinn" or "ptychopinn_torch"."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    # Child processes inherit the level of the root logger.
    caplog.set_level(logging.INFO)

    def make(module: str) -> Client:
        from importlib import import_module

        core = import_module(f"ptychodus.model.{module}.core")
        (kind,) = (
            value for name, value in vars(core).items() if name.endswith("Library") and name.startswith("PtychoPINN")
        )
        return Client(make_library(kind), tmp_path)

    return make
