"""
The ptychodus application as it is installed, driven the way its processing queue drives it.

Nothing of ptychodus is replaced: its libraries build the payloads, and its spawned children import this package.
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
OFFSET_M = (3.2e-6, -1.7e-6)  # (y, x) where the stage has its zero: no pixel coordinate of ours


@dataclass(frozen=True)
class ClientScan:
    """
    A simulated scan with its truth, and what ptychodus makes of it.

    ptychodus counts a window's middle, (N - 1)/2, as its position; this package counts pixel N//2, half a pixel on.
    """

    truth: pb.Scan
    parameters: Any

    def placed(self, product: Any) -> pb.Image:
        """Return a product's object where the client believes it lies, in the truth's coordinates."""
        obj, centre = product.object_.get_layer(0), product.object_.get_center()
        middle = (np.array([centre.y_m, centre.x_m]) - OFFSET_M) / PITCH_M
        origin = middle - (np.array(obj.shape) - 1) / 2
        return pb.Image(obj.astype(np.complex64), _seen(self.truth, obj.shape, origin), tuple(origin))


def _seen(truth: pb.Scan, shape: tuple[int, int], origin: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return how many windows' lit centres hold each pixel."""
    seen, half = np.zeros(shape, np.float32), truth.N // 5
    for y, x in np.rint(truth.positions_px - origin).astype(int):
        seen[max(0, y - half) : y + half, max(0, x - half) : x + half] += 1
    return seen


def lopsided(scan: pb.Scan) -> pb.Scan:
    """Return the part of a scan that is wider than high and lacks a corner: its mean is not its middle."""
    low, high = scan.positions_px.min(axis=0), scan.positions_px.max(axis=0)
    y, x = ((scan.positions_px - low) / (high - low)).T
    return scan.subset(np.flatnonzero((y < 0.7) & ~((y < 0.35) & (x < 0.35))))


def as_client(scan: pb.Scan, known_object: bool = True) -> ClientScan:
    """Return a scan as ptychodus holds it, on the grid that ptychodus itself lays out for these positions."""
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
    where = np.indices((grid.height_px, grid.width_px)) + start[:, None, None]
    real, imaginary = (map_coordinates(part, where, order=3, mode="nearest") for part in (scan.obj.real, scan.obj.imag))
    return (real + 1j * imaginary).astype(np.complex64)


@pytest.fixture(scope="session")
def client_scan() -> ClientScan:
    """Return a lopsided simulated scan."""
    full = pb.simulate_scan(N=64, n_positions=256, photons_per_pattern=1e6, seed=5)
    return as_client(lopsided(full))


@pytest.fixture(scope="session")
def star(star_path: Path) -> ClientScan:
    """Return the measured star as ptychodus holds it; its object is unknown."""
    return as_client(pb.load_scan(star_path), known_object=False)


@pytest.fixture(scope="session")
def star_reference(star: ClientScan) -> pb.Image:
    """Return what 20 passes of ePIE make of the star."""
    from ptycho_backend.physics.calibration import calibrate
    from ptycho_backend.solver.epie import Plan, epie
    from ptycho_backend.solver.probe_refinement import drift_px

    scan = star.truth
    calibration = calibrate(scan, pb.ModelConfig(N=scan.N), None)
    found = epie(scan, calibration, Plan(20), np.random.default_rng(3))
    # Its object goes where its probe goes; the positions mean the probe where the guess has it.
    y, x = np.asarray(found.image.origin_px) - drift_px(found.probe, calibration.probe)
    return replace(found.image, origin_px=(float(y), float(x)))


@dataclass
class Client:
    """One of ptychodus's reconstructor libraries and the folder that it works in."""

    library: Any
    folder: Path

    def choose(self, settings: Mapping[str, Any]) -> None:
        """Set values as the dialogs do: 'group.name' to value."""
        for name, value in settings.items():
            group, field = name.split(".")
            getattr(getattr(self.library, f"{group}_settings"), field).set_value(value)

    def reconstructor(self, name: str) -> Any:
        """Return one of the library's reconstructors."""
        return next(each for each in self.library if each.name == name)

    def train(self, name: str, training: ClientScan) -> tuple[Any, list[Any]]:
        """Export training data, train in the client's child, and return the reconstructor with what came back."""
        reconstructor = self.reconstructor(name)
        data, out = self.folder / "data", self.folder / "out"
        for folder in (data, out):
            folder.mkdir(exist_ok=True)
        reconstructor.export_training_data(data / "train_data.npz", training.parameters)
        held_out = replace(
            training.parameters,
            diffraction_patterns=training.parameters.diffraction_patterns[::8],
            product=replace(
                training.parameters.product, probe_positions=training.parameters.product.probe_positions[::8]
            ),
        )
        reconstructor.export_training_data(data / "test_data.npz", held_out)
        return reconstructor, list(reconstructor.train(data, out))

    def reconstruct(self, reconstructor: Any, scan: ClientScan) -> pb.Image:
        """Reconstruct in the client's child; return what it put into its product, in the truth's coordinates."""
        (output,) = reconstructor.reconstruct(scan.parameters)
        image = scan.placed(output.product)
        assert np.isfinite(image.obj).all()
        return image

    def reload(self, reconstructor: Any) -> Any:
        """Save a model to a file, and return another object of the client that has opened it."""
        path = self.folder / f"saved{reconstructor.get_model_file_extension()}"
        reconstructor.save_model(path)
        fresh = make_library(type(self.library))
        twin = next(each for each in fresh if each.name == reconstructor.name)
        assert not twin.is_model_loaded()
        twin.load_model_from_file(path)
        return twin


def make_library(kind: type) -> Any:
    """Return a library of ptychodus with its default settings."""
    from ptychodus.api.settings import SettingsRegistry

    return kind(SettingsRegistry(), is_developer_mode_enabled=False)


@pytest.fixture
def make_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Callable[[str], Client]:
    """Return a function that opens a library of ptychodus: "ptychopinn" or "ptychopinn_torch"."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    # Children inherit the level of this process's root logger, as they do from the application.
    caplog.set_level(logging.INFO)

    def make(module: str) -> Client:
        from importlib import import_module

        core = import_module(f"ptychodus.model.{module}.core")
        (kind,) = (
            value for name, value in vars(core).items() if name.endswith("Library") and name.startswith("PtychoPINN")
        )
        return Client(make_library(kind), tmp_path)

    return make
