"""
The physics in PyTorch, float32: twin of :mod:`ptycho_backend.physics`, which defines every formula.

Shapes are those of the core: patches (group, channel, y, x), offsets (group, channel, 2), probe (mode, y, x).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ptycho_backend.physics.amplitude_constraint import BACKGROUND, REGULARISATION
from ptycho_backend.physics.forward import MERGE_FLOOR
from ptycho_backend.physics.losses import MIN_COUNTS

AXES = (-2, -1)
NO_COUNTS = 1e-20  # below it a pixel counts as dark: (λ − k)/k must not overflow float32


def far_field(exit_wave: Tensor) -> Tensor:
    """Propagate to the detector: centred, orthonormal FFT (spec: physics 3.1)."""
    return _centred(torch.fft.fft2, exit_wave)


def near_field(detector_wave: Tensor) -> Tensor:
    """Propagate back to the sample: inverse and adjoint of :func:`far_field`."""
    return _centred(torch.fft.ifft2, detector_wave)


def _centred(transform, wave: Tensor) -> Tensor:
    N, M = wave.shape[-2:]
    if N % 4 == 0 and M % 4 == 0:
        # Half-window shifts are a change of sign of every other pixel in the other domain, exact and cheaper.
        signs = _checkerboard(N, M, wave.device)
        return transform(wave * signs, dim=AXES, norm="ortho") * signs
    centred = torch.fft.ifftshift(wave, dim=AXES)
    return torch.fft.fftshift(transform(centred, dim=AXES, norm="ortho"), dim=AXES)


def _checkerboard(N: int, M: int, device: torch.device) -> Tensor:
    rows = 1.0 - 2.0 * (torch.arange(N, device=device) % 2)
    columns = 1.0 - 2.0 * (torch.arange(M, device=device) % 2)
    return rows[:, None] * columns


def intensity_of(wave: Tensor) -> Tensor:
    """Return |z|² with a gradient that is finite everywhere."""
    return (wave * wave.conj()).real  # one pass over memory, where real and imaginary part by themselves take three


def translation_matrix(offset_px: Tensor, N: int, S: int) -> Tensor:
    """Return T(d), shape (..., S, N) (spec: physics 1.1)."""
    rows = torch.arange(S, device=offset_px.device, dtype=offset_px.dtype)[:, None] - (S - 1) / 2
    columns = torch.arange(N, device=offset_px.device, dtype=offset_px.dtype)[None, :] - (N - 1) / 2
    return torch.relu(1.0 - (rows - columns - offset_px[..., None, None]).abs())


def scatter_patches(patch: Tensor, offset_px: Tensor, S: int) -> Tensor:
    """Put patches (..., N, N) on canvases (..., S, S)."""
    Ty, Tx = (translation_matrix(offset_px[..., axis], patch.shape[-1], S) for axis in (0, 1))
    return _sandwich(Ty, patch, Tx.mT)


def extract_patches(canvas: Tensor, offset_px: Tensor, N: int) -> Tensor:
    """Cut patches (..., N, N) out of canvases (..., S, S): the adjoint of :func:`scatter_patches`."""
    Ty, Tx = (translation_matrix(offset_px[..., axis], N, canvas.shape[-1]) for axis in (0, 1))
    return _sandwich(Ty.mT, canvas, Tx)


def _sandwich(left: Tensor, image: Tensor, right: Tensor) -> Tensor:
    """Return left @ image @ right for real matrices and a real or complex image."""
    if not image.is_complex():
        return left @ image @ right
    # Two real products cost half of one complex product with a matrix that has no imaginary part.
    return torch.complex(left @ image.real @ right, left @ image.imag @ right)


def merge(patches: Tensor, offsets_px: Tensor, weight: Tensor, S: int) -> Tensor:
    """Merge each group into one canvas by a weighted mean (spec: physics 2.1)."""
    numerator = scatter_patches(weight * patches, offsets_px, S).sum(dim=1)
    denominator = scatter_patches(weight.expand(patches.shape), offsets_px, S).sum(dim=1)
    return numerator / (denominator + MERGE_FLOOR)


def consistent_patches(patches: Tensor, offsets_px: Tensor, weight: Tensor, S: int) -> Tensor:
    """Merge each group and cut one patch per member out of the result."""
    canvas = merge(patches, offsets_px, weight, S)
    return extract_patches(canvas[:, None], offsets_px, patches.shape[-1])


def exit_waves(patches: Tensor, probe: Tensor, smoothing: Tensor | None = None) -> Tensor:
    """Illuminate patches (..., y, x) with every mode: (..., mode, y, x)."""
    waves = patches.unsqueeze(-3) * probe
    return waves if smoothing is None else _sandwich(smoothing, waves, smoothing.mT)


def intensity(patches: Tensor, probe: Tensor, smoothing: Tensor | None = None) -> Tensor:
    """Return Σ_modes |F(P·q)|²: incoherent modes add as intensities."""
    return _sum_modes(intensity_of(far_field(exit_waves(patches, probe, smoothing))))


def initial_estimate(x: Tensor, probe: Tensor) -> Tensor:
    """Estimate patches without a network: the data-consistency step applied to an object of 1."""
    return constrain_amplitude(torch.ones_like(x, dtype=probe.dtype), x, probe, torch.ones_like(x[0, 0]))


def constrain_amplitude(patches: Tensor, x: Tensor, probe: Tensor, mask: Tensor) -> Tensor:
    """Return D(O): measured amplitude, predicted phase, probe divided out (spec: physics 6.2)."""
    return AmplitudeConstraint(x, probe, mask)(patches)


def accelerated(patches: Tensor, x: Tensor, probe: Tensor, mask: Tensor, iterations: int) -> Tensor:
    """Repeat the data-consistency step from extrapolated patches (spec: physics 6.5)."""
    step, before = AmplitudeConstraint(x, probe, mask), patches
    for k in range(iterations):
        ahead = torch.lerp(before, patches, 1.0 + k / (k + 3))
        before, patches = patches, step(ahead)
    return patches


class AmplitudeConstraint:
    """
    The step D for patterns, a probe and a mask: what does not depend on the patches is computed once.

    Of the signs that centre the two transforms, those on the detector meet nothing but intensities and cancel; the
    others are the probe's.
    """

    def __init__(self, x: Tensor, probe: Tensor, mask: Tensor) -> None:
        N, M = probe.shape[-2:]
        self._forward, self._inverse = far_field, near_field
        lit = intensity_of(probe).sum(dim=0)
        if N % 4 == 0 and M % 4 == 0:
            probe = probe * _checkerboard(N, M, probe.device)
            self._forward, self._inverse = partial(torch.fft.fft2, norm="ortho"), partial(torch.fft.ifft2, norm="ortho")
        self._probe, self._mask = probe, mask
        self._back = probe.conj().resolve_conj() / (lit + REGULARISATION * lit.max())
        self._measured = (x.square() + BACKGROUND).sqrt().unsqueeze(-3)

    def __call__(self, patches: Tensor) -> Tensor:
        """Return D(O) of patches (group, channel, y, x)."""
        detector = self._forward(exit_waves(patches, self._probe))
        predicted = _sum_modes(intensity_of(detector)).unsqueeze(-3)
        correction = (self._measured * (predicted + BACKGROUND).rsqrt() - 1.0) * self._mask
        return patches + _sum_modes(self._back * self._inverse(detector * correction))


def _sum_modes(values: Tensor) -> Tensor:
    """Sum over modes; a single one is not copied."""
    return values.squeeze(-3) if values.shape[-3] == 1 else values.sum(dim=-3)


def half_deviance(expected: Tensor, counts: Tensor) -> Tensor:
    """Return the Poisson half-deviance of every pixel (spec: physics 5.1)."""
    lam = expected.clamp_min(MIN_COUNTS)
    lit = counts > NO_COUNTS
    safe = torch.where(lit, counts, 1.0)
    u = (lam - safe) / safe
    # ln(1 + u) keeps its digits near u = 0 only: close to u = −1 float32 rounds 1 + u to 0.
    near = u.abs() < 0.5
    log_ratio = torch.where(near, torch.log1p(torch.where(near, u, 0.0)), torch.log(lam / safe))
    return torch.where(lit, safe * (u - log_ratio), lam)


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
    """Return the weighted mean of |O·u − L|, u each group's best constant phase (spec: physics 5.3)."""
    error = smooth_abs(turned(patches, labels, weight) - labels) * weight
    return error.sum() / (patches.shape[:2].numel() * weight.sum())


def turned(patches: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Return groups turned by their best constant phase against their labels, which carries no gradient."""
    z = (weight * patches * labels.conj()).sum(dim=(1, 2, 3), keepdim=True).detach()
    return patches * (z.conj() / z.abs().clamp_min(1e-12))


def smooth_abs(values: Tensor) -> Tensor:
    """Return sqrt(|z|² + 1e-12): |z| with a finite slope at 0."""
    return (intensity_of(values) + 1e-12).sqrt()


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / (values.shape[:-2].numel() * mask.sum())
