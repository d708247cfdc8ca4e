"""Unmodified ptychodus 1.7.0 with the package `ptycho` (contract 5.2)."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

import ptycho_backend as pb

pytestmark = [pytest.mark.client, pytest.mark.timeout(1500)]


@pytest.fixture
def client(make_client):
    pytest.importorskip("tensorflow")
    return make_client("ptychopinn")


def test_reconstructors_of_the_library(client):
    assert [each.name for each in client.library] == ["PINN", "Supervised"]


@pytest.mark.parametrize("name", ["PINN", "Supervised"])
def test_train_save_load_reconstruct(client, client_scan, caplog, name):
    client.set_options({"training.nepochs": 2})
    trained, outputs = client.train(name, client_scan)
    assert len(outputs) == 1
    messages = [record.getMessage() for record in caplog.records]
    assert sum("epoch" in message for message in messages) >= 2, messages
    with zipfile.ZipFile(client.folder / "out" / "wts.h5.zip") as archive:
        assert "weights.h5" in archive.namelist()
    found = pb.evaluate(client.reconstruct(client.reload(trained), client_scan), client_scan.truth)
    assert np.abs(found.shift_px).max() <= 0.25
    assert min(found.amplitude_correlation, found.phase_correlation) > 0.8


@pytest.mark.parametrize(
    "settings",
    [
        {"model.gridsize": 2, "model.amp_activation": "swish", "model.object_big": False, "training.mae_weight": 0.5},
        {"model.gridsize": 3, "model.amp_activation": "softplus", "model.probe_mask": True, "inference.n_samples": 2},
        {
            "model.amp_activation": "relu",
            "model.probe_big": False,
            "model.probe_scale": 2.0,
            "training.realspace_mae_weight": 0.1,
            "training.realspace_weight": 0.01,
            "training.probe_trainable": True,
        },
    ],
    ids=["gridsize 2", "gridsize 3", "real space"],
)
def test_other_settings(client, client_scan, settings):
    client.set_options({"training.nepochs": 1, **settings})
    trained, _ = client.train("PINN", client_scan)
    found = pb.evaluate(client.reconstruct(trained, client_scan), client_scan.truth)
    assert np.abs(found.shift_px).max() <= 0.5


def test_reconstruction_without_a_model(client, client_scan):
    with pytest.raises(RuntimeError, match="no PtychoPINN model"):
        list(client.reconstructor("PINN").reconstruct(client_scan.parameters))


@pytest.mark.realdata
def test_the_measured_star(client, star, star_reference):
    client.set_options({"training.nepochs": 1})
    trained, _ = client.train("PINN", star)
    found = pb.evaluate(client.reconstruct(trained, star), star_reference)
    assert np.abs(found.shift_px).max() <= 1.0
    assert found.phase_correlation > 0.7
