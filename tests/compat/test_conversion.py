"""Converted models compute the same patches and counts as PtychoPINN's, on both engines."""

import dataclasses
import hashlib
import json
import math

import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.compat.predecessor.conversion import calibration_of, convert
from ptycho_backend.config import ExecutionConfig, ModelConfig
from ptycho_backend.data.batching import Batch
from ptycho_backend.engines.model import LOG_SCALE
from ptycho_backend.engines.registry import available_backends, get_backend
from ptycho_backend.errors import ModelFileError, OutputError
from ptycho_backend.model_file.bundle import read_bundle
from ptycho_backend.network.architectures import describe
from ptycho_backend.network.reference import run_network
from ptycho_backend.simulation.simulate import simulate_scan

CPU = ExecutionConfig(device="cpu", precision="32-true")
ACCURACY = 1e-4  # relative to the largest value; float32 convolutions in another order give 2e-6
MODELS = {
    "one": {},
    "one, whole window": {"pad_object": False, "amp_activation": "swish"},
    "one, centre only": {"probe_big": False},
    "two": {"gridsize": 2},
    "two, whole window": {"gridsize": 2, "pad_object": False},
    "two, one amplitude": {"gridsize": 2, "amplitude_channels": 1},
    "one, real and imaginary": {"polar": False, "saved": "2025-09-01@08:00:00"},
}


def converted(old, folder, **options):
    (folder / "old.zip").write_bytes(old.archive)
    return convert(folder / "old.zip", folder / "new", **options)


def engine_patches(bundle, old, backend):
    """Return an engine's patches before the merge, (group, channel, y, x)."""
    model = dataclasses.replace(bundle.training.model, object_big=False)
    training = dataclasses.replace(bundle.training, model=model, backend=backend)
    engine = get_backend(backend).create_model(training, bundle.calibration, CPU)
    engine.set_weights(bundle.weights)
    x = np.ascontiguousarray(np.moveaxis(old.x, -1, 1))
    offsets = np.zeros((*x.shape[:2], 2), np.float32)
    return engine.predict_patches(Batch(x, offsets, np.ones(x.shape[2:], np.float32), x.shape[-1]))


@pytest.mark.parametrize("name", MODELS)
def test_patches_are_twice_those_of_the_old_model(name, old_model, tmp_path):
    old = old_model(**MODELS[name])
    assert np.abs(old.patches).std() > 0.05  # not constant
    converted(old, tmp_path)
    bundle = read_bundle(tmp_path / "new")
    assert bundle.training.model.architecture == "cnn"
    for backend in ("tensorflow", "pytorch"):
        if backend in available_backends():
            found = engine_patches(bundle, old, backend)
            assert np.abs(found - 2 * old.patches).max() < ACCURACY * np.abs(old.patches).max(), backend


@pytest.mark.parametrize("side", [128, pytest.param(256, marks=pytest.mark.slow)])
def test_larger_windows(side, old_model, tmp_path):
    old = old_model(N=side)
    bundle = converted(old, tmp_path).bundle
    amplitude, phase = run_network(describe(bundle.training.model)["cnn"], {"x": old.x[:1]}, bundle.weights)
    found = np.moveaxis(amplitude * np.exp(1j * phase), -1, 1)
    assert np.abs(found - 2 * old.patches[:1]).max() < ACCURACY * np.abs(old.patches).max()


def test_settings_from_graph_and_parameters(old_model, tmp_path):
    old = old_model(gridsize=2, scale=2)
    done = converted(old, tmp_path)
    training = done.bundle.training
    assert training.model == ModelConfig(N=64, gridsize=2, architecture="cnn", n_filters_scale=2)
    assert (training.nepochs, training.batch_size, training.nphotons) == (7, 8, None)
    source = done.bundle.provenance["converted_from"]
    assert source["sha256"] == hashlib.sha256(old.archive).hexdigest()
    assert source["model"] == "diffraction_to_obj"
    assert source["not_carried_over"]["data_source"].startswith("of simulations")
    assert "intensity_scale" in source["not_carried_over"]
    assert json.loads((tmp_path / "new/summary.json").read_text())["converted_from"] == source
    assert any("merged by a weighted mean" in note for note in done.notes)


def test_counts_equal_those_of_the_old_model(old_model, tmp_path):
    old = old_model()
    bundle = converted(old, tmp_path).bundle
    probe = old_probe(old)
    wave = np.fft.fftshift(np.fft.fft2(old.patches * probe, norm="ortho"), axes=(-2, -1))
    expected = (31.25 * np.abs(wave)) ** 2
    engine = get_backend(sorted(available_backends())[0]).create_model(bundle.training, bundle.calibration, CPU)
    engine.set_weights(bundle.weights)
    x = np.moveaxis(old.x, -1, 1).copy()
    offsets = np.zeros((*x.shape[:2], 2), np.float32)
    counts = engine.expected_counts(Batch(x, offsets, np.ones(x.shape[2:], np.float32), 64))
    np.testing.assert_allclose(counts, expected, rtol=0, atol=1e-4 * expected.max())


def old_probe(old):
    y, x = np.indices((old.description.N,) * 2) - old.description.N // 2
    return 3.0 * np.exp(-(y**2 + 2 * x**2) / (old.description.N / 4) ** 2 + 0.02j * y)


