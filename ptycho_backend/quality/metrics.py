"""PSNR, SSIM and Fourier ring correlation of a reconstruction against a known object (spec: metrics)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ptycho_backend.data.phase_plane import fit_plane, level
from ptycho_backend.errors import DataError
from ptycho_backend.runtime.plain_values import to_plain
from ptycho_backend.runtime.quantities import RESOLVED, resolution_m
from ptycho_backend.solver.registration import find_shift, remove_ramp, sample, windowed_spectrum

__all__ = ["Comparison", "agreement_db", "compare", "first_crossing", "fourier_ring_correlation", "remove_ramp"]

Complex = NDArray[np.complex128]
Real = NDArray[np.float64]
Origin = tuple[float, float]

FIRST_RING = 3  # smaller rings hold few coefficients, mixed by the window
MAX_PSNR_DB = 200.0  # reported for identical images
MIN_RELATIVE_CONTRAST = 0.05  # an image below this share of the truth's contrast counts as constant
MIN_CONTRAST = 1e-3  # a truth below this contrast counts as constant
MIN_AREA_PX = 16
REGISTRATION_ROUNDS = 6
REGISTERED_PX = 2e-3


@dataclass(frozen=True, eq=False)
class Comparison:
    """
    Scores of an image against the truth, and the registered images.

    Parameters
    ----------
    amplitude_psnr_db, phase_psnr_db : float
        Peak signal-to-noise ratio; the peak is the truth's range inside the area.
    amplitude_ssim, phase_ssim : float
        Structural similarity.
    amplitude_correlation, phase_correlation : float
        Pearson correlation, of the phase as exp(i·phase); 0 where one side is constant.
    frc_half : float
        Frequency of the first crossing of 0.5 by the Fourier ring correlation, as a fraction of Nyquist, from the
        third ring on; 1 without a crossing, 0 for an image without contrast.
    shift_px : (float, float), (y, x)
        Distance of the image from the truth in scan coordinates; removed before the comparison.
    ramp_rad_per_px : (float, float), (y, x)
        Phase ramp of the image against the truth; removed before the comparison.
    amplitude_scale : float
        Factor applied to the image's amplitude.
    area : (float, float, int, int)
        Scan coordinates (y, x) of the compared area's first pixel, and its size.
    frc_frequency, frc : float64, shape (ring,)
        Fourier ring correlation over frequency, as a fraction of Nyquist.
    warnings : tuple of str
        Limits of the scores, one sentence each.
    image, truth : complex128, shape (y, x)
        The compared images: registered, scaled, without relative phase plane.
    pixel_size_m : (float, float), optional
        Pixel (y, x), metres, for the resolution as a length; None where it is unknown.
    """

    amplitude_psnr_db: float
    amplitude_ssim: float
    phase_psnr_db: float
    phase_ssim: float
    amplitude_correlation: float
    phase_correlation: float
    frc_half: float
    shift_px: tuple[float, float]
    ramp_rad_per_px: tuple[float, float]
    amplitude_scale: float
    area: tuple[float, float, int, int]
    warnings: tuple[str, ...] = ()
    frc_frequency: Real = field(repr=False, default_factory=lambda: np.zeros(0))
    frc: Real = field(repr=False, default_factory=lambda: np.zeros(0))
    image: Complex = field(repr=False, default_factory=lambda: np.zeros((0, 0), complex))
    truth: Complex = field(repr=False, default_factory=lambda: np.zeros((0, 0), complex))
    pixel_size_m: tuple[float, float] | None = None

    @property
    def resolution_m(self) -> float | None:
        """Return the period at `frc_half`, metres; None for an unknown pixel or an image without contrast."""
        return resolution_m(self.frc_half, self.pixel_size_m)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the images as plain values, ready for JSON, with `resolution_m`."""
        values = vars(self) | {"resolution_m": self.resolution_m}
        return {k: to_plain(v) for k, v in values.items() if k not in ("image", "truth")}


