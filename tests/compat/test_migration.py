"""Translation of PtychoPINN's options: names, values, and a report on every option."""

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.compat.legacy import KEYS
from ptycho_backend.compat.predecessor.migration import migrate
from ptycho_backend.compat.predecessor.names import RENAMED, WITHOUT, reason, target
from ptycho_backend.config import ExecutionConfig, InferenceConfig, TrainingConfig, from_dict
from ptycho_backend.errors import ConfigError

CONFIGS = {"training": TrainingConfig, "execution": ExecutionConfig, "inference": InferenceConfig}
FLAT = {
    "N": 64,
    "gridsize": 2,
    "n_filters_scale": 2,
    "model_type": "pinn",
    "amp_activation": "sigmoid",
    "object_big": True,
    "probe_big": False,
    "probe_mask": True,
    "pad_object": True,
    "probe_scale": 10.0,
    "nepochs": 50,
    "batch_size": 16,
    "output_dir": "outputs",
    "train_data_file": "train.npz",
    "n_images": 512,
    "nphotons": 1000.0,
    "probe_trainable": True,
    "positions_provided": True,
}


def trained(old):
    values = migrate(old).values
    for section, fields in values.items():
        from_dict(CONFIGS[section], fields)
    return from_dict(TrainingConfig, values["training"])


def translated(old, name):
    (found,) = [option for option in migrate(old).options if option.old == name]
    return found


def test_a_flat_file():
    config = trained(FLAT)
    model = config.model
    assert (model.N, model.gridsize, model.architecture, model.probe_big, model.probe_mask) == (
        64,
        2,
        "cnn",
        False,
        True,
    )
    assert (config.nepochs, config.batch_size, config.n_groups, config.nphotons) == (50, 16, 512, 1000.0)
    assert config.probe_trainable
    left = {option.old: option.note for option in migrate(FLAT).left_out}
    assert set(left) == {"probe_scale", "output_dir", "train_data_file", "positions_provided"}
    assert "ptychopinn train SCAN" in left["train_data_file"]


def test_a_nested_file():
    old = {
        "model": {"gridsize": 2, "amp_activation": "swish"},
        "sampling": {"n_groups": 1024, "neighbor_count": 7, "enable_oversampling": True},
        "inference": {"batch_size": 8, "debug": True},
        "nepochs": 3,
    }
    config = trained(old)
    assert (config.model.gridsize, config.model.amp_activation) == (2, "swish")
    assert (config.n_groups, config.neighbor_count, config.nepochs, config.batch_size) == (1024, 7, 3, 16)
    assert migrate(old).values["inference"] == {"batch_size": 8}
    assert [option.old for option in migrate(old).left_out] == ["sampling.enable_oversampling", "inference.debug"]


def test_dotted_keys_of_the_global_dictionary():
    old = {"probe.trainable": True, "object.big": False, "intensity_scale.trainable": False, "probe.mask": True}
    config = trained(old)
    assert config.probe_trainable
    assert not config.intensity_scale_trainable
    assert (config.model.object_big, config.model.probe_mask) == (False, True)
    for name, dotted in KEYS.items():
        assert target(dotted) == target(name)
        assert reason(dotted) == reason(name)


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ({"nphotons": "1e9"}, "training.nphotons", 1e9),
        ({"nepochs": 50.0}, "training.nepochs", 50),
        ({"N": "128"}, "training.model.N", 128),
        ({"epochs": 3}, "training.nepochs", 3),
        ({"C": 4}, "training.model.gridsize", 2),
        ({"grid_size": [3, 3]}, "training.model.gridsize", 3),
        ({"K": 6}, "training.neighbor_count", 6),
        ({"mode": "Supervised"}, "training.model.model_type", "supervised"),
        ({"mode": "Unsupervised"}, "training.model.model_type", "pinn"),
        ({"npseed": 42}, "training.seed", 42),
        ({"scheduler": "WarmupCosine"}, "execution.scheduler", "cosine"),
        ({"lr_warmup_epochs": 5}, "execution.warmup_epochs", 5),
        ({"accum_steps": 4}, "execution.accumulate_grad_batches", 4),
        ({"device": "gpu"}, "execution.device", "cuda"),
        ({"plateau_factor": 0.5}, "execution.scheduler_factor", 0.5),
        ({"orchestrator": "Mlflow"}, "execution.logger", "mlflow"),
        ({"amp_activation": "silu"}, "training.model.amp_activation", "silu"),
        ({"backend": "pytorch"}, "training.backend", "pytorch"),
        ({"enable_progress_bar": False}, "execution.progress", False),
    ],
    ids=str,
)
def test_names_and_values(old, new, value):
    ((name, _),) = old.items()
    found = translated(old, name)
    assert (found.new, found.value) == (new, value)
    assert type(found.value) is type(value)


