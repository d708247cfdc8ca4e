"""Deprecated names and values of execution settings."""

import dataclasses
import warnings

import pytest

from ptycho_backend.compat.deprecated_names import FIELDS, VALUES, modern_execution, modern_fields, modern_name
from ptycho_backend.config import ExecutionConfig, from_dict
from ptycho_backend.errors import ConfigError, DeprecatedNameWarning


def test_current_names_and_values_are_valid():
    names = {field.name for field in dataclasses.fields(ExecutionConfig)}
    assert set(FIELDS.values()) <= names
    assert not set(FIELDS) & names
    for name, values in VALUES.items():
        for value in values.values():
            from_dict(ExecutionConfig, {name: value})


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ({"accum_steps": 4}, "accumulate_grad_batches", 4),
        ({"checkpoint_monitor_metric": "train_loss"}, "monitor", "train_loss"),
        ({"logger_backend": None}, "logger", "none"),
        ({"accelerator": "gpu"}, "device", "cuda"),
        ({"scheduler": "Default"}, "scheduler", "constant"),
        ({"scheduler": "MultiStage"}, "scheduler", "multistep"),
        ({"scheduler": "Adaptive"}, "scheduler", "plateau"),
        ({"scheduler": "ReduceLROnPlateau"}, "scheduler", "plateau"),
        ({"scheduler": "WarmupCosine"}, "scheduler", "cosine"),
        ({"scheduler": "Cosine"}, "scheduler", "cosine"),
        ({"scheduler": "Exponential"}, "scheduler", "exponential"),
        ({"lr_warmup_epochs": 2}, "warmup_epochs", 2),
    ],
)
def test_warnings_name_the_current_form(old, new, value):
    with pytest.warns(DeprecationWarning, match=new):
        config = from_dict(ExecutionConfig, old)
    assert getattr(config, new) == value


def test_current_names_take_precedence_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert modern_fields({"accum_steps": 4, "accumulate_grad_batches": 2}) == {"accumulate_grad_batches": 2}
        assert modern_execution(ExecutionConfig()) == ExecutionConfig()


def test_a_single_name():
    with pytest.warns(DeprecatedNameWarning) as caught:
        assert modern_name("logger_backend") == "logger"
    assert [str(warning.message) for warning in caught] == ["'logger_backend' is now 'logger'"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert modern_name("logger") == "logger"


def test_a_value_set_on_an_object():
    given = ExecutionConfig()
    given.scheduler = "Default"
    with pytest.warns(DeprecationWarning, match="constant"):
        assert modern_execution(given).scheduler == "constant"
    assert given.scheduler == "Default"


def test_unknown_names_and_values_are_errors():
    with pytest.raises(ConfigError, match="scheduler"):
        from_dict(ExecutionConfig, {"scheduler": "default"})
    with pytest.raises(ConfigError, match="accum"):
        from_dict(ExecutionConfig, {"accum": 2})
