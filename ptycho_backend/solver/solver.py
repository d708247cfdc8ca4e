"""
Agreement of neighbours: data-consistency steps on the whole object instead of on single patches (spec: physics 7.7).

Every pattern corrects the part of the object that its probe lights; where probes overlap, corrections are averaged by
illumination. Steps start from extrapolated objects, which spreads slow phases over the scan within a few passes.
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
from ptycho_backend.runtime.devices import processors
from ptycho_backend.runtime.thread_map import AHEAD, ordered_pool_map
from ptycho_backend.solver.scan_geometry import AXES, ScanGeometry, abs2, spectrum_of, sum_modes

REGULARISATION = 0.02  # of the brightest pixel of Σ|P|², or of Σ|O|² for a probe: bounds the correction at the rim
TINY = 1e-8  # (normalised amplitude 1e-4)²: keeps ψ/|ψ| finite; neighbours settle what one dark pixel leaves open
CHUNK_PIXELS = 64**3  # patterns that a thread holds at a time, in pixels; small enough for the processor's cache
CACHE_BYTES = 512 * 2**20  # amplitudes and moved probes are kept where they fit in this
STAGE = "overlap"
FEWEST, MOST = 16, 64  # passes where none are asked for
SETTLED = 4e-4  # of the object: a pass that corrects less has next to nothing left to find,
NOISE = 4e-3  # nor has one that corrects less than this part of what amplitudes are wrong by
Canvas = NDArray[np.complex64]


def solve(
    scan: Scan, calibration: Calibration, image: Image, passes: int | None = None, on_event: OnEvent = ignore
) -> Image:
    """
    Make an image agree with all patterns at once.

    Parameters
    ----------
    scan : Scan
        Read in chunks; the result depends neither on their size nor on the number of threads.
    calibration : Calibration
        Scale of the data, and the probe.
    image : Image
        Where to start.
    passes : int, optional
        Visits of all patterns; None: 16, and on to at most 64 until what they correct has settled (physics 7.8).
    on_event : callable
        Receives a StageEvent after every pass, with Σ(x − |ψ|)² / Σx² over good pixels and the image so far.

    Returns
    -------
    Image
        With the coverage of the image given.

    Notes
    -----
    Spec: physics 7.7, 7.8. The correction is that of the parallel engine of Rodenburg and Faulkner's PIE; the
    extrapolation is Nesterov's (1983), as accelerated Wirtinger flow uses it (Xu et al., 2018).
    """
    if passes == 0:
        return image
    fewest, most = (FEWEST, MOST) if passes is None else (passes, passes)
    state = Passes(scan, calibration, on_event)
    before = canvas = state.geometry.canvas(image)
    with ThreadPoolExecutor(processors()) as pool:
        for k in range(most):
            ahead = canvas - before
            ahead *= np.float32(k / (k + 3))
            ahead += canvas
            done = k + 1
            total = fewest if done < fewest else most
            change = state.change(ahead, pool, partial(ThrottledProgress(on_event, STAGE, total).report, k))
            over = done == most or (done >= fewest and state.settled(change, ahead))
            change += ahead
            before, canvas = canvas, change
            so_far = partial(state.image, canvas, image)
            on_event(StageEvent(STAGE, done, done if over else total, f"error {state.error:.3g}", so_far))
            if over:
                break
    return state.image(canvas, image)


def bounded(light: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return Σ|P|² or Σ|O|² as corrections are divided by it: nowhere next to nothing."""
    return np.asarray(light + np.float32(REGULARISATION) * light.max())


class Part(NamedTuple):
    """
    What some patterns ask for: their correction of the object, Σ(x − |ψ|)² and Σx² over good pixels.

    ``probe`` is what they ask of the probe, where that is gathered.
    """

    rows: slice
    correction: Canvas
    misfit: float
    energy: float
    probe: Any


