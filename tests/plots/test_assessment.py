"""Picture of an assessment (metrics 8.8)."""

from __future__ import annotations

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from ptycho_backend.network.training_domain import Conditions
from ptycho_backend.plots import figures as plot_figures
from ptycho_backend.plots import plot_assessment
from ptycho_backend.quality.assessment import Assessment
from ptycho_backend.quality.half_datasets import HalfDatasets
from ptycho_backend.simulation.simulate import simulate_scan

N = 20


@pytest.fixture
def drawn(monkeypatch):
    """Collect the figures that are written."""
    figures: list[Figure] = []
    write = plot_figures.write_figure
    monkeypatch.setattr(
        plot_figures, "write_figure", lambda figure, path: (figures.append(figure), write(figure, path))
    )
    return figures


@pytest.fixture(scope="module")
def scan():
    return simulate_scan(N=32, n_positions=N)


def assessment(halves, **fields):
    conditions = Conditions((32.0, 32.0), (1e5, 1e5), (0.3, 0.3), (0.2, 0.2))
    values = {
        "residual": 0.4,
        "shot_noise_floor": 0.2,
        "unexplained_variance": 0.01,
        "residual_per_pattern": np.geomspace(0.2, 40.0, N),
        "floor_per_pattern": np.full(N, 0.2),
        "outliers": (N - 1, N - 2),
        "disagreement": 0.1,
        "disagreement_per_pattern": np.full(N, 0.1),
        "measured_variation": 0.1,
        "predicted_variation": 0.1,
        "collapsed": False,
        "halves": halves,
        "no_halves": "" if halves else "a half would have 3 patterns, fewer than 8",
        "conditions": conditions,
        "training_domain": conditions,
    }
    return Assessment(**{**values, **fields})


def texts(figure):
    return "\n".join(text.get_text() for axes in figure.axes for text in (axes.title, *axes.texts))


def test_assessment_picture_shows_maps_curve_and_warnings(drawn, scan, tmp_path):
    frequency = np.linspace(0, 1, 17)
    difference = np.full((24, 30), 0.02)
    halves = HalfDatasets(0.5, 0.02, 0.03, frequency, 1 - frequency, difference, (-12.0, -15.0))
    warnings = (
        "Image and probe do not explain 40% of the variance between patterns.",
        "2 of 20 patterns fit much worse.",
    )
    plot_assessment(tmp_path / "assessment.png", assessment(halves, warnings=warnings), scan, title="Assessment")
    assert matplotlib.image.imread(tmp_path / "assessment.png").shape[1] > 1500
    (figure,) = drawn
    residuals, shown, curve = figure.axes[:3]
    dots, rings = residuals.collections
    np.testing.assert_allclose(dots.get_array(), np.geomspace(1.0, 200.0, N))
    # Positions are (x, y), in nanometres of pixels of 10 nm, and y grows downwards.
    np.testing.assert_allclose(dots.get_offsets(), 10.0 * scan.positions_px[:, ::-1], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(
        rings.get_offsets(), 10.0 * scan.positions_px[[N - 1, N - 2], ::-1], rtol=1e-6, atol=1e-6
    )
    assert residuals.yaxis_inverted()
    np.testing.assert_allclose(shown.images[0].get_array(), 2.0)
    np.testing.assert_allclose(shown.images[0].get_extent(), [-155.0, 145.0, 115.0, -125.0])
    np.testing.assert_allclose(curve.lines[0].get_ydata(), 1 - frequency)
    shown_text = texts(figure)
    assert "2 outliers ringed" in shown_text
    assert "1/7 at 0.50 of Nyquist" in shown_text
    assert all(warning in shown_text for warning in warnings)


def test_missing_halves_show_the_reason(drawn, scan, tmp_path):
    plot_assessment(tmp_path / "assessment.png", assessment(None, outliers=()), scan)
    shown_text = texts(drawn[0])
    assert shown_text.replace("\n", " ").count("a half would have 3 patterns, fewer than 8") == 2
    assert "No warnings." in shown_text
    assert "ringed" not in shown_text


def test_one_pattern_is_drawn(scan, tmp_path):
    single = assessment(None, residual_per_pattern=np.ones(1), floor_per_pattern=np.ones(1), outliers=())
    plot_assessment(tmp_path / "assessment.png", single, scan.subset(np.arange(1)))
    assert (tmp_path / "assessment.png").stat().st_size > 1000