def compare(
    image_obj: NDArray[Any],
    image_origin_px: Origin,
    truth_obj: NDArray[Any],
    truth_origin_px: Origin,
    positions_px: Real | None = None,
    max_shift_px: float = 4.0,
) -> Comparison:
    """
    Compare a reconstruction with a known object in one frame.

    Parameters
    ----------
    image_obj, truth_obj : complex, shape (y, x)
    image_origin_px, truth_origin_px : (float, float), (y, x)
        Scan coordinates of each array's pixel (0, 0); fractions allowed.
    positions_px : float64, shape (position, 2), (y, x), optional
        Scan positions restrict the comparison to the area that they cover well. None compares the common area.
    max_shift_px : float
        Largest shift of the registration along either axis.

    Returns
    -------
    Comparison

    Raises
    ------
    DataError
        If an image has values that are not finite, or the common area is smaller than 16 px.

    Notes
    -----
    Spec: metrics 1 to 6.
    """
    image, truth = _finite(image_obj, "image"), _finite(truth_obj, "truth")
    corner, shape = _common_area(image, image_origin_px, truth, truth_origin_px, positions_px)
    piece = truth[corner[0] : corner[0] + shape[0], corner[1] : corner[1] + shape[1]]
    image_corner = corner + np.asarray(truth_origin_px) - np.asarray(image_origin_px)
    flat = _flat_parts(sample(image, np.rint(image_corner), shape), piece)
    aligned, shift, ramp = _aligned(image, image_corner, piece, 0.0 if flat else max_shift_px)
    warnings = [f"the image's {part} is nearly constant: no object found, FRC set to 0" for part in flat]
    if not flat and np.abs(shift).max() > max_shift_px - 1e-6:
        warnings.append(f"the registration stopped at its bound of {max_shift_px:g} px")
    aligned, scale = _scaled(aligned, piece)
    frequency, frc = fourier_ring_correlation(aligned, piece)
    return Comparison(
        **_amplitude_scores(aligned, piece, warnings),
        **_phase_scores(aligned, piece, warnings),
        frc_half=0.0 if flat else first_crossing(frequency, frc),
        shift_px=(float(shift[0]), float(shift[1])),
        ramp_rad_per_px=(float(ramp[0]), float(ramp[1])),
        amplitude_scale=scale,
        pixel_size_m=None,
        area=(float(corner[0] + truth_origin_px[0]), float(corner[1] + truth_origin_px[1]), *shape),
        warnings=tuple(warnings),
        frc_frequency=frequency,
        frc=np.zeros_like(frc) if flat else frc,
        image=aligned,
        truth=piece,
    )


def agreement_db(
    a: NDArray[Any],
    b: NDArray[Any],
    a_origin_px: Origin = (0.0, 0.0),
    b_origin_px: Origin = (0.0, 0.0),
    positions_px: Real | None = None,
) -> float:
    """Return the phase PSNR of image `a` against image `b`, dB: the agreement of two reconstructions."""
    return compare(a, a_origin_px, b, b_origin_px, positions_px).phase_psnr_db


def fourier_ring_correlation(a: NDArray[Any], b: NDArray[Any]) -> tuple[Real, Real]:
    """
    Correlate two complex images ring by ring in Fourier space.

    Parameters
    ----------
    a, b : complex, shape (y, x)
        Registered images; means are removed and a Hann window applied.

    Returns
    -------
    frequency : float64, shape (ring,)
        Fraction of Nyquist, 0 to 1.
    correlation : float64, shape (ring,)
        Re Σ A·B̄ / sqrt(Σ|A|² Σ|B|²), -1 to 1; the first ring is 1 by definition, a dark ring 0. The real part makes
        reversed contrast count as disagreement.

    Notes
    -----
    Spec: metrics 5.1.
    """
    A, B = windowed_spectrum(a), windowed_spectrum(b)
    side = min(A.shape)
    fy, fx = (scipy.fft.fftfreq(n) for n in A.shape)
    ring = np.rint(np.hypot(fy[:, None], fx[None, :]) * side).astype(int).ravel()
    n_rings = side // 2 + 1
    cross, power_a, power_b = (
        np.bincount(ring, values.ravel(), minlength=n_rings)[:n_rings]
        for values in (np.real(A * np.conj(B)), np.abs(A) ** 2, np.abs(B) ** 2)
    )
    norm = np.sqrt(power_a * power_b)
    has_power = norm > 1e-20 * max(float(norm.max()), 1e-300)
    correlation = np.where(has_power, cross / np.where(has_power, norm, 1.0), 0.0)
    correlation[0] = 1.0
    return 2.0 * np.arange(n_rings) / side, correlation


