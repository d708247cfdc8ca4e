"""Public functions on every engine: train, save, load, reconstruct, evaluate."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.data.batching import Samples
from ptycho_backend.data.grouping import group_positions
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.engines.registry import missing_packages
from ptycho_backend.errors import ConfigError, DataError, InertOptionWarning, ShapeError, UnknownBackendError
from ptycho_backend.events import BatchEvent, EpochEvent, StageEvent
from ptycho_backend.model_file.run import Run
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.quality.metrics import compare
from ptycho_backend.solver.initial_estimate import baseline_image
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.solver import MiniBatches, SolverOptions, solve
from ptycho_backend.testing.assertions import assert_close, relative_error
from ptycho_backend.testing.tolerances import EXACT32, Tolerance

N = 32
OTHER_ENGINE = Tolerance(1e-4, "float32 on two engines, through a whole network and one more division by the data")
SAVED = Tolerance(1e-6, "weights and probe are stored as they are; a sum may be taken in another order")


def small(**fields) -> pb.TrainingConfig:
    """Return the options of a training of one second."""
    model = {"N": N, "n_filters_scale": 1, "unrolled_steps": 1, **fields.pop("model", {})}
    settings = {"nepochs": 2, "batch_size": 16, "probe_iterations": 2, **fields}
    return pb.TrainingConfig(model=pb.ModelConfig(**model), **settings)


@pytest.fixture(scope="module")
def scan() -> pb.Scan:
    return pb.simulate_scan(N=N, n_positions=64, seed=1)


@pytest.fixture(scope="module")
def execution(device) -> pb.ExecutionConfig:
    return pb.ExecutionConfig(device=device, precision="32-true")


@pytest.fixture(scope="module")
def events() -> list:
    return []


@pytest.fixture(scope="module")
def run(backend, scan, execution, events) -> Run:
    """Return one training for each engine."""
    events.clear()
    return pb.train(scan, small(backend=backend.name), execution, events.append)


@pytest.fixture(scope="module")
def image(run, scan) -> pb.Image:
    return pb.reconstruct(scan, run.model)


def patches(model, scan: pb.Scan, gridsize: int = 1):
    """Return the predicted patches of some groups of a scan."""
    groups = group_positions(scan.positions_px, gridsize, 7, 12, np.random.default_rng(0))
    return model.predict_patches(next(Samples(scan, groups, model.calibration).batches(12)))


# --- training ------------------------------------------------------------------------------------------------------


def test_result_of_a_training(run, backend):
    assert run.model.backend == run.training.backend == run.provenance["backend"] == backend.name
    assert [row["epoch"] for row in run.history] == [1, 2]
    for row in run.history:
        assert set(row) >= {"lr", "poisson_train_loss", "poisson_val_loss"}
        assert np.isfinite(list(row.values())).all()
    assert run.history[1]["poisson_train_loss"] < run.history[0]["poisson_train_loss"]
    assert run.monitor == "poisson_val_loss"
    assert run.summary["training_seconds"] > 0
    assert 0 < run.summary["shot_noise_floor"] < 1
    assert run.summary["half_deviance"] > 0


def test_order_of_events(run, events):
    epochs = [event for event in events if isinstance(event, EpochEvent)]
    batches = [event for event in events if isinstance(event, BatchEvent)]
    assert [event.epoch for event in epochs] == [1, 2]
    assert [dict(event.metrics) for event in epochs] == run.history
    assert [(event.epoch, event.batch) for event in batches] == [(e, b) for e in (1, 2) for b in (1, 2, 3, 4)]
    stages = [event for event in events if isinstance(event, StageEvent)]
    assert stages[-1].done == stages[-1].total == 2
    assert events.index(stages[-1]) < events.index(batches[0])


def test_train_keeps_its_arguments(backend, scan, execution):
    config = small(backend=backend.name, model={"N": 0}, nepochs=1, neighbor_count=9)
    before = copy.deepcopy((config, execution))
    patterns = scan.patterns.copy()
    with pytest.warns(InertOptionWarning, match="neighbor_count"):  # one pattern has no neighbours
        trained = pb.train(scan, config, execution)
    assert (config, execution) == before
    assert trained.training.model.N == N  # N=0 means the scan's
    np.testing.assert_array_equal(scan.patterns, patterns)


def test_equal_seeds_give_equal_weights(run, backend, scan, execution):
    again = pb.train(scan, small(backend=backend.name), execution)
    for name, value in run.model.get_weights().items():
        assert_close(again.model.get_weights()[name], value, EXACT32, name)
    other = backend.create_model(small(seed=7), run.model.calibration, execution)
    name = "step1/bottom/conv0/kernel"
    assert relative_error(other.get_weights()[name], run.model.get_weights()[name]) > 0.1


def test_training_without_validation_data(backend, scan, execution, caplog):
    trained = pb.train(scan, small(backend=backend.name, validation_fraction=0.0, nepochs=1), execution)
    assert "poisson_val_loss" not in trained.history[0]
    assert trained.monitor == "poisson_train_loss"
    assert sum("no validation data" in record.getMessage() for record in caplog.records) == 1


def test_separate_validation_scan(backend, scan, execution, tmp_path):
    """The validation loss is the loss of the trained model on the whole scan, in the units of the training scan."""
    other = pb.simulate_scan(N=N, n_positions=20, object_name="lines", photons_per_pattern=3e4, bad_pixels=0.01, seed=8)
    config = small(backend=backend.name, nepochs=1, probe_iterations=0)
    final = dataclasses.replace(execution, restore_best=False)
    trained = pb.train(scan, config, final, validation=other, checkpoints=tmp_path / "checkpoints")
    groups = group_positions(other.positions_px, 1, 7, None, np.random.default_rng(0))
    batches = list(Samples(other, groups, trained.model.calibration).batches(20))
    (whole,) = (trained.model.loss_and_gradients(batch)[0] for batch in batches)
    assert trained.history[0]["poisson_val_loss"] == pytest.approx(whole, rel=1e-4)
    assert trained.provenance["data_sha256"] == scan.data_hash()
    assert trained.provenance["validation_sha256"] == other.data_hash()
    alone = pb.train(scan, dataclasses.replace(config, validation_fraction=0.0), final)
    assert trained.history[0]["poisson_train_loss"] == pytest.approx(alone.history[0]["poisson_train_loss"], rel=1e-5)
    longer = dataclasses.replace(config, nepochs=2)
    with pytest.raises(DataError, match="no validation scan"):
        pb.train(scan, longer, final, checkpoints=tmp_path / "checkpoints", resume=True)
    resumed = pb.train(scan, longer, final, checkpoints=tmp_path / "checkpoints", resume=True, validation=other)
    assert resumed.history[0] == trained.history[0]


def test_validation_scan_of_another_size(backend, scan, execution):
    with pytest.raises(ShapeError, match="48×48"):
        pb.train(scan, small(backend=backend.name), execution, validation=pb.simulate_scan(N=48, n_positions=4))


def test_supervised_training(backend, scan, execution):
    trained = pb.train(scan, small(backend=backend.name, model={"model_type": "supervised"}, nepochs=4), execution)
    losses = [row["supervised_train_loss"] for row in trained.history]
    assert losses[-1] < losses[0]
    assert trained.monitor == "supervised_val_loss"
    pb.evaluate(pb.reconstruct(scan, trained.model), scan)


def test_labels_need_a_known_object(backend, scan, execution):
    unknown = pb.Scan(scan.patterns, scan.positions_px, scan.probe, measurement="counts", source="run7.h5")
    with pytest.raises(DataError, match=r"run7\.h5"):
        pb.train(unknown, small(backend=backend.name, model={"model_type": "supervised"}), execution)


def test_gridsize_2(backend, scan, execution, tmp_path):
    """A model with groups of four trains, loads from its file, and reconstructs the object."""
    trained = pb.train(scan, small(backend=backend.name, model={"gridsize": 2}, nepochs=2), execution)
    assert trained.history[-1]["poisson_train_loss"] < trained.history[0]["poisson_train_loss"]
    trained.save(tmp_path / "run")
    model = pb.load_model(tmp_path / "run", execution=execution)
    predicted = patches(model, scan, gridsize=2)
    assert predicted.shape == (12, 4, N, N)
    assert_close(predicted, patches(trained.model, scan, gridsize=2), SAVED, "patches of a loaded model")
    image = pb.reconstruct(scan, model)
    assert pb.evaluate(image, scan).phase_correlation > 0.5


# --- model files ---------------------------------------------------------------------------------------------------


def test_loaded_model_gives_the_same_image(run, image, scan, execution, backend, tmp_path):
    folder = run.save(tmp_path / "run")
    for place in (folder, folder / "wts.h5.zip"):
        model = pb.load_model(place, execution=execution)
        assert model.backend == backend.name
        again = pb.reconstruct(scan, model)
        assert again.origin_px == image.origin_px
        assert_close(again.obj, image.obj, SAVED, "image of a loaded model")
        assert_close(again.coverage, image.coverage, SAVED, "its coverage")


def test_model_loads_on_the_other_engine(run, scan, execution, backend, tmp_path):
    other = {"pytorch": "tensorflow", "tensorflow": "pytorch"}.get(backend.name, "pytorch")
    if missing_packages(other):
        pytest.skip(f"the engine '{other}' is not installed")
    run.save(tmp_path / "run")
    twin = pb.load_model(tmp_path / "run", backend=other, execution=execution)
    assert twin.backend == other
    assert_close(patches(twin, scan), patches(run.model, scan), OTHER_ENGINE, "patches on the other engine")
    untrained = pb.get_backend(other).create_model(run.training, run.model.calibration, execution)
    assert relative_error(patches(untrained, scan), patches(run.model, scan)) > 10 * OTHER_ENGINE.relative


def test_train_with_unknown_engine(scan):
    with pytest.raises(UnknownBackendError, match="did you mean 'pytorch'"):
        pb.train(scan, small(backend="pytorhc"))


# --- reconstruction ------------------------------------------------------------------------------------------------


def test_position_of_the_image(run, image, scan):
    refined = pb.reconstruct(scan, run.model, iterations=32)
    assert max(map(abs, pb.evaluate(refined, scan).shift_px)) < 0.3
    assert max(map(abs, pb.evaluate(image, scan).shift_px)) < 1.5  # trained for two epochs, and blurred
    assert pb.evaluate(image, scan).phase_correlation > 0.9
    assert (image.obj[image.coverage == 0] == 0).all()
    assert image.coverage.shape == image.obj.shape


def test_reconstruction_is_repeatable(run, image, scan):
    before = run.model.get_weights()
    again = pb.reconstruct(scan, run.model)
    np.testing.assert_array_equal(again.obj, image.obj)
    for name, value in run.model.get_weights().items():
        np.testing.assert_array_equal(value, before[name])


def test_batch_size_has_no_effect(run, image, scan):
    assert_close(pb.reconstruct(scan, run.model, batch_size=5).obj, image.obj, EXACT32, "image with other batches")


def test_iterations_improve_the_image(run, image, scan):
    rough = pb.reconstruct(scan, run.model, iterations=0)
    refined = pb.reconstruct(scan, run.model, iterations=10)
    assert refined.origin_px == rough.origin_px
    assert pb.evaluate(refined, scan).phase_psnr_db > pb.evaluate(rough, scan).phase_psnr_db + 1


def test_fields_take_precedence_over_the_config(run, scan):
    events: list = []
    pb.reconstruct(scan, run.model, pb.InferenceConfig(iterations=3), events.append, iterations=1)
    assert [event.total for event in events if event.stage == "iterations" and event.done == 1] == [1]


def test_unknown_field(run, scan):
    with pytest.raises(ConfigError, match="did you mean 'iterations'"):
        pb.reconstruct(scan, run.model, iteration=3)


def test_scale_follows_the_photons(run, image, scan):
    """The same object at a hundredth of the dose gives the same amplitude."""
    dim = pb.simulate_scan(N=N, n_positions=64, seed=1, photons_per_pattern=1e4)
    scale = pb.evaluate(pb.reconstruct(dim, run.model), dim).amplitude_scale
    assert scale == pytest.approx(pb.evaluate(image, scan).amplitude_scale, rel=0.1)


def test_unet_takes_another_pattern_size(run):
    larger = pb.simulate_scan(N=48, n_positions=49, seed=2)
    image = pb.reconstruct(larger, run.model)
    assert pb.evaluate(image, larger).phase_correlation > 0.5
    assert run.model.config.N == N


def test_cnn_takes_one_pattern_size(backend, scan, execution):
    trained = pb.train(
        scan, small(backend=backend.name, model={"architecture": "cnn", "unrolled_steps": 2}, nepochs=1), execution
    )
    assert np.isfinite(pb.reconstruct(scan, trained.model).obj).all()
    with pytest.raises(ShapeError, match="48×48"):
        pb.reconstruct(pb.simulate_scan(N=48, n_positions=9, seed=2), trained.model)


def test_refined_probe_applies_to_its_scan_only(backend, execution):
    guessed = pb.simulate_scan(N=N, n_positions=64, seed=1, probe_error=0.3)
    trained = pb.train(guessed, small(backend=backend.name, nepochs=1, probe_iterations=20), execution)
    assert trained.summary["probe_refined"]
    as_given = calibrate(guessed, trained.model.config).probe
    assert relative_error(trained.model.calibration.probe, as_given) > 0.05
    own, scans = (pb.reconstruct(guessed, trained.model, calibration=word) for word in ("auto", "scan"))
    assert pb.evaluate(own, guessed).phase_psnr_db > pb.evaluate(scans, guessed).phase_psnr_db


# --- evaluation ----------------------------------------------------------------------------------------------------


def test_evaluate_an_image_against_itself(image):
    assert pb.evaluate(image, image).phase_psnr_db > 100


def test_evaluate_two_images(image, scan):
    baseline = baseline_image(scan, calibrate(scan, pb.ModelConfig(N=N)))
    assert 5 < pb.evaluate(image, baseline).phase_psnr_db < 60


def test_evaluate_needs_a_known_object(image, scan):
    unknown = pb.Scan(scan.patterns, scan.positions_px, scan.probe, measurement="counts", source="run7.h5")
    with pytest.raises(DataError, match=r"none in 'run7\.h5'"):
        pb.evaluate(image, unknown)


# --- invalid arguments ---------------------------------------------------------------------------------------------


def test_all_invalid_fields_are_reported_first(scan):
    wrong = small(nepochs=0, batch_size=0, backend="no such engine")
    with pytest.raises(ConfigError) as caught:
        pb.train(scan, wrong)
    assert "nepochs" in str(caught.value)
    assert "batch_size" in str(caught.value)


def test_size_differs_from_the_scan(scan):
    with pytest.raises(ShapeError, match="64×64"):
        pb.train(scan, small(model={"N": 64}))


# --- the measured star ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.timeout(1800)
def test_measured_star(backend, device, star_path):
    """A refined probe and a short training agree with 40 iterations in mini-batches from a flat object."""
    measured = pb.load_scan(star_path)
    assert (len(measured), measured.N, measured.measurement) == (516, 128, "counts")
    config = pb.TrainingConfig(
        model=pb.ModelConfig(N=128), nepochs=3, backend=backend.name, probe_iterations=20, n_groups=256
    )
    trained = pb.train(measured, config, pb.ExecutionConfig(device=device))
    assert trained.summary["probe_refined"]
    assert trained.history[-1]["poisson_train_loss"] < trained.history[0]["poisson_train_loss"]
    options = SolverOptions(40, batches=MiniBatches(40, np.random.default_rng(3)))
    problem = Problem.of(measured, trained.model.trained_calibration())
    reference = solve(problem, NumpyKernels(), None, options).image
    network, refined = (
        compare(image.obj, image.origin_px, reference.obj, reference.origin_px, measured.positions_px)
        for image in (pb.reconstruct(measured, trained.model, iterations=n) for n in (0, None))
    )
    assert refined.phase_psnr_db >= 27
    assert refined.frc_half > 0.5
    # Slow phases need more than three epochs; edges and spokes do not.
    assert network.phase_psnr_db > 15
    assert network.frc[network.frc_frequency < 0.4].mean() > 0.75
