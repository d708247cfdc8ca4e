"""
Object reconstruction from all patterns at once: parallel PIE with Nesterov momentum (spec: physics 7.7, 7.8).

Every pattern updates the object under its probe. Where probes overlap, illumination weights the updates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ptycho_backend.data.image import Image
from ptycho_backend.data.scan import Scan
from ptycho_backend.events import OnEvent, StageEvent, ThrottledProgress, ignore
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.physics.momentum import extrapolate
from ptycho_backend.runtime.devices import processors
from ptycho_backend.runtime.thread_map import QUEUED_PER_WORKER, ordered_pool_map
from ptycho_backend.solver.scan_geometry import AXES, ScanGeometry, abs2, spectrum_of, sum_modes

REGULARISATION = 0.02  # relative to the maximum of Σ|P|² (of Σ|O|² for a probe): bounds updates at the rim
MIN_INTENSITY = 1e-8  # (normalised amplitude 1e-4)²: keeps ψ/|ψ| finite on dark pixels
CHUNK_PIXELS = 64**3  # detector pixels in one chunk of patterns: fits the processor's cache
CACHE_BYTES = 512 * 2**20  # upper limit of cached amplitudes and shifted probes
STAGE = "iterations"
MIN_ITERATIONS, MAX_ITERATIONS = 16, 64  # if no number is given
UPDATE_TOLERANCE = 4e-4  # the solver stops below this relative object update,
NOISE_TOLERANCE = 4e-3  # or below this fraction of the relative amplitude residual
Canvas = NDArray[np.complex64]


def solve(
    scan: Scan, calibration: Calibration, image: Image, iterations: int | None = None, on_event: OnEvent = ignore
) -> Image:
    """
    Reconstruct the object from all patterns, with the probe fixed.

    Parameters
    ----------
    scan : Scan
        Read in chunks. Neither chunk size nor number of threads changes the result.
    calibration : Calibration
        Scale of the data, and the probe.
    image : Image
        Initial object.
    iterations : int, optional
        Number of iterations; None: at least 16, then until convergence, at most 64 (physics 7.8).
    on_event : callable
        Receives a StageEvent after every iteration, with Σ(x − |ψ|)² / Σx² over good pixels and the current image.

    Returns
    -------
    Image
        Object on the pixels of `image`, with its coverage.

    Notes
    -----
    Spec: physics 7.7, 7.8.

    References
    ----------
    Rodenburg and Faulkner (2004): object update of PIE, here for all patterns in parallel.
    Nesterov (1983): momentum. Xu et al. (2018): momentum in accelerated Wirtinger flow.
    """
    if iterations == 0:
        return image
    min_iterations, max_iterations = iterations or MIN_ITERATIONS, iterations or MAX_ITERATIONS
    state = SolverState(scan, calibration, on_event)
    previous = canvas = state.geometry.canvas(image)
    with ThreadPoolExecutor(processors()) as pool:
        for k in range(max_iterations):
            done = k + 1
            total = min_iterations if done < min_iterations else max_iterations
            extrapolated = extrapolate(canvas, previous, k)
            progress = partial(ThrottledProgress(on_event, STAGE, total).report, k)
            object_update = state.object_update(extrapolated, pool, progress)
            finished = done == max_iterations or (
                done >= min_iterations and state.converged(object_update, extrapolated)
            )
            extrapolated += object_update
            previous, canvas = canvas, extrapolated
            current = partial(state.image, canvas, image)
            on_event(StageEvent(STAGE, done, done if finished else total, f"error {state.error:.3g}", current))
            if finished:
                break
    return state.image(canvas, image)


def regularised(illumination: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the denominator of an update: Σ|P|² (or Σ|O|²) + 0.02·max."""
    return np.asarray(illumination + np.float32(REGULARISATION) * illumination.max())


class ChunkUpdate(NamedTuple):
    """Contribution of one chunk: object update (position, y, x), Σ(x − |ψ|)², Σx², and the probe gradient if any."""

    rows: slice
    object_update: Canvas
    squared_error: float
    norm: float
    probe_gradient: Any


