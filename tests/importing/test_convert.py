"""Import (spec: data 12): files of each layout become a scan with its patterns, positions, geometry and probe."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.config import from_dict, load_yaml, save_yaml, to_dict
from ptycho_backend.errors import ConfigError, DataError, OutputError
from ptycho_backend.importing.description import ImportConfig
from ptycho_backend.importing.layout import layout_of

from . import layouts

GEOMETRY = {"energy_kev": 8.0, "distance_m": layouts.DISTANCE_M, "detector_pixel_m": layouts.DETECTOR_PIXEL_M}


@pytest.fixture(scope="module")
def true():
    return layouts.truth()


@pytest.fixture
def arrays(tmp_path, true):
    """Return a file with patterns and positions (y, x) in metres under names of no layout."""
    with h5py.File(tmp_path / "arrays.h5", "w") as file:
        file["frames"], file["place"] = true.patterns, true.positions_m
    return tmp_path / "arrays.h5"


def config_of(**sections) -> ImportConfig:
    return from_dict(ImportConfig, sections)


def described(path, **more) -> ImportConfig:
    positions = {"y": f"{path}:place", "columns": "0,1", "unit": "m", **more.pop("positions", {})}
    return config_of(positions=positions, geometry=GEOMETRY | more.pop("geometry", {}), **more)


def assert_same(scan, true, masked=True):
    expected = np.where(scan.mask, true.patterns, 0) if masked else true.patterns
    np.testing.assert_array_equal(np.where(scan.mask, scan.patterns, 0), expected)
    found, known = (each - each.mean(axis=0) for each in (scan.positions_px, true.scan.positions_px))
    np.testing.assert_allclose(found, known, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in layouts.LAYOUTS if name != "eiger"])
def test_each_layout_becomes_a_scan(tmp_path, true, name):
    scan = pb.import_scan(layouts.LAYOUTS[name](tmp_path, true))
    assert_same(scan, true)
    if name not in ("npz", "ptychodus"):
        assert scan.pixel_size_m == pytest.approx((layouts.OBJECT_PIXEL_M,) * 2, rel=1e-6)
        assert scan.attributes["photon_energy_eV"] == pytest.approx(layouts.ENERGY_EV, rel=1e-6)
        assert scan.attributes["import"]["preset"] == name


def test_a_detector_without_positions_takes_them_from_a_text_file(tmp_path, true):
    paths = layouts.eiger(tmp_path, true)
    np.savetxt(tmp_path / "motors.csv", true.positions_m[:, ::-1] * 1e6, delimiter=",", header="sx,sy")
    text = {"text": str(tmp_path / "motors.csv"), "columns": "sy,sx", "unit": "um"}
    scan = pb.import_scan(paths, config_of(positions=text))
    assert_same(scan, true)
    with pytest.raises(ConfigError, match=r"--positions\."):
        pb.import_scan(paths)


def test_a_product_of_ptychodus_comes_with_its_patterns(tmp_path, true):
    paths = layouts.ptychodus_product(tmp_path, true)
    with h5py.File(paths[0], "a") as file:
        file["object"] = np.ones((1, 90, 90), dtype=np.complex64)
        for name, value in (("center_y_m", 0.0), ("center_x_m", 0.0)):
            file["object"].attrs[name] = value
        for name in ("pixel_height_m", "pixel_width_m"):
            file["object"].attrs[name] = layouts.OBJECT_PIXEL_M
    for order in (paths, paths[::-1]):
        assert_same(pb.import_scan(order), true)


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_the_written_file_is_the_scan_in_memory(arrays, true, tmp_path, suffix):
    config = described(arrays)
    in_memory = pb.import_scan(arrays, config)
    assert_same(in_memory, true)
    written = pb.import_scan(arrays, config, tmp_path / f"out{suffix}")
    assert written.source == str(tmp_path / f"out{suffix}")
    np.testing.assert_array_equal(written.patterns, in_memory.patterns)
    np.testing.assert_allclose(written.positions_px, in_memory.positions_px, atol=1e-9)
    assert written.pixel_size_m == pytest.approx(in_memory.pixel_size_m)
    assert written.attributes["import"]["files"] == [str(arrays)]
    with pytest.raises(OutputError):
        pb.import_scan(arrays, config, tmp_path / f"out{suffix}")


def test_a_description_is_stored_and_read_again(arrays, true, tmp_path):
    save_yaml(described(arrays), tmp_path / "layout.yaml")
    assert_same(pb.import_scan(arrays, load_yaml(tmp_path / "layout.yaml", ImportConfig)), true)


@pytest.mark.parametrize("name", ["cxi", "ptychoshelves", "ptyd", "ptylab"])
def test_the_description_of_a_preset_gives_the_scan_without_it(tmp_path, true, name):
    layout = layout_of(layouts.LAYOUTS[name](tmp_path, true))
    alone = from_dict(ImportConfig, to_dict(layout.config) | {"preset": "none"})
    patterns = [path for path in layout.paths if str(path) in layout.filled.patterns[0]]
    assert_same(pb.import_scan(patterns, alone), true)


def test_frames_select_patterns_with_their_positions(arrays, true):
    scan = pb.import_scan(arrays, described(arrays, patterns={"frames": "4:20:3"}))
    np.testing.assert_array_equal(scan.patterns, true.patterns[4:20:3])
    found, known = (each - each[0] for each in (scan.positions_px, true.scan.positions_px[4:20:3]))
    np.testing.assert_allclose(found, known, atol=1e-5)


def test_a_smaller_window_has_a_larger_object_pixel(arrays, true):
    scan = pb.import_scan(arrays, described(arrays, detector={"size_px": 16}))
    np.testing.assert_array_equal(scan.patterns, true.patterns[:, 8:24, 8:24])
    assert scan.pixel_size_m == pytest.approx((2 * layouts.OBJECT_PIXEL_M,) * 2)
    found, known = (each - each.mean(axis=0) for each in (scan.positions_px, true.scan.positions_px / 2))
    np.testing.assert_allclose(found, known, atol=1e-5)


def test_binned_patterns_keep_the_object_pixel_and_the_photons(arrays, true):
    scan = pb.import_scan(arrays, described(arrays, detector={"bin": 2}))
    assert scan.N == 16
    assert scan.pixel_size_m == pytest.approx((layouts.OBJECT_PIXEL_M,) * 2)
    lost = true.patterns.sum() - scan.patterns.sum(dtype=np.int64)
    assert 0 <= lost < 0.02 * true.patterns.sum()  # at the edge, where the window gives way by one pixel


def test_a_raster_of_four_axes_is_one_scan(tmp_path):
    true = layouts.truth(30, "raster")
    np.save(tmp_path / "cube.npy", layouts.raster_cube(true, (5, 6)))
    steps = {"step_y": 3.0, "step_x": 2.0, "unit": "px"}
    scan = pb.import_scan(tmp_path / "cube.npy", config_of(positions=steps))
    np.testing.assert_array_equal(scan.patterns, true.patterns)
    np.testing.assert_allclose(scan.positions_px[7] - scan.positions_px[0], (3.0, 2.0))
    assert scan.pixel_size_m is None


def test_one_file_for_every_pattern_is_a_stack(tmp_path, true):
    for number, pattern in enumerate(true.patterns):
        np.save(tmp_path / f"frame_{number:03d}.npy", pattern)
    np.save(tmp_path / "place.npy", true.positions_m)
    positions = {"y": str(tmp_path / "place.npy"), "columns": "0,1", "unit": "m"}
    scan = pb.import_scan(str(tmp_path / "frame_*.npy"), config_of(positions=positions, geometry=GEOMETRY))
    assert_same(scan, true)


def test_probe_from_an_array_or_from_optics(arrays, true, tmp_path):
    np.save(tmp_path / "probe.npy", true.scan.probe)
    scan = pb.import_scan(arrays, described(arrays, probe={"array": str(tmp_path / "probe.npy")}))
    np.testing.assert_array_equal(scan.probe, true.scan.probe)
    width_m = 8 * layouts.OBJECT_PIXEL_M
    scan = pb.import_scan(arrays, described(arrays, probe={"optics": "pinhole", "diameter_m": width_m}))
    inside = np.abs(scan.probe[0]) ** 2 > 0.5 * np.abs(scan.probe[0, 16, 16]) ** 2
    assert inside.sum() == pytest.approx(np.pi * 16, rel=0.15)
    both = {"array": str(tmp_path / "probe.npy"), "optics": "pinhole", "diameter_m": width_m}
    with pytest.raises(ConfigError, match="an array or from optics"):
        pb.import_scan(arrays, described(arrays, probe=both))


def test_a_probe_of_another_size_is_refused(arrays, true, tmp_path):
    np.save(tmp_path / "probe.npy", true.scan.probe[:, 4:28, 4:28])
    with pytest.raises(DataError, match="grid of the patterns"):
        pb.import_scan(arrays, described(arrays, probe={"array": str(tmp_path / "probe.npy")}))


def test_without_a_probe_the_reconstruction_searches_one(arrays):
    assert pb.import_scan(arrays, described(arrays)).attributes["probe_guess"] == "patterns"


def test_positions_in_metres_need_a_pixel(arrays):
    config = described(arrays)
    config.geometry = ImportConfig().geometry
    with pytest.raises(ConfigError, match="need the pixel of the object") as error:
        pb.import_scan(arrays, config)
    assert "--geometry.object_pixel_m" in str(error.value)


def test_no_file_and_a_missing_file_are_errors(tmp_path):
    with pytest.raises(ConfigError, match="needs files"):
        pb.import_scan([])
    for name in ("missing.h5", "missing_*.tif"):
        with pytest.raises(DataError, match="must exist"):
            pb.import_scan(tmp_path / name)


def test_a_preset_refuses_files_of_another_layout(arrays):
    with pytest.raises(DataError, match="reads files of one layout"):
        pb.import_scan(arrays, config_of(preset="ptylab"))
    with pytest.raises(ConfigError, match="ptylab"):
        pb.import_scan(arrays, config_of(preset="ptylap"))


def test_the_files_stay_as_they_are(arrays, tmp_path):
    before = arrays.read_bytes()
    pb.import_scan(arrays, described(arrays), tmp_path / "out.h5")
    assert arrays.read_bytes() == before


def test_an_error_leaves_no_file(arrays, tmp_path):
    with h5py.File(arrays, "a") as file:
        del file["place"]
        file["place"] = np.zeros((3, 2))
    with pytest.raises(DataError):
        pb.import_scan(arrays, described(arrays), tmp_path / "out.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["arrays.h5"]


def test_progress_is_reported(arrays, monkeypatch):
    monkeypatch.setattr("ptycho_backend.events.REPORT_EVERY_S", 0.0)
    events = []
    pb.import_scan(arrays, described(arrays), on_event=events.append)
    assert events[-1].done == events[-1].total == layouts.N_PATTERNS
