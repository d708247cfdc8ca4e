"""Crop and padding of the detector, compared with analytic waves."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.data.readers import load_scan
from ptycho_backend.data.resize import centred
from ptycho_backend.errors import DataError, ShapeError
from ptycho_backend.physics.propagation import far_field

PIXEL_M = 1e-8
POSITIONS_M = np.array([[0.0, 0.0], [3.2, -7.1], [-9.6, 4.4]]) * PIXEL_M


def beam(y_m, x_m):
    """Return a tilted elliptical Gaussian beam, as smooth in Fourier space as in real space."""
    y, x = y_m / PIXEL_M, x_m / PIXEL_M
    return np.exp(-((y - 1) ** 2) / 40 - (x + 2) ** 2 / 60 + 0.2j * y - 0.1j * x)


def sample(y_m, x_m):
    """Return a transmission function with a phase bump beside the origin."""
    y, x = y_m / PIXEL_M, x_m / PIXEL_M
    return np.exp(1j * np.exp(-((y - 4) ** 2) / 50 - (x + 3) ** 2 / 80))


def window_m(shape, pixel_m):
    """Return coordinates of the pixels of a window, zero in its middle pixel."""
    axes = [(np.arange(side) - side // 2) * size for side, size in zip(shape, pixel_m, strict=True)]
    return np.meshgrid(*axes, indexing="ij")


def measured(shape, pixel_m, positions_m, probe=None):
    y, x = window_m(shape, pixel_m)
    probe = beam(y, x) if probe is None else probe
    waves = [far_field(probe * sample(y + dy, x + dx)) for dy, dx in positions_m]
    return np.abs(np.array(waves)) ** 2


def save(path, shape, **changes):
    pixel_m = (PIXEL_M, PIXEL_M)
    y_px, x_px = (POSITIONS_M / PIXEL_M).T
    values = {
        "xcoords": x_px,
        "ycoords": y_px,
        "diff3d": measured(shape, pixel_m, POSITIONS_M),
        "probeGuess": beam(*window_m(shape, pixel_m)),
        "pixel_size_m": np.array(pixel_m),
        "measurement": np.array("counts"),
    }
    np.savez(path, **values | changes)
    return path


@pytest.mark.parametrize(("shape", "N"), [((64, 64), 48), ((64, 64), 40), ((65, 65), 48), ((64, 64), 49)])
def test_smaller_detector_measures_cropped_patterns(tmp_path, shape, N):
    before = load_scan(save(tmp_path / "a.npz", shape))
    after = load_scan(tmp_path / "a.npz", N=N)
    start = shape[0] // 2 - N // 2
    np.testing.assert_array_equal(after.patterns, before.patterns[:, start : start + N, start : start + N])
    # The object pixel grows by old side / N, and positions on the sample do not change.
    np.testing.assert_allclose(after.pixel_size_m, PIXEL_M * shape[0] / N)
    np.testing.assert_allclose(after.positions_px * after.pixel_size_m, POSITIONS_M, atol=1e-20)
    # The forward model with the new probe, on the new grid, gives the cropped measurement.
    predicted = measured((N, N), after.pixel_size_m, POSITIONS_M, after.probe[0])
    np.testing.assert_allclose(predicted, after.patterns, atol=2e-5 * after.patterns.max())
    # The probe is the same beam, sampled more coarsely, with its energy in fewer pixels.
    expected = beam(*window_m((N, N), after.pixel_size_m)) * shape[0] / N
    np.testing.assert_allclose(after.probe[0], expected, atol=1e-4)


def test_a_larger_detector_is_padded_with_bad_pixels(tmp_path):
    before = load_scan(save(tmp_path / "a.npz", (64, 64)))
    after = load_scan(tmp_path / "a.npz", N=96)
    np.testing.assert_array_equal(after.patterns[:, 16:80, 16:80], before.patterns)
    assert after.patterns.sum() == pytest.approx(before.patterns.sum())
    assert after.mask[16:80, 16:80].all()
    assert after.mask.sum() == 64 * 64
    np.testing.assert_allclose(after.pixel_size_m, PIXEL_M * 64 / 96)
    predicted = measured((96, 96), after.pixel_size_m, POSITIONS_M, after.probe[0])
    np.testing.assert_allclose(
        predicted * after.mask, after.patterns, atol=2e-5 * after.patterns.max(), err_msg="outside is not measured"
    )


@pytest.mark.parametrize("N", [48, 56, 72])
def test_oblong_detector_is_scaled_along_each_axis(tmp_path, N):
    save(tmp_path / "a.npz", (56, 72))
    with pytest.raises(ShapeError, match=r"\(3, 56, 72\)"):
        load_scan(tmp_path / "a.npz")
    after = load_scan(tmp_path / "a.npz", N=N)
    np.testing.assert_allclose(after.pixel_size_m, [PIXEL_M * 56 / N, PIXEL_M * 72 / N])
    np.testing.assert_allclose(after.positions_px * after.pixel_size_m, POSITIONS_M, atol=1e-20)
    predicted = measured((N, N), after.pixel_size_m, POSITIONS_M, after.probe[0])
    np.testing.assert_allclose(predicted * after.mask, after.patterns, atol=2e-5 * after.patterns.max())


def test_nothing_changes_at_the_same_size(tmp_path):
    obj = np.ones((9, 9), dtype=complex)
    path = save(tmp_path / "a.npz", (64, 64), objectGuess=obj, obj_origin_px=np.array([1.0, 2.0]))
    assert load_scan(path, N=64).data_hash() == load_scan(path).data_hash()
    np.testing.assert_array_equal(load_scan(path, N=64).obj, obj)
    assert load_scan(path, N=64).obj_origin_px == (1.0, 2.0)


def test_an_object_on_the_old_grid_is_dropped_with_a_warning(tmp_path, caplog):
    path = save(tmp_path / "a.npz", (64, 64), objectGuess=np.ones((9, 9), dtype=complex))
    scan = load_scan(path, N=48)
    assert scan.obj is None
    assert "the object of" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_bad_pixels_are_cropped_with_the_patterns(tmp_path):
    bad = np.zeros((64, 64), dtype=bool)
    bad[10, 40] = bad[2, 2] = True
    scan = load_scan(save(tmp_path / "a.npz", (64, 64), bad_pixels=bad), N=48)
    np.testing.assert_array_equal(np.argwhere(~scan.mask), [[2, 32]])


def test_modes_and_one_mode_with_a_last_axis(tmp_path):
    probe = beam(*window_m((64, 64), (PIXEL_M, PIXEL_M)))
    path = save(tmp_path / "a.npz", (64, 64), probeGuess=np.stack([probe, 2j * probe]))
    two = load_scan(path, N=48).probe
    np.testing.assert_allclose(two[1], 2j * two[0], atol=1e-5)
    one = load_scan(save(tmp_path / "b.npz", (64, 64), probeGuess=probe[..., None]), N=48).probe
    np.testing.assert_allclose(one[0], two[0], atol=1e-6)


def test_cropped_probe_energy_is_reported(tmp_path, caplog):
    load_scan(save(tmp_path / "a.npz", (64, 64)), N=8)
    assert "of the probe of" in caplog.text


def test_patterns_keep_their_dtype(tmp_path):
    for dtype in (">u2", "<i4", "f4"):
        path = save(tmp_path / "a.npz", (16, 16), diff3d=np.full((3, 16, 16), 3).astype(dtype))
        assert load_scan(path, N=8).patterns.dtype == load_scan(path, N=24).patterns.dtype == np.dtype(dtype)


@pytest.mark.parametrize("N", [0, -4, 6.5, True, "64"])
def test_invalid_side_is_refused(tmp_path, N):
    with pytest.raises(DataError, match=r"N=.* for '.*a\.npz'"):
        load_scan(save(tmp_path / "a.npz", (16, 16)), N=N)


@pytest.mark.parametrize(("field", "key"), [("probeGuess", "probe"), ("bad_pixels", "mask")])
def test_fields_of_other_sizes_are_refused(tmp_path, field, key):
    path = save(tmp_path / "a.npz", (16, 16), **{field: np.ones((12, 16))})
    with pytest.raises(ShapeError, match=rf"shape \(12, 16\), field '{key}' of '.*a\.npz'"):
        load_scan(path, N=8)


@given(side=st.integers(1, 9), N=st.integers(1, 9))
def test_the_middle_pixel_stays_in_the_middle(side, N):
    array = np.zeros((2, side, side))
    array[:, side // 2, side // 2] = 1.0
    expected = np.zeros((2, N, N))
    expected[:, N // 2, N // 2] = 1.0
    np.testing.assert_array_equal(centred(array, N), expected)


def test_crop_copies_arrays_and_views_maps(tmp_path):
    array = np.arange(200.0).reshape(2, 10, 10)
    assert centred(array, 4).base is None
    array.tofile(tmp_path / "a.raw")
    mapped = np.memmap(tmp_path / "a.raw", dtype=np.float64, mode="r", shape=(2, 10, 10))
    assert isinstance(centred(mapped, 4), np.memmap)
    np.testing.assert_array_equal(centred(mapped, 4), centred(array, 4))
