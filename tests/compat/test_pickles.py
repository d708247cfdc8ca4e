"""Pickles are read as data: plain values are returned, calls are not executed, sizes are limited."""

import collections
import contextlib
import io
import os
import pathlib
import pickle
import pickletools
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.compat.predecessor import interpreter, pickles
from ptycho_backend.compat.predecessor.arrays import array_of, number_of
from ptycho_backend.compat.predecessor.interpreter import Placeholder
from ptycho_backend.compat.predecessor.pickles import read_pickle
from ptycho_backend.errors import ModelFileError

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
keys = st.text() | st.integers() | st.booleans()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner, inner) | st.tuples(inner) | st.sets(keys)
    ),
    max_leaves=20,
)


@given(values, st.sampled_from([4, 5]))
def test_plain_values(value, protocol):
    found = read_pickle(pickle.dumps(value, protocol), "test")
    assert found == value
    assert type(found) is type(value)


@given(
    st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(keys, inner))
)
def test_early_protocols(value):
    for protocol in range(3):
        assert read_pickle(pickle.dumps(value, protocol), "test") == value


@given(st.binary(max_size=60))
def test_random_bytes(content):
    with contextlib.suppress(ModelFileError):
        read_pickle(content, "test")


@given(st.data())
def test_damaged_pickles(data):
    whole = pickle.dumps({"N": 64, "probe": np.ones((3, 3)), "path": pathlib.PurePosixPath("a/b"), "x": {1, 2}})
    index = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:index] + bytes([data.draw(st.integers(0, 255))]) + whole[index + 1 :]
    with contextlib.suppress(ModelFileError):
        read_pickle(damaged, "test")


def test_every_opcode_is_supported():
    supported = interpreter.LITERALS | set(interpreter.CONSTANTS) | interpreter.IGNORED | set(interpreter.OPERATIONS)
    assert {opcode.name for opcode in pickletools.opcodes} == supported


