"""Resolution as a length beside the fraction of Nyquist: figures, tables and files (spec: metrics 5)."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from ptycho_backend import api
from ptycho_backend.commands.figures import assessment_rows, comparison_table
from ptycho_backend.commands.folders import folder_parts
from ptycho_backend.commands.results import write_evaluation
from ptycho_backend.data.image import Image
from ptycho_backend.quality.assessment import _resolution_warnings, assess
from ptycho_backend.quality.half_datasets import HalfDatasets
from ptycho_backend.simulation.simulate import simulate_scan

PIXEL = (1e-8, 1e-8)
HALVES = HalfDatasets(0.5, 0.01, 0.02, np.linspace(0, 1, 3), np.ones(3), np.zeros((2, 2)))


@pytest.fixture(scope="module")
def scan():
    return simulate_scan(N=32, n_positions=120, seed=1)


@pytest.fixture(scope="module")
def image(scan):
    """Return the known object as an image, with noise above half of Nyquist."""
    rng = np.random.default_rng(0)
    spectrum = np.fft.fft2(scan.obj)
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in scan.obj.shape), indexing="ij"))
    noise = np.fft.fft2(rng.normal(size=scan.obj.shape) * 0.1)
    obj = np.fft.ifft2(np.where(frequency > 0.25, noise, spectrum)).astype(np.complex64)
    return Image(obj, np.ones(obj.shape, np.float32), scan.obj_origin_px)


@pytest.fixture(scope="module")
def assessment(scan, image):
    found = assess(scan, image, inference=api.InferenceConfig(half_datasets=False))
    return dataclasses.replace(found, halves=HALVES, no_halves="")


def test_an_assessment_has_the_pixel_of_its_scan(assessment):
    assert assessment.pixel_size_m == PIXEL
    assert assessment.resolution_m == pytest.approx(4e-8)
    written = json.loads(json.dumps(assessment.to_dict()))["halves"]
    assert (written["resolution"], written["resolution_m"]) == (0.5, pytest.approx(4e-8))
    assert "agree up to 0.50 of Nyquist (period 40 nm); spread" in dict(assessment_rows(assessment))["half datasets"]


def test_an_unknown_pixel_leaves_the_fraction(assessment):
    unknown = dataclasses.replace(assessment, pixel_size_m=None)
    assert unknown.to_dict()["halves"]["resolution_m"] is None
    assert "agree up to 0.50 of Nyquist; spread" in dict(assessment_rows(unknown))["half datasets"]
    assert dataclasses.replace(assessment, halves=None).resolution_m is None


def test_a_warning_gives_the_length():
    (warning,) = _resolution_warnings(dataclasses.replace(HALVES, resolution=0.1), PIXEL)
    assert "only up to 0.10 of Nyquist (period 200 nm)" in warning


def test_a_comparison_gives_the_length_in_table_and_file(scan, image, tmp_path):
    found = api.evaluate(image, scan)
    assert found.frc_half == pytest.approx(0.5, abs=0.1)
    assert found.resolution_m == pytest.approx(2e-8 / found.frc_half)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(comparison_table("Scores", {"reconstruction": found}))
    period = f"{2e-8 / found.frc_half * 1e9:.3g} nm"
    assert period in console.export_text()
    write_evaluation(tmp_path / "evaluation.json", {"reconstruction": found}, "truth.npz")
    ((_, rows),) = folder_parts(tmp_path)
    assert dict(rows)["reconstruction"].endswith(f"{found.frc_half:.2f} of Nyquist, period {period}")


def test_a_scan_without_a_pixel_has_no_length(scan, image):
    unknown = api.evaluate(image, scan.changed(pixel_size_m=None))
    assert unknown.resolution_m is None
    assert unknown.to_dict()["resolution_m"] is None
    with_pixel = dataclasses.replace(image, pixel_size_m=PIXEL)
    assert api.evaluate(with_pixel, image).pixel_size_m == PIXEL
