"""Pretraining: losses, steps, resumption, checkpoints and the command."""

from __future__ import annotations

import logging
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

import ptycho_backend as pb
from ptycho_backend.config import ExecutionConfig, to_dict
from ptycho_backend.data.batching import Samples
from ptycho_backend.data.grouping import groups_from_indices
from ptycho_backend.errors import ConfigError, TrainingStopped
from ptycho_backend.model_file.bundle import read_bundle, write_bundle
from ptycho_backend.model_file.run import bundle_of
from ptycho_backend.network.physics_constants import PhysicsConstants
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.pretraining.recipe import Curriculum, PretrainingConfig, config_from, nominal_calibration
from ptycho_backend.reconstruction import fit_to_scan
from ptycho_backend.simulation.simulate import simulate_scan
from ptycho_backend.training.signals import Stop
from ptycho_torch.engine.module import to_tensors
from ptycho_torch.engine.pretraining import (
    CHECKPOINT,
    MODEL,
    Pretraining,
    log_error,
    log_merged_error,
    main,
    pretraining_loss,
)

TINY = {
    "recipe": {"sizes": {"32": 1.0}, "pixels": 16 * 32**2, "photons_per_pattern": [1e6, 1e6], "wrong_probes": 0.0},
    "batch_pixels": 8 * 32**2,
    "n_filters_scale": 1,
    "steps": 8,
    "warmup_steps": 2,
    "log_steps": 2,
    "precision": "32-true",
}


def tiny(**fields):
    """Return a configuration with steps of a few milliseconds."""
    return config_from({**TINY, **fields})


@pytest.mark.parametrize(
    "loss",
    [
        {},
        {"step_decay": 0.5, "unrolled_steps": 3},
        {"label_loss": "log"},
        {"label_loss": "mae"},
        {"label_weight": 0.0, "data_weight": 1.0, "data_loss": "amplitude"},
        {"label_weight": 0.0, "data_weight": 1.0, "data_loss": "log"},
        {"label_weight": 0.0, "data_weight": 1.0, "data_loss": "poisson", "constraint_share": 1.0},
    ],
)
def test_training_on_one_batch_lowers_its_loss(loss, tmp_path):
    config = tiny(**loss, steps=50, learning_rate=3e-3, average_decay=0.0)
    pretraining, labelled = Pretraining(config, tmp_path), Curriculum(config).at(1)
    always = SimpleNamespace(at=lambda index: labelled)
    losses = [pretraining.train_step(always) for _ in range(config.steps)]
    first, last = losses[0], min(losses[-5:])
    if not {"mae", "amplitude", "poisson"} & set(loss.values()):
        first, last = np.exp([first, last])  # from logarithms
    assert last < 0.9 * first


def test_errors_that_differ_between_neighbours_cancel_in_the_merged_error():
    labelled = Curriculum(tiny(batch_pixels=16 * 32**2)).at(0)
    batch, weight = to_tensors(labelled.batch), torch.from_numpy(labelled.constants.weight)
    common = batch.labels * 0.9
    generator = torch.Generator().manual_seed(0)
    differing = batch.labels * (1 + 0.1 * torch.sign(torch.randn(batch.labels.shape, generator=generator)))
    alone = [float(log_error(patches, batch, weight)) for patches in (common, differing)]
    together = [float(log_merged_error(patches, batch, weight)) for patches in (common, differing)]
    assert alone[0] == pytest.approx(alone[1], abs=0.05)
    assert together[0] == pytest.approx(alone[0], abs=0.1)
    assert together[1] < together[0] - 1.0


def test_a_step_on_several_batches_uses_the_mean_gradient(tmp_path):
    config = tiny(batches_per_step=2, clip_norm=1e6, average_decay=0.0)
    pretraining = Pretraining(config, tmp_path)
    value = pretraining.train_step(Curriculum(config))
    gradients = [weight.grad.clone() for weight in pretraining._parameters]
    alone = Pretraining(tiny(), tmp_path / "alone")
    parts = []
    for number in range(2):
        alone.model.module.set_constants(Curriculum(config).at(number).constants)
        batch = to_tensors(Curriculum(config).at(number).batch)
        loss = pretraining_loss(alone.model.module, batch, config)
        parts.append((float(loss.detach()), torch.autograd.grad(loss, alone._parameters)))
    assert value == pytest.approx(np.mean([part[0] for part in parts]), rel=1e-5)
    for gradient, one, other in zip(gradients, parts[0][1], parts[1][1], strict=True):
        np.testing.assert_allclose(gradient, (one + other) / 2, atol=1e-6 + 1e-4 * float(gradient.abs().max()))


