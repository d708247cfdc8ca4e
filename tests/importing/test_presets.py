"""Presets (spec: data 12): a scan in the layout of each program gives back its patterns, positions and geometry."""

from __future__ import annotations

import logging
from importlib.metadata import EntryPoint

import h5py
import numpy as np
import pytest

from ptycho_backend import load_scan
from ptycho_backend.errors import ConfigError, DataError, ShapeError
from ptycho_backend.importing import presets as presets_module
from ptycho_backend.importing.arrays import concatenated, open_array
from ptycho_backend.importing.description import (
    DetectorDescription,
    GeometryDescription,
    ImportConfig,
    PatternsDescription,
    PositionsDescription,
    ProbeDescription,
)
from ptycho_backend.importing.detector import DetectorImages
from ptycho_backend.importing.frames import frames
from ptycho_backend.importing.geometry import electron_wavelength_m, object_pixel_m, wavelength_m
from ptycho_backend.importing.positions import scan_positions
from ptycho_backend.importing.presets import PRESETS, Filled, Preset, preset, presets, recognised

from . import layouts

DESCRIBED = [name for name in layouts.LAYOUTS if not PRESETS[name].by_load_scan]
WITH_POSITIONS = [name for name in DESCRIBED if name != "eiger"]
SIDES = (layouts.N, layouts.N)


@pytest.fixture(scope="module")
def true():
    return layouts.truth()


def filled(paths, given=None):
    return recognised(paths).fill(paths, given or ImportConfig())


def read_frames(result: Filled):
    source = concatenated([open_array(address) for address in result.patterns])
    mask = result.config.detector.mask
    images = DetectorImages(mask=open_array(mask).all() if mask else None)
    return frames(source, result.config.patterns, result.config.detector, images)


def assert_positions(found_m, true_m):
    """Compare positions up to their origin, which no format fixes."""
    np.testing.assert_allclose(
        found_m - found_m.mean(axis=0), true_m - true_m.mean(axis=0), atol=1e-6 * layouts.OBJECT_PIXEL_M
    )


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_each_layout_is_recognised_as_itself(tmp_path, true, name):
    assert recognised(layouts.LAYOUTS[name](tmp_path, true)).name == name


@pytest.mark.parametrize("name", WITH_POSITIONS)
def test_positions_are_those_of_the_beam_on_the_sample(tmp_path, true, name):
    result = filled(layouts.LAYOUTS[name](tmp_path, true))
    found_m, unit = scan_positions(result.config.positions, layouts.N_PATTERNS, None)
    assert unit == "m"
    assert_positions(found_m, true.positions_m)


@pytest.mark.parametrize("name", DESCRIBED)
def test_patterns_are_those_of_the_detector(tmp_path, true, name):
    result = read_frames(filled(layouts.LAYOUTS[name](tmp_path, true)))
    assert result.measurement == "counts"
    expected = np.where(result.mask, true.patterns, 0)
    np.testing.assert_array_equal(np.concatenate(list(result.blocks())), expected)


@pytest.mark.parametrize("name", ["cxi", "eiger", "ptyd"])
def test_the_mask_marks_the_bad_pixels(tmp_path, true, name):
    result = read_frames(filled(layouts.LAYOUTS[name](tmp_path, true)))
    np.testing.assert_array_equal(result.mask, ~np.eye(layouts.N, dtype=bool))


@pytest.mark.parametrize("name", DESCRIBED)
def test_wavelength_and_object_pixel_are_those_of_the_instrument(tmp_path, true, name):
    geometry = filled(layouts.LAYOUTS[name](tmp_path, true)).config.geometry
    assert wavelength_m(geometry) == pytest.approx(layouts.WAVELENGTH_M, rel=1e-9)
    assert object_pixel_m(geometry, SIDES) == pytest.approx((layouts.OBJECT_PIXEL_M,) * 2, rel=1e-9)


