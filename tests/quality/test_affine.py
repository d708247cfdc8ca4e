"""Affine part of fitted positions (metrics 8.9)."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_backend.quality.affine import affine_part


@pytest.fixture
def given(rng):
    return rng.uniform(-50, 50, (60, 2))


def rotation(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s], [s, c]])  # of (y, x): from y towards x


def test_scale_and_rotation_are_found(given):
    fitted = given @ (rotation(1.5) @ np.diag([1.02, 0.97])).T + [3.0, -7.0]
    found = affine_part(given, fitted)
    assert found.scale_percent == pytest.approx((2.0, -3.0))
    assert found.rotation_deg == pytest.approx(1.5)
    assert found.shear_deg == pytest.approx(0.0, abs=1e-9)
    assert found.rest_px == pytest.approx(0.0, abs=1e-9)


def test_shear_is_the_change_of_the_angle_between_the_axes(given):
    shear = np.array([[1.0, -np.tan(np.radians(2.0))], [0.0, 1.0]])  # the x axis turns by 2 degrees
    found = affine_part(given, given @ shear.T)
    assert found.shear_deg == pytest.approx(2.0)
    assert found.rotation_deg == pytest.approx(1.0)


def test_the_rest_is_what_is_not_affine(given, rng):
    steps = rng.normal(0, 0.5, given.shape)
    found = affine_part(given, given + steps)
    assert found.rest_px == pytest.approx(np.sqrt((steps**2).sum(axis=1).mean()), rel=0.1)
    assert "rest 0." in found.text()


def test_a_line_has_no_affine_part():
    line = np.stack([np.arange(9.0), 2 * np.arange(9.0)], axis=1)
    assert affine_part(line, line + 1) is None
