"""Odd descriptions and damaged files of an import: an error with four lines, or a scan with finite values."""

import numpy as np
import pytest
import scipy.io
import tifffile

import ptycho_backend as pb
from ptycho_backend.config import from_dict, to_dict
from ptycho_backend.importing.layout import layout_of

from ..importing import layouts
from .test_options import replaced

KINDS = ("cxi", "nxcxi_ptycho", "eiger", "ptychoshelves", "ptylab", "ptyd", "npz", "ptychodus")
ADDRESSES = (None, "entry", "/", "data", "x:y", "2x2", "::-1", "YXyx", "0,1", "a,b", "1e-9", "/dev/null")
TRUTH = layouts.truth(12)
GEOMETRY = {"object_pixel_m": 1e-8}


def right(result):
    return isinstance(result, pb.PtychoError) or bool(np.isfinite(result.amplitude()).all())


@pytest.mark.parametrize("kind", KINDS)
def test_values_of_a_description(kind, seed, draw, odd_value, outcome, tmp_path):
    files = getattr(layouts, kind)(tmp_path, TRUTH)
    own = (*ADDRESSES, str(files[0]), f"{files[0]}:/entry_1")

    def value():
        return own[draw.integers(len(own))] if draw.random() < 0.5 else odd_value()

    values = replaced(to_dict(layout_of(files).config), draw, value, 0.1)
    config = outcome(from_dict, pb.ImportConfig, values, "a test")
    assert isinstance(config, pb.PtychoError) or right(outcome(pb.import_scan, files, config))


def write_patterns(path):
    patterns = TRUTH.patterns
    if path.suffix == ".npy":
        np.save(path, patterns)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {"data": patterns})
    elif path.suffix == ".tif":
        tifffile.imwrite(path, patterns.astype(np.uint16), photometric="minisblack")
    else:
        patterns.astype("<u2").tofile(path)


@pytest.mark.parametrize("suffix", [".npy", ".mat", ".tif", ".raw", ".csv"])
def test_bytes_of_a_file(suffix, seed, damaged, outcome, tmp_path):
    """Patterns and positions in files of their own, one of them damaged."""
    patterns = tmp_path / f"patterns{suffix if suffix != '.csv' else '.npy'}"
    write_patterns(patterns)
    places = tmp_path / "places.csv"
    np.savetxt(places, TRUTH.positions_m, delimiter=",", header="sy,sx", comments="")
    odd = places if suffix == ".csv" else patterns
    odd.write_bytes(damaged(odd.read_bytes()))
    raw = {"raw_shape": "12x32x32", "raw_dtype": "<u2"} if suffix == ".raw" else {}
    positions = {"text": str(places), "columns": "sy,sx", "unit": "m"}
    values = {"patterns": {"unit": "counts", **raw}, "positions": positions, "geometry": GEOMETRY}
    config = from_dict(pb.ImportConfig, values, "a test")
    assert right(outcome(pb.import_scan, patterns, config))
