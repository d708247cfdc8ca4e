"""Options of commands that leave out patterns and pixels: --exclude and --bad-pixels (spec: data 3.8, 9.8)."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.commands.files import rows_of
from ptycho_backend.data.npz import write_npz
from ptycho_backend.data.product import read_product
from ptycho_backend.errors import ConfigError


@pytest.fixture(scope="module")
def hot_file(scan, tmp_path_factory):
    """Return the file of a scan with one hot pixel."""
    patterns = np.asarray(scan.patterns).astype(np.uint32)
    patterns[:, 5, 6] = np.random.default_rng(0).poisson(5000, len(patterns))
    return write_npz(dataclasses.replace(scan, patterns=patterns), tmp_path_factory.mktemp("hot") / "hot.npz")


@given(rows=st.lists(st.integers(0, 10**6), max_size=20))
def test_numbers_are_read(rows):
    assert rows_of(",".join(map(str, rows))).tolist() == rows


@given(first=st.integers(0, 10**6), n=st.integers(1, 99))
def test_ranges_contain_both_ends(first, n):
    assert rows_of(f"7,{first}-{first + n - 1}").tolist() == [7, *range(first, first + n)]


@pytest.mark.parametrize("text", ["3;4", "a", "-3", "3-", "3,,4", ",", "5-3", "1.5", "1-2-3", "²", "10000000000000"])
def test_another_text_is_an_error(text):
    with pytest.raises(ConfigError) as caught:
        rows_of(text)
    assert len(str(caught.value).splitlines()) == 4
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("command", ["reconstruct", "train", "parity", "info"])
@pytest.mark.parametrize(
    ("rows", "status", "words"),
    [("64", 1, "whole numbers from 0 to 63"), ("3-1", 2, "'--exclude' cannot"), ("0-63", 1, "all 64 excluded")],
)
def test_commands_refuse_wrong_rows(ptychopinn, fails_with, scan_file, command, rows, status, words, tmp_path):
    output = ("--output", tmp_path / "run") if command in ("reconstruct", "train") else ()
    fails_with(ptychopinn(command, scan_file, *output, "--exclude", rows), status, words)
    assert not (tmp_path / "run").exists()


def test_a_wrong_search_is_an_error(ptychopinn, fails_with, scan_file):
    fails_with(ptychopinn("info", scan_file, "--bad-pixels", "of"), 2, "auto, off", "did you mean 'off'")


def test_info_shows_what_is_left(ptychopinn, hot_file):
    outcome = ptychopinn("info", hot_file, "--exclude", "3,17,40-45")
    assert "56 of 32×32 px" in outcome.out
    assert "1 hot pixel" in outcome.err
    assert "--bad-pixels off" in outcome.err
    outcome = ptychopinn("info", hot_file, "--bad-pixels", "off")
    assert "64 of 32×32 px" in outcome.out
    assert outcome.err == ""


def test_a_reconstruction_keeps_the_numbers_of_its_patterns(ptychopinn, hot_file, tmp_path):
    options = ("--exclude", "0,40-45", "--inference.iterations", 3, "--quiet")
    outcome = ptychopinn("reconstruct", hot_file, "--output", tmp_path / "image", *options)
    assert outcome.status == 0, outcome.err
    assert "1 hot pixel" in outcome.err
    product = read_product(tmp_path / "image/reconstruction.h5")
    assert product.indexes.tolist() == [*range(1, 40), *range(46, 64)]
    assert len(product.positions_px) == 57
    outcome = ptychopinn("evaluate", tmp_path / "image/reconstruction.h5", hot_file, "--exclude", "0,40-45")
    assert outcome.status == 0, outcome.err
