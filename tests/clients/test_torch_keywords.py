"""Every keyword of the client has an effect or is reported (ptychodus_api_spec 4.11)."""

from __future__ import annotations

import dataclasses
import logging
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.errors import ConfigError
from ptycho_torch import config_params
from ptycho_torch.api.configs import ConfigManager, plain
from ptycho_torch.api.keywords import KEYWORDS
from ptycho_torch.api.translation import on_this_machine, translate

CLASSES = {
    "data_config": config_params.DataConfig,
    "model_config": config_params.ModelConfig,
    "training_config": config_params.TrainingConfig,
    "inference_config": config_params.InferenceConfig,
}
# Other keywords that a keyword needs to have an effect.
OWNERS = {
    "amp_loss_coeff": {"amp_loss": "Total_Variation", "phase_loss": "Total_Variation"},
    "phase_loss_coeff": {"amp_loss": "Total_Variation", "phase_loss": "Total_Variation"},
    "min_lr_ratio": {"scheduler": "Cosine"},
}
# Keywords without effect on the translation: measured, stored in the checkpoint, or applied to the scan.
FREE = {"max_position_jitter", "num_datasets", "notes", "model_name", "x_bounds", "y_bounds", "use_shared_decoder"}


def configs(**keywords):
    """Return the four objects with some keywords changed; `inference` holds those of the inference."""
    inference = keywords.pop("inference", {})
    built = {part: kind() for part, kind in CLASSES.items()}
    for name, value in keywords.items():
        (part,) = [part for part in CLASSES if part != "inference_config" and hasattr(built[part], name)]
        setattr(built[part], name, value)
    for name, value in inference.items():
        setattr(built["inference_config"], name, value)
    return SimpleNamespace(**built)


def reported(**keywords) -> str:
    return ", ".join(text for _, text in translate(configs(**keywords)).unmatched)