def _finite(obj: NDArray[Any], name: str) -> Complex:
    image = np.asarray(obj, dtype=np.complex128)
    if image.ndim != 2 or not np.isfinite(image).all():
        raise DataError(
            "Only complete images can be compared.",
            expected="one array (y, x) of finite complex numbers",
            received=f"shape {image.shape} with {int((~np.isfinite(image)).sum())} non-finite values as {name}",
            fix="find the step that produced these values; crop the area outside of the scan",
        )
    return image


def _common_area(
    image: Complex,
    image_origin_px: Origin,
    truth: Complex,
    truth_origin_px: Origin,
    positions_px: Real | None,
) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """Return corner and size, on the truth's pixels, of the area in both images and inside the scan."""
    offset = np.asarray(image_origin_px, dtype=np.float64) - np.asarray(truth_origin_px, dtype=np.float64)
    low = np.maximum(0.0, offset)
    high = np.minimum(np.asarray(truth.shape) - 1.0, offset + image.shape - 1.0)
    if positions_px is not None:
        scan_low, scan_high = _covered_rectangle(np.asarray(positions_px, dtype=np.float64))
        low = np.maximum(low, scan_low - truth_origin_px)
        high = np.minimum(high, scan_high - truth_origin_px)
    corner = np.ceil(low - 1e-9).astype(np.int64)
    shape = np.floor(high + 1e-9).astype(np.int64) - corner + 1
    if shape.min() < MIN_AREA_PX:
        raise DataError(
            "Two images need a common area for a comparison.",
            expected=f"a common area of at least {MIN_AREA_PX} px, inside the scan",
            received=f"{max(0, shape[0])}×{max(0, shape[1])} px between an image at {tuple(image_origin_px)} "
            f"of {image.shape} px and a truth at {tuple(truth_origin_px)} of {truth.shape} px",
            fix="check both origins: they are scan coordinates of pixel (0, 0)",
        )
    return corner, (int(shape[0]), int(shape[1]))


def _covered_rectangle(positions_px: Real) -> tuple[Real, Real]:
    """Return the largest rectangle inside the convex hull of the scan with the proportions of its bounding box."""
    from scipy.spatial import ConvexHull, QhullError

    low, high = positions_px.min(axis=0), positions_px.max(axis=0)
    try:
        facets = ConvexHull(positions_px).equations
    except (QhullError, ValueError):  # a line scan, or too few positions
        return low, high
    centre, half_size = positions_px.mean(axis=0), (high - low) / 2
    distance = -(facets[:, :2] @ centre + facets[:, 2])
    scale = float((distance / (np.abs(facets[:, :2]) @ half_size)).min())
    return centre - scale * half_size, centre + scale * half_size


def _aligned(image: Complex, corner_px: Real, truth: Complex, bound_px: float) -> tuple[Complex, Real, Real]:
    """Fit phase plane and shift of an image alternately: each fit is exact only after the other one."""
    shape = (truth.shape[0], truth.shape[1])
    shift, ramp = np.zeros(2), np.zeros(2)
    for _ in range(REGISTRATION_ROUNDS):
        plane = fit_plane(sample(image, corner_px + shift, shape) * np.conj(truth))
        # The ramp is removed before the shift, because it would move the finest detail past Nyquist.
        image, ramp = level(image, np.array([0.0, *plane[1:]])), ramp + plane[1:]
        piece = _without_piston(sample(image, corner_px + shift, shape), truth)
        new_shift = np.clip(shift + find_shift(piece, truth, bound_px), -bound_px, bound_px)
        step, shift = new_shift - shift, new_shift
        if np.abs(step).max() < REGISTERED_PX:
            break
    return _without_piston(sample(image, corner_px + shift, shape), truth), shift, ramp


def _without_piston(image: Complex, truth: Complex) -> Complex:
    return np.asarray(image * np.exp(-1j * np.angle(np.vdot(truth, image))))


