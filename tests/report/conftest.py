"""Fixtures: contents of reports without a reconstruction."""

import numpy as np
import pytest

from ptycho_backend.data.image import Experiment, Image
from ptycho_backend.quality.scan_check import Check
from ptycho_backend.report.content import Content, found_rows, measured_rows, version_rows


def waves(shape, seed, smooth=True):
    """Return a complex object with structure, or one of noise, which no PNG makes small."""
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape)
    phase = 0.6 * np.sin(9 * x) * np.cos(7 * y)
    if not smooth:
        phase = np.random.default_rng(seed).normal(0, 0.4, shape)
    return ((1 + 0.1 * phase) * np.exp(1j * phase)).astype(np.complex64)


@pytest.fixture(scope="session")
def make_image():
    """Return a function that makes an image of some size, with probe modes and positions."""

    def make(side=96, n=64, modes=2, smooth=True, pixel_m=2e-8, seed=0):
        rng = np.random.default_rng(seed)
        positions = rng.uniform(10, side - 10, (n, 2))
        y, x = np.mgrid[:32, :32] - 16
        probe = np.exp(-(y**2 + x**2) / 50.0)[None] * np.arange(modes, 0, -1)[:, None, None]
        experiment = Experiment(
            probe.astype(np.complex64), positions + 0.1, positions, np.linspace(0.9, 1.1, n), 0.02, left_out=(3,)
        )
        return Image(
            waves((side, side), seed, smooth),
            np.ones((side, side), np.float32),
            (0.0, 0.0),
            experiment,
            None if pixel_m is None else (pixel_m, pixel_m),
            errors=(0.4, 0.1, 0.05),
            name="scan.npz",
            photons_per_pattern=1e5,
            counts_per_intensity=40.0,
            provenance={
                "source": "scan.npz",
                "scan": {"seed": 3},
                "versions": {"ptychopinn": "0.1.0"},
                "seed": 0,
                "inference": {"iterations": 3},
            },
        )

    return make


@pytest.fixture(scope="session")
def make_assessment():
    """Return a function that makes plain values as in assessment.json."""

    def make(n=64):
        ratio = np.linspace(1.0, 3.0, n)
        return {
            "residual": 0.2,
            "shot_noise_floor": 0.1,
            "unexplained_variance": 0.03,
            "residual_per_pattern": (0.1 * ratio).tolist(),
            "floor_per_pattern": [0.1] * n,
            "numbers": list(range(n)),
            "outliers": [5],
            "halves": {
                "resolution": 0.5,
                "frequency": np.linspace(0, 1, 20).tolist(),
                "correlation": np.linspace(1, -0.1, 20).tolist(),
            },
            "experiment": {"moved_px": 0.141},
        }

    return make


@pytest.fixture(scope="session")
def make_content(make_image, make_assessment):
    """Return a function that makes the content of a report of an image."""

    def make(title="run", image=None, **fields):
        image = image or make_image()
        assessment = make_assessment(len(image.positions_px))
        halves = assessment["halves"]
        given = {
            "assessment": assessment,
            "evaluation": {
                "truth": "scan.npz",
                "no_network": {"frc_frequency": halves["frequency"], "frc": halves["correlation"], "frc_half": 0.4},
            },
            "warnings": ("Patterns fit badly.",),
            "checks": (
                Check("unit", "good", "counts"),
                Check("overlap", "doubtful", "20 %", "too little", "measure closer"),
            ),
            "measured": measured_rows(image),
            "found": found_rows(image, assessment),
            "versions": version_rows(image.provenance),
            "losses": ({"epoch": 1.0, "train_loss": 0.5}, {"epoch": 2.0, "train_loss": 0.3}),
            "settings": "inference:\n  iterations: 3\n",
            "files": ("reconstruction.h5", "report.html"),
        }
        return Content(title, image, **{**given, **fields})

    return make
