"""
Physics of :mod:`ptycho_backend.physics` in PyTorch, float32.

The core defines every formula and all shapes: patches (group, channel, y, x), offsets (group, channel, 2), probe
(mode, y, x).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ptycho_backend.physics.amplitude_constraint import BACKGROUND, REGULARISATION
from ptycho_backend.physics.forward import MERGE_FLOOR
from ptycho_backend.physics.losses import MIN_COUNTS
from ptycho_backend.physics.momentum import momentum

AXES = (-2, -1)
NO_COUNTS = 1e-20  # pixels with fewer counts are dark: (λ − k)/k would overflow float32


def far_field(exit_wave: Tensor) -> Tensor:
    """Propagate to the detector by a centred, orthonormal FFT (spec: physics 3.1)."""
    return _centred(torch.fft.fft2, exit_wave)


def near_field(detector_wave: Tensor) -> Tensor:
    """Propagate back to the sample: inverse and adjoint of :func:`far_field`."""
    return _centred(torch.fft.ifft2, detector_wave)


def _centred(transform, wave: Tensor) -> Tensor:
    N, M = wave.shape[-2:]
    if N % 4 == 0 and M % 4 == 0:
        # A shift by half a window is a change of sign of every second pixel in the other domain: exact and faster.
        signs = _checkerboard(N, M, wave.device)
        return transform(wave * signs, dim=AXES, norm="ortho") * signs
    centred = torch.fft.ifftshift(wave, dim=AXES)
    return torch.fft.fftshift(transform(centred, dim=AXES, norm="ortho"), dim=AXES)


def _checkerboard(N: int, M: int, device: torch.device) -> Tensor:
    rows = 1.0 - 2.0 * (torch.arange(N, device=device) % 2)
    columns = 1.0 - 2.0 * (torch.arange(M, device=device) % 2)
    return rows[:, None] * columns


def abs2(wave: Tensor) -> Tensor:
    """Return |z|², with a finite gradient everywhere."""
    return (wave * wave.conj()).real  # reads memory once; real² + imag² would need three loops


def translation_matrix(offset_px: Tensor, N: int, S: int) -> Tensor:
    """Return T(d), shape (..., S, N) (spec: physics 1.1)."""
    rows = torch.arange(S, device=offset_px.device, dtype=offset_px.dtype)[:, None] - (S - 1) / 2
    columns = torch.arange(N, device=offset_px.device, dtype=offset_px.dtype)[None, :] - (N - 1) / 2
    return torch.relu(1.0 - (rows - columns - offset_px[..., None, None]).abs())


def scatter_patches(patch: Tensor, offset_px: Tensor, S: int) -> Tensor:
    """Place patches (..., N, N) on canvases (..., S, S)."""
    Ty, Tx = (translation_matrix(offset_px[..., axis], patch.shape[-1], S) for axis in (0, 1))
    return _matrix_product(Ty, patch, Tx.mT)


def extract_patches(canvas: Tensor, offset_px: Tensor, N: int) -> Tensor:
    """Extract patches (..., N, N) from canvases (..., S, S): the adjoint of :func:`scatter_patches`."""
    Ty, Tx = (translation_matrix(offset_px[..., axis], N, canvas.shape[-1]) for axis in (0, 1))
    return _matrix_product(Ty.mT, canvas, Tx)


def _matrix_product(left: Tensor, image: Tensor, right: Tensor) -> Tensor:
    """Return left @ image @ right for two real matrices and a real or complex image."""
    if not image.is_complex():
        return left @ image @ right
    # Two real products take half the time of one complex product.
    return torch.complex(left @ image.real @ right, left @ image.imag @ right)


def merge(patches: Tensor, offsets_px: Tensor, weight: Tensor, S: int) -> Tensor:
    """Merge each group on one canvas by a weighted mean (spec: physics 2.1)."""
    numerator = scatter_patches(weight * patches, offsets_px, S).sum(dim=1)
    denominator = scatter_patches(weight.expand(patches.shape), offsets_px, S).sum(dim=1)
    return numerator / (denominator + MERGE_FLOOR)


def consistent_patches(patches: Tensor, offsets_px: Tensor, weight: Tensor, S: int) -> Tensor:
    """Merge each group and extract one patch per member from the result."""
    canvas = merge(patches, offsets_px, weight, S)
    return extract_patches(canvas[:, None], offsets_px, patches.shape[-1])


def exit_waves(patches: Tensor, probe: Tensor, smoothing: Tensor | None = None) -> Tensor:
    """Return the exit waves (..., mode, y, x) of patches (..., y, x) for every probe mode."""
    waves = patches.unsqueeze(-3) * probe
    return waves if smoothing is None else _matrix_product(smoothing, waves, smoothing.mT)


def intensity(patches: Tensor, probe: Tensor, smoothing: Tensor | None = None) -> Tensor:
    """Return Σ_modes |F(P·q)|²: incoherent modes add as intensities."""
    return _sum_modes(abs2(far_field(exit_waves(patches, probe, smoothing))))


def initial_estimate(x: Tensor, probe: Tensor) -> Tensor:
    """Estimate patches without a network: the amplitude constraint on an object of 1."""
    return constrain_amplitude(torch.ones_like(x, dtype=probe.dtype), x, probe, torch.ones_like(x[0, 0]))


def constrain_amplitude(patches: Tensor, x: Tensor, probe: Tensor, mask: Tensor) -> Tensor:
    """Return D(O): object update by measured amplitude and predicted phase (spec: physics 6.2)."""
    return AmplitudeConstraint(x, probe, mask)(patches)


def accelerated(patches: Tensor, x: Tensor, probe: Tensor, mask: Tensor, iterations: int) -> Tensor:
    """Repeat the amplitude constraint with Nesterov's momentum (spec: physics 6.5)."""
    constrain, previous = AmplitudeConstraint(x, probe, mask), patches
    for k in range(iterations):
        extrapolated = torch.lerp(previous, patches, 1.0 + momentum(k))
        previous, patches = patches, constrain(extrapolated)
    return patches