def test_resumption_gives_the_same_losses(tmp_path):
    config = tiny()
    whole = Pretraining(config, tmp_path / "whole")
    losses = [whole.train_step(Curriculum(config)) for _ in range(8)]
    parts, found = tmp_path / "parts", []
    for first in (0, 3):
        part = Pretraining(config, parts)
        assert part.step == first
        found += [part.train_step(Curriculum(config)) for _ in range(3 if first == 0 else 5)]
        part.save()
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    for one, other in zip(part.average, whole.average, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_stop_saves_checkpoint_and_model(tmp_path, caplog):
    stop = Stop()
    pretraining = Pretraining(tiny(), tmp_path)
    train_step = pretraining.train_step

    def step_and_stop(curriculum):
        if pretraining.step == 4:
            stop.request(signal.SIGTERM)
        return train_step(curriculum)

    pretraining.train_step = step_and_stop
    with caplog.at_level(logging.INFO), pytest.raises(TrainingStopped, match="step 5") as stopped:
        pretraining.run(stop)
    assert stopped.value.signal == signal.SIGTERM
    assert "step 4 of 8: loss" in caplog.text
    assert Pretraining(tiny(), tmp_path).step == 5
    assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT, MODEL}


def test_minutes_limit_the_steps(tmp_path):
    pretraining = Pretraining(tiny(steps=10**6, minutes=0.005), tmp_path)
    pretraining.run()
    assert 1 <= pretraining.step < 1000
    assert pretraining.seconds < 30


def test_a_checkpoint_of_other_settings_is_an_error(tmp_path):
    Pretraining(tiny(), tmp_path).save()
    with pytest.raises(ConfigError, match="learning_rate"):
        Pretraining(tiny(learning_rate=0.5), tmp_path)


def test_the_command_writes_a_model_that_reconstructs(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**TINY, "average_decay": 0.5}), encoding="utf-8")
    output = tmp_path / "made.h5.zip"
    assert main([str(tmp_path / "config.yaml"), "--folder", str(tmp_path / "run"), "--output", str(output)]) == 0
    scan = simulate_scan(N=64, n_positions=9, object_name="lines", modes=2)
    model = pb.load_model(output, "pytorch", ExecutionConfig(device="cpu"))
    assert np.isfinite(pb.reconstruct(scan, model).obj).all()
    provenance = read_bundle(output).provenance
    assert provenance["pretraining"] == to_dict(config_from({**TINY, "average_decay": 0.5}))
    assert provenance["steps"] == 8
    # The model file holds the running average, in half precision.
    averaged = Pretraining(config_from({**TINY, "average_decay": 0.5}), tmp_path / "run")._averaged()
    name = "step1/encoder0/conv0/kernel"
    np.testing.assert_array_equal(read_bundle(output).weights[name], averaged[name].astype(np.float16))


def test_shared_steps_stay_equal_in_training(tmp_path):
    pretraining = Pretraining(tiny(unrolled_steps=4, shared_steps=True), tmp_path)
    before = pretraining.model.get_weights()
    pretraining.run()
    weights = pretraining.model.get_weights()
    for name in [name for name in weights if name.startswith("step2/")]:
        for step in ("step3", "step4"):
            np.testing.assert_array_equal(weights[name.replace("step2", step)], weights[name])
    assert np.abs(weights["step2/head/kernel"] - before["step2/head/kernel"]).max() > 0
    assert np.abs(weights["step1/encoder0/conv1/kernel"] - weights["step2/encoder0/conv1/kernel"]).max() > 0
    again = Pretraining(tiny(unrolled_steps=4, shared_steps=True), tmp_path)
    assert (
        again.model.module.networks["step3"].values["step3__head__kernel"]
        is (again.model.module.networks["step2"].values["step2__head__kernel"])
    )


def test_set_constants_equals_a_new_model(setup):
    model, _ = setup(unrolled_steps=2)
    scan = simulate_scan(N=64, n_positions=4, object_name="lines", modes=2, bad_pixels=0.05)
    calibration = calibrate(scan, model.config)
    new = model.with_calibration(calibration)
    batch = Samples(scan, groups_from_indices(scan.positions_px, np.arange(4)[:, None]), calibration).batch(slice(0, 4))
    model.module.set_constants(PhysicsConstants.of(new.config, calibration))
    np.testing.assert_array_equal(model.predict_patches(batch, True), new.predict_patches(batch, True))
    np.testing.assert_array_equal(model.expected_counts(batch), new.expected_counts(batch))
    assert {name: value.requires_grad for name, value in model.module.named_parameters()} == {
        name: value.requires_grad for name, value in new.module.named_parameters()
    }


def test_the_last_estimate_is_the_prediction(setup):
    model, samples = setup(unrolled_steps=3)
    batch = samples.batch(slice(0, 3))
    with torch.no_grad():
        estimates = model.module.estimates(to_tensors(batch))
    assert len(estimates) == 3
    np.testing.assert_array_equal(estimates[-1], model.predict_patches(batch))


def test_a_model_file_holds_the_training_domain(tmp_path):
    """The training domain comes from the recipe, also in a copy of the model for another scan."""
    config = PretrainingConfig()
    model = pb.get_backend("pytorch").create_model(config.training, nominal_calibration())
    path = write_bundle(tmp_path / "wts.h5.zip", bundle_of(model, [], {"pretraining": to_dict(config)}))
    domain = pb.load_model(path).training_domain
    assert domain.size_px == (32.0, 256.0)
    assert domain.photons[1] >= 1e8
    scan = simulate_scan(N=32, n_positions=9, photons_per_pattern=50.0)
    assert fit_to_scan(pb.load_model(path), scan, pb.InferenceConfig()).training_domain == domain