class Passes:
    """
    Data, probe and illumination of running passes, in the FFT's own pixel order on the detector.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
    on_event : callable

    Attributes
    ----------
    geometry : ScanGeometry
    error : float
        Σ(x − |ψ|)² / Σx² over good pixels, as met during the last pass.
    """

    def __init__(self, scan: Scan, calibration: Calibration, on_event: OnEvent = ignore) -> None:
        self.geometry = ScanGeometry(scan)
        self.error = np.nan
        self._scan, self._r = scan, np.float32(calibration.rms_input_scale)
        self._spectrum = spectrum_of(calibration.probe)
        self._good = None if scan.mask.all() else np.fft.ifftshift(scan.mask).astype(np.float32)
        amplitudes, probes = len(scan) * scan.N**2 * self._r.nbytes, len(scan) * calibration.probe.nbytes
        self._fits = {"amplitudes": amplitudes <= CACHE_BYTES, "probes": amplitudes + probes <= CACHE_BYTES}
        self._kept: dict[tuple[str, int], NDArray[Any]] = {}
        self._illumination = self._summed_illumination(ThrottledProgress(on_event, "illumination", len(scan)))

    def change(self, canvas: Canvas, pool: ThreadPoolExecutor, tell: Callable[[float], None]) -> Canvas:
        """Return what one step adds to `canvas`, and keep the error that was met; tell the share done."""
        total, wrong, energy = np.zeros_like(canvas), 0.0, 0.0
        for part in self._parts(canvas, pool):
            # In the order of the patterns, whichever thread was first: sums of floats depend on their order.
            self.geometry.scatter_add(total, part.correction, part.rows)
            self._take(part.probe)
            wrong, energy = wrong + part.misfit, energy + part.energy
            tell(part.rows.stop / len(self._scan))
        self.error = wrong / max(energy, 1e-30)
        total /= bounded(self._illumination)
        return total

    def settled(self, change: Canvas, canvas: Canvas) -> bool:
        """Return whether the change that the last step made of `canvas` is too small to go on (spec: physics 7.8)."""
        enough = max(SETTLED, NOISE * float(np.sqrt(self.error)))
        return self._energy(change) < enough**2 * self._energy(canvas)

    def _energy(self, canvas: Canvas) -> float:
        """Return Σ|canvas|², weighed by illumination: pixels that no pattern has seen count for nothing."""
        rows = np.einsum("yx,yx->y", abs2(canvas), self._illumination)
        return float(rows.sum(dtype=np.float64))

    def image(self, canvas: Canvas, start: Image) -> Image:
        """Return the object on the pixels of the image that the passes started from."""
        origin = np.asarray(start.origin_px) - np.asarray(self.geometry.frame.origin_px)
        y, x = np.rint(origin).astype(int)
        height, width = start.obj.shape
        obj = np.where(start.coverage > 0, canvas[y : y + height, x : x + width], 0)
        return Image(obj.astype(np.complex64), start.coverage, start.origin_px)

    def _summed_illumination(self, progress: ThrottledProgress) -> NDArray[np.float32]:
        """Return Σ|P|² of all patterns on the canvas."""
        light = np.zeros(self.geometry.canvas().shape, dtype=np.float32)
        for rows in self._chunks():
            self.geometry.scatter_add(light, sum_modes(abs2(self._moved(rows))), rows)
            progress.report(rows.stop)
        progress.finish()
        return light

    def _chunks(self) -> Iterator[slice]:
        size = max(1, CHUNK_PIXELS // self._scan.N**2)
        n = len(self._scan)
        return (slice(start, min(start + size, n)) for start in range(0, n, size))

    def _of_probe(self, rows: slice, windows: Canvas, change: NDArray[np.complex64]) -> Any:
        """
        Return what some patterns ask of the probe; here nothing.

        `windows` (position, 1, y, x) are the object as they saw it, `change` (position, mode, y, x) what their exit
        waves lack: too large to leave the thread that made them.
        """

    def _take(self, asked: Any) -> None:
        """Gather what :meth:`_of_probe` returned; here nothing."""

    def _parts(self, canvas: Canvas, pool: ThreadPoolExecutor) -> Iterator[Part]:
        """Yield what :meth:`_part` finds, chunk after chunk, a few of them ahead."""
        return ordered_pool_map(pool, partial(self._part, canvas), self._chunks(), AHEAD * processors())

    def _part(self, canvas: Canvas, rows: slice) -> Part:
        """Return what some patterns ask for."""
        x, probes, geometry = self._measured(rows), self._moved(rows), self.geometry.extract_patches(canvas, rows)
        detector = scipy.fft.fft2(probes * geometry, axes=AXES, norm="ortho", overwrite_x=True)
        predicted = sum_modes(abs2(detector))
        predicted += np.float32(TINY)
        np.sqrt(predicted, out=predicted)
        missing = x - predicted
        if self._good is not None:
            missing *= self._good
        detector *= (missing / predicted)[:, None]
        change = scipy.fft.ifft2(detector, axes=AXES, norm="ortho", overwrite_x=True)
        correction = sum_modes(np.conj(probes) * change)
        asked = self._of_probe(rows, geometry, change)
        return Part(rows, correction, float(np.vdot(missing, missing)), float(np.vdot(x, x)), asked)

    def _measured(self, rows: slice) -> NDArray[np.float32]:
        """Return normalised amplitudes in the FFT's own order, 0 where the detector is bad."""

        def measured() -> NDArray[np.float32]:
            x = np.fft.ifftshift(self._scan.amplitude(rows), axes=AXES) * self._r
            return x if self._good is None else x * self._good

        return self._keep("amplitudes", rows, measured)

    def _moved(self, rows: slice) -> NDArray[np.complex64]:
        """Return the probe moved to some positions, (position, mode, y, x)."""
        return self._keep("probes", rows, partial(self.geometry.shifted_probes, self._spectrum, rows))

    def _keep(self, name: str, rows: slice, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return what `make` makes of some patterns, the same at every pass; made once where all of it fits."""
        if not self._fits[name]:
            return make()
        key = (name, rows.start)
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]
