"""Checks of `info`, warnings before a reconstruction, `--strict`, `--json`, and folders of results (spec: data 13)."""

from __future__ import annotations

import dataclasses
import json

import h5py
import numpy as np
import pytest

from ptycho_backend.data.npz import write_npz
from ptycho_backend.simulation.simulate import simulate_scan

QUICK = ("--inference.iterations", 2, "--inference.probe_iterations", 0, "--inference.half_datasets", "false")


@pytest.fixture
def written(scan, tmp_path):
    """Return a function that writes the scan with other fields."""

    def write(name="scan.npz", **fields):
        return write_npz(dataclasses.replace(scan, **{"obj": None, **fields}), tmp_path / name)

    return write


@pytest.fixture
def undeclared(scan, tmp_path):
    """Return the file of float intensities that declare no unit."""
    noise = np.random.default_rng(0).normal(0, 0.6, scan.patterns.shape)
    y, x = scan.positions_px.T
    patterns = np.clip(scan.patterns + noise, 0, None).astype(np.float32)
    np.savez(tmp_path / "floats.npz", diff3d=patterns, ycoords=y, xcoords=x, probeGuess=scan.probe)
    return tmp_path / "floats.npz"


def corner(scan):
    return np.fft.ifftshift(scan.patterns, axes=(1, 2))


def test_a_clean_scan_is_good(ptychopinn, scan_file):
    outcome = ptychopinn("info", scan_file, "--strict", "--axes")
    assert (outcome.status, outcome.err) == (0, "")
    assert "Checks: all good" in outcome.out
    assert outcome.out.count(" good: ") == 18


def test_corner_patterns_are_wrong(ptychopinn, fails_with, scan, written):
    file = written(patterns=corner(scan))
    outcome = ptychopinn("info", file)
    assert outcome.status == 0
    assert "zero frequency        WRONG: in the corner" in outcome.out
    fails_with(
        ptychopinn("info", file, "--strict"), 1, "zero frequency: wrong, in the corner", "--detector.fftshift on"
    )


def test_strict_information_accepts_doubt(ptychopinn, undeclared):
    outcome = ptychopinn("info", undeclared, "--strict")
    assert outcome.status == 0
    assert "unit                  DOUBTFUL: float32, amplitude, not declared" in outcome.out


