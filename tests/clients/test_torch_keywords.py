"""No keyword of the client is dropped silently: each changes what is done, or is named (ptychodus_api_spec 4.11)."""

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
from ptycho_torch.api.translation import on_this_machine, settle

CLASSES = {
    "data_config": config_params.DataConfig,
    "model_config": config_params.ModelConfig,
    "training_config": config_params.TrainingConfig,
    "inference_config": config_params.InferenceConfig,
}
# What a keyword needs to count at all, and what is the same whatever its value.
OWNERS = {
    "amp_loss_coeff": {"amp_loss": "Total_Variation", "phase_loss": "Total_Variation"},
    "phase_loss_coeff": {"amp_loss": "Total_Variation", "phase_loss": "Total_Variation"},
    "min_lr_ratio": {"scheduler": "Cosine"},
}
# Measured from the data, kept in the checkpoint, applied to the scan, the client's own default, or one way to do both.
FREE = {"max_position_jitter", "num_datasets", "notes", "model_name", "x_bounds", "y_bounds", "use_shared_decoder"}


def configs(**keywords):
    """Return the four objects with some keywords changed, wherever they belong; `inference` for those of inference."""
    inference = keywords.pop("inference", {})
    built = {part: kind() for part, kind in CLASSES.items()}
    for name, value in keywords.items():
        (part,) = [part for part in CLASSES if part != "inference_config" and hasattr(built[part], name)]
        setattr(built[part], name, value)
    for name, value in inference.items():
        setattr(built["inference_config"], name, value)
    return SimpleNamespace(**built)


def named(**keywords) -> str:
    return ", ".join(text for _, text in settle(configs(**keywords)).unmatched)


def other(value):
    """Return another value of the same kind."""
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
def test_every_keyword_changes_something_or_is_named(part, name):
    before, after = configs(**OWNERS.get(name, {})), configs(**OWNERS.get(name, {}))
    config = getattr(after, part)
    value = getattr(config, name)
    changed = {"gradient_clip_val": 0.5, "N": 64, "probe_mask": True, "lr_warmup_epochs": 3, "lr_min_ratio": 0.5}
    changed |= {"strategy": "fsdp", "learning_rate": 0.5, "intensity_scale": 1.0}
    after.training_config.n_devices = before.training_config.n_devices = 2 if name == "strategy" else 1
    always = {"batch_size": 3} if part == "inference_config" else {}
    setattr(config, name, (changed | always)[name] if name in changed | always else other(value))
    assert settle(before) != settle(after), "dropped without a word"


def test_what_belongs_to_another_keyword_counts_only_with_it():
    owned = {
        n: k.note.removeprefix("with `")[:-1] for p in KEYWORDS.values() for n, k in p.items() if "with `" in k.note
    }
    assert {owner for owner in owned.values() if not any(owner in part for part in KEYWORDS.values())} == set()
    assert "enable_staged_finetuning=True" in named(enable_staged_finetuning=True)
    assert "epochs_fine_tune=2" in named(epochs_fine_tune=2)
    assert "neighbor_function='4_quadrant'" in named(neighbor_function="4_quadrant")


def test_the_defaults_of_the_application_name_this_and_no_more():
    expected = (
        "n_subsample=7, probe_scale=4.0, cbam_encoder=True, intensity_scale=10000.0, num_workers=4, "
        "middle_trim=32, window=20"
    )
    assert named() == expected


def test_one_warning_names_them(caplog):
    settings = settle(configs())
    with caplog.at_level(logging.WARNING):
        settings.warn()
        settings.warn("inference_config")
    whole, inference = (record.getMessage() for record in caplog.records)
    assert "cbam_encoder=True" in whole
    assert "window=20" in whole
    assert "window=20" in inference
    assert "cbam" not in inference


