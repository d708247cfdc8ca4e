"""Presets (spec: data 12): what files written by the programs themselves hold beyond their documentation."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from ptycho_backend import import_scan
from ptycho_backend.errors import DataError
from ptycho_backend.importing.description import DetectorDescription, ImportConfig
from ptycho_backend.importing.presets import recognised

from . import layouts


@pytest.fixture(scope="module")
def true():
    return layouts.truth()


def filled(paths, given=None):
    return recognised(paths).fill(paths, given or ImportConfig())


def assert_same_scan(scan, true):
    """Compare patterns, and positions up to their origin, which no format fixes."""
    good = np.ones(scan.patterns.shape[1:], dtype=bool) if scan.mask is None else scan.mask.astype(bool)
    np.testing.assert_array_equal(scan.patterns[:, good], true.patterns[:, good])
    found, expected = (each - each.mean(axis=0) for each in (scan.positions_px, true.scan.positions_px))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(scan.pixel_size_m, layouts.OBJECT_PIXEL_M, rtol=1e-6)


@pytest.mark.parametrize("chunks", [1, 3])
def test_a_pixel_that_ptypy_masks_in_one_pattern_is_masked(tmp_path, true, chunks):
    bad = np.zeros(true.patterns.shape, dtype=bool)
    bad[:, 3, 5], bad[1, 20, 7] = True, True
    scan = import_scan(layouts.ptyd_of_today(tmp_path, true, chunks, bad))
    assert_same_scan(scan, true)
    np.testing.assert_array_equal(np.argwhere(~scan.mask), [[3, 5], [20, 7]])


def test_other_masks_in_other_chunks_of_ptypy_are_reported(tmp_path, true, caplog):
    bad = np.zeros(true.patterns.shape, dtype=bool)
    filled(layouts.ptyd_of_today(tmp_path, true, 3, bad))
    assert "other masks" not in caplog.text
    bad[-10:, 4, 4] = True
    filled(layouts.ptyd_of_today(tmp_path, true, 3, bad))
    assert "other masks in other chunks" in caplog.text


def test_chunks_of_ptypy_in_another_order_than_the_positions_are_an_error(tmp_path, true):
    (path,) = layouts.ptyd_of_today(tmp_path, true, 3, np.zeros(true.patterns.shape, dtype=bool))
    with h5py.File(tmp_path / "scan.ptyd.part001", "r+") as file:
        file["indices"][:] = file["indices"][()][::-1]
    with pytest.raises(DataError, match="follow the positions"):
        filled([path])


def test_theoretical_positions_of_ptypy_come_before_those_of_the_scan(tmp_path, true):
    (path,) = layouts.ptyd_of_today(tmp_path, true, 3, np.zeros(true.patterns.shape, dtype=bool))
    with h5py.File(path, "r+") as file:
        del file["info/positions_theory"]
        file["info/positions_theory"] = true.positions_m
        file["info/positions_scan"][:] = 0
    assert_same_scan(import_scan([path]), true)


@pytest.mark.parametrize("orientation", range(8))
def test_an_orientation_of_ptylab_turns_the_patterns(tmp_path, true, orientation):
    (path,) = layouts.ptylab(tmp_path, true)
    stored = true.patterns
    stored = stored[..., ::-1] if orientation & 1 else stored
    stored = stored[..., ::-1, :] if orientation & 2 else stored
    stored = stored.swapaxes(-2, -1) if orientation & 4 else stored
    with h5py.File(path, "r+") as file:
        file["ptychogram"][:], file["orientation"][()] = stored, orientation
    scan = import_scan([path], ImportConfig(detector=DetectorDescription(centre_y_px=16.0, centre_x_px=16.0)))
    np.testing.assert_array_equal(scan.patterns, true.patterns)


def test_an_orientation_of_ptylab_is_checked_and_the_user_wins(tmp_path, true):
    (path,) = layouts.ptylab(tmp_path, true)
    with h5py.File(path, "r+") as file:
        file["orientation"][()] = 8
    with pytest.raises(DataError, match="from 0 to 7"):
        filled([path])
    given = ImportConfig(detector=DetectorDescription(flip_y=True))
    assert filled([path], given).config.detector == given.detector


@pytest.mark.parametrize(
    ("description", "field"), [("Dectris ARINA CZT", "voltage_kv"), ("Dectris EIGER2 CdTe 1M-W", "energy_kev")]
)
def test_a_detector_of_electrons_has_a_voltage(tmp_path, true, description, field):
    (path,) = layouts.eiger(tmp_path, true)
    with h5py.File(path, "r+") as file:
        detector = file["entry/instrument/detector"]
        detector["description"] = np.bytes_(description)
        detector["detectorSpecific/photon_energy"][()] = 80000.0
        if field == "energy_kev":
            del file["entry/instrument/beam/incident_wavelength"]
    geometry = filled([path]).config.geometry
    assert {name for name in ("voltage_kv", "energy_kev", "wavelength_m") if getattr(geometry, name)} == {field}
    assert getattr(geometry, field) == pytest.approx(80.0)


@pytest.mark.parametrize("sign", [1, -1])
def test_nxptycho_has_groups_without_numbers_and_axes_with_a_vector(tmp_path, true, sign):
    paths = layouts.nxptycho(tmp_path, true, sign)
    assert recognised(paths).name == "nxcxi_ptycho"
    detector = filled(paths).config.detector
    assert (detector.centre_y_px, detector.centre_x_px) == pytest.approx((16.0, 16.0))
    assert_same_scan(import_scan(paths), true)


def test_motors_of_nxptycho_are_those_that_their_names_say(tmp_path, true):
    (path,) = layouts.nxptycho(tmp_path, true)
    with h5py.File(path, "r+") as file:
        del file["entry/sample/transformations"]
    assert_same_scan(import_scan([path]), true)
    with h5py.File(path, "r+") as file:
        file["entry/sample/positioner_1/raw_value"].attrs["units"] = "cm"
    with pytest.raises(DataError, match="unit of length"):
        filled([path])


def test_the_stack_of_ptychi_needs_its_product_and_takes_its_probe(tmp_path, true):
    paths = layouts.ptychi(tmp_path, true)
    assert recognised(paths).name == recognised(paths[::-1]).name == "ptychi"
    scan = import_scan(paths)
    assert_same_scan(scan, true)
    np.testing.assert_allclose(scan.probe, true.scan.probe.reshape(scan.probe.shape))
    with pytest.raises(DataError, match="file of their own"):
        filled(paths[:1])
    with h5py.File(paths[1], "r+") as file:
        file.attrs["far_field"] = False
    with pytest.raises(DataError, match="far field"):
        filled(paths)
    with h5py.File(paths[1], "r+") as file:
        file.attrs["far_field"] = True
        file["probe_position_indexes"] = np.arange(len(true.patterns))[::-1]
    with pytest.raises(DataError, match="follow the patterns"):
        filled(paths)
