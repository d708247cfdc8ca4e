"""Configuration classes: defaults, limits, errors, files and JSON Schema."""

import copy
import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.config import (
    ExecutionConfig,
    InferenceConfig,
    ModelConfig,
    TrainingConfig,
    fields_of,
    from_dict,
    json_schema,
    load_yaml,
    save_yaml,
    to_dict,
    validate,
)
from ptycho_backend.errors import ConfigError

CONFIGS = (ModelConfig, TrainingConfig, InferenceConfig, ExecutionConfig)

# A changed default concerns every user: it needs a line in the changelog and new reference figures.
DEFAULTS = {
    ModelConfig: {
        "N": 0,
        "gridsize": 1,
        "architecture": "unet",
        "model_type": "pinn",
        "n_filters_scale": 1,
        "unrolled_steps": 2,
        "initial_iterations": 8,
        "amp_activation": "sigmoid",
        "decoder_outputs": "amplitude_phase",
        "object_big": True,
        "probe_big": True,
        "pad_object": True,
        "probe_mask": False,
        "gaussian_smoothing_sigma": 0.0,
    },
    TrainingConfig: {
        "backend": "auto",
        "nepochs": 50,
        "batch_size": 16,
        "learning_rate": None,
        "nll_weight": 1.0,
        "mae_weight": 0.0,
        "constraint_share": 1.0,
        "realspace_weight": 0.0,
        "realspace_mae_weight": 0.0,
        "nphotons": None,
        "probe_trainable": False,
        "intensity_scale_trainable": True,
        "probe_iterations": 20,
        "validation_fraction": 0.05,
        "start": "pretrained",
        "n_groups": None,
        "neighbor_count": 7,
        "seed": 0,
    },
    InferenceConfig: {
        "start": "auto",
        "batch_size": 32,
        "amplitude_constraint": True,
        "phase_alignment": True,
        "iterations": None,
        "probe_iterations": None,
        "fit_positions": "auto",
        "fit_flux": "auto",
        "fit_background": "auto",
        "orientation": "given",
        "calibration": "auto",
        "half_datasets": True,
        "neighbor_count": 7,
        "seed": 0,
    },
    ExecutionConfig: {
        "device": "auto",
        "precision": "auto",
        "compile": False,
        "deterministic": False,
        "accumulate_grad_batches": 1,
        "gradient_clip_val": None,
        "gradient_clip_algorithm": "norm",
        "scheduler": "cosine",
        "warmup_epochs": 0,
        "min_lr_ratio": 0.05,
        "scheduler_milestones": None,
        "scheduler_factor": 0.5,
        "scheduler_patience": 3,
        "monitor": "val_loss",
        "monitor_mode": "min",
        "early_stop_patience": None,
        "restore_best": True,
        "save_top_k": 1,
        "logger": "csv",
        "devices": 1,
        "num_nodes": 1,
        "strategy": "auto",
        "threads": None,
        "progress": True,
    },
}


def changed(config_type, **fields):
    """Return a config with some fields set after construction, like those of clients."""
    config = config_type()
    for name, value in fields.items():
        setattr(config, name, value)
    return config


# --- defaults and construction -------------------------------------------------------------------------------------


@pytest.mark.parametrize("config_type", CONFIGS)
def test_defaults_are_frozen(config_type):
    wanted = DEFAULTS[config_type]
    if config_type is TrainingConfig:
        wanted = {"model": DEFAULTS[ModelConfig], **wanted}
    assert to_dict(config_type()) == wanted


@pytest.mark.parametrize("config_type", CONFIGS)
def test_defaults_are_valid(config_type):
    validate(config_type())


def test_construction_checks_nothing():
    """Clients build with invalid values and fill them in later."""
    config = TrainingConfig(model=ModelConfig(N=-1), nepochs=-1)
    with pytest.raises(ConfigError):
        validate(config)
    config.model.N, config.nepochs = 128, 1
    validate(config)