def test_a_loss_becomes_two_weights():
    mae = trained({"torch_loss_mode": "mae", "nll_weight": 1.0})
    assert (mae.nll_weight, mae.mae_weight) == (0.0, 1.0)
    both = trained({"mae_weight": 0.3, "torch_loss_mode": "poisson", "nll_weight": 0.7})
    assert (both.nll_weight, both.mae_weight) == (0.7, 0.3)


def test_real_space_weights_are_multiplied():
    config = trained({"realspace_weight": 2.0, "tv_weight": 0.25, "realspace_mae_weight": 3.0})
    assert (config.realspace_weight, config.realspace_mae_weight) == (0.5, 6.0)
    assert trained({"realspace_mae_weight": 3.0}).realspace_mae_weight == 0.0  # realspace_weight is 0


@pytest.mark.parametrize(
    ("old", "words"),
    [
        ({"architecture": "fno"}, "only cnn"),
        ({"N": 100}, "multiple of 16"),
        ({"batch_size": "many"}, "batch_size"),
        ({"gradient_clip_algorithm": "agc"}, "'norm' or 'value'"),
        ({"grid_size": [2, 3]}, "as many"),
        ({"C": 3}, "square number"),
        ({"nepoch": 3}, "'nepochs' was meant?"),
        ({"loss_function": "huber"}, "poisson or mae"),
        ({"tv_weight": "x", "realspace_weight": 1.0}, "multiply"),
        ({"cbam_encoder": True}, "not here"),
        ({"gradient_clip_val": None}, "not set"),
    ],
    ids=str,
)
def test_options_without_counterpart_have_a_note(old, words):
    name = next(iter(old))
    found = translated(old, name)
    assert found.new is None
    assert words in found.note


def test_the_default_architecture_is_cnn():
    assert trained({}).model.architecture == "cnn"
    assert trained({"architecture": "cnn"}).model.architecture == "cnn"
    assert "architecture" not in migrate({"architecture": "fno"}).values["training"]["model"]


def test_an_option_given_twice():
    done = migrate({"N": 64, "model": {"N": 128}})
    assert done.values["training"]["model"]["N"] == 128
    assert "given twice" in done.options[1].note
    assert migrate({"n_groups": 7, "n_images": 5}).values["training"]["n_groups"] == 7


def test_tables_agree_with_the_configurations():
    for name, new in RENAMED.items():
        section, _, field = new.partition(".")
        config = from_dict(CONFIGS[section], {}) if section != "training" else TrainingConfig()
        for part in field.split("."):
            assert part in {f.name for f in dataclasses.fields(config)}, name
            config = getattr(config, part)
        assert name not in WITHOUT
    for name in WITHOUT:
        assert target(name) is None


option_names = st.sampled_from([*RENAMED, *WITHOUT, *FLAT, *KEYS.values(), "nonsense"])
plain = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.integers(), max_size=3)
)


@given(st.dictionaries(option_names, plain | st.dictionaries(option_names, plain, max_size=4), max_size=8))
def test_every_option_is_reported_and_the_result_is_valid(old):
    done = migrate(old)
    for section, fields in done.values.items():
        from_dict(CONFIGS[section], fields)
    options = [name for key, value in old.items() for name in (value if isinstance(value, dict) else [key])]
    assert len([option for option in done.options if option.old]) == len(options)
    assert all(option.note for option in done.left_out)


def test_a_recursive_file_is_an_error():
    recursive = {"N": 64}
    recursive.update({f"again{i}": recursive for i in range(10)})
    with pytest.raises(ConfigError, match="at most 1000"):
        migrate(recursive)


def test_the_guide_lists_every_new_name():
    guide = (Path(__file__).parents[2] / "docs/how-to/convert-old-models.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| `([\w.]+)`", guide, re.MULTILINE))
    assert rows == dict(RENAMED)