@pytest.mark.parametrize(
    ("keyword", "words", "is_named"),
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
def test_every_word_that_is_offered_is_accepted(keyword, words, is_named):
    assert {word for word in words if f"{keyword}=" in named(**{keyword: word})} == is_named


def test_the_weighting_of_patches_is_the_probes():
    assert "patch_weighting" not in named(inference={"patch_weighting": "probe"})
    assert "patch_weighting='uniform'" in named(inference={"patch_weighting": "uniform"})


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
def test_schedules_have_one_name_here(word, scheduler):
    assert settle(configs(scheduler=word)).execution.scheduler == scheduler


def test_both_spellings_of_the_schedule_are_read():
    one = settle(configs(scheduler="Cosine", warmup_epochs=3, min_lr_ratio=0.2)).execution
    other = settle(configs(scheduler="Cosine", lr_warmup_epochs=3, lr_min_ratio=0.2)).execution
    assert one == other
    assert (one.warmup_epochs, one.min_lr_ratio) == (3, 0.2)
    assert settle(configs(min_lr_ratio=0.0)).execution.min_lr_ratio == 1e-6


@pytest.mark.parametrize(
    ("keywords", "weights"),
    [
        ({}, (1.0, 0.0)),
        ({"loss_function": "MAE"}, (0.0, 1.0)),
        ({"nll": False}, (0.0, 1.0)),
        ({"loss_function": "MAE", "nll": False}, (0.0, 1.0)),
    ],
)
def test_there_is_one_loss_switch(keywords, weights):
    training = settle(configs(**keywords)).training
    assert (training.nll_weight, training.mae_weight) == weights
    assert training.model.model_type == "pinn"


def test_supervised_means_labels_whatever_the_loss_function():
    for loss in ("Poisson", "MAE"):
        training = settle(configs(mode="Supervised", loss_function=loss)).training
        assert training.model.model_type == "supervised"
        assert (training.nll_weight, training.mae_weight) == (1.0, 0.0), "defaults, which are inert with labels"


def test_total_variation_of_the_whole_object_is_what_there_is():
    both = {"amp_loss": "Total_Variation", "phase_loss": "Total_Variation"}
    fits = settle(configs(**both, amp_loss_coeff=0.3, phase_loss_coeff=0.3))
    assert fits.training.realspace_weight == 0.3
    assert "_loss" not in named(**both, amp_loss_coeff=0.3, phase_loss_coeff=0.3)
    apart = settle(configs(**both, amp_loss_coeff=0.3))
    assert apart.training.realspace_weight == 0.0
    assert "amp_loss='Total_Variation', phase_loss='Total_Variation'" in named(**both, amp_loss_coeff=0.3)


@pytest.mark.parametrize(
    ("C", "grid", "gridsize", "is_named"),
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
def test_a_grid_is_square(C, grid, gridsize, is_named):
    channels = {"C": C, "C_model": C, "C_forward": C, "decoder_last_amp_channels": C}
    assert settle(configs(**channels, grid_size=grid)).training.model.gridsize == gridsize
    found = named(**channels, grid_size=grid)
    assert ("patterns)" in found) is is_named
    assert "C_model" not in found


def test_a_pattern_alone_sets_nothing_that_is_inert():
    training = settle(configs(C=1, grid_size=(1, 1), object_big=False)).training
    assert training.neighbor_count == 7
    assert training.model.object_big


def test_a_batch_at_inference_fits_into_memory():
    assert settle(configs(N=128, C=4)).inference.batch_size == 256
    assert settle(configs(N=32, C=1, grid_size=(1, 1))).inference.batch_size == 1000
    assert settle(configs(N=512, C=64, grid_size=(8, 8))).inference.batch_size == 1


def test_a_gpu_that_is_not_there_is_no_error(caplog):
    with caplog.at_level(logging.INFO):
        here = on_this_machine(ExecutionConfig(device="cuda"), ("cpu",))
    assert here.device == "auto"
    assert "no GPU" in caplog.text
    assert on_this_machine(ExecutionConfig(device="cuda"), ("cpu", "cuda:0")).device == "cuda"
    assert on_this_machine(ExecutionConfig(device="cpu"), ("cpu", "cuda:0")).device == "cpu"
    assert settle(configs(device="GPU")).execution.device == "cuda"


def test_one_device_needs_no_strategy():
    assert settle(configs(strategy="ddp_spawn")).execution.strategy == "auto"
    assert settle(configs(strategy="ddp_spawn", n_devices=2)).execution.strategy == "ddp_spawn"
    assert "strategy='fsdp'" in named(strategy="fsdp", n_devices=2)


def test_a_mask_of_ones_own_is_named():
    assert settle(configs(probe_mask=True)).training.model.probe_mask
    assert "probe_mask=a ndarray" in named(probe_mask=np.ones((2, 2)))


def test_a_value_that_is_not_allowed_is_one_error():
    with pytest.raises(ConfigError, match=r"model\.N.*33") as caught:
        settle(configs(N=33, epochs=0))
    assert "nepochs" in str(caught.value)
    with pytest.raises(ConfigError, match="Semisupervised"):
        settle(configs(mode="Semisupervised"))


@pytest.mark.parametrize("kind", [*CLASSES.values(), config_params.DatagenConfig])
def test_configurations_travel_between_processes_and_can_be_changed(kind):
    config = kind()
    twin = pickle.loads(pickle.dumps(config))  # noqa: S301 - our own
    assert twin == config
    assert type(twin).__qualname__ == kind.__name__
    for field in dataclasses.fields(config):
        setattr(twin, field.name, "changed")
        assert twin != config


def test_the_application_s_keywords_are_all_there():
    """Counted in the application's release; TrainingConfig has two more, which another release uses."""
    assert [len(dataclasses.fields(kind)) for kind in CLASSES.values()] == [18, 33, 36, 6]
    assert dataclasses.fields(config_params.DatagenConfig) == ()


def test_plain_values_come_back_equal():
    manager = ConfigManager(
        data_config=config_params.DataConfig(grid_size=(3, 2), x_bounds=(np.float64(0.2), 0.5)),
        model_config=config_params.ModelConfig(mode="Supervised"),
    )
    parts = {part: plain(getattr(manager, part)) for part in CLASSES}
    assert parts["data_config"]["grid_size"] == [3, 2]
    twin = ConfigManager(**parts)
    assert all(getattr(twin, part) == getattr(manager, part) for part in CLASSES)


def test_an_unknown_keyword_is_an_error_that_names_the_nearest():
    with pytest.raises(ConfigError, match="'grid_size'"):
        ConfigManager(data_config={"gridsize": (2, 2)})