def test_configs_have_separate_models():
    one, other = TrainingConfig(), TrainingConfig()
    one.model.N = 256
    assert other.model.N == 0


@pytest.mark.parametrize("config_type", CONFIGS)
def test_configs_survive_pickling_and_copying(config_type):
    config = config_type()
    for twin in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config)):  # noqa: S301 - our own
        assert twin == config
        assert twin is not config


def test_channels_follow_the_gridsize():
    assert [ModelConfig(gridsize=g).channels for g in (1, 2, 3)] == [1, 4, 9]


# --- checking ------------------------------------------------------------------------------------------------------


def test_all_violations_are_reported_at_once():
    config = TrainingConfig(model=ModelConfig(N=100, gridsize=0), nepochs=0, learning_rate=-1.0, seed=-3)
    with pytest.raises(ConfigError) as caught:
        validate(config, source="file 'x.yaml'")
    text = str(caught.value)
    for name, value in {"model.N": 100, "model.gridsize": 0, "nepochs": 0, "learning_rate": -1.0, "seed": -3}.items():
        assert f"{name}: " in text
        assert f"not {value!r}" in text
    assert text.startswith("TrainingConfig has 5 invalid value(s).")
    assert "file 'x.yaml'" in text


LIMITS = [
    (ModelConfig, "N", [0, 32, 48, 512], [16, 33, 528, -64]),
    (ModelConfig, "gridsize", [1, 8], [0, 9, -1]),
    (ModelConfig, "architecture", ["unet", "cnn"], ["UNet", "", None]),
    (ModelConfig, "model_type", ["pinn", "supervised"], ["Unsupervised"]),
    (ModelConfig, "n_filters_scale", [1, 16], [0, 17]),
    (ModelConfig, "unrolled_steps", [1, 8], [0, 9]),
    (ModelConfig, "initial_iterations", [0, 64], [-1, 65]),
    (ModelConfig, "amp_activation", ["sigmoid", "swish", "silu", "softplus", "relu"], ["tanh"]),
    (ModelConfig, "decoder_outputs", ["amplitude_phase", "real_imaginary"], ["polar", ""]),
    (ModelConfig, "gaussian_smoothing_sigma", [0, 0.5, 16.0], [-0.1, 16.1]),
    (TrainingConfig, "nepochs", [1], [0]),
    (TrainingConfig, "batch_size", [1], [0]),
    (TrainingConfig, "learning_rate", [1e-9, 1, 9.99], [0, 0.0, 10.0, -1e-3]),
    (TrainingConfig, "nll_weight", [0, 0.0, 5], [-1e-9]),
    (TrainingConfig, "constraint_share", [0, 0.5, 1.0], [-0.1, 1.1]),
    (TrainingConfig, "nphotons", [None, 1.0, 1e9], [0.0, -1.0]),
    (TrainingConfig, "validation_fraction", [0, 0.0, 0.99], [1, 1.0, -0.1]),
    (TrainingConfig, "n_groups", [None, 1], [0]),
    (TrainingConfig, "probe_iterations", [0, 100], [-1]),
    (InferenceConfig, "start", ["auto", "flat", "physics", "network"], ["model", None]),
    (InferenceConfig, "calibration", ["auto", "model", "scan"], ["file"]),
    (InferenceConfig, "iterations", [None, 0, 1], [-1]),
    (ExecutionConfig, "precision", ["auto", "32-true", "bf16-mixed", "16-mixed"], ["64-true", 32]),
    (ExecutionConfig, "scheduler", ["constant", "cosine", "exponential"], ["Default"]),
    (ExecutionConfig, "min_lr_ratio", [0.01, 1.0], [0.0, 1.01]),
    (ExecutionConfig, "gradient_clip_val", [None, 0.5], [0.0, -1.0]),
    (ExecutionConfig, "early_stop_patience", [None, 1], [0]),
    (ExecutionConfig, "logger", ["csv", "tensorboard", "mlflow", "none"], ["wandb", None]),
    (ExecutionConfig, "threads", [None, 4], [0]),
]


