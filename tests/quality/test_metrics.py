"""Comparison with a known object: invariances of diffraction, errors, area, ring correlation."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from ptycho_backend.data.phase_plane import fit_plane, level
from ptycho_backend.errors import DataError
from ptycho_backend.quality.metrics import agreement_db, compare, fourier_ring_correlation, remove_ramp
from ptycho_backend.simulation.objects import make_object
from ptycho_backend.solver.registration import find_shift, sample

SIDE = 128
ORIGIN = (-40.0, 25.0)
AMPLITUDE_RANGE, PHASE_RANGE = (0.5, 1.0), (-1.2, 1.2)


def make_truth(shape: tuple[int, int] = (SIDE, SIDE), seed: int = 5) -> np.ndarray:
    obj = make_object("photographs", shape, np.random.default_rng(seed), AMPLITUDE_RANGE, PHASE_RANGE)
    # Band-limited, so that a shift by half a pixel is exact.
    smooth = gaussian_filter(obj.real, 1.0) + 1j * gaussian_filter(obj.imag, 1.0)
    return smooth.astype(np.complex128)


TRUTH = make_truth()
INSIDE = np.array([[y, x] for y in (-24.0, 71.0) for x in (41.0, 136.0)]) + 0.25  # 16 px inside on every side


def noise(level_: float, seed: int = 0, shape: tuple[int, ...] = TRUTH.shape) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return level_ * (rng.normal(size=shape) + 1j * rng.normal(size=shape))


def shifted_probe(obj: np.ndarray, shift_px: tuple[float, float]) -> np.ndarray:
    """Return obj(x - shift), by Fourier shift of a mirrored array, which has no step at its edges."""
    n, m = obj.shape
    doubled = np.block([[obj, obj[:, ::-1]], [obj[::-1], obj[::-1, ::-1]]])
    phase = np.fft.fftfreq(2 * n)[:, None] * shift_px[0] + np.fft.fftfreq(2 * m)[None] * shift_px[1]
    return np.fft.ifft2(np.fft.fft2(doubled) * np.exp(-2j * np.pi * phase))[:n, :m]


def ramped(obj: np.ndarray, piston: float, ramp: tuple[float, float]) -> np.ndarray:
    return level(obj, -np.array([piston, *ramp]))


def blurred(obj: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian_filter(obj.real, sigma) + 1j * gaussian_filter(obj.imag, sigma)


def scores(image: np.ndarray, origin: tuple[float, float] = ORIGIN, **options):
    return compare(image, origin, TRUTH, ORIGIN, INSIDE, **options)


class TestInvariances:
    def test_the_truth_itself_is_perfect(self):
        c = scores(TRUTH)
        assert min(c.amplitude_psnr_db, c.phase_psnr_db) > 100
        assert c.amplitude_ssim == pytest.approx(1.0, abs=1e-9)
        assert c.phase_ssim == pytest.approx(1.0, abs=1e-9)
        assert c.amplitude_correlation == pytest.approx(1.0)
        assert c.phase_correlation == pytest.approx(1.0)
        assert c.frc_half == 1.0
        assert c.shift_px == (0.0, 0.0)
        assert c.warnings == ()

    @given(
        dy=st.floats(-3, 3), dx=st.floats(-3, 3), piston=st.floats(-3, 3), ramp_y=st.floats(-0.2, 0.2),
        ramp_x=st.floats(-0.2, 0.2), scale=st.floats(0.01, 100),
    )  # fmt: skip
    @settings(max_examples=15, deadline=None)
    def test_shift_scale_piston_and_ramp_are_found_and_removed(self, dy, dx, piston, ramp_y, ramp_x, scale):
        image = ramped(shifted_probe(TRUTH, (dy, dx)), piston, (ramp_y, ramp_x)) * scale
        c = scores(image)
        np.testing.assert_allclose(c.shift_px, (dy, dx), atol=0.005)
        np.testing.assert_allclose(c.ramp_rad_per_px, (ramp_y, ramp_x), atol=1e-4)
        assert c.amplitude_scale == pytest.approx(1 / scale, rel=1e-3)
        assert min(c.amplitude_psnr_db, c.phase_psnr_db) > 45
        assert min(c.amplitude_ssim, c.phase_ssim) > 0.995

    @given(dy=st.floats(-20, 20), dx=st.floats(-20, 20))
    @settings(max_examples=15, deadline=None)
    def test_origins_put_both_images_in_one_frame(self, dy, dx):
        # The image shows the same scan coordinates on another grid: the registration finds no shift.
        whole = np.rint([dy, dx]).astype(int)
        image = np.roll(shifted_probe(TRUTH, (dy - whole[0], dx - whole[1])), tuple(whole), axis=(0, 1))
        c = scores(image, (ORIGIN[0] - dy, ORIGIN[1] - dx), max_shift_px=2.0)
        np.testing.assert_allclose(c.shift_px, 0, atol=0.02)
        assert c.phase_psnr_db > 30

    def test_scores_do_not_depend_on_the_crop(self):
        whole = scores(TRUTH + noise(0.02))
        crop = (TRUTH + noise(0.02))[10:-6, 12:-3]
        part = compare(crop, (ORIGIN[0] + 10, ORIGIN[1] + 12), TRUTH, ORIGIN, INSIDE)
        assert part.phase_psnr_db == pytest.approx(whole.phase_psnr_db, abs=0.01)
        assert part.area == whole.area

    def test_wraps_of_the_phase_are_no_errors(self):
        y, x = np.indices(TRUTH.shape)
        steep = np.abs(TRUTH) * np.exp(5j * np.sin(y / 20) * np.cos(x / 17))
        c = compare(steep * np.exp(2.5j) + noise(0.001), ORIGIN, steep, ORIGIN)
        assert c.phase_psnr_db > 60
        assert c.phase_ssim > 0.99


class TestErrors:
    @pytest.mark.parametrize("sigma", [0.003, 0.01, 0.03])
    def test_psnr_of_noise(self, sigma):
        c = scores(TRUTH + noise(sigma))
        amplitude, phase = np.abs(c.truth), np.angle(c.truth)
        # sigma per component: radial noise changes the amplitude, tangential noise the phase by sigma / |O|.
        expected_amplitude = 20 * np.log10(np.ptp(amplitude) / sigma)
        expected_phase = 20 * np.log10(np.ptp(phase) / (sigma * np.sqrt(np.mean(amplitude**-2.0))))
        assert c.amplitude_psnr_db == pytest.approx(expected_amplitude, abs=0.3)
        assert c.phase_psnr_db == pytest.approx(expected_phase, abs=0.3)

    def test_blur_reduces_psnr_and_ssim(self):
        sharp, soft, softer = (scores(blurred(TRUTH, s) if s else TRUTH) for s in (0, 1, 3))
        assert sharp.phase_psnr_db > soft.phase_psnr_db + 10 > softer.phase_psnr_db + 13
        assert sharp.amplitude_ssim > soft.amplitude_ssim > softer.amplitude_ssim
        assert softer.phase_ssim < 0.9

    def test_blur_before_noise_reduces_resolution(self):
        grainy = noise(0.03)
        sharp, soft, softer = (scores(blurred(TRUTH, s) + grainy if s else TRUTH + grainy).frc_half for s in (0, 1, 3))
        assert sharp > soft + 0.05 > softer + 0.1

    @pytest.mark.parametrize("wrong", ["swapped", "mirrored", "conjugated", "turned"])
    def test_a_wrong_image_scores_badly(self, wrong):
        image = {
            "swapped": TRUTH.T,
            "mirrored": TRUTH[:, ::-1],
            "conjugated": TRUTH.conj(),
            "turned": TRUTH[::-1, ::-1],
        }[wrong]
        c = scores(image)
        assert c.phase_psnr_db < 18
        assert c.phase_correlation < 0.5
        assert c.frc_half < 0.15

    def test_shift_beyond_the_bound_reduces_the_scores(self):
        c = scores(shifted_probe(TRUTH, (7.0, 0.0)), max_shift_px=4.0)
        assert c.phase_psnr_db < scores(TRUTH + noise(0.05)).phase_psnr_db
        assert max(np.abs(c.shift_px)) <= 4.0

    def test_registration_warns_at_its_bound(self):
        c = scores(shifted_probe(TRUTH, (3.0, 0.0)), max_shift_px=2.0)
        assert c.shift_px[0] == pytest.approx(2.0)
        assert any("bound" in text for text in c.warnings)

    def test_ramp_of_half_a_window_is_not_removed(self):
        checkerboard = (-1.0) ** np.indices(TRUTH.shape).sum(axis=0)
        assert scores(TRUTH * checkerboard).phase_psnr_db < 12

    def test_unrelated_noise_resolves_nothing(self):
        c = scores(noise(1.0))
        assert c.frc_half < 0.1
        assert abs(c.phase_correlation) < 0.1
        assert abs(c.amplitude_correlation) < 0.1


class TestFlatImages:
    @pytest.mark.parametrize("flat", [1.0, 0.3 + 0.4j, 0.0])
    def test_a_constant_image_is_flagged_and_resolves_nothing(self, flat):
        c = scores(np.full(TRUTH.shape, flat))
        assert c.frc_half == 0.0
        assert not c.frc.any()
        assert sum("nearly constant" in text for text in c.warnings) == 2
        numbers = [v for v in c.to_dict().values() if isinstance(v, float)]
        assert np.isfinite(numbers).all()
        assert c.phase_psnr_db < 20

    def test_flat_phase_with_correct_amplitude_is_flagged(self):
        c = scores(np.abs(TRUTH))
        assert c.frc_half == 0.0
        assert [text for text in c.warnings if "phase" in text]
        assert c.amplitude_psnr_db > 100

    def test_nearly_constant_image_with_a_ramp_is_flagged(self):
        image = ramped(1.0 + 0.001 * TRUTH, 0.4, (0.05, -0.02))
        assert scores(image).frc_half == 0.0

    def test_low_contrast_is_not_flagged(self):
        c = scores(TRUTH.mean() + 0.2 * (TRUTH - TRUTH.mean()))
        assert c.warnings == ()
        assert c.frc_half > 0.95
        assert c.phase_psnr_db < 25

    def test_a_pure_phase_truth_needs_no_amplitude_contrast(self):
        pure = np.exp(1j * np.angle(TRUTH))
        c = compare(pure + noise(0.01), ORIGIN, pure, ORIGIN, INSIDE)
        assert any("true amplitude is constant" in text for text in c.warnings)
        assert c.frc_half > 0.5
        assert c.amplitude_psnr_db == pytest.approx(40.0, abs=0.5)

    def test_a_pure_amplitude_truth_needs_no_phase_contrast(self):
        c = compare(np.abs(TRUTH) + noise(0.01), ORIGIN, np.abs(TRUTH), ORIGIN, INSIDE)
        assert any("true phase is constant" in text for text in c.warnings)
        assert c.frc_half > 0.5


class TestArea:
    def test_only_the_scanned_area_counts(self):
        image = TRUTH.copy()
        image[:14] = 5.0
        image[:, -14:] = 0.0
        assert scores(image).phase_psnr_db > 100
        assert compare(image, ORIGIN, TRUTH, ORIGIN).phase_psnr_db < 40

    def test_area_is_in_scan_coordinates(self):
        c = scores(TRUTH)
        assert c.area == (-23.0, 42.0, 95, 95)
        np.testing.assert_array_equal(c.truth, TRUTH[17:112, 17:112])

    def test_the_area_of_a_round_scan_stays_inside_the_circle(self):
        angle = np.linspace(0, 2 * np.pi, 100)
        circle = 50 * np.stack([np.sin(angle), np.cos(angle)], axis=1) + [24, 89]
        top, left, height, width = compare(TRUTH, ORIGIN, TRUTH, ORIGIN, circle).area
        corners = np.array([[y, x] for y in (top, top + height - 1) for x in (left, left + width - 1)])
        distance = np.hypot(*(corners - [24, 89]).T)
        assert distance.max() <= 50
        assert distance.min() > 45

    def test_line_scan_uses_its_bounding_box(self):
        line = np.stack([np.linspace(-20, 60, 30), np.linspace(50, 130, 30)], axis=1)
        assert compare(TRUTH, ORIGIN, TRUTH, ORIGIN, line).area[2:] == (81, 81)
        with pytest.raises(DataError, match="16 px"):
            compare(TRUTH, ORIGIN, TRUTH, ORIGIN, line * [1, 0] + [0, 90])

    def test_images_without_common_area_are_refused(self):
        with pytest.raises(DataError, match="origins"):
            compare(TRUTH, (500.0, 0.0), TRUTH, ORIGIN)

    def test_nan_is_refused_with_its_count(self):
        image = TRUTH.copy()
        image[3, 4] = np.nan
        with pytest.raises(DataError, match="1 non-finite values as image"):
            scores(image)

    def test_comparison_converts_to_json(self):
        truth = make_truth((400, 400))
        image = shifted_probe(truth, (0.3, -0.7)) + noise(0.02, shape=truth.shape)
        c = compare(image, ORIGIN, truth, ORIGIN)
        assert json.loads(json.dumps(c.to_dict()))["frc_half"] == c.frc_half


class TestRingCorrelation:
    def test_correlation_follows_signal_to_noise(self):
        # Equal white signal in both and white noise of the same power in each: expected correlation 1/2.
        signal, a, b = (noise(1.0, seed, (256, 256)) for seed in (1, 2, 3))
        frequency, correlation = fourier_ring_correlation(signal + a, signal + b)
        assert np.mean(correlation[20:]) == pytest.approx(0.5, abs=0.02)
        assert frequency[0] == 0.0
        assert frequency[-1] == 1.0

    def test_independent_noise_does_not_correlate(self):
        correlation = fourier_ring_correlation(noise(1.0, 1), noise(1.0, 2))[1]
        assert np.abs(correlation[10:]).max() < 0.3
        assert abs(np.mean(correlation[10:])) < 0.05

    def test_reversed_contrast_is_anticorrelated(self):
        correlation = fourier_ring_correlation(TRUTH, 2.0 - TRUTH)[1]
        np.testing.assert_allclose(correlation[1:], -1.0, atol=1e-6)

    def test_only_the_rings_that_differ_fall(self):
        # Half resolution: frequencies above half of Nyquist replaced by noise.
        spectrum = np.fft.fft2(noise(1.0, 1))
        radius = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)[None])
        image = np.fft.ifft2(np.where(radius < 0.25, spectrum, np.fft.fft2(noise(1.0, 9))))
        c = compare(image, (0, 0), np.fft.ifft2(spectrum), (0, 0), max_shift_px=0.0)
        assert c.frc_half == pytest.approx(0.5, abs=0.05)

    def test_images_need_not_be_square(self):
        frequency, correlation = fourier_ring_correlation(TRUTH[:50, :101], TRUTH[:50, :101])
        np.testing.assert_allclose(correlation, 1.0)
        assert frequency[-1] == 1.0


class TestRamp:
    @given(ramp_y=st.floats(-0.3, 0.3), ramp_x=st.floats(-0.3, 0.3))
    @settings(max_examples=20, deadline=None)
    def test_a_ramp_is_reported_and_removed(self, ramp_y, ramp_x):
        own = remove_ramp(TRUTH)[1]
        levelled, ramp = remove_ramp(ramped(TRUTH, 0.0, (ramp_y, ramp_x)))
        np.testing.assert_allclose(ramp - own, (ramp_y, ramp_x), atol=1e-4)
        np.testing.assert_allclose(levelled, remove_ramp(TRUTH)[0], atol=0.02)

    def test_weights_select_the_ramp(self):
        image = np.ones((60, 80), dtype=complex)
        image[:, 60:] = ramped(np.ones((60, 20), dtype=complex), 0.0, (0.2, 0.0))
        weights = np.zeros((60, 80))
        weights[:, 60:] = 1.0
        np.testing.assert_allclose(remove_ramp(image, weights)[1], (0.2, 0.0), atol=1e-3)
        np.testing.assert_allclose(remove_ramp(image, 1 - weights)[1], (0.0, 0.0), atol=1e-3)

    def test_a_dark_image_has_no_ramp(self):
        np.testing.assert_array_equal(fit_plane(np.zeros((20, 20), complex)), np.zeros(3))

    @pytest.mark.parametrize("shape", [(64, 64), (131, 67), (30, 200)])
    def test_a_plane_is_found_exactly(self, shape):
        plane = np.array([0.7, 0.021, -0.34])
        np.testing.assert_allclose(fit_plane(level(np.ones(shape), -plane)), plane, atol=1e-5)

    def test_outliers_do_not_tilt_the_plane(self):
        image = level(np.ones((80, 80)), -np.array([0.2, 0.01, 0.02]))
        image[:20, :20] = -image[:20, :20]
        np.testing.assert_allclose(fit_plane(image)[1:], [0.01, 0.02], atol=5e-4)


class TestPieces:
    def test_whole_pixels_are_plain_slices(self):
        np.testing.assert_array_equal(sample(TRUTH, np.array([5.0, 9.0]), (20, 30)), TRUTH[5:25, 9:39])

    def test_fractions_read_between_pixels(self):
        y, x = np.indices((80, 80))
        wave = np.exp(1j * (0.3 * y - 0.2 * x))
        piece = sample(wave, np.array([30.25, 28.5]), (20, 20))
        # Away from the periodic edge the shifted wave equals the wave at the shifted coordinates.
        expected = np.exp(1j * (0.3 * (y[:20, :20] + 30.25) - 0.2 * (x[:20, :20] + 28.5)))
        np.testing.assert_allclose(piece, expected, atol=0.01)

    def test_outside_repeats_the_edge(self):
        piece = sample(TRUTH, np.array([-3.0, 0.0]), (10, 10))
        np.testing.assert_array_equal(piece[:4], np.broadcast_to(TRUTH[0, :10], (4, 10)))

    def test_the_sign_of_a_shift(self):
        image = np.roll(TRUTH, (2, -1), axis=(0, 1))
        np.testing.assert_allclose(find_shift(image, TRUTH, 4.0), (2.0, -1.0), atol=0.2)


def test_agreement_is_the_phase_psnr_of_two_images():
    other = ramped(TRUTH, 1.0, (0.03, 0.01)) * 4 + noise(0.02)
    expected = compare(other, ORIGIN, TRUTH, ORIGIN).phase_psnr_db
    assert agreement_db(other, TRUTH) == pytest.approx(expected)
    assert agreement_db(blurred(TRUTH, 2), TRUTH) < agreement_db(other, TRUTH)
