"""Scan positions from arrays, text and rasters (spec: data 12), compared with places known beforehand."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from ptycho_backend.errors import ConfigError, DataError, ShapeError
from ptycho_backend.importing.description import PositionsDescription as Positions
from ptycho_backend.importing.positions import scan_positions

Y = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
X = np.array([10.0, 30.0, 20.0, 50.0, 40.0])
BOTH = np.stack([Y, X], axis=1)


@pytest.fixture
def arrays(tmp_path):
    """Return the path of an NPZ file with the same positions in several layouts."""
    path = tmp_path / "scan.npz"
    table = np.stack([X, np.arange(5) * 7.0, Y], axis=1)
    words = np.array(["a", "b", "c", "d", "e"])
    np.savez(path, y=Y, x=X, column=X[:, None], both=BOTH, wide=BOTH.T, table=table, words=words)
    return path


def text(tmp_path, content, name="positions.csv"):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    return str(path)


def px(**fields):
    return Positions(unit="px", **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"y": "{}:y", "x": "{}:x"},
        {"y": "{}:y", "x": "{}:column"},
        {"y": "{}:both"},
        {"y": "{}:wide"},
        {"y": "{}:table", "columns": "2,0"},
    ],
    ids=["two arrays", "column", "(n, 2)", "(2, n)", "(n, 3)"],
)
def test_every_layout_of_arrays_gives_the_same_positions(arrays, fields):
    fields = {name: value.format(arrays) for name, value in fields.items()}
    positions, unit = scan_positions(px(**fields), 5)
    assert unit == "px"
    assert positions.dtype == np.float64
    np.testing.assert_array_equal(positions, BOTH)


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("y,x\n0,10\n1,30\n2,20\n3,50\n4,40\n", ""),
        ("\ufeffX;t;Y\n10;1;0\n30;1;1\n20;1;2\n50;1;3\n40;1;4\n", ""),
        ("# a scan\n# n sx sy\n0 10 0\n1 30 1\n\n2 20 2  # late\n3 50 3\n4 40 4\n", "sy,sx"),
        ("  0   10\n  1   3e1\n 2 20\n3 50\n4 40", "0,1"),
        ("10\t0\n30\t1\n20\t2\n50\t3\n40\t4\n", "1,0"),
        ('"name","the x","the y"\na,10,0\nb,30,1\nc,20,2\nd,50,3\ne,40,4\n', "the y,the x"),
    ],
    ids=["commas", "semicolons", "comment header", "blanks", "tabs", "quotes"],
)
def test_text_files_give_the_same_positions(tmp_path, content, columns):
    positions, _ = scan_positions(px(text=text(tmp_path, content), columns=columns), 5)
    np.testing.assert_array_equal(positions, BOTH)


@pytest.mark.parametrize(("unit", "factor"), [("m", 1), ("mm", 1e-3), ("um", 1e-6), ("nm", 1e-9), ("angstrom", 1e-10)])
def test_lengths_are_returned_in_metres(arrays, unit, factor):
    positions, of_result = scan_positions(Positions(y=f"{arrays}:both", unit=unit), 5)
    assert of_result == "m"
    np.testing.assert_allclose(positions, BOTH * factor, rtol=1e-15)


def test_an_undeclared_unit_is_an_error_with_the_extent_in_every_unit(arrays):
    np.savez(arrays, y=Y * 8e-6, x=Y * 2e-6)
    with pytest.raises(ConfigError) as error:
        scan_positions(Positions(y=f"{arrays}:y", x=f"{arrays}:x"), 5)
    assert "extent 3.2e-05: m gives 32 µm, mm gives 32 nm, um gives 32 pm" in error.value.received
    assert "px gives 3.2e-05 px" in error.value.received
    assert "--positions.unit" in error.value.fix


def hdf5(tmp_path, units_y, units_x=None):
    import h5py

    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        for name, values, units in (("y", Y, units_y), ("x", X, units_x if units_x is not None else units_y)):
            file[f"entry/{name}"] = values
            if units:
                file[f"entry/{name}"].attrs["units"] = units
    return {"y": f"{path}:/entry/y", "x": f"{path}:/entry/x"}


@pytest.mark.parametrize("units", ["um", "µm", b"microns", np.array(["um"], dtype="S")])
def test_the_unit_of_an_hdf5_dataset_is_used_and_logged(tmp_path, caplog, units):
    with caplog.at_level(logging.INFO):
        positions, _ = scan_positions(Positions(**hdf5(tmp_path, units)), 5)
    np.testing.assert_allclose(positions, BOTH * 1e-6)
    assert "has the unit" in caplog.text


def test_a_declared_unit_replaces_that_of_the_file_with_a_warning(tmp_path, caplog):
    positions, _ = scan_positions(Positions(unit="nm", **hdf5(tmp_path, "mm")), 5)
    np.testing.assert_allclose(positions, BOTH * 1e-9)
    assert "has the unit 'mm'; --positions.unit nm is used" in caplog.text


@pytest.mark.parametrize(("of_y", "of_x", "reason"), [("steps", None, "unknown unit 'steps'"), ("mm", "um", "'mm'")])
def test_units_of_a_file_that_cannot_be_used_are_an_error(tmp_path, of_y, of_x, reason):
    with pytest.raises(ConfigError, match=reason) as error:
        scan_positions(Positions(**hdf5(tmp_path, of_y, of_x)), 5)
    assert "--positions.unit" in error.value.fix


def test_the_axes_are_exchanged_before_the_signs(arrays):
    positions, _ = scan_positions(px(y=f"{arrays}:both", swap=True, y_sign=-1), 5)
    np.testing.assert_array_equal(positions, np.stack([-X, Y], axis=1))


def test_a_rotation_by_90_degrees_makes_the_x_of_the_scan_the_y_of_the_detector(tmp_path):
    path = text(tmp_path, "y,x\n5,-2\n5,8\n3,3\n7,3\n")
    positions, _ = scan_positions(px(text=path, rotation_deg=90), 4)
    # about the middle (5, 3): a point to the right is then at the bottom, a point at the bottom to the left
    np.testing.assert_allclose(positions, [[0, 3], [10, 3], [5, 5], [5, 1]], atol=1e-12)


def test_a_rotation_keeps_distances_and_the_middle_and_its_opposite_undoes_it(tmp_path):
    plain, _ = scan_positions(px(raster_shape="4x7", step_y=2.0, step_x=3.0), 28)
    turned, _ = scan_positions(px(raster_shape="4x7", step_y=2.0, step_x=3.0, rotation_deg=20), 28)
    np.testing.assert_allclose(turned.mean(axis=0), plain.mean(axis=0))
    first, last = turned[1] - turned[0], turned[7] - turned[0]  # one step along x, one along y
    np.testing.assert_allclose(first, 3 * np.array([np.sin(np.radians(20)), np.cos(np.radians(20))]))
    np.testing.assert_allclose(last, 2 * np.array([np.cos(np.radians(20)), -np.sin(np.radians(20))]))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [[0, 0], [0, 3], [0, 6], [2, 0], [2, 3], [2, 6]]),
        ({"snake": True}, [[0, 0], [0, 3], [0, 6], [2, 6], [2, 3], [2, 0]]),
        ({"fast_axis": "y"}, [[0, 0], [2, 0], [0, 3], [2, 3], [0, 6], [2, 6]]),
        ({"fast_axis": "y", "snake": True}, [[0, 0], [2, 0], [2, 3], [0, 3], [0, 6], [2, 6]]),
    ],
)
def test_a_raster_moves_along_its_fast_axis(fields, expected):
    positions, _ = scan_positions(px(raster_shape="2x3", step_y=2.0, step_x=3.0, **fields), 6)
    np.testing.assert_array_equal(positions, expected)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [[0, 0], [0, 2], [0, 4], [2, 0], [2, 2], [2, 4]]),
        ({"raster_shape": "2x3", "snake": True}, [[0, 0], [0, 2], [0, 4], [2, 4], [2, 2], [2, 0]]),
        ({"fast_axis": "y", "snake": True}, [[0, 0], [2, 2], [0, 4], [2, 0], [0, 2], [2, 4]]),
    ],
)
def test_a_scan_of_four_axes_has_its_own_raster_row_by_row(fields, expected):
    positions, _ = scan_positions(Positions(unit="nm", step_y=2.0, **fields), 6, (2, 3))
    np.testing.assert_allclose(positions, np.array(expected) * 1e-9)


def test_arrays_of_a_scan_of_four_axes_have_its_shape_or_that_of_its_axes(tmp_path):
    path = tmp_path / "scan.npz"
    y, x = np.meshgrid([0.0, 5.0], [1.0, 2.0, 3.0], indexing="ij")
    np.savez(path, y=y, x=x, rows=y[:, 0], columns=x[0])
    maps, _ = scan_positions(px(y=f"{path}:y", x=f"{path}:x"), 6, (2, 3))
    axes, _ = scan_positions(px(y=f"{path}:rows", x=f"{path}:columns"), 6, (2, 3))
    np.testing.assert_array_equal(maps, [[0, 1], [0, 2], [0, 3], [5, 1], [5, 2], [5, 3]])
    np.testing.assert_array_equal(axes, maps)
    with pytest.raises(ShapeError, match="one number for every pattern"):
        scan_positions(px(y=f"{path}:y", x=f"{path}:x"), 6)


def test_surplus_positions_are_dropped_with_a_warning_also_if_they_are_not_finite(tmp_path, caplog):
    path = text(tmp_path, "y,x\n0,10\n1,30\n2,20\nnan,nan\n")
    positions, _ = scan_positions(px(text=path), 3)
    np.testing.assert_array_equal(positions, BOTH[:3])
    assert "holds 4 positions for 3 patterns" in caplog.text


def test_fewer_positions_than_patterns_are_an_error_with_both_numbers(arrays):
    with pytest.raises(ShapeError, match=r"7 positions for 7 patterns[\s\S]*5 positions") as error:
        scan_positions(px(y=f"{arrays}:y", x=f"{arrays}:x"), 7)
    assert "--positions.y" in error.value.fix
    with pytest.raises(ShapeError, match=r"--positions.raster_shape"):
        scan_positions(px(raster_shape="2x3", step_y=1.0), 7)


def test_positions_that_are_not_finite_are_named_by_pattern_and_file(tmp_path):
    path = text(tmp_path, "y,x\n0,10\n1,nan\n2,20\nabc,50\n")
    with pytest.raises(DataError, match=r"2 without, first those of patterns 1, 3.*positions\.csv") as error:
        scan_positions(px(text=path), 4)
    assert "--positions.text" in error.value.fix


@pytest.mark.parametrize(
    ("content", "columns", "received", "fix"),
    [
        ("a 1\nb 2\nc 3\n", "0,1", "no number in column '0'", "--positions.columns"),
        ("1,5;2,5\n3,5;4,5\n", "0,1", "no number in column '0'", "--positions.columns"),
        ("1 2\n3 4\n", "", "2 columns", "--positions.columns 0,1"),
        ("u,v\n1,2\n3,4\n", "", "named u, v", "--positions.columns 0,1"),
        ("pos_y,pos_x\n1,2\n3,4\n", "pos_y,posx", "'posx'", "did you mean 'pos_x'?"),
        ("1 2\n3 4\n", "0,2", "'2'", "--positions.columns"),
        ("1 2\n3 4\n", "0", "'0'", "--positions.columns 0,1"),
        ("1 2\n3 4 5\n", "0,1", "columns than 2 in line 2", "--positions.text"),
        ("# nothing\n\n", "0,1", "no line with numbers", "--positions.text"),
    ],
)
def test_a_text_file_without_two_columns_of_numbers_is_an_error(tmp_path, content, columns, received, fix):
    with pytest.raises((ConfigError, DataError)) as error:
        scan_positions(px(text=text(tmp_path, content), columns=columns), 2)
    assert received in error.value.received
    assert "positions.csv" in error.value.received
    assert fix in error.value.fix


def test_text_files_that_cannot_be_read_are_an_error_that_names_the_option(tmp_path):
    binary = tmp_path / "binary.txt"
    binary.write_bytes(bytes(range(256)) * 4)
    for path in (tmp_path / "absent.txt", tmp_path, binary, "with\0null"):
        with pytest.raises(DataError, match=r"--positions\.text"):
            scan_positions(px(text=str(path), columns="0,1"), 2)


def test_arrays_that_are_no_positions_are_an_error(arrays, tmp_path):
    stack = tmp_path / "stack.npy"
    np.save(stack, np.zeros((5, 8, 8)))
    for fields in ({"y": str(stack)}, {"y": str(stack), "x": f"{arrays}:x"}, {"y": f"{arrays}:table"}):
        with pytest.raises((DataError, ConfigError)) as error:
            scan_positions(px(**fields), 5)
        assert "--positions" in error.value.fix
    with pytest.raises(DataError, match="words"):
        scan_positions(px(y=f"{arrays}:words", x=f"{arrays}:x"), 5)
    np.savez(arrays, y=Y, x=X[:4], square=np.eye(2))
    with pytest.raises(ShapeError, match=r"5 values in .* 4 in"):
        scan_positions(px(y=f"{arrays}:y", x=f"{arrays}:x"), 5)
    with pytest.raises(ShapeError, match=r"--positions\.y and --positions\.x"):
        scan_positions(px(y=f"{arrays}:square"), 2)


@pytest.mark.parametrize(
    ("fields", "raster", "message"),
    [
        ({}, None, "none of them"),
        ({}, (2, 3), "--positions.step_y for the raster of 2x3"),
        ({"step_x": 1.0}, (2, 3), "without --positions.step_y"),
        ({"raster_shape": "2x3"}, None, "without --positions.step_y"),
        ({"raster_shape": "2by3", "step_y": 1.0}, None, "--positions.raster_shape 2by3"),
        ({"raster_shape": "3x2", "step_y": 1.0}, (2, 3), "leave out --positions.raster_shape"),
        ({"step_y": 1.0, "fast_axis": "y"}, (2, 3), "--positions.fast_axis y"),
        ({"x": "a.npy"}, None, "add --positions.y"),
        ({"y": "a.npy", "text": "a.txt"}, None, "--positions.y and --positions.text"),
        ({"text": "a.txt", "raster_shape": "2x3"}, None, "--positions.text and --positions.raster_shape"),
        ({"y": "a.npy", "snake": True}, None, "--positions.snake"),
        ({"text": "a.txt", "step_y": 1.0}, None, "--positions.step_y"),
        ({"y": "a.npy", "x": "b.npy", "columns": "0,1"}, None, "--positions.columns"),
        ({"raster_shape": "2x3", "step_y": 1.0, "columns": "0,1"}, None, "--positions.columns"),
    ],
)
def test_missing_contradicting_and_inert_fields_are_errors_that_name_the_option(fields, raster, message):
    with pytest.raises(ConfigError) as error:
        scan_positions(px(**fields), 6, raster)
    assert message in str(error.value)


def test_a_raster_without_a_unit_gives_its_extent():
    with pytest.raises(ConfigError, match=r"extent 5e-08: m gives 50 nm"):
        scan_positions(Positions(raster_shape="2x6", step_y=1e-8), 12)
