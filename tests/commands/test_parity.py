"""``ptychopinn parity``: output, report and exit status, for correct engines and for a wrong one."""

import json

import numpy as np
import pytest

from ptycho_backend.engines.operators import OPERATORS
from ptycho_backend.engines.registry import available_backends, get_backend
from ptycho_backend.errors import BackendNotInstalledError
from ptycho_backend.testing import parity
from ptycho_backend.testing.checks import CHECKS, CROSS_CHECKS

FAST = [check for check in CHECKS if not check.slow]
ENGINES = available_backends()
pytestmark = pytest.mark.skipif(not ENGINES, reason="no engine is installed")


def rows_of(out):
    """Return the lines of the table."""
    return [line for line in out.splitlines() if line.endswith(("yes", "NO"))]


@pytest.fixture(scope="module")
def quick(ptychopinn, tmp_path_factory):
    """Run the quick checks of every engine once."""
    file = tmp_path_factory.mktemp("parity") / "report.json"
    return ptychopinn("parity", "--quick", "--device", "cpu", "--seed", 3, "--json", file), file


def test_status_0_for_correct_engines(quick):
    outcome, file = quick
    assert outcome.status == 0, outcome.out
    assert f"All {len(FAST) * len(ENGINES)} checks passed" in outcome.out
    assert "seed 3" in outcome.out
    assert f"Written to {file}" in outcome.out


def test_table_has_one_line_per_check_and_engine(quick):
    lines = rows_of(quick[0].out)
    assert len(lines) == len(FAST) * len(ENGINES)
    for name in ENGINES:
        of_engine = [line for line in lines if f" {name} " in line]
        assert all(any(check.name in line and line.startswith(check.clause) for line in of_engine) for check in FAST)
    headings = next(line for line in quick[0].out.splitlines() if line.startswith("clause"))
    assert headings.split() == ["clause", "check", "engine", "device", "error", "tolerance", "passed"]


def test_progress_on_standard_error(quick):
    for name in ENGINES:
        assert f"{name} on cpu: {len(FAST)} of {len(FAST)}" in quick[0].err


def test_json_report(quick):
    report = json.loads(quick[1].read_text(encoding="utf-8"))
    assert (report["passed"], report["seed"], len(report["rows"])) == (True, 3, len(FAST) * len(ENGINES))
    assert set(report["versions"]) >= {"ptychopinn", "numpy", "python"}
    for name in ENGINES:
        assert report["versions"].items() >= get_backend(name).versions().items()
    assert report["machine"]["cores"] >= 1
    assert report["scan"].startswith("simulation")
    for row in report["rows"]:
        assert 0 <= row["error"] <= row["tolerance"] < 0.01
        assert (row["device"], row["passed"], row["message"]) == ("cpu", True, "")


def test_equal_seeds_give_equal_errors(quick):
    report = parity.run_parity([ENGINES[0]], "cpu", seed=3, quick=True)
    written = json.loads(quick[1].read_text(encoding="utf-8"))["rows"]
    assert [row.error for row in report.rows] == [row["error"] for row in written if row["engine"] == ENGINES[0]]
    other = parity.run_parity([ENGINES[0]], "cpu", seed=4, quick=True)
    assert [row.error for row in other.rows] != [row.error for row in report.rows]


class TestWrongEngine:
    @pytest.fixture
    def wrong(self, monkeypatch):
        """Change the norm of an engine's propagation, and make its losses fail."""
        operators = type(get_backend(ENGINES[0]).operators("cpu"))
        correct = operators.evaluate

        def evaluate(self, name, *arguments):
            if name == "poisson":
                raise RuntimeError("first line\nsecond line")
            return correct(self, name, *arguments) * (8 if name == "far_field" else 1)

        monkeypatch.setattr(operators, "evaluate", evaluate)
        return ENGINES[0]

    def test_status_1_without_a_traceback(self, wrong, ptychopinn, tmp_path):
        file = tmp_path / "report.json"
        outcome = ptychopinn("parity", "--quick", "--backend", wrong, "--device=cpu", "--json", file)
        assert outcome.status == 1
        assert "Traceback" not in outcome.err + outcome.out
        missed = [line for line in rows_of(outcome.out) if line.endswith("NO")]
        assert any(line.startswith("physics 3.1") and "far field" in line for line in missed)
        assert f"{len(missed)} of {len(FAST)} checks not passed: {wrong} on cpu" in outcome.out
        report = json.loads(file.read_text(encoding="utf-8"))
        assert not report["passed"]
        by_name = {row["check"]: row for row in report["rows"]}
        assert by_name["far field"]["error"] == pytest.approx(7, rel=1e-3)
        assert by_name["near field"]["passed"]

    def test_check_that_raises_is_a_row(self, wrong, ptychopinn, tmp_path):
        file = tmp_path / "report.json"
        outcome = ptychopinn("parity", "--quick", "--backend", wrong, "--device=cpu", "--json", file)
        (line,) = (line for line in rows_of(outcome.out) if line.startswith("physics 5.1") and " poisson  " in line)
        assert line.endswith("NO")
        assert "n/a" in line
        assert "RuntimeError: first line" in outcome.err
        assert "second line" not in outcome.err
        row = next(row for row in json.loads(file.read_text())["rows"] if row["check"] == "poisson")
        assert (row["error"], row["tolerance"], row["passed"]) == (None, None, False)
        assert row["message"] == "RuntimeError: first line"

    def test_quiet_shows_failed_checks(self, wrong, ptychopinn):
        outcome = ptychopinn("parity", "--quick", "--backend", wrong, "--device=cpu", "--quiet")
        assert (outcome.status, outcome.out) == (1, "")
        assert "not passed: far field (physics 3.1)" in outcome.err


