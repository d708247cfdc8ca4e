"""YAML files: limits of size, depth and aliases, and values that YAML cannot construct."""

import os
import time

import pytest

from ptycho_backend.errors import ConfigError
from ptycho_backend.runtime.yaml_files import MAX_BYTES, MAX_DEPTH, MAX_NODES, read_yaml

BILLION = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(12)
)
MERGED = "a0: &a0 {x: 1}\n" + "".join(f"a{i + 1}: &a{i + 1} {{<<: [*a{i}, *a{i}, *a{i}]}}\n" for i in range(24))


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "run.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_yaml(path)

    return read


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a:\n  b: !!int abc\n", "line 2: no value of type int: 'abc'"),
        ("a: !!float abc", "line 1: no value of type float: 'abc'"),
        ("a: !!bool maybe", "no value of type bool: 'maybe'"),
        ("a: !!timestamp abc", "no value of type timestamp: 'abc'"),
        ("a: !!timestamp 2001-99-99", "no value of type timestamp"),
        ("a: !!binary '\u00e9'", "line 1"),
        ("a: " + "9" * 5000, "no value of type int"),
        ("[" * 3000, f"more than {MAX_DEPTH} nested levels"),
        ("a: " + "{b: " * 3000, f"more than {MAX_DEPTH} nested levels"),
        ("- " * 3000, f"more than {MAX_DEPTH} nested levels"),
        (BILLION, f"multiplies to more than {MAX_NODES} values"),
        (MERGED, f"multiplies to more than {MAX_NODES} values"),
        ("a: &a [*a]", "an alias that contains itself"),
        ("a: &a {b: {c: *a}}", "an alias that contains itself"),
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' stands twice"),
        ("s:\n  a: 1\n  a: 1\n", "line 3: the key 'a' stands twice"),
        ("a: 1\n'a': 2\n", "the key 'a' stands twice"),
        ("? [1, 2]\n: 3\n", "unhashable"),
        ("a: *nothing", "undefined alias"),
        ("a: \x00", "special characters"),
        (b"a: \xff", "utf-8"),
        ("a: 1\n--- \nb: 2\n", "another document"),
    ],
    ids=lambda value: str(value)[:24].encode("unicode_escape").decode(),
)
def test_invalid_files_are_refused_at_once(read, text, reason):
    started = time.perf_counter()
    with pytest.raises(ConfigError, match="not valid YAML") as caught:
        read(text)
    assert reason in caught.value.received
    assert "run.yaml" in caught.value.received
    assert time.perf_counter() - started < 2.0


def test_plain_aliases_and_merges_are_allowed(read):
    text = "base: &base {device: cpu, threads: 2}\nexecution: {<<: *base, threads: 4}\nlist: [*base, *base]\n"
    values = read(text)
    assert values["execution"] == {"device": "cpu", "threads": 4}
    assert values["list"] == [values["base"]] * 2


def test_dates_stay_text(read):
    assert read("a: 2001-99-99\nb: 2001-01-01\nc: 2001-01-01 10:00:00\n") == {
        "a": "2001-99-99",
        "b": "2001-01-01",
        "c": "2001-01-01 10:00:00",
    }


def test_deepest_allowed_nesting(read):
    levels = MAX_DEPTH - 2  # the mapping and the innermost value are levels too
    assert read("a: " + "[" * levels + "1" + "]" * levels)["a"]


def test_file_that_is_no_small_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    large = tmp_path / "large.yaml"
    large.write_text("# " + "x" * MAX_BYTES, encoding="utf-8")
    for path, reason in (
        (tmp_path / "pipe", "no regular file"),
        ("/dev/zero", "no regular file"),
        (tmp_path, "a folder"),
        (large, f"at most {MAX_BYTES}"),
        (tmp_path / "none.yaml", "No such file"),
        (tmp_path / ("n" * 300), "File name too long"),
        ("null\x00byte", "null byte"),
    ):
        with pytest.raises(ConfigError, match="cannot be read") as caught:
            read_yaml(path)
        assert reason in caught.value.received


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n"])
def test_empty_file(read, text):
    assert read(text) == {}
