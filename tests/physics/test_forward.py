"""Merging, exit waves, intensity and expected counts (physics 2 to 4)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.config import ModelConfig
from ptycho_backend.network.physics_constants import PhysicsConstants, patch_weight
from ptycho_backend.physics.calibration import Calibration, probe_weight
from ptycho_backend.physics.forward import (
    consistent_patches,
    exit_waves,
    expected_counts,
    intensity,
    merge,
    smoothing_matrix,
)
from ptycho_backend.physics.propagation import far_field
from ptycho_backend.physics.translation import canvas_size, extract_patches_at, scatter_patches
from ptycho_backend.testing import assert_close
from ptycho_backend.testing.strategies import complex_noise, generators, offsets, probes
from ptycho_backend.testing.tolerances import EXACT32, EXACT64, Tolerance

N = 16
FLOORED = Tolerance(2e-3, "the floor 1e-6 under a weight of at least 1e-3")


def central(quarter: int = N // 4) -> np.ndarray:
    weight = np.zeros((N, N))
    weight[quarter:-quarter, quarter:-quarter] = 1.0
    return weight


@given(rng=generators(), offset=offsets(4, 5.0), probe=probes(N))
def test_merging_does_not_amplify(rng, offset, probe):
    patches = complex_noise(rng, 1, 4, N, N)
    for weight in (probe_weight(probe), central() * probe_weight(probe)):
        canvas = merge(patches, offset[None], weight, canvas_size(N, offset))
        assert np.abs(canvas).max() <= np.abs(patches).max() * (1 + 1e-12)


@given(offset=offsets(4, 5.0))
def test_equal_patches_merge_to_their_value(offset):
    # Pixels outside the support count in neither numerator nor denominator.
    weight, S = central(), canvas_size(N, offset)
    value = 0.7 - 0.2j
    canvas = merge(np.full((1, 4, N, N), value), offset[None], weight, S)[0]
    inside = merge(np.ones((1, 4, N, N)), offset[None], weight, S)[0].real
    covered = np.abs(canvas) > 0.05
    np.testing.assert_allclose(canvas[covered] / inside[covered], value, rtol=1e-9)
    assert np.abs(canvas).max() <= abs(value) * (1 + 1e-12)


def test_canvas_is_zero_outside_the_support():
    patches = np.ones((1, 1, N, N))
    canvas = merge(patches, np.array([[[2.0, -3.0]]]), central(), 24)[0]
    # Window corner at (4 + 2, 4 − 3), support a quarter further in, 8 pixels wide.
    expected = np.zeros((24, 24))
    expected[10:18, 5:13] = 1.0
    np.testing.assert_allclose(canvas, expected, atol=2e-6)


@pytest.mark.parametrize("gridsize", [2, 3])
@given(rng=generators(), probe=probes(N, 1))
def test_patches_of_one_object_merge_to_that_object(gridsize, rng, probe):
    offset = rng.integers(-3, 4, size=(gridsize**2, 2)).astype(float)
    offset[-1] -= offset.sum(axis=0)  # the mean is 0, on whole pixels
    S = canvas_size(N, offset)
    obj = complex_noise(rng, S, S)
    # The canvas is the object: its window's middle pixel lies at S // 2.
    patches = extract_patches_at(obj, S // 2 + offset, N).astype(np.complex128)
    canvas = merge(patches[None], offset[None], probe_weight(probe), S)[0]
    covered = scatter_patches(np.ones((gridsize**2, N, N)), offset, S).sum(axis=0) > 0
    assert_close(canvas[covered], obj[covered], FLOORED)
    np.testing.assert_array_equal(canvas[~covered], 0)
    assert_close(consistent_patches(patches[None], offset[None], probe_weight(probe), S)[0], patches, FLOORED)


def test_merging_is_weighted_by_illumination():
    # Two patches overlap in one pixel, with weights 1 and 0.01.
    weight = np.zeros((N, N))
    weight[8, 8], weight[8, 6] = 1.0, 0.01
    patches = np.stack([np.full((N, N), 2.0), np.full((N, N), 5.0)])[None]
    canvas = merge(patches, np.array([[[0.0, -1.0], [0.0, 1.0]]]), weight, N + 2)[0].real
    assert canvas[9, 8] == pytest.approx((2 * 1.0 + 5 * 0.01) / 1.01, rel=1e-5)


@given(rng=generators(), probe=probes(N), dose=st.floats(1e-3, 1e6))
def test_counts_are_proportional_to_dose(rng, probe, dose):
    patches = complex_noise(rng, 2, N, N)
    once = expected_counts(patches, probe, 1.0)
    assert_close(expected_counts(patches, probe, dose), dose * once, EXACT64)
    assert_close(expected_counts(patches, probe, 1.0, log_scale=0.5 * np.log(dose)), dose * once, EXACT64)
    assert_close(expected_counts(np.sqrt(dose) * patches, probe, 1.0), dose * once, EXACT64)


@given(rng=generators(), probe=probes(N), phase=st.floats(-np.pi, np.pi))
def test_intensity_is_independent_of_a_global_phase(rng, probe, phase):
    patches, factor = complex_noise(rng, 2, N, N), np.exp(1j * phase)
    assert_close(intensity(factor * patches, probe), intensity(patches, probe), EXACT64)
    factors = np.exp(1j * phase * np.arange(len(probe)))[:, None, None]
    assert_close(intensity(patches, factors * probe), intensity(patches, probe), EXACT64)


@given(rng=generators(), probe=probes(N, 3))
def test_modes_add_as_intensities(rng, probe):
    patches = complex_noise(rng, 2, N, N)
    alone = [intensity(patches, probe[m : m + 1]) for m in range(3)]
    assert_close(intensity(patches, probe), sum(alone), EXACT64)
    together = np.abs(far_field(patches * probe.sum(axis=0))) ** 2
    assert np.abs(together - sum(alone)).max() > 0.01 * together.max()


def test_unit_object_keeps_the_photons_of_the_probe():
    rng = np.random.default_rng(1)
    probe = complex_noise(rng, 2, N, N)
    probe *= (N / 2) / np.sqrt((np.abs(probe) ** 2).sum())
    photons = expected_counts(np.ones((N, N)), probe, 5e4 / (N / 2) ** 2).sum()
    assert photons == pytest.approx(5e4)


@pytest.mark.parametrize("sigma", [0.3, 0.7, 2.0])
def test_smoothing_preserves_the_sum_except_at_the_edge(sigma):
    G = smoothing_matrix(40, sigma)
    reach = int(np.ceil(4 * sigma))
    np.testing.assert_allclose(G.sum(axis=1)[reach:-reach], 1.0, rtol=1e-12)
    assert G.sum(axis=1)[0] < 1.0
    np.testing.assert_allclose(G, G.T)
    spread = np.sqrt((G[20] * (np.arange(40) - 20) ** 2).sum())
    assert spread == pytest.approx(sigma, rel=0.01) or sigma < 0.5


def test_smoothing_blurs_the_exit_wave():
    probe = np.zeros((1, N, N), complex)
    probe[0, 8, 5] = 1.0
    wave = exit_waves(np.full((N, N), 2.0), probe, sigma_px=1.0)[0]
    kernel = np.exp(-0.5 * np.arange(-4, 5) ** 2)
    kernel /= kernel.sum()
    expected = np.zeros((N, N))
    expected[4:13, 1:10] = 2.0 * kernel[:, None] * kernel
    np.testing.assert_allclose(wave, expected, atol=1e-14)
    assert smoothing_matrix(5, 0.0).tolist() == np.eye(5).tolist()


def test_constants_of_a_model(rng):
    probe = complex_noise(rng, 2, 32, 32).astype(np.complex64)
    calibration = Calibration(rms_input_scale=0.25, probe=probe, photon_scale=9.0)
    constants = PhysicsConstants.of(ModelConfig(N=32, probe_mask=True, gaussian_smoothing_sigma=0.5), calibration)
    assert constants.counts_per_intensity == pytest.approx(9.0 / 0.0625)
    # x = r·A and k = photon_scale·A², so k = (x / amplitude_per_root_count)².
    assert constants.amplitude_per_root_count == pytest.approx(0.25 / 3.0)
    assert constants.probe_support[16, 16 + 8] == 1.0
    assert constants.probe_support[16, 16 + 9] == 0.0
    assert constants.probe_support[16 - 8, 16] == 1.0
    assert_close(constants.smoothing, smoothing_matrix(32, 0.5), EXACT32)
    free = PhysicsConstants.of(ModelConfig(N=32), calibration)
    assert free.smoothing is None
    assert free.probe_support.all()


def test_patch_weight_is_the_illumination_of_the_predicted_region():
    probe = np.ones((1, 32, 32), np.complex64)
    probe[0, :, :4] = 0.0
    whole = patch_weight(ModelConfig(N=32, architecture="unet"), probe)
    np.testing.assert_allclose(whole[:, 4:], 1.001, rtol=1e-6)
    np.testing.assert_allclose(whole[:, :4], 0.001, rtol=1e-6)
    half = patch_weight(ModelConfig(N=32, architecture="cnn", probe_big=False), probe)
    assert np.count_nonzero(half) == 16 * 16
    np.testing.assert_array_equal(half[8:24, 8:24], whole[8:24, 8:24])
    for config in (
        ModelConfig(N=32, architecture="cnn"),
        ModelConfig(N=32, architecture="cnn", probe_big=False, pad_object=False),
    ):
        np.testing.assert_array_equal(patch_weight(config, probe), whole)
