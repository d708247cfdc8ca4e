"""Commands on a scan without a probe guess, and what they say about it (spec: data 2.11)."""

import numpy as np
import pytest

from ptycho_backend.data.product import read_product


@pytest.fixture(scope="module")
def blind_file(scan, tmp_path_factory):
    """Return the file of a scan without a probe."""
    path = tmp_path_factory.mktemp("no_probe") / "scan.npz"
    y, x = scan.positions_px.T
    np.savez(path, diff3d=scan.patterns, xcoords=x, ycoords=y)
    return path


def warned(outcome, path):
    """Return True if the command succeeded with one warning of a missing guess, which names the file."""
    assert outcome.status == 0, outcome.err
    text = f"'{path}' holds no probe guess: a spot without defocus is made"
    return outcome.err.count("no probe guess") == 1 and text in outcome.err and "probe_iterations" in outcome.err


def test_info_shows_where_the_guess_comes_from(ptychopinn, blind_file, scan_file):
    outcome = ptychopinn("info", blind_file)
    assert warned(outcome, blind_file)
    assert "probe_guess=patterns" in outcome.out
    assert "probe_guess" not in ptychopinn("info", scan_file).out


def test_a_result_remembers_the_guess(ptychopinn, blind_file, tmp_path):
    options = ("--inference.iterations", 2, "--inference.probe_iterations", 0, "--quiet")
    outcome = ptychopinn("reconstruct", blind_file, "--output", tmp_path / "image", *options)
    assert warned(outcome, blind_file)
    product = tmp_path / "image/reconstruction.h5"
    assert read_product(product).attributes["probe_guess"] == "patterns"
    shown = ptychopinn("info", product)
    assert "probe_guess=patterns" in shown.out
    assert shown.err == ""


@pytest.mark.slow
def test_a_training_refines_first(ptychopinn, blind_file, quick, tmp_path, needs_pytorch):
    options = [option.replace("probe_iterations=0", "probe_iterations=2") for option in quick]
    outcome = ptychopinn("train", blind_file, "--output", tmp_path / "run", *options)
    assert warned(outcome, blind_file)
    assert "probe refinement: refined probe used" in outcome.err + outcome.out