@pytest.mark.parametrize("name", ["nxcxi_ptycho", "ptyd"])
def test_the_centre_of_the_beam_is_read_in_pixels(tmp_path, true, name):
    detector = filled(layouts.LAYOUTS[name](tmp_path, true)).config.detector
    assert (detector.centre_y_px, detector.centre_x_px) == pytest.approx((layouts.N // 2,) * 2)


ANGLE = np.deg2rad(20)
BASES = {  # (x, y, z) of a step along the rows and along the columns; x to the left, y up
    "upright": ([0, -1, 0], [-1, 0, 0]),
    "mirrored": ([0, -1, 0], [1, 0, 0]),
    "upside down": ([0, 1, 0], [1, 0, 0]),
    "on its side": ([-1, 0, 0], [0, 1, 0]),
    "on its other side, mirrored": ([1, 0, 0], [0, 1, 0]),
    "askew": ([np.sin(ANGLE), -np.cos(ANGLE), 0], [-np.cos(ANGLE), -np.sin(ANGLE), 0]),
    "askew and mirrored": ([np.sin(ANGLE), -np.cos(ANGLE), 0], [np.cos(ANGLE), np.sin(ANGLE), 0]),
}


@pytest.mark.parametrize("basis", BASES)
def test_cxi_positions_follow_the_axes_of_the_detector(tmp_path, true, basis):
    (path,) = layouts.cxi(tmp_path, true, np.asarray(BASES[basis], dtype=float))
    found_m, _ = scan_positions(filled([path]).config.positions, layouts.N_PATTERNS, None)
    assert_positions(found_m, true.positions_m)
    assert_positions(found_m, load_scan(path).positions_px * layouts.OBJECT_PIXEL_M)


def test_motors_of_nexus_take_the_place_of_missing_translations(tmp_path, true):
    positions = filled(layouts.nxcxi_ptycho(tmp_path, true, motors=True)).config.positions
    assert positions.unit == "mm"
    assert_positions(scan_positions(positions, layouts.N_PATTERNS, None)[0], true.positions_m)


def test_an_nxcxi_file_that_is_also_cxi_is_the_more_particular_layout(tmp_path, true):
    paths = layouts.nxcxi_ptycho(tmp_path, true)
    assert PRESETS["cxi"].recognises(paths)
    assert recognised(paths).name == "nxcxi_ptycho"


def test_the_energy_of_the_storage_ring_is_not_that_of_the_photons(tmp_path, true):
    (path,) = layouts.nxcxi_ptycho(tmp_path, true)
    with h5py.File(path, "r+") as file:
        del file["entry_1/instrument_1/beam_1"]
    assert wavelength_m(filled([path]).config.geometry) is None


def test_electron_volts_without_a_unit_are_an_error_in_cxi(tmp_path, true):
    (path,) = layouts.cxi(tmp_path, true)
    with h5py.File(path, "r+") as file:
        file["entry_1/instrument_1/source_1/energy"][()] = layouts.ENERGY_EV
    with pytest.raises(DataError, match="joules"):
        filled([path])


def test_cxi_pixels_with_signal_are_good(tmp_path, true):
    (path,) = layouts.cxi(tmp_path, true)
    with h5py.File(path, "r+") as file:
        mask = file["entry_1/instrument_1/detector_1/mask"]
        mask[:] = 0x1000
        mask[0, 0], mask[0, 1], mask[0, 2] = 1, 0x1001, 0
    good = np.ones(SIDES, dtype=bool)
    good[0, :2] = False
    np.testing.assert_array_equal(read_frames(filled([path])).mask, good)
    given = ImportConfig(detector=DetectorDescription(mask="other.npy"))
    assert filled([path], given).config.detector.mask == "other.npy"


def test_the_illumination_of_cxi_is_the_probe_unless_the_detector_is_cut(tmp_path, true):
    (path,) = layouts.cxi(tmp_path, true)
    with h5py.File(path, "r+") as file:
        file["entry_1/instrument_1/source_1/illumination"] = true.scan.probe
    assert filled([path]).config.probe.array.endswith("source_1/illumination")
    assert filled([path], ImportConfig(detector=DetectorDescription(size_px=16))).config.probe.array == ""


def test_a_missing_data_file_of_a_master_file_is_named(tmp_path, true):
    paths = layouts.eiger(tmp_path, true)
    (tmp_path / "scan_data_000002.h5").unlink()
    assert recognised(paths).name == "eiger"
    with pytest.raises(DataError, match=r"none behind scan_data_000002\.h5"):
        filled(paths)


def test_links_of_a_master_file_keep_their_order(tmp_path, true):
    result = filled(layouts.eiger(tmp_path, true))
    assert [address.rpartition("/")[2] for address in result.patterns] == ["data_000001", "data_000002"]
    assert result.config.detector.saturation == 60000
    assert result.config.positions == PositionsDescription()


def test_the_default_of_the_beam_centre_in_a_master_file_is_no_measurement(tmp_path, true):
    (path,) = layouts.eiger(tmp_path, true)
    assert filled([path]).config.detector.centre_y_px is None  # half the sides
    for value, expected in ((13.5, (13.5, layouts.N / 2)), (1e4, (None, None))):
        with h5py.File(path, "r+") as file:
            file["entry/instrument/detector/beam_center_y"][()] = value
        detector = filled([path]).config.detector
        assert (detector.centre_y_px, detector.centre_x_px) == expected


def test_the_photon_energy_of_a_master_file_counts_without_a_wavelength(tmp_path, true):
    (path,) = layouts.eiger(tmp_path, true)
    with h5py.File(path, "r+") as file:
        file["entry/instrument/beam/incident_wavelength"][()] = 0.0  # unset
        file["entry/instrument/detector/detectorSpecific/photon_energy"][()] = layouts.ENERGY_EV
    assert wavelength_m(filled([path]).config.geometry) == pytest.approx(layouts.WAVELENGTH_M, rel=1e-9)


def test_positions_of_ptychoshelves_next_to_the_patterns_are_not_read_without_their_name(tmp_path, true):
    patterns, positions = layouts.ptychoshelves(tmp_path, true)
    assert recognised([positions, patterns]).name == "ptychoshelves"
    assert recognised([positions]) is None
    with pytest.raises(DataError, match=rf"add '{positions}'"):
        filled([patterns])
    positions.unlink()
    assert filled([patterns]).config.positions == PositionsDescription()


def test_chunks_of_ptypy_follow_each_other(tmp_path, true):
    (path,) = layouts.ptyd(tmp_path, true, chunks=12)
    result = filled([path])
    assert len(result.patterns) == 12
    np.testing.assert_array_equal(concatenated([open_array(each) for each in result.patterns]).all(), true.patterns)
    assert_positions(scan_positions(result.config.positions, layouts.N_PATTERNS, None)[0], true.positions_m)
    with h5py.File(path, "r+") as file:
        del file["info"]
    with pytest.raises(DataError, match="one array"):
        filled([path])
    given = ImportConfig(positions=PositionsDescription(text="positions.txt"))
    assert filled([path], given).config.positions == given.positions


def test_a_near_field_of_ptypy_is_an_error(tmp_path, true):
    (path,) = layouts.ptyd(tmp_path, true)
    with h5py.File(path, "r+") as file:
        del file["meta/propagation"]
        file["meta/propagation"] = "nearfield"
    with pytest.raises(DataError, match="far field"):
        filled([path])


def test_ptylab_gives_a_pinhole_and_refuses_the_order_of_matlab(tmp_path, true):
    (path,) = layouts.ptylab(tmp_path, true)
    assert filled([path]).config.probe == ProbeDescription(optics="pinhole", diameter_m=1e-6)
    with h5py.File(path, "r+") as file:
        del file["encoder"]
        file["encoder"] = true.positions_m.T
    with pytest.raises(ShapeError, match=r"\(2, 30\)"):
        filled([path])
    given = ImportConfig(patterns=PatternsDescription(axes="nxy"))
    assert_positions(scan_positions(filled([path], given).config.positions, 30)[0], true.positions_m)


@pytest.mark.parametrize("version", [12, 13, 14])
def test_a_data_cube_gives_raster_step_and_reciprocal_step(tmp_path, version):
    true = layouts.truth(30)
    paths = layouts.py4dstem(tmp_path, layouts.raster_cube(true, (5, 6)), version)
    assert recognised(paths).name == "py4dstem"
    result = filled(paths)
    assert result.config.geometry == GeometryDescription(reciprocal_step_per_angstrom=0.02)
    found = read_frames(result)
    np.testing.assert_array_equal(np.concatenate(list(found.blocks())), true.patterns)
    positions_m, unit = scan_positions(result.config.positions, 30, found.raster)
    rows, columns = np.divmod(np.arange(30), 6)
    assert unit == "m"
    assert_positions(positions_m, 4.1e-10 * np.stack([rows, columns], axis=1))


def test_a_step_in_mrad_needs_the_voltage(tmp_path):
    paths = layouts.py4dstem(tmp_path, layouts.raster_cube(layouts.truth(30), (5, 6)), q_units="mrad")
    assert filled(paths).config.geometry == GeometryDescription()
    geometry = filled(paths, ImportConfig(geometry=GeometryDescription(voltage_kv=200.0))).config.geometry
    expected = 0.02e-3 / electron_wavelength_m(200.0) * 1e-10
    assert geometry.reciprocal_step_per_angstrom == pytest.approx(expected)


def test_a_file_with_two_data_cubes_needs_a_choice(tmp_path):
    cube = layouts.raster_cube(layouts.truth(30), (5, 6))
    (path,) = layouts.py4dstem(tmp_path, cube)
    with h5py.File(path, "r+") as file:
        file.copy("datacube_root", "second_root")
    with pytest.raises(DataError, match=r"datacube_root/datacube/data, second_root/datacube/data"):
        filled([path])
    given = ImportConfig(patterns=PatternsDescription(dataset="second_root/datacube/data"))
    assert filled([path], given).patterns == [f"{path}:/second_root/datacube/data"]


def test_a_calibrated_rotation_is_reported(tmp_path, caplog):
    (path,) = layouts.py4dstem(tmp_path, layouts.raster_cube(layouts.truth(30), (5, 6)))
    with h5py.File(path, "r+") as file:
        file["datacube_root/metadatabundle/calibration/QR_rotation"][()] = 0.3
    with caplog.at_level(logging.WARNING):
        filled([path])
    assert "calibrates QR_rotation between" in caplog.text


def test_a_stack_with_four_axes_is_recognised_unless_matlab_wrote_it(tmp_path):
    (path,) = layouts.ptyrad(tmp_path, layouts.raster_cube(layouts.truth(30), (5, 6)))
    assert recognised([path]).name == "ptyrad"
    assert filled([path]).config.patterns == PatternsDescription(dataset="dp", axes="YXyx", unit="counts")
    assert recognised([path.rename(tmp_path / "scan.mat")]) is None


def test_products_of_ptychodus_need_both_files(tmp_path, true):
    paths = layouts.ptychodus_product(tmp_path, true)
    assert recognised(paths).name == recognised(paths[::-1]).name == "ptychodus"
    assert recognised(paths[:1]) is None
    in_order = Filled(ImportConfig(), [str(path) for path in paths])
    assert filled(paths) == filled(paths[::-1]) == in_order


def test_unknown_damaged_and_missing_files_have_no_preset(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["frames"] = np.zeros((3, 8, 8))
    (tmp_path / "damaged.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04")
    for name in ("other.h5", "damaged.h5", "damaged.npz", "missing.h5", ""):
        assert recognised([tmp_path / name]) is None
    assert recognised([]) is None


@pytest.mark.parametrize("name", WITH_POSITIONS)
def test_fields_of_the_user_win(tmp_path, true, name):
    given = ImportConfig(
        patterns=PatternsDescription(unit="amplitude", frames="::2", axes="nyx"),
        positions=PositionsDescription(text="mine.csv", unit="um"),
        geometry=GeometryDescription(energy_kev=1.5, object_pixel_m=1e-9),
        detector=DetectorDescription(mask="mine.npy", mask_convention="good", centre_y_px=3.0, saturation=7.0),
        probe=ProbeDescription(optics="lens", aperture_mrad=20.0),
    )
    before = repr(given)
    config = filled(layouts.LAYOUTS[name](tmp_path, true), given).config
    assert config.patterns == PatternsDescription(
        unit="amplitude", frames="::2", axes="nyx", dataset=config.patterns.dataset
    )
    assert config.patterns.dataset
    assert config.positions == given.positions  # no sign of the file's positions on those of the user
    assert config.geometry == given.geometry  # neither a second wavelength nor a second way to the pixel
    assert config.detector == given.detector
    assert config.probe == given.probe
    assert repr(given) == before


def test_a_sign_of_the_user_joins_the_place_in_the_file(tmp_path, true):
    given = ImportConfig(positions=PositionsDescription(x_sign=-1), geometry=GeometryDescription(distance_m=3.0))
    config = filled(layouts.ptylab(tmp_path, true), given).config
    assert (config.positions.x_sign, config.positions.y_sign) == (-1, 1)
    assert config.positions.y.endswith("encoder")
    assert (config.geometry.distance_m, config.geometry.detector_pixel_m) == (3.0, layouts.DETECTOR_PIXEL_M)


def test_the_centre_in_a_file_does_not_hold_for_a_turned_detector(tmp_path, true):
    given = ImportConfig(detector=DetectorDescription(flip_y=True))
    assert filled(layouts.ptyd(tmp_path, true), given).config.detector.centre_y_px is None


def test_presets_have_names_and_titles_and_an_unknown_one_is_an_error():
    assert all(name == each.name and each.title for name, each in PRESETS.items())
    assert preset("eiger") is PRESETS["eiger"]
    with pytest.raises(ConfigError, match="did you mean 'ptylab'"):
        preset("ptylap")


MINE = Preset("mine", "beamline 1", lambda paths: paths[0].suffix == ".mine", lambda paths, given: Filled(given, []))


def broken(paths):
    raise ZeroDivisionError("no layout")


FAULTY = Preset("faulty", "beamline 2", broken, lambda paths, given: Filled(given, []))
TAKEN = Preset("cxi", "beamline 3", lambda paths: True, lambda paths, given: Filled(given, []))


def factory():
    return MINE


def entries(monkeypatch, *values):
    found = [EntryPoint(f"entry{i}", value, presets_module.GROUP) for i, value in enumerate(values)]
    monkeypatch.setattr(presets_module, "entry_points", lambda group: found if group == presets_module.GROUP else [])
    for name, value in {"MINE": MINE, "FAULTY": FAULTY, "TAKEN": TAKEN, "factory": factory, "NUMBER": 3}.items():
        monkeypatch.setattr(layouts, name, value, raising=False)


@pytest.mark.parametrize("attribute", ["MINE", "factory"])
def test_a_beamline_adds_its_own_preset(monkeypatch, tmp_path, true, attribute):
    entries(monkeypatch, f"{layouts.__name__}:{attribute}")
    assert presets()["mine"] is MINE
    assert recognised([tmp_path / "scan.mine"]) is MINE
    assert recognised(layouts.cxi(tmp_path, true)) is PRESETS["cxi"]


def test_broken_entry_points_are_reported_and_left_out(monkeypatch, tmp_path, true, caplog):
    values = ["absent_package:preset", *(f"{layouts.__name__}:{each}" for each in ("FAULTY", "TAKEN", "NUMBER"))]
    entries(monkeypatch, *values)
    with caplog.at_level(logging.WARNING):
        assert recognised(layouts.cxi(tmp_path, true)) is PRESETS["cxi"]
    for text in ("'entry0' (absent_package:preset) cannot be loaded", "'faulty' is left out: no layout", "TAKEN"):
        assert text in caplog.text
    assert "'entry3'" in caplog.text
