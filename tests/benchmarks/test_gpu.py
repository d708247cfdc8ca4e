"""Pure functions of the GPU benchmark, and the periodic scan that several benchmarks share."""

import time

import numpy as np
import pytest

from ptycho_backend.simulation.objects import make_object


@pytest.fixture
def gpu(benchmark_module):
    return benchmark_module("gpu")


@pytest.fixture
def scans(benchmark_module):
    return benchmark_module("scans")


def test_a_copy_reads_and_writes(gpu):
    assert gpu.copied_per_second(3_000, 2.0) == 3_000


def test_the_floor_follows_pixels_and_modes(gpu):
    """4.3 TB/s are 6.6 million patterns of 64×64 per second and iteration."""
    assert gpu.floor_rate(4.3e12, 64) == pytest.approx(6.56e6, rel=1e-3)
    assert gpu.floor_rate(4.3e12, 128, modes=2) == pytest.approx(6.56e6 / 8, rel=1e-3)


def test_time_is_scaled_by_patterns(gpu):
    assert gpu.scaled_seconds(3.0, 2_000, 20_000) == 30.0


def test_compiled_trainings_come_last(gpu):
    cases = list(gpu.training_cases("cuda:0", 64))
    assert len({(case.architecture, case.precision, case.compile) for case in cases}) == len(cases) == 8
    assert [case.compile for case in cases] == [False] * 4 + [True] * 4
    assert {(case.device, case.batch_size) for case in cases} == {("cuda:0", 64)}


def test_a_case_without_time_is_reported_as_skipped(gpu):
    bench = gpu.Bench("cpu", gpu.SMALL, time.perf_counter() + gpu.STEPS_S - 1)
    case = next(gpu.training_cases("cpu", 4))
    pytest.importorskip("torch")  # frees device memory before every case
    assert gpu.training_row(bench, case)["skipped"] == "time limit"


def test_a_check_that_raises_does_not_pass(gpu):
    def fail(engine, rng):
        raise ValueError("no device")

    row = gpu.check_row(gpu.Check("physics 9.1", "broken", fail), None)
    assert row["passed"] is False
    assert row["message"] == "ValueError: no device"


def test_equal_cells_of_a_periodic_scan_have_equal_patterns_and_objects(scans):
    """Positions of one cell differ by whole periods, and the scan covers a square."""
    raster = scans.periodic_scan(400, 32, 4.0, jitter=0.2)
    scan = raster.scan()
    period_px = scans.PERIOD * 4.0
    same = np.flatnonzero(raster.cell == raster.cell[0])
    assert len(same) == 4
    np.testing.assert_array_equal(scan.patterns[same[1:]], scan.patterns[same[:1]].repeat(3, axis=0))
    steps = (scan.positions_px[same] - scan.positions_px[same[0]]) / period_px
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-12)
    assert len(np.unique(scan.positions_px, axis=0)) == 400


def test_patterns_of_a_periodic_scan_are_those_of_its_object(scans):
    """A solver that explains them finds the object: here the true one explains them to the photon noise."""
    from ptycho_backend.simulation.simulate import expected_counts

    raster = scans.periodic_scan(9, 32, 4.0)
    period_px = int(scans.PERIOD * 4)
    obj = np.tile(make_object("lines", (period_px, period_px), np.random.default_rng(0)), (4, 4))
    expected = expected_counts(obj, (0.0, 0.0), raster.probe, raster.positions_px)
    deviance = (raster.scan().patterns - expected) ** 2 / np.maximum(expected, 1)
    assert 0.8 < deviance[expected > 5].mean() < 1.2