class Malicious:
    """Object that executes a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_command_is_not_executed(protocol, tmp_path):
    content = pickle.dumps({"N": 64, "intensity_scale": Malicious(tmp_path / "ran")}, protocol)
    found = read_pickle(content, "test")
    assert found["N"] == 64
    assert isinstance(found["intensity_scale"], Placeholder)
    assert found["intensity_scale"].name == f"{os.system.__module__}.system"
    assert number_of(found["intensity_scale"]) is found["intensity_scale"]
    assert list(tmp_path.iterdir()) == []
    pickle.loads(content)  # noqa: S301 - control: Python's own reader executes it
    assert (tmp_path / "ran").exists()


def test_no_opcode_executes_a_call(tmp_path):
    """REDUCE, INST, OBJ, NEWOBJ, NEWOBJ_EX, BUILD, and names that do not exist."""
    command = f"touch {tmp_path}/ran".encode()
    text = b"X" + struct.pack("<I", len(command)) + command
    system = b"cposix\nsystem\n"
    for body in (
        system + text + b"\x85R",
        b"(" + text + b"iposix\nsystem\n",
        b"(" + system + text + b"o",
        b"\x80\x02" + system + text + b"\x85\x81",
        b"\x80\x04" + system + text + b"\x85}\x92",
        system + text + b"\x85b",
        b"cdill._dill\n_create_function\n(" + text + b"tR",
        b"cno.such.module\nname\n)R",
        b"Pan identifier\n",
        b"\x82\x01",
    ):
        found = read_pickle(body + b".", "test")
        assert isinstance(found, Placeholder), body
        assert "not loaded" in repr(found)
    assert list(tmp_path.iterdir()) == []


def test_plain_values_beside_functions_and_classes():
    stream = io.BytesIO()
    settings = collections.OrderedDict(N=64)
    pickle.Pickler(stream, 4).dump({"f": len, "c": collections.OrderedDict, "o": settings, "N": 128})
    found = read_pickle(stream.getvalue(), "test")
    assert found["N"] == 128
    assert all(isinstance(found[key], Placeholder) for key in "fco")


LIMITS = {
    "a deeply nested tuple as a key": b"}" + b")" + b"\x85" * 100_000 + b"Ns.",
    "containers in containers": b"(" * 1000 + b".",
    "text without content": b"X\xff\xff\xff\x7fabc.",
    "huge text without content": b"\x8d" + b"\xff" * 7 + b"\x7f" + b"abc.",
    "no end": b"]" * 10,
    "nothing": b"",
    "values left over": b"NN.",
    "an empty stack": b".",
    "an empty memo": b"h\x05.",
    "a missing mark": b"t.",
    "a frame with a wrong length": b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f" + b"N.",
    "an unhashable key": b"}](Ns.",
}


@pytest.mark.parametrize("kind", LIMITS)
def test_malicious_and_damaged_pickles(kind):
    if kind == "a frame with a wrong length":  # frames are a hint for streams
        assert read_pickle(LIMITS[kind], "test") is None
        return
    with pytest.raises(ModelFileError, match="as data"):
        read_pickle(LIMITS[kind], "somewhere")


def test_limits_of_size_operations_and_memo(monkeypatch):
    monkeypatch.setattr(pickles, "MAX_BYTES", 100)
    with pytest.raises(ModelFileError, match="101 bytes"):
        read_pickle(b"N" * 101, "test")
    monkeypatch.undo()
    monkeypatch.setattr(pickles, "MAX_OPERATIONS", 50)
    with pytest.raises(ModelFileError, match="more than 50 operations"):
        read_pickle(b"N0" * 60 + b"N.", "test")
    monkeypatch.undo()
    monkeypatch.setattr(interpreter, "MAX_MEMO", 5)
    with pytest.raises(ModelFileError, match="more than 5 values"):
        read_pickle(b"N" + b"\x94" * 9 + b".", "test")


def test_nested_references_are_shared():
    """61 lists in memory refer to each other; a copy would have 2^60 elements."""
    body = b"]q\x00" + b"".join(b"0](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(60))
    found = read_pickle(body + b".", "test")
    assert found[0] is found[1]


def test_deeply_nested_tuples():
    found = read_pickle(b"]" + b"\x85" * 100_000 + b".", "test")
    for _ in range(100_000):
        (found,) = found
    assert found == []


# --- numbers and arrays --------------------------------------------------------------------------------------------

KINDS = ["?", "i1", "u2", "i8", "f2", "f4", "f8", "c8", "c16", ">f8", ">c8"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_scalars(kind, protocol):
    values = (np.random.default_rng(1).normal(size=(2, 3, 4)) * 50).astype(kind)
    for array in (values, np.asfortranarray(values), values[:, ::2], values[0, 0, 0]):
        found = array_of(read_pickle(pickle.dumps(array, protocol), "test"))
        np.testing.assert_array_equal(found, array)
        assert found.dtype == np.asarray(array).dtype
    assert number_of(read_pickle(pickle.dumps(values[0, 0, 0], protocol), "test")) == values[0, 0, 0]


def test_tensors():
    array = np.arange(6, dtype=np.complex64).reshape(2, 3)
    found = Placeholder(Placeholder("tensorflow.python.framework.ops.convert_to_tensor"), (plain(array),))
    np.testing.assert_array_equal(array_of(found), array)
    assert array_of(Placeholder(Placeholder("other.convert_to_tensor"), (plain(array),))) is None
    for _ in range(10_000):  # nested conversions are no tensor
        found = Placeholder(Placeholder("tensorflow.convert_to_tensor"), (found,))
    assert array_of(found) is None


def plain(array):
    return read_pickle(pickle.dumps(array, 4), "test")


def array_placeholder(**changes):
    """Return a placeholder for a 2×3 array of float64, with some wrong arguments."""
    dtype = Placeholder(Placeholder("numpy.dtype"), (changes.get("kind", "f8"), False, True))
    dtype.state = (3, "<", None, None, None, -1, -1, 0)
    found = Placeholder(Placeholder("numpy.core.multiarray._reconstruct"), ())
    found.state = (1, changes.get("shape", (2, 3)), dtype, False, changes.get("content", bytes(48)))
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": (2**40, 2**40)},
        {"shape": (-1, 3)},
        {"shape": (2.0, 3)},
        {"shape": (1,) * 40 + (2, 3)},
        {"shape": [2, 3]},
        {"kind": "O8"},
        {"kind": "V8"},
        {"kind": "M8"},
        {"kind": ["f8"]},
        {"content": bytes(47)},
        {"content": None},
        {"content": "text"},
    ],
    ids=str,
)
def test_inconsistent_arrays(changes):
    assert array_of(array_placeholder()).shape == (2, 3)
    assert array_of(array_placeholder(**changes)) is None


@pytest.mark.parametrize("value", [None, 3, "x", [1], Placeholder("numpy.ndarray"), Placeholder(len, (1,))])
def test_other_values(value):
    assert array_of(value) is None
    assert number_of(value) is value
