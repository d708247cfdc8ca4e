"""Faults, goals and child process of the benchmark of experiments."""

import dataclasses

import numpy as np
import pytest

SMALL = {"N": 32, "n_positions": 16, "step_px": 4.0}


@pytest.fixture
def faults(benchmark_module):
    return benchmark_module("faults")


@pytest.fixture
def experiments(benchmark_module):
    return benchmark_module("experiments")


@pytest.fixture
def exact(faults):
    return faults.own_experiment("exact", 202, **SMALL)


def row(experiments, name, amplitude_db, phase_db, cpu_s=1.0):
    figures = {"amplitude_db": amplitude_db, "phase_db": phase_db, "cpu_s": cpu_s}
    return experiments.Row(name, "own", 202, figures)


def test_every_fault_changes_what_it_names(faults, exact):
    rng = np.random.default_rng(0)
    assert np.hypot(*(faults.moved(exact, rng, 2.0).positions_px - exact.positions_px).T).mean() > 1
    assert faults.DERIVED["noprobe"](exact, rng).probe is None
    ratio = faults.DERIVED["flicker50"](exact, rng).patterns.sum(axis=(1, 2)) / exact.patterns.sum(axis=(1, 2))
    assert 0.5 <= ratio.min() < 0.75 < 1.25 < ratio.max() <= 1.5
    assert np.flatnonzero(faults.DERIVED["empty"](exact, rng).patterns.sum(axis=(1, 2)) == 0).tolist() == [5, 15]
    mad = faults.DERIVED["mad"](exact, rng).patterns
    assert np.flatnonzero((mad != exact.patterns).any(axis=(1, 2))).tolist() == [8]
    np.testing.assert_array_equal(mad[8], 3 * exact.patterns[0])
    background = faults.with_background(exact).patterns - exact.patterns
    np.testing.assert_allclose(background, 0.01 * exact.patterns.mean(), rtol=1e-3)


def test_one_pixel_is_hot(faults, exact, monkeypatch):
    monkeypatch.setattr(faults, "HOT_PIXEL", (20, 10))
    hot = faults.with_hot_pixel(exact).patterns
    assert (hot[:, 20, 10] == exact.patterns.max()).all()
    np.testing.assert_array_equal(*(np.delete(p.reshape(16, -1), 20 * 32 + 10, axis=1) for p in (hot, exact.patterns)))


def test_all_combines_the_faults(faults, exact):
    combined = faults.DERIVED["all"](exact, np.random.default_rng(0))
    assert combined.probe is None
    assert np.flatnonzero(combined.patterns.sum(axis=(1, 2)) == 0).tolist() == [4, 8, 12]
    assert not np.allclose(combined.positions_px, exact.positions_px)
    np.testing.assert_array_equal(combined.true_positions_px, exact.positions_px)


def test_guesses_have_width_and_photons_of_the_true_probe(faults, exact):
    rng = np.random.default_rng(0)
    for name in ("disc", "gauss"):
        guess = faults.FAULTS[name](exact, rng).probe
        assert faults.rms_radius(guess) == pytest.approx(faults.rms_radius(exact.probe), rel=0.06)
        assert (np.abs(guess) ** 2).sum() == pytest.approx((np.abs(exact.probe) ** 2).sum(), rel=1e-5)
    truth = faults.own_experiment("exact", 202, modes=3, **SMALL)
    guess = faults.FAULTS["modes"](truth, rng).probe
    assert len(guess) == 1
    assert (np.abs(guess) ** 2).sum() == pytest.approx((np.abs(truth.probe) ** 2).sum(), rel=1e-5)


def test_masked_pixels_are_dark(faults):
    experiment = faults.own_experiment("background", 202, **{**SMALL, "N": 64})
    assert not experiment.mask[38].any()
    assert (experiment.patterns[:, ~experiment.mask] == 0).all()


def test_goals_relative_to_the_exact_scan(experiments):
    done = {"exact": row(experiments, "exact", 44.0, 46.5)}
    assert experiments.goal_of("hot", done) == ((43.0, 45.5), 15.0)
    assert experiments.goal_of("wide", done) == (None, 15.0)
    done[experiments.PLAIN] = row(experiments, experiments.PLAIN, 44.5, 45.0, cpu_s=4.0)
    assert experiments.goal_of("exact", done) == ((44.2, 46.0), 6.0)


def test_the_exact_scan_comes_first_where_it_is_needed(experiments):
    assert experiments.in_order(["pos1", "hot"], False) == ["exact", "pos1", "hot"]
    assert experiments.in_order(["pos1"], False) == ["pos1"]
    assert experiments.in_order(["pos1"], True) == [experiments.PLAIN, "exact", "pos1"]


@pytest.mark.parametrize(
    ("amplitude_db", "phase_db", "cpu_s", "met"),
    [(43.0, 45.0, 15.0, True), (42.9, 50.0, 1.0, False), (50.0, 44.9, 1.0, False), (50.0, 50.0, 15.1, False)],
)
def test_a_goal_needs_amplitude_phase_and_time(experiments, amplitude_db, phase_db, cpu_s, met):
    result = dataclasses.replace(row(experiments, "pos1", amplitude_db, phase_db, cpu_s), goal=(43.0, 45.0))
    assert result.met is met
    assert result.cells()[-1] == ("yes" if met else "no")


def test_a_failure_is_a_row(experiments):
    failed = experiments.Row("noprobe", "own", 202, {"problem": "not supported"}, (41.5, 42.5))
    assert failed.met is False
    assert "not supported" in failed.cells()
    assert len(failed.cells()) == len(experiments.COLUMNS)


def test_the_star_reaches_its_goals_only_with_all_figures(experiments):
    good = {"frc_half": 0.6, "frc_seventh": 0.7, "cpu_s": 40.0, "residual": 1.5}
    assert experiments.star_met(good)
    for name, value in (("frc_half", 0.59), ("frc_seventh", 0.69), ("cpu_s", 41.0), ("residual", 1.6)):
        assert not experiments.star_met({**good, name: value})


def test_a_folder_without_the_programs_is_an_error(faults, tmp_path):
    (tmp_path / "make_data.py").touch()
    with pytest.raises(SystemExit, match=r"without make_variants\.py, quality\.py"):
        faults.OuterTools(tmp_path)


def test_the_child_writes_image_times_and_errors(experiments, exact):
    """One process with an image, and one with an option that does not exist."""
    arrays = {"patterns": exact.patterns, "positions_px": exact.positions_px, "mask": exact.mask, "probe": exact.probe}
    task = {"fields": {"iterations": 1, "probe_iterations": 0}}
    image, figures = experiments.run_child(arrays, task, 60.0)
    assert figures["cpu_s"] > 0
    assert np.isfinite(image.obj).all()
    image, figures = experiments.run_child(arrays, {"fields": {"iteration": 1}}, 60.0)
    assert image is None
    assert figures["problem"].startswith("ConfigError")