def test_an_unfinished_file_names_its_end(ptychopinn, scan, tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        patterns = file.create_dataset("patterns", shape=scan.patterns.shape, dtype=scan.patterns.dtype)
        patterns[:40] = scan.patterns[:40]
        file["probe"] = scan.probe
        file["probe_position_y_px"], file["probe_position_x_px"] = (scan.positions_px - 0.5).T
    outcome = ptychopinn("info", tmp_path / "scan.h5")
    assert "DOUBTFUL: 24 empty (40-63); the last 24 hold no photon" in " ".join(outcome.out.split())
    assert "--exclude 40-63" in " ".join(outcome.out.split())
    assert "40 of 32×32 px" in outcome.out


def test_hardly_any_frame_is_still_described(ptychopinn, scan, written):
    patterns = scan.patterns.copy()
    patterns[3:] = 0
    outcome = ptychopinn("info", written(patterns=patterns))
    assert outcome.status == 0
    assert "frames                WRONG: 61 empty (3-63)" in outcome.out
    assert "64 of 32×32 px" in outcome.out


@pytest.mark.parametrize("options", [(), ("--quiet",), ("--axes",)])
def test_json_is_one_document(ptychopinn, scan, written, options):
    file = written(patterns=corner(scan))
    values = json.loads(ptychopinn("info", file, "--json", *options).out)
    assert (values["kind"], values["file"], values["worst"]) == ("scan", str(file), "wrong")
    assert values["rows"]["patterns"].startswith("64 of 32×32 px")
    grades = {check["name"]: check["grade"] for check in values["checks"]}
    assert grades["zero frequency"] == "wrong"
    assert ("axes" in grades) == ("--axes" in options)


class TestBeforeWork:
    """Warnings of `reconstruct` and `train`."""

    @pytest.mark.parametrize("command", ["reconstruct", "train"])
    def test_strict_stops_before_any_work(self, ptychopinn, fails_with, undeclared, command, tmp_path):
        outcome = ptychopinn(command, undeclared, "--output", tmp_path / "run", "--strict")
        fails_with(outcome, 1, "unit: doubtful", "--patterns.unit counts")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("command", ["reconstruct", "train"])
    def test_a_stray_position_stops_both(self, ptychopinn, fails_with, scan, written, command, tmp_path):
        positions = scan.positions_px.copy()
        positions[7] = 1e5
        file = written(positions_px=positions)
        fails_with(ptychopinn(command, file, "--output", tmp_path / "run"), 1, "pattern 7 at", "--exclude 7 ")
        assert not (tmp_path / "run").exists()

    def test_only_faults_are_warned_of(self, ptychopinn, undeclared, scan, written, tmp_path):
        outcome = ptychopinn("reconstruct", undeclared, "--output", tmp_path / "image", *QUICK, "--quiet")
        assert outcome.status == 0, outcome.err
        assert outcome.err.count("unit: DOUBTFUL") == 1
        assert "good:" not in outcome.err
        outcome = ptychopinn("reconstruct", written(), "--output", tmp_path / "other", *QUICK, "--strict", "--quiet")
        assert (outcome.status, outcome.err) == (0, "")

    def test_faults_of_the_loading_are_said_once(self, ptychopinn, fails_with, scan, written, tmp_path):
        patterns = scan.patterns.copy()
        patterns[60:] = 0
        file = written(patterns=patterns)
        outcome = ptychopinn("reconstruct", file, "--output", tmp_path / "image", *QUICK, "--quiet")
        assert outcome.err.count("warning:") == 1
        assert "4 empty patterns" in outcome.err
        outcome = ptychopinn("reconstruct", file, "--output", tmp_path / "other", "--strict")
        fails_with(outcome, 1, "frames: doubtful", "--exclude 60-63")

    @pytest.mark.parametrize("N", [33, 50, 72])
    def test_any_side_without_a_network(self, ptychopinn, N, tmp_path):
        """Case odd_size: sides that are no multiple of 16."""
        file = write_npz(simulate_scan(N=N, n_positions=64, seed=1), tmp_path / "scan.npz")
        outcome = ptychopinn("reconstruct", file, "--output", tmp_path / "image", *QUICK, "--quiet")
        assert (outcome.status, outcome.err) == (0, "")


class TestFolders:
    """Run folders and result folders."""

    def test_a_result_folder(self, ptychopinn, scan_file, tmp_path):
        outcome = ptychopinn("reconstruct", scan_file, "--output", tmp_path / "image", *QUICK, "--quiet")
        assert outcome.status == 0, outcome.err
        outcome = ptychopinn("info", tmp_path / "image")
        assert outcome.out.startswith(f"Result, {tmp_path / 'image'}")
        values = json.loads(ptychopinn("info", tmp_path / "image", "--json").out)
        figures = json.loads((tmp_path / "image/evaluation.json").read_text())["no_network"]
        assert f"phase {figures['phase_psnr_db']:.1f} dB" in values["against the known object"]["no network"]
        assert float(values["by the patterns alone"]["residual"]) > 0
        assert values["kind"] == "result"

    def test_a_run_folder(self, ptychopinn, trained):
        values = json.loads(ptychopinn("info", trained[0], "--json").out)
        assert values["kind"] == "run"
        assert {"model", "training", "reconstruction", "against the known object"} <= set(values)

    def test_a_stopped_run(self, ptychopinn, tmp_path):
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints/last.h5.zip").write_bytes(b"")
        outcome = ptychopinn("info", tmp_path)
        assert outcome.out.startswith("Unfinished run, ")
        assert "--resume continues from last.h5.zip" in outcome.out

    def test_another_folder_is_an_error(self, ptychopinn, fails_with, tmp_path):
        fails_with(ptychopinn("info", tmp_path), 1, "with no file")
        (tmp_path / "assessment.json").write_text("[1]", encoding="utf-8")
        fails_with(ptychopinn("info", tmp_path), 1, "assessment.json")
        (tmp_path / "assessment.json").write_text("{", encoding="utf-8")
        fails_with(ptychopinn("info", tmp_path), 1, "assessment.json")