class TestScans:
    def test_models_are_checked_on_the_scan(self, scan_file, ptychopinn, tmp_path, monkeypatch):
        chosen = [check for check in CHECKS if check.name in ("patches of a cnn", "energy of a unit object")]
        monkeypatch.setattr(parity, "CHECKS", tuple(chosen))
        file = tmp_path / "report.json"
        argv = ("--backend", ENGINES[0], "--device=cpu", "--json", file)
        outcome = ptychopinn("parity", scan_file, *argv)
        assert outcome.status == 0, outcome.out + outcome.err
        report = json.loads(file.read_text())
        assert report["scan"] == str(scan_file)
        assert len(report["rows"]) == 2

    def test_first_positions_are_used(self, scan):
        assert len(parity.first_positions(scan)) == parity.MAX_POSITIONS
        np.testing.assert_array_equal(parity.first_positions(scan).patterns, scan.patterns[: parity.MAX_POSITIONS])

    def test_unsuitable_scans(self, scan, scan_file, ptychopinn, fails_with):
        fails_with(ptychopinn("parity", scan_file, "--resize", 40, "--quick"), 1, "40×40", "--resize 64")
        with pytest.raises(parity.DataError, match="at least 12"):
            parity.first_positions(scan.subset(slice(0, 11)))


class TestInvalidOptions:
    def test_engine_that_is_not_installed(self, ptychopinn, fails_with, monkeypatch):
        def missing(name):
            raise BackendNotInstalledError("The engine needs a framework.", "the package", "missing", "pip install it")

        monkeypatch.setattr("ptycho_backend.commands.parity.get_backend", missing)
        fails_with(ptychopinn("parity", "--backend", "tensorflow"), 1, "BackendNotInstalledError", "pip install")

    def test_unknown_engine_name(self, ptychopinn, fails_with):
        fails_with(ptychopinn("parity", "--backend", "pytorhc"), 2, "did you mean 'pytorch'?")

    def test_missing_device(self, ptychopinn, fails_with):
        fails_with(ptychopinn("parity", "--quick", "--backend", ENGINES[0], "--device", "cuda:99"), 1, "cuda:99")

    def test_report_file_is_checked_first(self, ptychopinn, fails_with, tmp_path):
        fails_with(ptychopinn("parity", "--json", tmp_path / "no/report.json"), 1, "does not exist")
        fails_with(ptychopinn("parity", "--json", tmp_path / "report.txt"), 1, ".json")


@pytest.mark.skipif(len(ENGINES) < 2, reason="one engine has nothing to be compared with")
def test_engines_are_compared_with_each_other(ptychopinn, monkeypatch, tmp_path):
    monkeypatch.setattr(parity, "CHECKS", ())
    chosen = tuple(check for check in CROSS_CHECKS if check.name == "model files in both directions")
    monkeypatch.setattr(parity, "CROSS_CHECKS", chosen)
    file = tmp_path / "report.json"
    outcome = ptychopinn("parity", "--device=cpu", "--json", file)
    assert outcome.status == 0, outcome.out + outcome.err
    (row,) = json.loads(file.read_text())["rows"]
    assert (row["engine"], row["device"]) == (", ".join(ENGINES), "cpu")


def test_every_operator_and_gradient_is_checked():
    names = {check.name for check in FAST}
    for name, operator in OPERATORS.items():
        assert name.replace("_", " ") in names
        assert {f"{name} by {what}".replace("_", " ") for what in operator.differentiable} <= names
