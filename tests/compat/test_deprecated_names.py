"""Earlier deprecated_names of execution settings mean what they meant."""

import dataclasses
import warnings

import pytest

from ptycho_backend.compat.deprecated_names import FIELDS, VALUES, modern_execution, modern_fields, modern_name
from ptycho_backend.config import ExecutionConfig, from_dict
from ptycho_backend.errors import ConfigError, DeprecatedNameWarning


def test_every_present_spelling_is_a_field_with_that_value():
    known = {field.name for field in dataclasses.fields(ExecutionConfig)}
    assert set(FIELDS.values()) <= known
    assert not set(FIELDS) & known
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
def test_an_earlier_spelling_is_read_with_a_warning_that_names_the_present_one(old, new, value):
    with pytest.warns(DeprecationWarning, match=new):
        config = from_dict(ExecutionConfig, old)
    assert getattr(config, new) == value


def test_the_present_spelling_wins_and_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert modern_fields({"accum_steps": 4, "accumulate_grad_batches": 2}) == {"accumulate_grad_batches": 2}
        assert modern_execution(ExecutionConfig()) == ExecutionConfig()


def test_a_name_alone_is_read_too():
    with pytest.warns(DeprecatedNameWarning) as told:
        assert modern_name("logger_backend") == "logger"
    assert [str(warning.message) for warning in told] == ["'logger_backend' is now 'logger'"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert modern_name("logger") == "logger"


def test_a_value_set_on_an_object_is_read_too():
    given = ExecutionConfig()
    given.scheduler = "Default"
    with pytest.warns(DeprecationWarning, match="constant"):
        assert modern_execution(given).scheduler == "constant"
    assert given.scheduler == "Default"


def test_what_was_never_a_spelling_stays_an_error():
    with pytest.raises(ConfigError, match="scheduler"):
        from_dict(ExecutionConfig, {"scheduler": "default"})
    with pytest.raises(ConfigError, match="accum"):
        from_dict(ExecutionConfig, {"accum": 2})
