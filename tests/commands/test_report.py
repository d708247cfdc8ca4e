"""Reports of commands, and `compare`: written with the results, left out on request, never at their cost."""

import json
import re

import numpy as np
import pytest

from ptycho_backend.commands import reports
from ptycho_backend.data.npz import write_npz
from ptycho_backend.report import page

FAST = ("--inference.iterations=3", "--inference.half-datasets=false", "--inference.probe-iterations=0")
REPORT = "report.html"


def text_of(path):
    """Return the visible words of a page."""
    html = re.sub(r"<(script|style).*?</\1>", " ", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


@pytest.fixture(scope="module")
def run(ptychopinn, scan_file, tmp_path_factory):
    """Return the folder of a reconstruction."""
    folder = tmp_path_factory.mktemp("report") / "run"
    outcome = ptychopinn("reconstruct", scan_file, "--output", folder, *FAST)
    assert outcome.status == 0, outcome.err
    assert REPORT in outcome.out
    return folder


@pytest.fixture(scope="module")
def short(ptychopinn, scan_file, tmp_path_factory):
    """Return the folder of a reconstruction with fewer iterations and without a report."""
    folder = tmp_path_factory.mktemp("other") / "short"
    argv = ("reconstruct", scan_file, "--output", folder, *FAST, "--inference.iterations=1", "--no-report")
    assert ptychopinn(*argv).status == 0
    return folder


def test_report_of_a_reconstruction(run, scan):
    text = text_of(run / REPORT)
    residual = json.loads((run / "assessment.json").read_text())["residual"]
    for part in ("64 of 32 × 32 px", "probe overlap", f"{residual:.4g} half-deviance", "SSIM", "iterations: 3"):
        assert part in text
    assert "checks of the scan are good" in text
    assert "reconstruction time" in text
    assert (run / REPORT).stat().st_size < 3_000_000


def test_faults_of_a_scan_stand_first_and_once(ptychopinn, scan, tmp_path):
    patterns = np.array(scan.patterns)
    patterns[5] = 0
    positions = np.array(scan.positions_px)
    positions[7] = positions[3] + 900.0
    file = write_npz(scan.changed(patterns=patterns, positions_px=positions), tmp_path / "a <b> & 'c'.npz")
    outcome = ptychopinn("reconstruct", file, "--output", tmp_path / "run", *FAST, "--quiet")
    assert outcome.status == 0, outcome.err
    html = (tmp_path / "run" / REPORT).read_text()
    words = text_of(tmp_path / "run" / REPORT)
    assert "<b>" not in html.partition("<main>")[2].partition("<script")[0]
    assert "1 of 64 patterns are left out" in words
    assert re.search(r"(doubtful|wrong): strays", words)
    assert words.index("strays") < words.index("Object and residuals")
    assert "strays: DOUBTFUL" not in words
    assert "strays: WRONG" not in words


def test_report_of_an_evaluation(run, scan_file, ptychopinn, tmp_path):
    outcome = ptychopinn("evaluate", run / "reconstruction.h5", scan_file, "--output", tmp_path / "scores")
    assert outcome.status == 0, outcome.err
    text = text_of(tmp_path / "scores" / REPORT)
    assert "reconstruction.h5 against" in text
    assert "reconstruction amplitude: " in text
    assert "Residual of each pattern" in text


def test_report_of_a_training(trained):
    text = text_of(trained[0] / REPORT)
    for part in ("Loss over the epochs", "best epoch", "nepochs: 1", "training time", "Amplitude"):
        assert part in text


def test_no_report(short, run, scan_file, ptychopinn, tmp_path):
    argv = ("evaluate", run / "reconstruction.h5", scan_file, "--output", tmp_path / "scores", "--no-report")
    assert ptychopinn(*argv).status == 0
    assert not [*tmp_path.rglob(REPORT), *short.rglob(REPORT)]


def test_a_report_that_fails_is_a_warning(scan_file, run, ptychopinn, tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no ink")

    monkeypatch.setattr(reports, "content_of_result", fail)
    outcome = ptychopinn("reconstruct", scan_file, "--output", tmp_path / "run", *FAST)
    assert outcome.status == 0, outcome.err
    assert "report 'report.html' could not be written: RuntimeError: no ink" in outcome.err
    assert (tmp_path / "run" / "object.png").exists()
    monkeypatch.setattr(page, "write_report", fail)
    outcome = ptychopinn("evaluate", run / "reconstruction.h5", scan_file, "--output", tmp_path / "scores")
    assert outcome.status == 0
    assert "no ink" in outcome.err


class TestCompare:
    def test_page_and_table(self, run, short, ptychopinn, tmp_path):
        target = tmp_path / "both.html"
        outcome = ptychopinn("compare", run, short, "--output", target)
        assert outcome.status == 0, outcome.err
        assert "short" in outcome.out
        assert f"Written to {target}" in outcome.out.replace("\n", "")
        text = text_of(target)
        for part in ("Comparison of 2 runs", "Amplitude: short", "Agreement of the runs", "the first run"):
            assert part in text

    def test_an_existing_page_stays(self, run, short, ptychopinn, fails_with, tmp_path):
        target = tmp_path / "both.html"
        target.write_text("mine")
        fails_with(ptychopinn("compare", run, short, "--output", target), 1, "both.html")
        assert target.read_text() == "mine"
        assert ptychopinn("compare", run, short, "--output", target, "--overwrite").status == 0

    def test_default_name(self, run, short, ptychopinn, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert ptychopinn("compare", run / "reconstruction.h5", short, "--quiet").status == 0
        assert [item.name for item in tmp_path.iterdir()] == ["comparison.html"]

    def test_wrong_arguments(self, run, scan_file, ptychopinn, fails_with, tmp_path):
        fails_with(ptychopinn("compare"), 2, "two or more")
        fails_with(ptychopinn("compare", run), 2, "two or more")
        fails_with(ptychopinn("compare", run, tmp_path), 1, "without reconstruction.h5")
        fails_with(ptychopinn("compare", run, scan_file), 1, "load_scan")
        fails_with(ptychopinn("compare", run, run, "--output", tmp_path / "a.html"), 1, "each run once")
        fails_with(ptychopinn("compare", run, scan_file, "--output", tmp_path / "a.pdf"), 1, ".html")
