"""Solver kernels in PyTorch: arrays stay on the device (spec: backend_contract 10)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptycho_backend.engines.solver_contract import (
    REGULARISATION,
    KernelUpdates,
    Report,
    SolverKernels,
    require_shapes,
    summed,
)
from ptycho_backend.physics.updates import BACKGROUND, PhaseSlopes
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.scan_geometry import shift_ramps
from ptycho_torch.engine.device import prepare_device, resolve_device

AXES = (-2, -1)
CPU_CHUNK_PIXELS = 64**3  # fits in a processor's cache
BYTES_PER_PIXEL_AND_MODE = 64  # of work arrays, beside the data: what a chunk may use of the free memory
TINY = torch.finfo(torch.float32).tiny  # a dark exit wave has no centre
SHARE_OF_MEMORY = 0.25
MAX_CHUNK_PIXELS = 2**26


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
        shifts = shift_ramps(problem.geometry.shifts_px, problem.N)
        self._shifts = tuple(torch.as_tensor(factor, device=self._device) for factor in shifts)
        self._good = None if problem.good is None else torch.as_tensor(problem.good, device=self._device)
        self._modes = len(problem.calibration.probe)
        self._amplitudes = torch.empty((self._n, self.N, self.N), dtype=torch.float32, device=self._device)
        for rows in self._chunks():
            self._amplitudes[rows] = torch.as_tensor(problem.amplitudes(rows), device=self._device)

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
        for rows in self._chunks():
            self._scatter_add(total, abs2(self._probes(spectrum, rows)).sum(dim=1), rows)
            if report is not None:
                report(rows.stop)
        return total

    @torch.inference_mode()
    def updates(
        self, obj: Tensor, probe: Tensor, probe_too: bool = False, report: Report | None = None
    ) -> KernelUpdates:
        """Return the sums over all patterns."""
        require_shapes(self._geometry, probe, obj)
        total, sums = torch.zeros_like(obj), torch.zeros(2, dtype=torch.float64, device=self._device)
        spectrum = torch.fft.fft2(probe)
        probe_spectrum, weight = torch.zeros_like(spectrum), torch.zeros(probe.shape[-2:], device=self._device)
        for rows in self._chunks():
            x, probes, patches = self._amplitudes[rows], self._probes(spectrum, rows), self._patches(obj, rows)
            detector = torch.fft.fft2(probes * patches)  # unnormalised; the factor 1/N stands in the amplitude
            amplitude = self._amplitude(detector)
            residual = self._on_good(x - amplitude)
            exit_wave_update = torch.fft.ifft2(detector * (residual / amplitude)[:, None])
            self._scatter_add(total, (probes.conj() * exit_wave_update).sum(dim=1), rows)
            sums += torch.stack([residual.square().sum(), x.square().sum()])
            if probe_too:
                back = torch.fft.fft2(patches.conj() * exit_wave_update)
                probe_spectrum += (back * self._factors(rows).conj()).sum(dim=0)
                weight += abs2(patches[:, 0]).sum(dim=0)
            if report is not None:
                report(rows.stop)
        probe_update = torch.fft.ifft2(probe_spectrum) if probe_too else None
        return KernelUpdates(total, probe_update, weight if probe_too else None, *map(float, sums.tolist()))

    @torch.inference_mode()
    def phase_slopes(self, obj: Tensor, probe: Tensor) -> PhaseSlopes:
        """Return the linearised smooth errors of all patterns."""
        require_shapes(self._geometry, probe, obj)
        spectrum = torch.fft.fft2(probe)
        return summed([self._slopes(obj, spectrum, rows) for rows in self._chunks()])

    @torch.inference_mode()
    def combine(self, a: float, x: Tensor, b: float, y: Tensor) -> Tensor:
        """Return a·x + b·y."""
        return torch.add(a * x, y, alpha=b)

    @torch.inference_mode()
    def multiply(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x·y."""
        return x * y

    @torch.inference_mode()
    def precondition(self, update: Tensor, weight: Tensor) -> Tensor:
        """Return update / (weight + 0.02·max weight)."""
        return update / (weight + REGULARISATION * weight.max())

    @torch.inference_mode()
    def norm(self, x: Tensor, weight: Tensor) -> float:
        """Return Σ weight·|x|²."""
        return float((abs2(x) * weight).sum(dim=1).double().sum())

    def _slopes(self, obj: Tensor, spectrum: Tensor, rows: slice) -> PhaseSlopes:
        x, exit_waves = self._amplitudes[rows], self._probes(spectrum, rows) * self._patches(obj, rows)
        intensity = abs2(exit_waves).sum(dim=1)
        axis = torch.arange(self.N, dtype=torch.float32, device=self._device)
        total = intensity.sum(dim=AXES).clamp(min=TINY)
        centres = torch.stack([intensity.sum(dim=2) @ axis, intensity.sum(dim=1) @ axis], dim=1) / total[:, None]
        detector = torch.fft.fft2(exit_waves)
        amplitude = self._amplitude(detector)
        tangents = []
        for along in ((axis - centres[:, :1])[:, None, :, None], (axis - centres[:, 1:])[:, None, None, :]):
            moment = torch.fft.fft2(exit_waves * along)
            overlap = detector.imag * moment.real - detector.real * moment.imag
            tangents.append(overlap.sum(dim=1) / (self.N**2 * amplitude))
        jacobian = self._on_good(torch.stack([*tangents, amplitude], dim=1)).flatten(2)
        residual = self._on_good(x - amplitude).flatten(1)
        return PhaseSlopes(
            information=self.to_numpy((jacobian @ jacobian.mT).double()),
            gradient=self.to_numpy((jacobian @ residual[:, :, None])[..., 0].double()),
            centres_px=self._corners[rows] + self.to_numpy(centres.double()),
        )

    def _chunks(self) -> Iterator[slice]:
        size = max(1, self._chunk_pixels() // (self.N**2 * self._modes))
        return (slice(start, min(start + size, self._n)) for start in range(0, self._n, size))

    def _chunk_pixels(self) -> int:
        if self._device.type != "cuda":
            return CPU_CHUNK_PIXELS
        free, _ = torch.cuda.mem_get_info(self._device)
        return min(MAX_CHUNK_PIXELS, int(SHARE_OF_MEMORY * free) // BYTES_PER_PIXEL_AND_MODE)

    def _amplitude(self, detector: Tensor) -> Tensor:
        return (abs2(detector).sum(dim=1) / self.N**2 + BACKGROUND).sqrt()

    def _on_good(self, values: Tensor) -> Tensor:
        return values if self._good is None else values * self._good

    def _factors(self, rows: slice) -> Tensor:
        along_y, along_x = (factor[rows] for factor in self._shifts)
        return along_y[:, None, :, None] * along_x[:, None, None, :]

    def _probes(self, spectrum: Tensor, rows: slice) -> Tensor:
        return torch.fft.ifft2(spectrum * self._factors(rows))

    def _index(self, rows: slice) -> Tensor:
        return self._first[rows, None] + self._window

    def _patches(self, canvas: Tensor, rows: slice) -> Tensor:
        return canvas.reshape(-1)[self._index(rows)].reshape(-1, 1, self.N, self.N)

    def _scatter_add(self, canvas: Tensor, values: Tensor, rows: slice) -> None:
        flat = torch.view_as_real(canvas) if canvas.is_complex() else canvas
        values = torch.view_as_real(values) if values.is_complex() else values
        width = (2,) if canvas.is_complex() else ()
        flat.view(-1, *width).index_add_(0, self._index(rows).reshape(-1), values.reshape(-1, *width))


def abs2(wave: Tensor) -> Tensor:
    """Return |wave|²."""
    return wave.real.square() + wave.imag.square()
