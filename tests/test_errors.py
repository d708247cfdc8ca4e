"""Errors: four lines, constructors for recurring rules, pickling and base classes."""

import copy
import inspect
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend import errors
from ptycho_backend.errors import PtychoError, ShapeError, first_line, nearest_name

CLASSES = [
    member
    for _, member in inspect.getmembers(errors, inspect.isclass)
    if issubclass(member, PtychoError) and member.__module__ == errors.__name__
]
BUILTIN = {
    "ConfigError": ValueError,
    "DataError": ValueError,
    "ShapeError": ValueError,
    "ModelFileError": ValueError,
    "OutputError": OSError,
    "DeviceError": RuntimeError,
    "TrainingError": RuntimeError,
    "UnknownBackendError": ValueError,
    "BackendNotInstalledError": ImportError,
    "BackendSetupError": RuntimeError,
}


def test_an_error_has_four_lines():
    error = ShapeError("Probes are square.", expected="(64, 64)", received="(64, 32) in 'a.npz'", fix="crop it")
    assert str(error).splitlines() == [
        "Probes are square.",
        "  Expected: (64, 64)",
        "  Received: (64, 32) in 'a.npz'",
        "  Fix: crop it",
    ]


def test_empty_lines_are_omitted():
    assert str(PtychoError("A rule.")) == "A rule."
    assert str(PtychoError("A rule.", fix="do so")) == "A rule.\n  Fix: do so"


@pytest.mark.parametrize("error_type", CLASSES, ids=lambda error_type: error_type.__name__)
@given(parts=st.tuples(*[st.text(max_size=20)] * 4))
def test_errors_survive_pickling(error_type, parts):
    """Clients run the package in child processes; OSError and ImportError have their own pickling."""
    error = error_type(*parts)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own
        assert type(twin) is error_type
        assert str(twin) == str(error)
        assert (twin.rule, twin.expected, twin.received, twin.fix) == parts


@pytest.mark.parametrize("error_type", CLASSES, ids=lambda error_type: error_type.__name__)
def test_builtin_base_classes(error_type):
    assert issubclass(error_type, BUILTIN.get(error_type.__name__, Exception))
    assert issubclass(error_type, PtychoError)


def test_first_line():
    assert first_line(ShapeError("Probes are square.", fix="crop it")) == "Probes are square."
    assert first_line(ValueError("one\r\ntwo")) == "one"
    assert first_line(EOFError()) == "no message"
    assert first_line(EOFError(), "EOFError") == "EOFError"


def test_a_shape_error_is_a_data_error():
    assert issubclass(errors.ShapeError, errors.DataError)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("nepoch", "nepochs"), ("n_filter_scale", "n_filters_scale"), ("GRIDSIZE", None), ("zzz", None), ("", None)],
)
def test_nearest_name(name, nearest):
    assert nearest_name(name, ["nepochs", "n_filters_scale", "gridsize"]) == nearest


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, unique=True), st.data())
def test_nearest_name_of_a_known_name(known, data):
    name = data.draw(st.sampled_from(known))
    assert nearest_name(name, known) == name


def test_unknown_name_suggests_the_nearest():
    error = errors.UnknownBackendError.unknown("engine", "pytorhc", ["pytorch", "tensorflow"], "backend='pytorhc'")
    assert type(error) is errors.UnknownBackendError
    assert str(error).splitlines() == [
        "Unknown engine 'pytorhc'.",
        "  Expected: one of pytorch, tensorflow",
        "  Received: backend='pytorhc'",
        "  Fix: did you mean 'pytorch'?",
    ]


@pytest.mark.parametrize(
    ("otherwise", "fix"), [("", "choose a known engine"), ("list the engines", "list the engines")]
)
def test_unknown_name_without_a_similar_one(otherwise, fix):
    error = errors.ConfigError.unknown("engine", "zzz", ["pytorch"], otherwise=otherwise)
    assert (error.received, error.fix) == ("'zzz'", fix)


def test_missing_packages():
    error = errors.BackendNotInstalledError.not_installed("The engine 'x'", ("a", "b"), ("b",), "extra")
    assert type(error) is errors.BackendNotInstalledError
    assert (error.rule, error.expected) == (
        "The engine 'x' needs packages that are not installed.",
        "the packages a, b",
    )
    assert (error.received, error.fix) == ("missing: b", "pip install 'ptychopinn[extra]'")


def test_invalid_fields():
    error = errors.ConfigError.invalid_fields("ModelConfig", ["N: too small", "gridsize: too large"], "file 'a.yaml'")
    assert error.rule == "ModelConfig has 2 invalid value(s)."
    assert (error.expected, error.received) == ("N: too small; gridsize: too large", "file 'a.yaml'")


def test_changed_settings():
    error = errors.ConfigError.changed("Settings stay.", {"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 4}, "restore them")
    assert (error.expected, error.received) == ("b=2, c=3", "b=4, c=None")
    assert errors.ConfigError.changed("Settings stay.", {"a": 1}, {"a": 1}, "") is None


def test_field_and_pattern_errors_name_the_file():
    error = ShapeError.in_field("A rule.", "shape (y, x)", "shape (3,)", "reshape it", "mask", "a.npz")
    assert type(error) is ShapeError
    assert error.received == "shape (3,), field 'mask' of 'a.npz'"
    assert ShapeError.of_patterns("A rule.", "N=64", 32, "a.npz", "").received == "patterns of 32×32 px in 'a.npz'"


def test_output_errors():
    exists = errors.OutputError.exists("a.npz")
    assert exists.received == "'a.npz', which exists"
    assert (
        exists.fix == "choose another name, or overwrite it: overwrite=True in Python, --overwrite on the command line"
    )
    assert errors.OutputError.not_writable("a", "disk full").received == "'a': disk full"
    assert errors.OutputError.not_writable("a", "disk full", fix="free space").fix == "free space"