class SolverState:
    """
    Amplitudes, probe and illumination during the iterations; detector arrays are in the FFT's own pixel order.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
    on_event : callable

    Attributes
    ----------
    geometry : ScanGeometry
    error : float
        Σ(x − |ψ|)² / Σx² over good pixels in the last iteration.
    """

    def __init__(self, scan: Scan, calibration: Calibration, on_event: OnEvent = ignore) -> None:
        self.geometry = ScanGeometry(scan)
        self.error = np.nan
        self._scan, self._r = scan, np.float32(calibration.rms_input_scale)
        self._spectrum = spectrum_of(calibration.probe)
        self._good = None if scan.mask.all() else np.fft.ifftshift(scan.mask).astype(np.float32)
        amplitudes, probes = len(scan) * scan.N**2 * self._r.nbytes, len(scan) * calibration.probe.nbytes
        self._fits = {"amplitudes": amplitudes <= CACHE_BYTES, "probes": amplitudes + probes <= CACHE_BYTES}
        self._cache: dict[tuple[str, int], NDArray[Any]] = {}
        self._illumination = self._total_illumination(ThrottledProgress(on_event, "illumination", len(scan)))

    def object_update(self, canvas: Canvas, pool: ThreadPoolExecutor, progress: Callable[[float], None]) -> Canvas:
        """Return Σ_j C_j(canvas) / (Σ|P|² + 0.02·max), and set :attr:`error`; report the share of patterns done."""
        total, squared_error, norm = np.zeros_like(canvas), 0.0, 0.0
        chunk_update = partial(self._chunk_update, canvas)
        for update in ordered_pool_map(pool, chunk_update, self._chunks(), QUEUED_PER_WORKER * processors()):
            # Always in the order of the patterns: sums of floats depend on their order.
            self.geometry.scatter_add(total, update.object_update, update.rows)
            self._accumulate(update.probe_gradient)
            squared_error, norm = squared_error + update.squared_error, norm + update.norm
            progress(update.rows.stop / len(self._scan))
        self.error = squared_error / max(norm, 1e-30)
        total /= regularised(self._illumination)
        return total

    def converged(self, object_update: Canvas, canvas: Canvas) -> bool:
        """Return whether the relative object update is below the tolerance (spec: physics 7.8)."""
        tolerance = max(UPDATE_TOLERANCE, NOISE_TOLERANCE * float(np.sqrt(self.error)))
        return self._squared_norm(object_update) < tolerance**2 * self._squared_norm(canvas)

    def _squared_norm(self, canvas: Canvas) -> float:
        """Return Σ|canvas|² weighted by illumination."""
        rows = np.einsum("yx,yx->y", abs2(canvas), self._illumination)
        return float(rows.sum(dtype=np.float64))

    def image(self, canvas: Canvas, start: Image) -> Image:
        """Return the object on the pixels of the initial image."""
        origin = np.asarray(start.origin_px) - np.asarray(self.geometry.frame.origin_px)
        y, x = np.rint(origin).astype(int)
        height, width = start.obj.shape
        obj = np.where(start.coverage > 0, canvas[y : y + height, x : x + width], 0)
        return Image(obj.astype(np.complex64), start.coverage, start.origin_px)

    def _total_illumination(self, progress: ThrottledProgress) -> NDArray[np.float32]:
        """Return Σ_j Σ_m |P_jm|² on the canvas."""
        illumination = np.zeros(self.geometry.canvas().shape, dtype=np.float32)
        for rows in self._chunks():
            self.geometry.scatter_add(illumination, sum_modes(abs2(self._shifted_probes(rows))), rows)
            progress.report(rows.stop)
        progress.finish()
        return illumination

    def _chunks(self) -> Iterator[slice]:
        size = max(1, CHUNK_PIXELS // self._scan.N**2)
        n = len(self._scan)
        return (slice(start, min(start + size, n)) for start in range(0, n, size))

    def _chunk_update(self, canvas: Canvas, rows: slice) -> ChunkUpdate:
        x, probes = self._amplitudes(rows), self._shifted_probes(rows)
        patches = self.geometry.extract_patches(canvas, rows)
        exit_wave_update, amplitude_residual = constrain_exit_waves(probes * patches, x, self._good)
        object_update = sum_modes(np.conj(probes) * exit_wave_update)
        squared_error = float(np.vdot(amplitude_residual, amplitude_residual))
        # Inside the worker thread: exit-wave updates take much memory.
        probe_gradient = self._probe_gradient(rows, patches, exit_wave_update)
        return ChunkUpdate(rows, object_update, squared_error, float(np.vdot(x, x)), probe_gradient)

    def _probe_gradient(self, rows: slice, patches: Canvas, exit_wave_update: Canvas) -> Any:
        """Return the probe gradient of one chunk; None with a fixed probe."""

    def _accumulate(self, probe_gradient: Any) -> None:
        """Add the probe gradient of one chunk to the total."""

    def _amplitudes(self, rows: slice) -> NDArray[np.float32]:
        """Return normalised amplitudes x (position, y, x), 0 on bad pixels."""
        return self._cached("amplitudes", rows, partial(self._load_amplitudes, rows))

    def _load_amplitudes(self, rows: slice) -> NDArray[np.float32]:
        x = np.fft.ifftshift(self._scan.amplitude(rows), axes=AXES) * self._r
        return x if self._good is None else x * self._good

    def _shifted_probes(self, rows: slice) -> Canvas:
        """Return the probe at the positions `rows`, (position, mode, y, x)."""
        return self._cached("probes", rows, partial(self.geometry.shifted_probes, self._spectrum, rows))

    def _cached(self, name: str, rows: slice, compute: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return a chunk's array; computed once if the arrays of all chunks fit into the cache."""
        if not self._fits[name]:
            return compute()
        key = (name, rows.start)
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]


def constrain_exit_waves(
    exit_waves: Canvas, x: NDArray[np.float32], good: NDArray[np.float32] | None
) -> tuple[Canvas, NDArray[np.float32]]:
    """
    Return F⁻¹((x − |ψ|)·ψ/|ψ|) and x − |ψ|: exit-wave update and amplitude residual of the amplitude constraint.

    Parameters
    ----------
    exit_waves : complex64, shape (position, mode, y, x)
        Overwritten.
    x : float32, shape (position, y, x)
        Measured amplitude.
    good : float32, shape (y, x), optional
        0 on bad pixels, whose residual is 0; None: all pixels are good.
    """
    detector = scipy.fft.fft2(exit_waves, axes=AXES, norm="ortho", overwrite_x=True)
    predicted = sum_modes(abs2(detector))
    predicted += np.float32(MIN_INTENSITY)
    np.sqrt(predicted, out=predicted)
    amplitude_residual = x - predicted
    if good is not None:
        amplitude_residual *= good
    detector *= (amplitude_residual / predicted)[:, None]
    return scipy.fft.ifft2(detector, axes=AXES, norm="ortho", overwrite_x=True), amplitude_residual