def _scaled(image: Complex, truth: Complex) -> tuple[Complex, float]:
    amplitude = np.abs(image)
    energy = float((amplitude**2).sum())
    scale = float((amplitude * np.abs(truth)).sum()) / energy if energy > 0.0 else 1.0
    return image * scale, scale


def _flat_parts(image: Complex, truth: Complex) -> list[str]:
    """Return the names of the parts, amplitude or phase, that are constant in the image but not in the truth."""
    pairs = zip(("amplitude", "phase"), _contrast(image), _contrast(truth), strict=True)
    return [name for name, found, true in pairs if true > MIN_CONTRAST and found < MIN_RELATIVE_CONTRAST * true]


def _contrast(obj: Complex) -> tuple[float, float]:
    """Return the relative deviation of the amplitude and the deviation of the phase from its plane, rad."""
    amplitude = np.abs(obj)
    phase = np.angle(level(obj, fit_plane(obj)))
    return float(amplitude.std() / max(float(amplitude.mean()), 1e-30)), float(phase.std())


def _amplitude_scores(image: Complex, truth: Complex, warnings: list[str]) -> dict[str, float]:
    true = np.abs(truth)
    span = float(true.max() - true.min())
    if span <= MIN_CONTRAST * float(true.mean()):
        span = float(true.mean()) or 1.0
        warnings.append("the true amplitude is constant: its PSNR and SSIM refer to its mean, not its range")
    return _scores("amplitude", np.abs(image), true, span)


def _phase_scores(image: Complex, truth: Complex, warnings: list[str]) -> dict[str, float]:
    true = _unwrapped(truth)
    span = float(true.max() - true.min())
    if span <= MIN_CONTRAST:
        span = 2 * np.pi
        warnings.append("the true phase is constant: its PSNR and SSIM refer to 2π, not its range")
    image = np.where(image == 0.0, 1.0, image)  # a dark pixel has no phase: it counts as phase 0
    # The difference is taken on the complex images, so a wrap is no error.
    scores = _scores("phase", true + np.angle(image * np.conj(truth)), true, span)
    return scores | {"phase_correlation": _correlation(_phasor(image), _phasor(truth))}


def _phasor(image: Complex) -> Complex:
    return np.asarray(np.exp(1j * np.angle(image)))


def _scores(part: str, found: Real, true: Real, span: float) -> dict[str, float]:
    import skimage.metrics

    structural_similarity: Any = skimage.metrics.structural_similarity
    mean_square = float(((found - true) ** 2).mean())
    psnr = 10 * np.log10(span**2 / max(mean_square, span**2 * 10 ** (-MAX_PSNR_DB / 10)))
    return {
        f"{part}_psnr_db": float(psnr),
        f"{part}_ssim": float(structural_similarity(true, found, data_range=span)),
        f"{part}_correlation": _correlation(found, true),
    }


def _correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt(np.vdot(a, a).real * np.vdot(b, b).real))
    return float(np.vdot(a, b).real) / norm if norm > 1e-12 * a.size else 0.0


def _unwrapped(truth: Complex) -> Real:
    """Return the phase, rad, about its mean; a phase with jumps is unwrapped."""
    phase = np.angle(truth * np.exp(-1j * np.angle(truth.sum())))
    jumps = any((np.abs(np.diff(phase, axis=axis)) > np.pi).any() for axis in (0, 1))
    if jumps:
        import skimage.restoration

        unwrap_phase: Any = skimage.restoration.unwrap_phase
        phase = unwrap_phase(phase)
    return np.asarray(phase, dtype=np.float64)


def first_crossing(frequency: Real, correlation: Real, level: float = RESOLVED) -> float:
    """Return the frequency at which a ring correlation first falls to a level, from the third ring on; else 1."""
    below = np.flatnonzero(correlation[FIRST_RING:] < level)
    if len(below) == 0:
        return 1.0
    ring = int(below[0]) + FIRST_RING
    previous = float(correlation[ring - 1]) if ring > FIRST_RING else 1.0
    current = float(correlation[ring])
    return float(np.interp((previous - level) / (previous - current), [0.0, 1.0], frequency[ring - 1 : ring + 1]))
