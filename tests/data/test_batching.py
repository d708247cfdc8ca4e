"""Batches: the same groups in the same order on every engine (data 5)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.config import ModelConfig
from ptycho_backend.data.batching import Samples, batches_per_epoch, epoch_order, split
from ptycho_backend.data.grouping import group_positions
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import DataError
from ptycho_backend.physics.amplitude_constraint import fill_amplitude
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.physics.translation import canvas_size, extract_patches_at
from ptycho_backend.simulation.simulate import simulate_scan

N = 32


@pytest.fixture(scope="module")
def scan() -> Scan:
    return simulate_scan(N=N, n_positions=12, object_name="lines", photons_per_pattern=1e4, bad_pixels=0.05)


def samples_of(scan, gridsize=2, **fields) -> Samples:
    groups = group_positions(scan.positions_px, gridsize, 7, None, np.random.default_rng(0))
    return Samples(scan, groups, calibrate(scan, ModelConfig(N=N)), **fields)


def test_a_batch_is_normalised_amplitude_with_bad_pixels_filled(scan):
    samples = samples_of(scan)
    batch = samples.batch(np.array([3, 0]))
    rows = samples.groups.indices[[3, 0]]
    amplitude = np.sqrt(scan.patterns[rows].astype(np.float64)) * samples.calibration.rms_input_scale
    expected = np.where(scan.mask, amplitude, fill_amplitude(samples.calibration.probe))
    np.testing.assert_allclose(batch.x, expected, rtol=1e-6)
    np.testing.assert_array_equal(batch.mask, scan.mask)
    np.testing.assert_allclose(batch.offsets_px, samples.groups.offsets_px[[3, 0]], rtol=1e-6)
    assert [a.dtype for a in (batch.x, batch.mask, batch.offsets_px)] == [np.float32] * 3
    assert len(batch) == 2
    assert batch.labels is None


def test_canvas_has_one_size_in_subsets_and_batches(scan):
    samples = samples_of(scan)
    S = canvas_size(N, samples.groups.offsets_px)
    smallest = np.array([np.abs(samples.groups.offsets_px).max(axis=(1, 2)).argmin()])
    assert canvas_size(N, samples.groups.offsets_px[smallest]) < S
    assert samples.subset(smallest).canvas_px == S
    assert {batch.canvas_px for batch in samples.subset(np.arange(5)).batches(2)} == {S}


def test_batches_contain_every_group_once(scan):
    samples = samples_of(scan, gridsize=1)
    order = epoch_order(12, seed=1, epoch=0)
    batches = list(samples.batches(5, order))
    assert [len(batch) for batch in batches] == [5, 5, 2]
    assert [batches_per_epoch(n, 5) for n in (0, 1, 5, 6, 12)] == [0, 1, 1, 2, 3]
    together = np.concatenate([batch.x for batch in batches])
    np.testing.assert_array_equal(together, samples.batch(slice(None)).x[order])
    np.testing.assert_array_equal(np.concatenate([b.x for b in samples.batches(5)]), samples.batch(slice(None)).x)


def test_labels_are_patches_of_the_known_object(scan):
    samples = samples_of(scan, with_labels=True)
    batch = samples.batch(slice(2, 4))
    positions = scan.positions_px[samples.groups.indices[2:4]]
    for group in range(2):
        expected = extract_patches_at(scan.obj, positions[group], N, scan.obj_origin_px)
        np.testing.assert_array_equal(batch.labels[group], expected)
    assert samples.subset(np.arange(2)).batch(slice(0, 1)).labels is not None


def test_labels_need_a_known_object(scan):
    unlabelled = Scan(scan.patterns, scan.positions_px, scan.probe, source="run7.npz")
    with pytest.raises(DataError, match=r"run7\.npz"):
        samples_of(unlabelled, with_labels=True)


@pytest.mark.parametrize(("n", "n_validation"), [(1, 0), (2, 1), (3, 1), (20, 1), (100, 5)])
def test_split_has_at_least_one_group_on_each_side(n, n_validation):
    training, validation = split(n, 0.05, seed=0)
    assert (len(training), len(validation)) == (n - n_validation, n_validation)


@given(n=st.integers(1, 60), fraction=st.floats(0, 0.99), seed=st.integers(0, 5))
def test_split_is_a_partition(n, fraction, seed):
    training, validation = split(n, fraction, seed)
    assert sorted([*training, *validation]) == list(range(n))
    assert len(training) >= 1
    assert list(training) == sorted(training)
    assert list(validation) == sorted(validation)
    if fraction == 0:
        assert len(validation) == 0


def test_split_depends_on_the_seed_alone():
    assert np.array_equal(split(50, 0.2, 3)[1], split(50, 0.2, 3)[1])
    assert not np.array_equal(split(50, 0.2, 3)[1], split(50, 0.2, 4)[1])


def test_epoch_orders_differ_and_are_reproducible():
    orders = [epoch_order(30, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(30)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    np.testing.assert_array_equal(epoch_order(30, 1, 1), orders[3])


def test_split_and_order_use_separate_random_streams():
    assert epoch_order(8, 0, 0).tolist() == np.random.default_rng([0, 2, 0]).permutation(8).tolist()
    assert split(8, 0.25, 0)[1].tolist() == sorted(np.random.default_rng([0, 1]).permutation(8)[:2].tolist())
