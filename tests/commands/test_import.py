"""``ptychopinn import``: the command line of the import (spec: data 12)."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.cli import main

ENERGY_KEV, DISTANCE_M, DETECTOR_PIXEL_M = 8.0, 2.0, 75e-6


@pytest.fixture
def scan():
    return pb.simulate_scan(N=32, n_positions=36, scan_name="raster", step_px=4.0, seed=2)


@pytest.fixture
def folder(tmp_path, scan, monkeypatch):
    """Return a folder with patterns whose zero frequency is in the corner, and positions in micrometres."""
    monkeypatch.chdir(tmp_path)
    pixel_um = 1.239841984e-9 / ENERGY_KEV * DISTANCE_M / (32 * DETECTOR_PIXEL_M) * 1e6
    with h5py.File(tmp_path / "run7.h5", "w") as file:
        file["entry/frames"] = np.fft.ifftshift(scan.patterns, axes=(1, 2))
    np.savetxt(tmp_path / "motors.txt", scan.positions_px * pixel_um)
    return tmp_path


OPTIONS = [
    *("--positions.text", "motors.txt", "--positions.columns", "0,1", "--positions.unit", "um"),
    *("--geometry.energy_kev", str(ENERGY_KEV), "--geometry.distance_m", str(DISTANCE_M)),
    *("--geometry.detector_pixel_m", str(DETECTOR_PIXEL_M)),
]


def test_files_become_a_scan_file(folder, scan, capsys):
    assert main(["import", "run7.h5", "--output", "scan.h5", *OPTIONS]) == 0
    shown = capsys.readouterr().out
    assert "moved from the corner" in shown
    assert "object pixel 129.2 nm" in " ".join(shown.split())
    loaded = pb.load_scan("scan.h5")
    np.testing.assert_array_equal(loaded.patterns, scan.patterns)
    found, known = (each - each.mean(axis=0) for each in (loaded.positions_px, scan.positions_px))
    np.testing.assert_allclose(found, known, atol=1e-3)


def test_the_settings_file_repeats_the_import(folder, capsys):
    assert main(["import", "run7.h5", *OPTIONS, "--print_config"]) == 0
    text = capsys.readouterr().out
    assert "energy_kev: 8.0" in text
    (folder / "layout.yaml").write_text(text, encoding="utf-8")
    assert main(["import", "run7.h5", "--output", "one.h5", "--config", "layout.yaml", "--quiet"]) == 0
    assert main(["import", "run7.h5", "--output", "two.h5", *OPTIONS, "--quiet"]) == 0
    assert pb.load_scan("one.h5").data_hash() == pb.load_scan("two.h5").data_hash()


def test_the_printed_settings_are_those_that_the_preset_found(tmp_path, scan, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with h5py.File("scan.hdf5", "w") as file:
        file["ptychogram"], file["encoder"] = scan.patterns, scan.positions_px * 1e-8
        file["zo"], file["dxd"], file["wavelength"] = 0.1, 75e-6, 1e-10
    assert main(["import", "scan.hdf5", "--print_config"]) == 0
    text = capsys.readouterr().out
    assert "preset: ptylab" in text
    assert "scan.hdf5:/encoder" in text
    assert main(["import", "scan.hdf5", "--output", "scan.npz", "--quiet"]) == 0


def test_layouts_are_listed(capsys):
    assert main(["import", "--presets"]) == 0
    assert {"cxi", "eiger", "ptylab", "py4dstem"} <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["run7.h5"], ["--output"]),
        (["run7.h5", "--output", "scan.txt"], [".h5"]),
        (["--output", "scan.h5"], ["needs files"]),
        (["run7.h5", "--output", "scan.h5"], ["--positions."]),
        (["run7.h5", "--output", "scan.h5", "--positions.unit", "inch"], ["positions.unit", "angstrom"]),
        (["run8.h5", "--output", "scan.h5"], ["run8.h5", "run7.h5"]),
        (["run7.h5", "--output", "scan.h5", "--patterns.dataset", "entry/fames", *OPTIONS], ["entry/frames"]),
        (["motors.txt", "--output", "scan.h5", *OPTIONS], ["motors.txt"]),
    ],
)
def test_mistakes_name_the_option_and_leave_no_file(folder, capsys, options, words):
    assert main(["import", *options]) in (1, 2)
    message = " ".join(capsys.readouterr().err.split())
    assert all(word in message for word in words), message
    assert "Traceback" not in message
    assert sorted(path.name for path in folder.iterdir()) == ["motors.txt", "run7.h5"]
