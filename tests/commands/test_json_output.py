"""JSON documents: one on standard output, with figures, files and warnings."""

import json

import numpy as np
import pytest

from ptycho_backend.data.npz import write_npz

FAST = ("--inference.iterations=3", "--inference.half-datasets=false", "--inference.probe-iterations=0")


@pytest.fixture(scope="module")
def reconstructed(ptychopinn, scan_file, tmp_path_factory):
    """Return the folder and the document of a reconstruction."""
    folder = tmp_path_factory.mktemp("json") / "run"
    outcome = ptychopinn("reconstruct", scan_file, "--output", folder, *FAST, "--json")
    assert outcome.status == 0, outcome.err
    return folder, outcome


def test_reconstruct(reconstructed, scan_file):
    folder, outcome = reconstructed
    document = json.loads(outcome.out)
    assert list(document) == ["command", "scan", "folder", "files", "figures", "warnings"]
    assert (document["command"], document["scan"]) == ("reconstruct", str(scan_file))
    assert document["files"] == sorted(str(path) for path in folder.iterdir() if not path.name.startswith("."))
    figures = document["figures"]
    assert (figures["patterns"], figures["start"], figures["device"]) == (64, "flat", "cpu")
    evaluated = json.loads((folder / "evaluation.json").read_text())["no_network"]
    assert figures["comparisons"]["no_network"]["phase_psnr_db"] == evaluated["phase_psnr_db"]
    assert figures["assessment"]["residual"] == json.loads((folder / "assessment.json").read_text())["residual"]
    assert outcome.out.isascii()
    assert "2/3 iterations: 3 of 3" in outcome.err


def test_evaluate(reconstructed, scan_file, ptychopinn, tmp_path):
    image = reconstructed[0] / "reconstruction.h5"
    outcome = ptychopinn("evaluate", image, scan_file, "--json")
    assert outcome.status == 0, outcome.err
    document = json.loads(outcome.out)
    assert (document["reconstruction"], document["reference"]) == (str(image), str(scan_file))
    assert (document["folder"], document["files"]) == (None, [])
    assert document["figures"]["comparisons"]["reconstruction"]["phase_psnr_db"] > 0
    outcome = ptychopinn("evaluate", image, scan_file, "--json", "--output", tmp_path / "figures")
    files = json.loads(outcome.out)["files"]
    assert str(tmp_path / "figures" / "evaluation.json") in files


def test_numbers_that_json_lacks_are_null(reconstructed):
    def refuse(name):
        pytest.fail(f"{name} in the document")

    json.loads(reconstructed[1].out, parse_constant=refuse)


def test_warnings_stand_in_the_document(scan, ptychopinn, tmp_path):
    patterns = np.array(scan.patterns)
    patterns[5] = 0
    file = write_npz(scan.changed(patterns=patterns), tmp_path / "blank.npz")
    outcome = ptychopinn("reconstruct", file, "--output", tmp_path / "run", *FAST, "--json", "--quiet")
    assert outcome.status == 0, outcome.err
    warnings = json.loads(outcome.out)["warnings"]
    assert warnings
    assert any("blank.npz" in text or "pattern" in text for text in warnings)


def test_an_error_leaves_standard_output_empty(ptychopinn, fails_with, tmp_path):
    for argv in (("reconstruct", "none.npz", "--output", tmp_path / "run"), ("evaluate", "none.h5", "none.npz")):
        outcome = ptychopinn(*argv, "--json")
        fails_with(outcome, 1, "none")
        assert outcome.out == ""
