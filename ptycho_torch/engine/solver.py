"""Solver kernels in PyTorch: arrays stay on the device (spec: backend_contract 10)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptycho_backend.engines.solver_contract import (
    COLUMNS,
    OBJECT_ONLY,
    REGULARISATION,
    KernelUpdates,
    PatternParameters,
    PatternUpdates,
    Report,
    SolverKernels,
    Wanted,
    require_shapes,
    summed,
)
from ptycho_backend.physics.updates import BACKGROUND, DARK, NormalEquations, PhaseSlopes
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.scan_geometry import shift_ramps, shift_slopes
from ptycho_torch.engine.device import prepare_device, resolve_device

AXES = (-2, -1)
CPU_CHUNK_PIXELS = 64**3  # fits in a processor's cache
BYTES_PER_PIXEL_AND_MODE = 64  # of work arrays, beside the data: what a chunk may use of the free memory
TINY = torch.finfo(torch.float32).tiny  # a dark exit wave has no centre
SHARE_OF_MEMORY = 0.25
MAX_CHUNK_PIXELS = 2**26
AMPLITUDES_SHARE = 0.6  # of the free memory: amplitudes that need more stay on the host
Rows = slice | Tensor


class ChunkWaves(NamedTuple):
    """Waves of some patterns: probes, windows and exit-wave updates (position, mode, y, x)."""

    probes: Tensor
    patches: Tensor
    update: Tensor
    residual: Tensor
    amplitude: Tensor


class TorchKernels(SolverKernels):
    """
    Kernels on one device.

    Parameters
    ----------
    device : str
        "auto", "cpu", "cuda" or "cuda:<index>".
    """

    def __init__(self, device: str = "auto") -> None:
        self._device = resolve_device(device)
        prepare_device(self._device)
        self.device = str(self._device)

    @torch.inference_mode()
    def load(self, problem: Problem) -> None:
        """Copy amplitudes, corners and sub-pixel shifts to the device."""
        self.N, self._n, self._geometry = problem.N, len(problem), problem.geometry
        height, width = problem.geometry.canvas_shape
        self._shape = (height, width)
        corners = torch.as_tensor(problem.geometry.corners_px, device=self._device)
        self._first = corners[:, 0] * width + corners[:, 1]
        axis = torch.arange(self.N, device=self._device)
        self._window = (axis[:, None] * width + axis).reshape(-1)
        self._corners = problem.geometry.corners_px
        self._good = None if problem.good is None else torch.as_tensor(problem.good, device=self._device)
        self._modes = len(problem.calibration.probe)
        self._shifts_px: NDArray[np.float64] | None = None
        self.set_parameters(PatternParameters.of(problem.geometry))
        self._amplitudes = torch.empty(0)  # those of another problem are no longer needed
        self._amplitudes = room_for_amplitudes((self._n, self.N, self.N), self._device)
        size = self._chunk_size()
        for rows in (slice(start, start + size) for start in range(0, self._n, size)):
            self._amplitudes[rows] = torch.as_tensor(problem.amplitudes(rows))

    @torch.inference_mode()
    def set_parameters(self, parameters: PatternParameters) -> None:
        """Set positions, scales and background of the patterns."""
        if parameters.shifts_px is not self._shifts_px:
            self._move_to(parameters.shifts_px)
        scales = torch.as_tensor(parameters.scales, dtype=torch.float32, device=self._device)
        self._scales = None if (parameters.scales == 1).all() else scales
        self._epsilon = parameters.background + BACKGROUND

    def _move_to(self, shifts_px: NDArray[np.float64]) -> None:
        """Copy the factors of the shifts to the device."""
        self._shifts_px, ramps = shifts_px, shift_ramps(shifts_px, self.N)
        self._factors_y, self._factors_x = (torch.as_tensor(factor, device=self._device) for factor in ramps)
        slopes = (shift_slopes(factor, shift) for factor, shift in zip(ramps, shifts_px.T, strict=True))
        self._slopes_y, self._slopes_x = (torch.as_tensor(slope, device=self._device) for slope in slopes)

    def from_numpy(self, array: NDArray[Any]) -> Tensor:
        """Return a tensor on the device, float32 or complex64."""
        kind = torch.complex64 if np.iscomplexobj(array) else torch.float32
        return torch.as_tensor(np.asarray(array), dtype=kind, device=self._device)

    def to_numpy(self, array: Tensor) -> NDArray[Any]:
        """Return a NumPy copy."""
        return np.array(array.resolve_conj().cpu().numpy())

    @torch.inference_mode()
    def illumination(self, probe: Tensor, report: Report | None = None) -> Tensor:
        """Return Σ_j Σ_m |P_jm|², shape (y, x)."""
        require_shapes(self._geometry, probe)
        total = torch.zeros(self._shape, device=self._device)
        spectrum = torch.fft.fft2(probe)
        for done, rows in self._chunks():
            self._scatter_add(total, abs2(self._probes(spectrum, rows)).sum(dim=1), rows)
            if report is not None:
                report(done)
        return total

    @torch.inference_mode()
    def updates(
        self, obj: Tensor, probe: Tensor, wanted: Wanted = OBJECT_ONLY, report: Report | None = None
    ) -> KernelUpdates:
        """Return the sums over all patterns, or over those of a mini-batch."""
        require_shapes(self._geometry, probe, obj)
        total, sums = torch.zeros_like(obj), torch.zeros(2, dtype=torch.float64, device=self._device)
        spectrum, illumination = torch.fft.fft2(probe), torch.zeros(self._shape, device=self._device)
        probe_spectrum, weight = torch.zeros_like(spectrum), torch.zeros(probe.shape[-2:], device=self._device)
        patterns = [torch.empty((0, COLUMNS), dtype=torch.float64, device=self._device)]
        for done, rows in self._chunks(wanted.rows):
            x = self._measured(rows)
            waves = self._constrained(x, self._probes(spectrum, rows), self._patches(obj, rows))
            self._scatter_add(total, (waves.probes.conj() * waves.update).sum(dim=1), rows)
            sums += torch.stack([waves.residual.square().sum(), x.square().sum()])
            if wanted.probe or wanted.patterns:
                back = torch.fft.fft2(waves.patches.conj() * waves.update)
                intensity = abs2(waves.probes).sum(dim=1)
            if wanted.probe:
                self._scatter_add(illumination, intensity, rows)
                probe_spectrum += (self._scaled(back, rows) * self._factors(rows).conj()).sum(dim=0)
                weight += abs2(self._scaled(waves.patches, rows)[:, 0]).sum(dim=0)
            if wanted.patterns:
                patterns.append(self._pattern_updates(waves, intensity, self._position_updates(spectrum, back, rows)))
            if report is not None:
                report(done)
        squared_error, norm = sums.tolist()
        updates = KernelUpdates(total, squared_error, norm)
        if wanted.patterns:
            updates = replace(updates, patterns=PatternUpdates.of(self.to_numpy(torch.cat(patterns))))
        if not wanted.probe:
            return updates
        return replace(updates, illumination=illumination, probe=torch.fft.ifft2(probe_spectrum), probe_weight=weight)

    @torch.inference_mode()
    def normal_equations(
        self, obj: Tensor, probe: Tensor, objects: Sequence[Tensor], probes: Sequence[Tensor], rows: NDArray[np.intp]
    ) -> NormalEquations:
        """Return the least squares of patterns `rows` over directions of object and probe."""
        require_shapes(self._geometry, probe, obj)
        spectra = [torch.fft.fft2(each) for each in (probe, *probes)]
        n = len(objects)
        total = torch.zeros((n, n + 1), dtype=torch.float64, device=self._device)
        for _, chunk in self._chunks(rows, arrays=n + 1):
            total += self._equations((obj, *objects), spectra, chunk)
        found = self.to_numpy(total)
        return NormalEquations(found[:, :n], found[:, n])

    @torch.inference_mode()
    def phase_slopes(self, obj: Tensor, probe: Tensor) -> PhaseSlopes:
        """Return the linearised smooth errors of all patterns."""
        require_shapes(self._geometry, probe, obj)
        spectrum = torch.fft.fft2(probe)
        return summed([self._slopes(obj, spectrum, rows) for _, rows in self._chunks()])

    @torch.inference_mode()
    def combine(self, a: float, x: Tensor, b: float, y: Tensor) -> Tensor:
        """Return a·x + b·y."""
        return torch.add(a * x, y, alpha=b)

    @torch.inference_mode()
    def multiply(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x·y."""
        return x * y

    @torch.inference_mode()
    def precondition(self, update: Tensor, weight: Tensor, regularisation: float = REGULARISATION) -> Tensor:
        """Return update / (weight + regularisation·max weight)."""
        return update / (weight + regularisation * weight.max())

    @torch.inference_mode()
    def norm(self, x: Tensor, weight: Tensor) -> float:
        """Return Σ weight·|x|²."""
        return float((abs2(x) * weight).sum(dim=1).double().sum())

    def _slopes(self, obj: Tensor, spectrum: Tensor, rows: slice) -> PhaseSlopes:
        x, exit_waves = self._measured(rows), self._probes(spectrum, rows) * self._patches(obj, rows)
        intensity = abs2(exit_waves).sum(dim=1)
        axis = torch.arange(self.N, dtype=torch.float32, device=self._device)
        total = intensity.sum(dim=AXES).clamp(min=TINY)
        centres = torch.stack([intensity.sum(dim=2) @ axis, intensity.sum(dim=1) @ axis], dim=1) / total[:, None]
        detector = torch.fft.fft2(exit_waves)
        amplitude = self._amplitude(detector)
        phases, logarithms = [], []
        for along in ((axis - centres[:, :1])[:, None, :, None], (axis - centres[:, 1:])[:, None, None, :]):
            moment = torch.fft.fft2(exit_waves * along)
            phases.append(self._tangent(detector, amplitude, 1j * moment))
            logarithms.append(self._tangent(detector, amplitude, moment))
        by_scale = amplitude - self._epsilon / amplitude
        jacobian = self._on_good(torch.stack([*phases, *logarithms, by_scale], dim=1)).flatten(2)
        residual = self._on_good(x - amplitude).flatten(1)
        return PhaseSlopes(
            information=self.to_numpy((jacobian @ jacobian.mT).double()),
            gradient=self.to_numpy((jacobian @ residual[:, :, None])[..., 0].double()),
            centres_px=self._corners[rows] + self.to_numpy(centres.double()),
        )

    def _constrained(self, x: Tensor, probes: Tensor, patches: Tensor) -> ChunkWaves:
        detector = torch.fft.fft2(probes * patches)  # unnormalised; the factor 1/N stands in the amplitude
        amplitude = self._amplitude(detector)
        residual = self._on_good(x - amplitude)
        update = torch.fft.ifft2(detector * (residual / amplitude)[:, None])
        return ChunkWaves(probes, patches, update, residual, amplitude)

    def _position_updates(self, spectrum: Tensor, back: Tensor, rows: Rows) -> Tensor:
        """Return 2·Re Σ conj(∂P·O)·χ by the shift (y, x), shape (position, 2)."""
        # Both waves are Fourier transforms without a factor, so that their inner product is N² times that of pixels.
        overlap = (self._scaled(back, rows) * spectrum.conj()).sum(dim=1)
        along_y = (overlap @ self._factors_x[rows].conj()[:, :, None])[..., 0] * self._slopes_y[rows].conj()
        along_x = (overlap.mT @ self._factors_y[rows].conj()[:, :, None])[..., 0] * self._slopes_x[rows].conj()
        return 2 / self.N**2 * torch.stack([along_y.real.sum(dim=1), along_x.real.sum(dim=1)], dim=1)

    def _pattern_updates(self, waves: ChunkWaves, intensity: Tensor, positions: Tensor) -> Tensor:
        """Return all fields of the pattern updates as columns (position, 9); of the background before its sum."""
        scattering = [abs2(slope) for slope in torch.gradient(waves.patches[:, 0], dim=AXES)]
        residual, amplitude = waves.residual, waves.amplitude
        by_scale, damped = self._on_good(amplitude - self._epsilon / amplitude), amplitude.square() + DARK
        columns = [
            *(2 * (intensity * each).sum(dim=AXES) for each in scattering),
            2 * (residual * by_scale).sum(dim=AXES),
            2 * by_scale.square().sum(dim=AXES),
            residual.square().sum(dim=AXES),
            (residual * (residual + 2 * amplitude) / damped).sum(dim=AXES),
            self._on_good(1 / damped).sum(dim=AXES),
        ]
        return torch.cat([positions, torch.stack(columns, dim=1)], dim=1).double()

    def _equations(self, objects: tuple[Tensor, ...], spectra: list[Tensor], rows: Tensor) -> Tensor:
        """Return JᵀJ and, as last column, Jᵀ(x − a) of patterns; object and probe stand before their directions."""
        patch, probe = self._patches(objects[0], rows), self._probes(spectra[0], rows)
        detector = torch.fft.fft2(probe * patch)
        amplitude = self._amplitude(detector)
        tangents = []
        for obj, spectrum in zip(objects[1:], spectra[1:], strict=True):
            change = torch.fft.fft2(self._probes(spectrum, rows) * patch + probe * self._patches(obj, rows))
            tangents.append(self._tangent(detector, amplitude, change))
        residual = self._measured(rows) - amplitude
        dense = self._on_good(torch.stack([*tangents, residual])).flatten(2).transpose(0, 1)
        return (dense[:, :-1] @ dense.mT).double().sum(dim=0)

    def _measured(self, rows: Rows) -> Tensor:
        """Return measured amplitudes (position, y, x) on the device."""
        if isinstance(rows, Tensor):
            rows = rows.to(self._amplitudes.device)
        return self._amplitudes[rows].to(self._device, non_blocking=True)

    def _chunks(self, rows: NDArray[np.intp] | None = None, arrays: int = 0) -> Iterator[tuple[int, Any]]:
        """Yield the number of patterns done and each chunk: slices of the scan, or numbers on the device."""
        size, n = self._chunk_size(arrays), self._n if rows is None else len(rows)
        chosen = None if rows is None else torch.as_tensor(rows, dtype=torch.int64, device=self._device)
        for start in range(0, n, size):
            chunk = slice(start, min(start + size, n))
            yield chunk.stop, chunk if chosen is None else chosen[chunk]

    def _chunk_size(self, arrays: int = 0) -> int:
        """Return the number of patterns that are computed at once, with real work arrays beside those of the modes."""
        return max(1, self._chunk_pixels() // (self.N**2 * (self._modes + math.ceil(arrays / 8))))

    def _chunk_pixels(self) -> int:
        if self._device.type != "cuda":
            return CPU_CHUNK_PIXELS
        return min(MAX_CHUNK_PIXELS, int(SHARE_OF_MEMORY * free_bytes(self._device)) // BYTES_PER_PIXEL_AND_MODE)

    def _amplitude(self, detector: Tensor) -> Tensor:
        return (abs2(detector).sum(dim=1) / self.N**2 + self._epsilon).sqrt()

    def _tangent(self, detector: Tensor, amplitude: Tensor, change: Tensor) -> Tensor:
        overlap = detector.real * change.real + detector.imag * change.imag
        return overlap.sum(dim=1) / (self.N**2 * amplitude)

    def _on_good(self, values: Tensor) -> Tensor:
        return values if self._good is None else values * self._good

    def _factors(self, rows: Rows) -> Tensor:
        return self._factors_y[rows][:, None, :, None] * self._factors_x[rows][:, None, None, :]

    def _scaled(self, waves: Tensor, rows: Rows) -> Tensor:
        return waves if self._scales is None else waves * self._scales[rows][:, None, None, None]

    def _probes(self, spectrum: Tensor, rows: Rows) -> Tensor:
        return self._scaled(torch.fft.ifft2(spectrum * self._factors(rows)), rows)

    def _index(self, rows: Rows) -> Tensor:
        return self._first[rows][:, None] + self._window

    def _patches(self, canvas: Tensor, rows: Rows) -> Tensor:
        return canvas.reshape(-1)[self._index(rows)].reshape(-1, 1, self.N, self.N)

    def _scatter_add(self, canvas: Tensor, values: Tensor, rows: Rows) -> None:
        flat = torch.view_as_real(canvas) if canvas.is_complex() else canvas
        values = torch.view_as_real(values) if values.is_complex() else values
        width = (2,) if canvas.is_complex() else ()
        flat.view(-1, *width).index_add_(0, self._index(rows).reshape(-1), values.reshape(-1, *width))


def abs2(wave: Tensor) -> Tensor:
    """Return |wave|²."""
    return wave.real.square() + wave.imag.square()


def free_bytes(device: torch.device) -> float:
    """Return the memory that new arrays can use on a GPU, that which PyTorch holds unused included; else infinity."""
    if device.type != "cuda":
        return math.inf
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return float(torch.cuda.mem_get_info(device)[0] + unused)


def room_for_amplitudes(shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """Return an empty float32 array on the device, or on the host where it takes too much of the free memory."""
    if 4 * math.prod(shape) <= AMPLITUDES_SHARE * free_bytes(device):
        return torch.empty(shape, dtype=torch.float32, device=device)
    # Only pinned memory is copied while the device computes.
    return torch.empty(shape, dtype=torch.float32, pin_memory=device.type == "cuda")