@pytest.mark.parametrize(("config_type", "name", "good", "bad"), LIMITS, ids=lambda value: str(value)[:24])
def test_limits(config_type, name, good, bad):
    """Both sides of every limit."""
    for value in good:
        validate(changed(config_type, **{name: value}))
    for value in bad:
        with pytest.raises(ConfigError, match=f"{name}: .*not {value!r}"):
            validate(changed(config_type, **{name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nepochs", "3"),
        ("nepochs", 3.0),
        ("nepochs", True),
        ("nepochs", None),
        ("learning_rate", "1e-3"),
        ("learning_rate", float("nan")),
        ("nll_weight", float("nan")),
        ("probe_trainable", 1),
        ("probe_trainable", "no"),
        ("backend", 5),
        ("model", None),
        ("model", 5),
        ("n_groups", [1]),
    ],
)
def test_nothing_is_converted(name, value):
    with pytest.raises(ConfigError, match=f"{name}: "):
        validate(changed(TrainingConfig, **{name: value}))


@pytest.mark.parametrize("value", [Path("x"), {1, 2}, 1 + 2j, np.arange(3), object()], ids=lambda v: type(v).__name__)
def test_values_of_foreign_types(value):
    with pytest.raises(ConfigError, match="nepochs"):
        validate(TrainingConfig(nepochs=value))


def test_infinite_weights():
    with pytest.raises(ConfigError, match="nll_weight"):
        validate(TrainingConfig(nll_weight=float("inf")))


def test_numpy_scalars_count_as_numbers():
    config = TrainingConfig(model=ModelConfig(N=np.int64(128)), nepochs=np.uint8(3), learning_rate=np.float32(0.5))
    validate(config)
    assert to_dict(config)["model"]["N"] == 128
    assert all(type(value) in (int, float) for value in (to_dict(config)["nepochs"], to_dict(config)["learning_rate"]))
    with pytest.raises(ConfigError, match="gridsize"):
        validate(ModelConfig(gridsize=np.int64(9)))


def test_validate_keeps_the_config():
    config = TrainingConfig(nepochs=np.int64(3))
    validate(config)
    assert isinstance(config.nepochs, np.int64)


# --- keys ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "named", "nearest"),
    [
        ({"nepoch": 3}, "'nepoch'", "did you mean 'nepochs'?"),
        ({"model": {"n_filter_scale": 3}}, "'model.n_filter_scale'", "did you mean 'model.n_filters_scale'?"),
        ({"N": 64}, "'N'", "remove the key"),
        ({"model": {"qqqqqq": 3}}, "'model.qqqqqq'", "remove the key"),
        ({1: 2}, "'1'", "remove the key"),
    ],
)
def test_unknown_keys(values, named, nearest):
    with pytest.raises(ConfigError) as caught:
        from_dict(TrainingConfig, values, source="file 'a.yaml'")
    assert named in caught.value.rule
    assert nearest in caught.value.fix
    assert "file 'a.yaml'" in caught.value.received


def test_from_incomplete_dict():
    config = from_dict(TrainingConfig, {"model": {"N": 128}, "nepochs": 3})
    assert config == TrainingConfig(model=ModelConfig(N=128), nepochs=3)


def test_from_dict_copies_its_values():
    values = {"model": {"N": 128}}
    config = from_dict(TrainingConfig, values)
    config.model.N = 64
    assert values == {"model": {"N": 128}}


models = st.builds(
    ModelConfig,
    N=st.integers(2, 32).map(lambda n: 16 * n),
    gridsize=st.integers(1, 8),
    architecture=st.sampled_from(["unet", "cnn"]),
    object_big=st.booleans(),
    gaussian_smoothing_sigma=st.floats(0, 16),
)
trainings = st.builds(
    TrainingConfig,
    model=models,
    nepochs=st.integers(1, 10**6),
    learning_rate=st.floats(1e-12, 9.9),
    nphotons=st.none() | st.floats(1.0, 1e12),
    n_groups=st.none() | st.integers(1, 10**6),
    seed=st.integers(0, 2**32),
)


