"""Trace of a reconstruction: files entered, and returns to files already left."""

import importlib
import sys

import pytest

import ptycho_backend as pb


@pytest.fixture
def trace(benchmark_module):
    return benchmark_module("call_trace")


@pytest.fixture
def package(trace, monkeypatch, tmp_path):
    """Return a package of two files, one of which is imported during the call and has a worker thread."""
    (tmp_path / "outer.py").write_text(
        "def start():\n    import inner\n    for _ in range(3):\n        first()\n        inner.second()\n    third()\n"
        "def first(): ...\n"
        "def third(): ...\n"
    )
    (tmp_path / "inner.py").write_text(
        "import threading\n"
        "def at_import(): ...\n"
        "at_import()\n"
        "def second():\n    thread = threading.Thread(target=work)\n    thread.start()\n    thread.join()\n"
        "def work(): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(trace, "PACKAGES", (f"{tmp_path}/",))
    monkeypatch.setattr(trace, "ROOT", tmp_path)
    yield importlib.import_module("outer")
    for name in ("outer", "inner"):
        sys.modules.pop(name, None)


def test_returns_are_steps_to_a_file_already_left(trace):
    assert trace.returns("") == 0
    assert trace.returns("aab") == 0
    assert trace.returns("aabba") == 1
    assert trace.returns("abcabc") == 3


def test_functions_count_but_neither_modules_nor_what_they_call(trace, package):
    with trace.tracing() as found:
        package.start()
    files = found.files()
    assert list(files) == ["outer.py", "inner.py"]
    assert (files["outer.py"].functions, files["outer.py"].main_calls) == (3, 5)
    assert (files["inner.py"].functions, files["inner.py"].main_calls, files["inner.py"].worker_calls) == (2, 3, 3)
    assert files["inner.py"].callers == {"outer.py": 1, "": 1}
    assert found.returns() == 1  # to `third`; loops do not count


def test_the_trace_ends_with_the_block(trace):
    before = sys.getprofile()
    with trace.tracing():
        assert sys.getprofile() is not before
    assert sys.getprofile() is before


def test_the_function_enters_api_and_solver(trace):
    scan = pb.simulate_scan(N=32, n_positions=9)
    found = trace.traced_function(scan, {"iterations": 1, "probe_iterations": 0})
    files = found.files()
    assert list(files)[:2] == ["ptycho_backend/runtime/global_state.py", "ptycho_backend/api.py"]
    assert "ptycho_backend/solver/solver.py" in files
    assert len(files) > 5
    assert found.returns() > 0
