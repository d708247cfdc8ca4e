"""Canvas of a scan: stray positions are named and memory is checked before it is taken (spec: data 2.12)."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.config import InferenceConfig
from ptycho_backend.errors import DataError
from ptycho_backend.reconstruction import prepare
from ptycho_backend.runtime.free_memory import free_memory_bytes
from ptycho_backend.solver import canvas
from ptycho_backend.solver.canvas import check_canvas, listed, stray_rows
from ptycho_backend.solver.scan_geometry import ScanGeometry
from ptycho_backend.testing.scans import small_scan

CANVAS = InferenceConfig(iterations=1, probe_iterations=0)


def with_positions(changes, n=100, N=32):
    """Return a scan with other positions for some patterns."""
    scan = small_scan(n_positions=n, N=N)
    positions = scan.positions_px.copy()
    for row, place in changes.items():
        positions[row] = place
    return replace(scan, positions_px=positions)


@pytest.mark.parametrize("far", [2e4, 1e5, 1e9, 1e12, 1e19, -1e7])
@pytest.mark.parametrize("row", [0, 50, 99])
def test_a_stray_position_is_named(far, row):
    scan = with_positions({row: far})
    for use in (check_canvas, ScanGeometry, lambda scan: prepare(scan, None, CANVAS)):
        with pytest.raises(DataError) as caught:
            use(scan)
        assert f"pattern {row} at" in caught.value.received
        assert f"--exclude {row} " in caught.value.fix
        assert len(str(caught.value).splitlines()) == 4
    check_canvas(scan.without(np.array([row])))


@pytest.mark.parametrize("changes", [{3: (1e7, 0.0)}, {3: (0.0, -1e7), 4: (0.0, -1e7)}, {1: 1e5, 50: -1e5, 51: 3e4}])
def test_several_strays_along_any_axis(changes):
    scan = with_positions(changes)
    with pytest.raises(DataError, match=f"--exclude {listed(np.array(sorted(changes)))} "):
        check_canvas(scan)


def test_numbers_are_those_of_the_file():
    scan = with_positions({7: 1e6}).changed(attributes={"excluded_patterns": [0, 2, 8]})
    with pytest.raises(DataError, match="--exclude 10 "):  # 7 and the three before it
        check_canvas(scan)


def test_regions_of_a_sample_are_no_strays():
    scan = with_positions({row: (1e4 + row, 1e4 + row) for row in range(40, 100)})
    assert len(stray_rows(scan.positions_px, scan.N)) == 0
    check_canvas(scan)


def test_a_large_scan_without_strays_fits(monkeypatch):
    positions = np.stack(np.meshgrid(np.arange(10) * 1000.0, np.arange(10) * 1000.0), axis=-1).reshape(-1, 2)
    scan = with_positions(dict(enumerate(positions)))
    monkeypatch.setattr(canvas, "free_memory_bytes", lambda: 2**34)
    check_canvas(scan)
    monkeypatch.setattr(canvas, "free_memory_bytes", lambda: 2**30)
    with pytest.raises(DataError) as caught:
        check_canvas(scan)
    assert "at most 1 GiB" in caught.value.expected
    assert "9033 × 9033 px" in caught.value.received
    assert "6.08 GiB" in caught.value.received


@given(seed=st.integers(0, 10**6), n=st.integers(1, 60))
def test_even_scans_have_no_strays(seed, n):
    positions = np.random.default_rng(seed).random((n, 2)) * 100
    assert len(stray_rows(positions, 64)) == 0


@given(seed=st.integers(0, 10**6), n_strays=st.integers(1, 3), far=st.floats(1e3, 1e12))
def test_strays_are_found_exactly(seed, n_strays, far):
    rng = np.random.default_rng(seed)
    positions = rng.random((60, 2)) * 100
    rows = np.sort(rng.choice(60, n_strays, replace=False))
    angle = rng.random(n_strays) * 2 * np.pi
    positions[rows] += far * np.stack([np.sin(angle), np.cos(angle)], axis=1) * np.arange(1, n_strays + 1)[:, None]
    assert set(stray_rows(positions, 32)) <= set(rows)
    if n_strays == 1 and min(abs(np.sin(angle[0])), abs(np.cos(angle[0]))) > 0.3:
        assert stray_rows(positions, 32).tolist() == rows.tolist()


@pytest.mark.parametrize(
    ("rows", "text"), [([], ""), ([5], "5"), ([1, 2, 3], "1-3"), ([0, 4, 5, 9], "0,4-5,9"), ([7, 9], "7,9")]
)
def test_numbers_as_an_option(rows, text):
    assert listed(np.array(rows, dtype=np.intp)) == text


def test_free_memory_respects_the_limit_of_the_process():
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
    code += "from ptycho_backend.runtime.free_memory import free_memory_bytes\nprint(free_memory_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 2**30
    assert free_memory_bytes() > 0