class AmplitudeConstraint:
    """
    Amplitude constraint D for given patterns, probe and mask, with all terms that do not depend on the patches.

    Signs of alternating pixels centre both transforms. On the detector they do not change intensities and cancel; on
    the sample they multiply the probe.
    """

    def __init__(self, x: Tensor, probe: Tensor, mask: Tensor) -> None:
        N, M = probe.shape[-2:]
        self._forward, self._inverse = far_field, near_field
        illumination = abs2(probe).sum(dim=0)
        if N % 4 == 0 and M % 4 == 0:
            probe = probe * _checkerboard(N, M, probe.device)
            self._forward, self._inverse = partial(torch.fft.fft2, norm="ortho"), partial(torch.fft.ifft2, norm="ortho")
        self._probe, self._mask = probe, mask
        self._back = probe.conj().resolve_conj() / (illumination + REGULARISATION * illumination.max())
        self._measured = (x.square() + BACKGROUND).sqrt().unsqueeze(-3)

    def __call__(self, patches: Tensor) -> Tensor:
        """Return D(O) for patches (group, channel, y, x)."""
        detector = self._forward(exit_waves(patches, self._probe))
        predicted = _sum_modes(abs2(detector)).unsqueeze(-3)
        relative_residual = (self._measured * (predicted + BACKGROUND).rsqrt() - 1.0) * self._mask
        return patches + _sum_modes(self._back * self._inverse(detector * relative_residual))


def _sum_modes(values: Tensor) -> Tensor:
    """Return the mode sum (axis −3), without a copy for one mode."""
    return values.squeeze(-3) if values.shape[-3] == 1 else values.sum(dim=-3)


def half_deviance(expected: Tensor, counts: Tensor) -> Tensor:
    """Return the Poisson half-deviance of every pixel (spec: physics 5.1)."""
    lam = expected.clamp_min(MIN_COUNTS)
    positive = counts > NO_COUNTS
    safe = torch.where(positive, counts, 1.0)
    u = (lam - safe) / safe
    # log1p is accurate near u = 0 only: close to u = −1 float32 rounds 1 + u to 0.
    near = u.abs() < 0.5
    log_ratio = torch.where(near, torch.log1p(torch.where(near, u, 0.0)), torch.log(lam / safe))
    return torch.where(positive, safe * (u - log_ratio), lam)


def poisson(expected: Tensor, counts: Tensor, mask: Tensor) -> Tensor:
    """Return the mean half-deviance over good pixels."""
    return _masked_mean(half_deviance(expected, counts), mask)


def amplitude_mae(expected: Tensor, counts: Tensor, mask: Tensor, r: float) -> Tensor:
    """Return the mean absolute error of normalised amplitude over good pixels."""
    lam = expected.clamp_min(MIN_COUNTS)
    return _masked_mean(r * (lam.sqrt() - counts.sqrt()).abs(), mask)


def total_variation(patches: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean of |∂y O| + |∂x O|."""
    dy = smooth_abs(patches.diff(dim=-2)) * weight[:-1, :]
    dx = smooth_abs(patches.diff(dim=-1)) * weight[:, :-1]
    return (dy.sum() + dx.sum()) / (patches.shape[:-2].numel() * weight.sum())


def label_mae(patches: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean of |O·u − L|, with the global phase factor u of each group (spec: physics 5.3)."""
    error = smooth_abs(patches * global_phase_factor(patches, labels, weight) - labels) * weight
    return error.sum() / (patches.shape[:2].numel() * weight.sum())


def global_phase_factor(patches: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Return the unit factor (group, 1, 1, 1) that aligns the phase of each group with its labels; no gradient."""
    z = (weight * patches * labels.conj()).sum(dim=(1, 2, 3), keepdim=True).detach()
    return z.conj() / z.abs().clamp_min(1e-12)


def smooth_abs(values: Tensor) -> Tensor:
    """Return sqrt(|z|² + 1e-12): |z| with a finite slope at 0."""
    return (abs2(values) + 1e-12).sqrt()


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / (values.shape[:-2].numel() * mask.sum())
