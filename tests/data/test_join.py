"""Several scans as one (data 7)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ptycho_backend.data.fields import from_window_middles
from ptycho_backend.data.grouping import group_positions
from ptycho_backend.data.join import join_scans
from ptycho_backend.errors import DataError
from ptycho_backend.physics.translation import extract_patches_at
from ptycho_backend.simulation.simulate import simulate_scan


@pytest.fixture(scope="module")
def scans():
    """Return three scans of unlike extents and objects, with one probe."""
    first = simulate_scan(N=32, n_positions=64, seed=1)
    others = [simulate_scan(N=32, n_positions=n, seed=n, step_px=step) for n, step in ((16, 7.3), (36, 2.1))]
    return [first, *(dataclasses.replace(other, probe=first.probe) for other in others)]


def test_one_scan_is_itself(scans):
    assert join_scans(scans[:1]) is scans[0]


def test_joint_scan_has_all_patterns_and_distances(scans):
    joint_scan, start = join_scans(scans), 0
    for scan in scans:
        rows = slice(start, start + len(scan))
        np.testing.assert_array_equal(joint_scan.patterns[rows], scan.patterns)
        shift = joint_scan.positions_px[rows] - scan.positions_px
        np.testing.assert_allclose(shift, shift[:1].repeat(len(scan), axis=0), atol=1e-9)
        start = rows.stop
    assert len(joint_scan) == start


def test_labels_of_the_joint_scan_equal_those_of_each_scan(scans):
    joint_scan, start = join_scans(scans), 0
    for scan in scans:
        expected = extract_patches_at(scan.obj, scan.positions_px, scan.N, scan.obj_origin_px)
        found = extract_patches_at(
            joint_scan.obj, joint_scan.positions_px[start : start + len(scan)], joint_scan.N, joint_scan.obj_origin_px
        )
        np.testing.assert_allclose(found, expected, atol=1e-5)
        start += len(scan)


@pytest.mark.parametrize("gridsize", [2, 3])
def test_groups_do_not_cross_scans(scans, gridsize):
    joint_scan = join_scans(scans)
    owner = np.repeat(np.arange(3), [len(scan) for scan in scans])
    groups = group_positions(joint_scan.positions_px, gridsize, 15, None, np.random.default_rng(0))
    members = owner[groups.indices]
    assert (members == members[:, :1]).all()


def test_joint_mask_is_the_intersection(scans):
    masks = [np.ones((32, 32), bool) for _ in scans]
    masks[0][3, 4] = masks[2][5, 6] = False
    joint_scan = join_scans([dataclasses.replace(s, mask=m) for s, m in zip(scans, masks, strict=True)])
    assert np.argwhere(~joint_scan.mask).tolist() == [[3, 4], [5, 6]]


def test_object_is_dropped_if_one_scan_lacks_it(scans):
    assert join_scans([scans[0], dataclasses.replace(scans[1], obj=None)]).obj is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"probe": lambda scan: scan.probe[:, ::-1] * 1.5}, "different probes"),
        ({"probe": lambda scan: np.concatenate([scan.probe, scan.probe])}, "probe modes 1 and 2"),
        ({"pixel_size_m": lambda scan: (1e-9, 2e-9)}, "object pixels"),
        (
            {"measurement": lambda scan: "amplitude", "patterns": lambda scan: np.sqrt(scan.patterns)},
            "measurement domains 'counts' and 'amplitude'",
        ),
    ],
)
def test_different_scans_are_refused(scans, change, words):
    other = dataclasses.replace(scans[1], source="b.npz", **{name: make(scans[1]) for name, make in change.items()})
    with pytest.raises(DataError, match=words) as caught:
        join_scans([scans[0], other])
    assert "b.npz" in str(caught.value)


def test_empty_list_of_scans_is_refused():
    with pytest.raises(DataError, match="none"):
        join_scans([])


@pytest.mark.parametrize(("N", "shift"), [(32, 0.5), (33, 0.0)])
def test_window_middle_is_half_a_pixel_before_the_centre_pixel(N, shift):
    np.testing.assert_array_equal(from_window_middles(np.array([[1.0, -2.0]]), N), [[1.0 + shift, -2.0 + shift]])