@given(trainings)
def test_round_trip_through_dict_json_and_yaml(config):
    validate(config)
    plain = to_dict(config)
    assert from_dict(TrainingConfig, plain) == config
    assert from_dict(TrainingConfig, json.loads(json.dumps(plain))) == config
    assert from_dict(TrainingConfig, yaml.safe_load(yaml.safe_dump(plain))) == config


# --- files ---------------------------------------------------------------------------------------------------------


def test_yaml_round_trip(tmp_path):
    config = TrainingConfig(model=ModelConfig(N=128, gridsize=2), nphotons=1e9, learning_rate=3e-4)
    save_yaml(config, tmp_path / "a.yaml")
    assert load_yaml(tmp_path / "a.yaml", TrainingConfig) == config
    assert list(yaml.safe_load((tmp_path / "a.yaml").read_text())) == list(fields_of(TrainingConfig))  # in order


def test_empty_file_gives_the_defaults(tmp_path):
    (tmp_path / "a.yaml").write_text("# nothing yet\n")
    assert load_yaml(tmp_path / "a.yaml", ExecutionConfig) == ExecutionConfig()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nepochs: [1, 2", "not valid YAML"),
        (b"- 1\n- 2\n", "a list"),
        (b"just text", "a str"),
        (b"\xff\xfe\x00nepochs", "not valid YAML"),
        (b"a: 1\n\tb: 2\n", "not valid YAML"),
        (b"!!python/object/apply:os.system ['true']", "not valid YAML"),
        (b"nepochs: 0", "nepochs: "),
        (b"nepochs: 1e-3", "nepochs: "),
        (b"epochs: 3", "did you mean 'nepochs'?"),
        (b"model: 64", "model: "),
    ],
)
def test_error_names_an_invalid_file(content, message, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_yaml(path, TrainingConfig)
    assert "bad.yaml" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_error_names_an_unreadable_file(name, tmp_path):
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        load_yaml(tmp_path / name, TrainingConfig)
    assert str(tmp_path / name) in str(caught.value)


# --- JSON Schema ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config_type", CONFIGS)
def test_json_schema_has_every_field_and_default(config_type):
    schema = json_schema(config_type)
    json.dumps(schema)
    assert list(schema["properties"]) == [field.name for field in dataclasses.fields(config_type)]
    assert schema["additionalProperties"] is False
    for name, default in DEFAULTS[config_type].items():
        assert schema["properties"][name]["default"] == default


def test_json_schema_has_limits_and_choices():
    model = json_schema(ModelConfig)["properties"]
    side = {"minimum": 32, "maximum": 512, "multipleOf": 16, "type": "integer"}
    assert model["N"] == {"default": 0, "anyOf": [{"const": 0, "type": "integer"}, side], "title": "N"}
    assert model["architecture"]["enum"] == ["unet", "cnn"]
    rate = json_schema(TrainingConfig)["properties"]["learning_rate"]["anyOf"][0]
    assert (rate["exclusiveMinimum"], rate["exclusiveMaximum"]) == (0, 10)
    assert json_schema(TrainingConfig)["properties"]["model"] == {"$ref": "#/$defs/ModelConfig"}


def test_json_schema_agrees_with_validate():
    """A JSON Schema validator and `validate` accept and reject the same values."""
    jsonschema = pytest.importorskip("jsonschema")
    for config_type, name, good, bad in LIMITS:
        check = jsonschema.Draft202012Validator(json_schema(config_type)).is_valid
        assert [value for value in good if not check({name: value})] == []
        assert [value for value in bad if check({name: value})] == []