def test_calibration_of_a_constant_probe():
    N, scale = 64, 12.5
    probe = np.full((1, N, N, 1), 0.25j)
    calibration, log_scale = calibration_of(probe, ModelConfig(N=N), scale)
    assert calibration.rms_input_scale == 0.08
    assert calibration.photons_per_pattern == 400.0**2
    np.testing.assert_allclose(calibration.probe, np.full((1, N, N), 0.5j))  # Σ|P|² = 32²
    assert log_scale == pytest.approx(-math.log(2 * 2))
    masked, _ = calibration_of(probe, ModelConfig(N=N, probe_mask=True), scale)
    assert (np.abs(masked.probe) ** 2).sum() == pytest.approx(32**2)
    assert masked.probe[0, 32, 48] == 0
    assert masked.probe[0, 32, 47] != 0


@pytest.mark.parametrize("probe", [None, np.zeros((64, 64)), np.ones((32, 32)), np.full((64, 64), np.nan)])
def test_an_unusable_probe_becomes_a_uniform_disc(probe):
    calibration, _ = calibration_of(probe, ModelConfig(N=64), 1.0)
    assert (np.abs(calibration.probe) ** 2).sum() == pytest.approx(32**2)


def test_reconstruction_uses_the_calibration_of_the_scan(old_model, tmp_path):
    """The network's input is r·A with the scan's r; PtychoPINN's loader normalises each data set separately too."""
    scan = simulate_scan(N=64, n_positions=16, photons_per_pattern=1e5, seed=1)
    converted(old_model(), tmp_path)
    images = [pb.reconstruct(scan, pb.load_model(tmp_path / "new", name, CPU)) for name in sorted(available_backends())]
    for image in images:
        assert np.isfinite(image.obj).all()
        assert np.abs(image.obj).max() > 0.1
        np.testing.assert_allclose(image.obj, images[0].obj, atol=1e-3 * np.abs(images[0].obj).max())


def test_the_old_layout_of_keras_files(old_model, old_layout, archive_of, tmp_path):
    old = old_model(gridsize=2)
    (tmp_path / "old.zip").write_bytes(archive_of(old_layout(old.keras_file), old.description))
    found = convert(tmp_path / "old.zip", tmp_path / "a").bundle
    expected = converted(old, tmp_path).bundle
    assert found.training.model == expected.training.model
    for name, value in expected.weights.items():
        np.testing.assert_array_equal(found.weights[name], value, err_msg=name)


def test_a_single_keras_file(old_model, tmp_path):
    old = old_model()
    (tmp_path / "model.keras").write_bytes(old.keras_file)
    done = convert(tmp_path / "model.keras", tmp_path / "new", intensity_scale=31.25)
    assert done.bundle.calibration.rms_input_scale == pytest.approx(1 / 31.25)
    expected = converted(old, tmp_path, overwrite=True).bundle
    network = [name for name in expected.weights if name.startswith("cnn/")]
    assert all((done.bundle.weights[name] == expected.weights[name]).all() for name in network)
    assert any("no readable probe" in note for note in done.notes)


@pytest.mark.parametrize(
    ("saved", "given", "expected"),
    [
        ("2026-01-25@23:00:00", {}, "real_imaginary"),
        ("2026-01-26@09:00:00", {}, "amplitude_phase"),
        ("2025-08-01@09:00:00", {"decoder_outputs": "amplitude_phase"}, "amplitude_phase"),
        ("2026-08-01@09:00:00", {"decoder_outputs": "real_imaginary"}, "real_imaginary"),
    ],
)
def test_decoder_outputs_from_date_or_user(saved, given, expected, old_model, tmp_path):
    done = converted(old_model(saved=saved), tmp_path, given=given)
    assert done.bundle.training.model.decoder_outputs == expected
    assert any(saved[:10] in note for note in done.notes)


def test_one_patch_for_a_whole_group_is_an_error(old_model, tmp_path):
    with pytest.raises(ModelFileError, match=r"predicts 1 patch\(es\) for a group of 4"):
        converted(old_model(gridsize=2, object_big=False), tmp_path)
    assert not (tmp_path / "new").exists()


def test_options_that_contradict_the_graph(old_model, tmp_path):
    with pytest.raises(ModelFileError, match="its graph says N=64, the command line N=128"):
        converted(old_model(), tmp_path, given={"N": 128})


def test_existing_results_are_not_overwritten(old_model, tmp_path):
    converted(old_model(), tmp_path)
    with pytest.raises(OutputError):
        converted(old_model(), tmp_path)
    assert math.isfinite(converted(old_model(), tmp_path, overwrite=True).bundle.weights[LOG_SCALE])


def test_the_command(old_model, ptychopinn, tmp_path):
    old = old_model(gridsize=2)
    (tmp_path / "wts.h5.zip").write_bytes(old.archive)
    outcome = ptychopinn("convert", tmp_path, tmp_path / "new")
    assert outcome.status == 0, outcome.err
    for words in (
        "cnn, pinn",
        "amplitude and phase",
        "merged by a weighted mean",
        "data_source",
        "ptychopinn reconstruct",
    ):
        assert words in " ".join(outcome.out.split())
    assert ptychopinn("info", tmp_path / "new").status == 0
    assert ptychopinn("convert", tmp_path, tmp_path / "new").status == 1
    assert ptychopinn("convert", tmp_path, tmp_path / "new", "--overwrite", "--N", 64).status == 0