def changed_value(value):
    """Return another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value + 0.25
    if isinstance(value, tuple):
        return tuple(item / 2 for item in value) if isinstance(value[0], float) else tuple(item + 1 for item in value)
    return {"Unsupervised": "Supervised", "Poisson": "MAE", "Default": "Cosine", "cuda": "cpu"}.get(value, "another")


def cases():
    for part, keywords in KEYWORDS.items():
        for name, keyword in keywords.items():
            if (name not in FREE and not keyword.note.startswith("with `")) or name in OWNERS:
                yield pytest.param(part, name, id=f"{part}-{name}")


@pytest.mark.parametrize(("part", "name"), cases())
def test_every_keyword_has_an_effect_or_is_reported(part, name):
    default, modified = configs(**OWNERS.get(name, {})), configs(**OWNERS.get(name, {}))
    config = getattr(modified, part)
    value = getattr(config, name)
    changed = {"gradient_clip_val": 0.5, "N": 64, "probe_mask": True, "lr_warmup_epochs": 3, "lr_min_ratio": 0.5}
    changed |= {"strategy": "fsdp", "learning_rate": 0.5, "intensity_scale": 1.0}
    modified.training_config.n_devices = default.training_config.n_devices = 2 if name == "strategy" else 1
    always = {"batch_size": 3} if part == "inference_config" else {}
    setattr(config, name, (changed | always)[name] if name in changed | always else changed_value(value))
    assert translate(default) != translate(modified)


def test_keywords_that_need_another_keyword():
    owned = {
        n: k.note.removeprefix("with `")[:-1] for p in KEYWORDS.values() for n, k in p.items() if "with `" in k.note
    }
    assert {owner for owner in owned.values() if not any(owner in part for part in KEYWORDS.values())} == set()
    assert "enable_staged_finetuning=True" in reported(enable_staged_finetuning=True)
    assert "epochs_fine_tune=2" in reported(epochs_fine_tune=2)
    assert "neighbor_function='4_quadrant'" in reported(neighbor_function="4_quadrant")


def test_keywords_reported_at_the_defaults():
    expected = (
        "n_subsample=7, probe_scale=4.0, cbam_encoder=True, intensity_scale=10000.0, num_workers=4, "
        "middle_trim=32, window=20"
    )
    assert reported() == expected


def test_one_warning_lists_all_keywords(caplog):
    settings = translate(configs())
    with caplog.at_level(logging.WARNING):
        settings.warn()
        settings.warn("inference_config")
    whole, inference = (record.getMessage() for record in caplog.records)
    assert "cbam_encoder=True" in whole
    assert "window=20" in whole
    assert "window=20" in inference
    assert "cbam" not in inference


@pytest.mark.parametrize(
    ("keyword", "words", "is_reported"),
    [
        ("normalize", ("Group", "Batch"), {"Group"}),
        ("neighbor_function", ("Nearest", "Min_dist", "4_quadrant"), {"Min_dist", "4_quadrant"}),
        ("scan_pattern", ("Isotropic", "Rectangular"), set()),
        ("data_scaling", ("Parseval", "Max"), {"Max"}),
        ("loss_function", ("Poisson", "MAE"), set()),
        ("amp_activation", ("silu", "sigmoid"), {"sigmoid"}),
        ("amp_loss", (None, "Total_Variation", "Mean_Deviation"), {"Total_Variation", "Mean_Deviation"}),
        ("phase_loss", (None, "Total_Variation", "Mean_Deviation"), {"Total_Variation", "Mean_Deviation"}),
        ("scheduler", ("Default", "Exponential", "Cosine", "WarmupCosine", "MultiStage", "Adaptive"), set()),
        ("strategy", ("ddp_spawn", "ddp", "auto"), set()),
        ("mode", ("Unsupervised", "Supervised"), set()),
    ],
)
def test_every_value_of_the_application_is_accepted(keyword, words, is_reported):
    assert {word for word in words if f"{keyword}=" in reported(**{keyword: word})} == is_reported


def test_patch_weighting():
    assert "patch_weighting" not in reported(inference={"patch_weighting": "probe"})
    assert "patch_weighting='uniform'" in reported(inference={"patch_weighting": "uniform"})


@pytest.mark.parametrize(
    ("word", "scheduler"),
    [
        ("Default", "constant"),
        ("Exponential", "exponential"),
        ("Cosine", "cosine"),
        ("WarmupCosine", "cosine"),
        ("MultiStage", "multistep"),
        ("Adaptive", "plateau"),
    ],
)
def test_names_of_schedules(word, scheduler):
    assert translate(configs(scheduler=word)).execution.scheduler == scheduler


def test_both_names_of_schedule_options():
    first = translate(configs(scheduler="Cosine", warmup_epochs=3, min_lr_ratio=0.2)).execution
    second = translate(configs(scheduler="Cosine", lr_warmup_epochs=3, lr_min_ratio=0.2)).execution
    assert first == second
    assert (first.warmup_epochs, first.min_lr_ratio) == (3, 0.2)
    assert translate(configs(min_lr_ratio=0.0)).execution.min_lr_ratio == 1e-6


@pytest.mark.parametrize(
    ("keywords", "weights"),
    [
        ({}, (1.0, 0.0)),
        ({"loss_function": "MAE"}, (0.0, 1.0)),
        ({"nll": False}, (0.0, 1.0)),
        ({"loss_function": "MAE", "nll": False}, (0.0, 1.0)),
    ],
)
def test_loss_weights(keywords, weights):
    training = translate(configs(**keywords)).training
    assert (training.nll_weight, training.mae_weight) == weights
    assert training.model.model_type == "pinn"


def test_supervised_training_ignores_the_loss_function():
    for loss in ("Poisson", "MAE"):
        training = translate(configs(mode="Supervised", loss_function=loss)).training
        assert training.model.model_type == "supervised"
        assert (training.nll_weight, training.mae_weight) == (1.0, 0.0), (
            "defaults, without effect in supervised training"
        )


def test_total_variation_of_amplitude_and_phase():
    both = {"amp_loss": "Total_Variation", "phase_loss": "Total_Variation"}
    equal = translate(configs(**both, amp_loss_coeff=0.3, phase_loss_coeff=0.3))
    assert equal.training.realspace_weight == 0.3
    assert "_loss" not in reported(**both, amp_loss_coeff=0.3, phase_loss_coeff=0.3)
    different = translate(configs(**both, amp_loss_coeff=0.3))
    assert different.training.realspace_weight == 0.0
    assert "amp_loss='Total_Variation', phase_loss='Total_Variation'" in reported(**both, amp_loss_coeff=0.3)


@pytest.mark.parametrize(
    ("C", "grid", "gridsize", "is_reported"),
    [
        (4, (2, 2), 2, False),
        (1, (1, 1), 1, False),
        (9, (3, 3), 3, False),
        (3, (2, 2), 2, True),
        (1, (2, 2), 2, True),
        (4, (4, 1), 2, True),
        (6, (3, 2), 3, True),
        (3, (1, 1), 2, True),
    ],
)
def test_grids_are_square(C, grid, gridsize, is_reported):
    channels = {"C": C, "C_model": C, "C_forward": C, "decoder_last_amp_channels": C}
    assert translate(configs(**channels, grid_size=grid)).training.model.gridsize == gridsize
    found = reported(**channels, grid_size=grid)
    assert ("patterns)" in found) is is_reported
    assert "C_model" not in found


def test_single_patterns_set_no_option_without_effect():
    training = translate(configs(C=1, grid_size=(1, 1), object_big=False)).training
    assert training.neighbor_count == 7
    assert training.model.object_big


def test_inference_batches_fit_into_memory():
    assert translate(configs(N=128, C=4)).inference.batch_size == 256
    assert translate(configs(N=32, C=1, grid_size=(1, 1))).inference.batch_size == 1000
    assert translate(configs(N=512, C=64, grid_size=(8, 8))).inference.batch_size == 1


def test_cuda_without_a_gpu(caplog):
    with caplog.at_level(logging.INFO):
        execution = on_this_machine(ExecutionConfig(device="cuda"), ("cpu",))
    assert execution.device == "auto"
    assert "no GPU" in caplog.text
    assert on_this_machine(ExecutionConfig(device="cuda"), ("cpu", "cuda:0")).device == "cuda"
    assert on_this_machine(ExecutionConfig(device="cpu"), ("cpu", "cuda:0")).device == "cpu"
    assert translate(configs(device="GPU")).execution.device == "cuda"


def test_one_device_needs_no_strategy():
    assert translate(configs(strategy="ddp_spawn")).execution.strategy == "auto"
    assert translate(configs(strategy="ddp_spawn", n_devices=2)).execution.strategy == "ddp_spawn"
    assert "strategy='fsdp'" in reported(strategy="fsdp", n_devices=2)


def test_a_mask_array_is_reported():
    assert translate(configs(probe_mask=True)).training.model.probe_mask
    assert "probe_mask=a ndarray" in reported(probe_mask=np.ones((2, 2)))


def test_one_error_lists_invalid_values():
    with pytest.raises(ConfigError, match=r"model\.N.*33") as caught:
        translate(configs(N=33, epochs=0))
    assert "nepochs" in str(caught.value)
    with pytest.raises(ConfigError, match="Semisupervised"):
        translate(configs(mode="Semisupervised"))


@pytest.mark.parametrize("config_type", [*CLASSES.values(), config_params.DatagenConfig])
def test_configurations_are_picklable_and_mutable(config_type):
    config = config_type()
    copy = pickle.loads(pickle.dumps(config))  # noqa: S301 - written here
    assert copy == config
    assert type(copy).__qualname__ == config_type.__name__
    for field in dataclasses.fields(config):
        setattr(copy, field.name, "changed")
        assert copy != config


def test_number_of_keywords():
    """Numbers of the application's release; TrainingConfig has two more for another release."""
    assert [len(dataclasses.fields(kind)) for kind in CLASSES.values()] == [18, 33, 36, 6]
    assert dataclasses.fields(config_params.DatagenConfig) == ()


def test_plain_values_restore_the_configuration():
    manager = ConfigManager(
        data_config=config_params.DataConfig(grid_size=(3, 2), x_bounds=(np.float64(0.2), 0.5)),
        model_config=config_params.ModelConfig(mode="Supervised"),
    )
    parts = {part: plain(getattr(manager, part)) for part in CLASSES}
    assert parts["data_config"]["grid_size"] == [3, 2]
    restored = ConfigManager(**parts)
    assert all(getattr(restored, part) == getattr(manager, part) for part in CLASSES)


def test_arrays_become_lists():
    assert plain(config_params.ModelConfig(probe_mask=np.eye(2, dtype=bool)))["probe_mask"] == [
        [True, False],
        [False, True],
    ]


def test_unknown_keywords():
    with pytest.raises(ConfigError, match="'grid_size'"):
        ConfigManager(data_config={"gridsize": (2, 2)})
