"""Errors that say what to do, in any process."""

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


def test_what_is_not_known_is_left_out():
    assert str(PtychoError("A rule.")) == "A rule."
    assert str(PtychoError("A rule.", fix="do so")) == "A rule.\n  Fix: do so"


@pytest.mark.parametrize("error_type", CLASSES, ids=lambda error_type: error_type.__name__)
@given(parts=st.tuples(*[st.text(max_size=20)] * 4))
def test_errors_survive_a_process_boundary(error_type, parts):
    """Clients run the package in child processes; OSError and ImportError pickle in ways of their own."""
    error = error_type(*parts)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own
        assert type(twin) is error_type
        assert str(twin) == str(error)
        assert (twin.rule, twin.expected, twin.received, twin.fix) == parts


@pytest.mark.parametrize("error_type", CLASSES, ids=lambda error_type: error_type.__name__)
def test_errors_can_be_caught_in_pythons_own_words(error_type):
    assert issubclass(error_type, BUILTIN.get(error_type.__name__, Exception))
    assert issubclass(error_type, PtychoError)


def test_the_first_line_of_any_error():
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
def test_the_nearest_name(name, nearest):
    assert nearest_name(name, ["nepochs", "n_filters_scale", "gridsize"]) == nearest


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, unique=True), st.data())
def test_a_known_name_is_its_own_nearest(known, data):
    name = data.draw(st.sampled_from(known))
    assert nearest_name(name, known) == name
