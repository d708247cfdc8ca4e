"""Difference of this package's merge of a group from PtychoPINN's, for exact patches, as in the migration guide."""

import numpy as np
import pytest

from ptycho_backend.config import ModelConfig
from ptycho_backend.data.batching import Samples
from ptycho_backend.data.grouping import group_positions
from ptycho_backend.network.physics_constants import patch_weight
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.physics.forward import consistent_patches
from ptycho_backend.physics.translation import extract_patches, scatter_patches
from ptycho_backend.simulation.simulate import simulate_scan

N = 64


def ptychopinn_merge(patches, offsets_px, S):
    """Return patches of the sum of whole patches over the number of central halves plus 0.001."""
    centre = np.zeros((N, N))
    centre[N // 4 : -N // 4, N // 4 : -N // 4] = 1
    count = scatter_patches(np.broadcast_to(centre, patches.shape).astype(float), offsets_px, S).sum(axis=1)
    canvas = scatter_patches(patches, offsets_px, S).sum(axis=1) / (count + 1e-3)
    return extract_patches(canvas[:, None], offsets_px, N)


@pytest.mark.parametrize(
    ("step_px", "probe_big", "expected"), [(4, False, 0.0035), (4, True, 0.15), (8, False, 0.003), (8, True, 0.71)]
)
def test_difference_of_the_merges(step_px, probe_big, expected):
    scan = simulate_scan(N=N, n_positions=256, photons_per_pattern=1e6, seed=0, step_px=float(step_px))
    config = ModelConfig(N=N, gridsize=2, architecture="cnn", probe_big=probe_big)
    groups = group_positions(scan.positions_px, 2, 7, None, np.random.default_rng(0))
    batch = Samples(scan, groups, calibrate(scan, config), with_labels=True).batch(slice(0, 64))
    weight = patch_weight(config, calibrate(scan, config).probe).astype(float)
    patches = batch.labels * (weight > 0)
    offsets = batch.offsets_px.astype(float)
    ours = consistent_patches(patches, offsets, weight, batch.canvas_px)
    other = ptychopinn_merge(patches, offsets, batch.canvas_px)
    intensity = (np.abs(scan.probe) ** 2).sum(axis=0)
    difference = np.sqrt((intensity * np.abs(other - ours) ** 2).sum() / (intensity * np.abs(ours) ** 2).sum())
    assert difference == pytest.approx(expected, rel=0.05)
