"""Commands in several processes: every process takes the same steps with its kernels (backend_contract 10)."""

from __future__ import annotations

import pytest

from ptycho_backend.commands.incremental_image import IncrementalImage
from ptycho_backend.commands.results import Request, compute_result
from ptycho_backend.config import InferenceConfig
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.testing.scans import small_scan

KERNELS = ("load", "illumination", "updates", "phase_slopes", "normal_equations", "set_parameters")
SETTINGS = {"start": "physics", "probe_iterations": 0, "iterations": 4}


def recording(calls: list[str]) -> NumpyKernels:
    """Return kernels that write the names of their calls into a list."""

    def recorded(name):
        def call(self, *arguments, **fields):
            calls.append(name)
            return getattr(NumpyKernels, name)(self, *arguments, **fields)

        return call

    return type("Recording", (NumpyKernels,), {name: recorded(name) for name in KERNELS})()


@pytest.mark.parametrize("half_datasets", [False, True])
@pytest.mark.parametrize("compare", [False, True])
def test_processes_with_and_without_files_call_the_same_kernels(tmp_path, compare, half_datasets):
    """Each call adds the sums of all processes: a step that one of them leaves out would stop the others."""
    scan = small_scan(n_positions=100)
    first: list[str] = []
    other: list[str] = []
    inference = InferenceConfig(**SETTINGS, half_datasets=half_datasets)
    written = compute_result(
        scan,
        Request(None, inference, recording(first), compare),
        incremental=IncrementalImage(tmp_path, scan, [], {}),
    )
    result = compute_result(scan, Request(None, inference, recording(other), compare))
    assert first == other
    assert first.count("load") == 1 + compare + 2 * half_datasets
    assert (written.image.obj == result.image.obj).all()
    assert (tmp_path / "reconstruction.h5").is_file()
    assert written.comparisons
    assert not result.comparisons
