"""Unmodified ptychodus 1.7.0 with the package `ptycho_torch` (contract 5.3)."""

from __future__ import annotations

import numpy as np
import pytest

import ptycho_backend as pb

pytestmark = [pytest.mark.client, pytest.mark.timeout(1500)]

SIZE = {"data.model_size": 64}


@pytest.fixture
def client(make_client):
    pytest.importorskip("lightning")
    return make_client("ptychopinn_torch")


def test_reconstructors_of_the_library(client):
    assert [each.name for each in client.library] == ["Unsupervised", "Supervised"]


@pytest.mark.parametrize("name", ["Unsupervised", "Supervised"])
def test_train_save_load_reconstruct(client, client_scan, caplog, name):
    client.set_options({**SIZE, "training.epochs": 2})
    trained, (output,) = client.train(name, client_scan)
    for losses in (output.training_loss, output.validation_loss):
        assert [loss.epoch for loss in losses] == [0, 1]
        assert all(np.isfinite(loss.value) for loss in losses)
    assert output.progress == 2
    messages = [record.getMessage() for record in caplog.records]
    assert any("cbam_encoder" in message for message in messages), messages
    assert sum("epoch" in message for message in messages) >= 2, messages
    found = pb.evaluate(client.reconstruct(client.reload(trained), client_scan), client_scan.truth)
    assert np.abs(found.shift_px).max() <= 0.25
    assert min(found.amplitude_correlation, found.phase_correlation) > 0.8


@pytest.mark.parametrize(
    "settings",
    [
        {
            "data.num_channels": 3,
            "data.data_normalization_mode": "Group",
            "data.neighbor_lookup_method": "Min_dist",
            "data.scan_pattern": "Rectangular",
            "data.data_scaling_method": "Max",
            "model.loss_function": "MAE",
            "model.auxiliary_amplitude_loss": "Total_Variation",
            "model.auxiliary_phase_loss": "Mean_Deviation",
            "training.learning_rate_scheduler": "Exponential",
            "inference.patch_weighting_method": "uniform",
        },
        {
            "data.num_channels": 1,
            "data.grid_size_x": 1,
            "data.grid_size_y": 1,
            "data.neighbor_lookup_method": "4_quadrant",
            "model.amplitude_activation_function": "sigmoid",
            "model.cbam_encoder": False,
            "model.auxiliary_amplitude_loss": "Mean_Deviation",
            "model.auxiliary_phase_loss": "Total_Variation",
            "training.learning_rate_scheduler": "Cosine",
            "training.learning_rate_warmup_epochs": 1,
            "training.gradient_accumulation_steps": 2,
            "training.gradient_clip_val": 1.0,
            "training.n_devices": 2,
            "training.num_dataloader_workers": 0,
        },
    ],
    ids=["3 channels", "1 channel"],
)
def test_other_settings(client, client_scan, settings):
    client.set_options({**SIZE, "training.epochs": 1, **settings})
    trained, (output,) = client.train("Unsupervised", client_scan)
    assert len(output.training_loss) == 1
    found = pb.evaluate(client.reconstruct(trained, client_scan), client_scan.truth)
    assert np.abs(found.shift_px).max() <= 0.5


def test_patterns_of_a_wrong_size(client, client_scan):
    from ptychodus.model.processing._subprocess_protocol import ChildError

    with pytest.raises(ChildError, match="64") as caught:
        client.train("Unsupervised", client_scan)
    assert isinstance(caught.value.child_exception, pb.PtychoError)


@pytest.mark.realdata
def test_the_measured_star(client, star, star_reference):
    # The smallest network of its dialogs: four patches of 128×128 per pattern take minutes on two cores.
    client.set_options({"training.epochs": 1, "model.num_filters_scale": 1})
    trained, _ = client.train("Unsupervised", star)
    found = pb.evaluate(client.reconstruct(trained, star), star_reference)
    assert np.abs(found.shift_px).max() <= 1.0
    assert found.phase_correlation > 0.7
