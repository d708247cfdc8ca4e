"""From a model and a scan to an image: predict, align phases, stitch, polish (spec: physics 7)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import InferenceConfig, TrainingConfig
from ptycho_backend.contract import LOG_SCALE, PROBE, Model
from ptycho_backend.core.batching import Batch, Samples
from ptycho_backend.core.calibration import Calibration, calibrate, probe_hash
from ptycho_backend.core.conditions import conditions_known
from ptycho_backend.core.constants import patch_weight
from ptycho_backend.core.epie import polish
from ptycho_backend.core.grouping import group_positions
from ptycho_backend.core.overlap import overlap_passes
from ptycho_backend.core.phase_alignment import align_phases
from ptycho_backend.core.refinement import refined_calibration
from ptycho_backend.core.stitching import CanvasFrame, Image, Stitcher
from ptycho_backend.core.weights import complex_of
from ptycho_backend.data.mapped import gathered, release, scratch_array
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import ConfigError, ShapeError
from ptycho_backend.events import OnEvent, StageEvent, ignore

LIT = 0.01  # patches are stitched out to where the probe falls below this share of its peak
CHUNK = 1024  # patches stitched at a time


def reconstruct_scan(scan: Scan, model: Model, inference: InferenceConfig, on_event: OnEvent = ignore) -> Image:
    """
    Reconstruct a scan with a model.

    Parameters
    ----------
    scan : Scan
    model : Model
    inference : InferenceConfig
    on_event : callable
        Receives StageEvents.
    """
    fitted = fit_to_scan(model, scan, inference, on_event)
    return image_of(scan, fitted, predict(scan, fitted, inference, on_event), inference, on_event)


def image_of(
    scan: Scan, model: Model, predicted: Predicted, inference: InferenceConfig, on_event: OnEvent = ignore
) -> Image:
    """Return the image that predicted patches make together, and passes over all patterns improve."""
    image = predicted.stitched(scan, inference, on_event)
    return improved(scan, calibration_of(model), image, inference, on_event)


def improved(
    scan: Scan, calibration: Calibration, image: Image, inference: InferenceConfig, on_event: OnEvent = ignore
) -> Image:
    """Return a stitched image after the passes over all patterns that a configuration asks for."""
    image = overlap_passes(scan, calibration, image, inference.overlap_passes, on_event)
    rng = np.random.default_rng([inference.seed, 4])
    return polish(scan, calibration, image, inference.refine_passes, rng, on_event)


def fit_to_scan(model: Model, scan: Scan, inference: InferenceConfig, on_event: OnEvent = ignore) -> Model:
    """
    Return the model with the calibration that suits a scan; the same model where it suits already.

    "auto" keeps the model's probe where the scan carries the probe guess it was made from, and else takes
    the scan's; the scale always follows the scan's photons. Passes of probe refinement follow.
    """
    before = _suited_to_scan(model, scan, inference)
    calibration, _ = refined_calibration(scan, before, model.training, _refinement_passes(model, inference), on_event)
    # Another model would have to be built, and compiled, only to compute the same numbers.
    return model if _equal(calibration, calibration_of(model)) else recalibrated(model, calibration)


def _refinement_passes(model: Model, inference: InferenceConfig) -> int:
    if inference.probe_refinement_passes is not None:
        return inference.probe_refinement_passes
    return 0 if model.calibration.probe_guess_sha256 else TrainingConfig().probe_refinement_passes


def _suited_to_scan(model: Model, scan: Scan, inference: InferenceConfig) -> Calibration:
    same_probe = model.calibration.probe_guess_sha256 == probe_hash(scan.probe)
    if inference.calibration == "model" and not model.calibration.probe_guess_sha256:
        raise _no_calibration()
    if inference.calibration == "model" or (inference.calibration == "auto" and same_probe):
        if model.config.N != scan.N:
            raise _wrong_size(model, scan)
        probe = calibration_of(model).probe
        if inference.calibration == "model":
            return calibration_of(model)
    else:
        probe = None
    if model.config.architecture == "cnn" and model.config.N != scan.N:
        raise _wrong_size(model, scan)
    config = dataclasses.replace(model.config, N=scan.N)
    return calibrate(scan, config, model.training.nphotons, probe)


def _equal(one: Calibration, other: Calibration) -> bool:
    """Return whether two calibrations differ by rounding alone."""
    return (
        one.N == other.N
        and one.probe.shape == other.probe.shape
        and math.isclose(one.rms_input_scale, other.rms_input_scale, rel_tol=1e-6)
        and math.isclose(one.photon_scale, other.photon_scale, rel_tol=1e-6)
        and bool(np.allclose(one.probe, other.probe, rtol=0, atol=1e-6 * float(np.abs(one.probe).max())))
    )


def recalibrated(model: Model, calibration: Calibration, gridsize: int | None = None) -> Model:
    """Return a copy of a model, on the same engine, for another calibration, or for groups of another size."""
    from ptycho_backend.registry import get_backend

    config = dataclasses.replace(model.config, N=calibration.N, gridsize=gridsize or model.config.gridsize)
    training = dataclasses.replace(model.training, model=config)
    twin = get_backend(model.backend).create_model(training, calibration, model.execution)
    own = twin.get_weights()
    network = {name: value for name, value in model.get_weights().items() if name not in (LOG_SCALE, PROBE)}
    twin.set_weights({**own, **network})
    twin.known = model.known or conditions_known({}, model.calibration)
    return twin


def calibration_of(model: Model) -> Calibration:
    """Return a model's calibration with the probe as trained."""
    return dataclasses.replace(model.calibration, probe=complex_of(model.get_weights()[PROBE].astype(np.float32)))


@dataclass(frozen=True, eq=False)
class Predicted:
    """
    What a model predicts of a scan: of every patch the part that is stitched.

    Parameters
    ----------
    indices : int64, shape (group, channel)
        Positions in the scan.
    patches : complex64, shape (group, channel, y, x)
        The squares around the windows' centres; of a large scan they lie in a file.
    weight : float32, shape (y, x)
        Trust in each pixel of a square.
    """

    indices: NDArray[np.int64]
    patches: NDArray[np.complex64]
    weight: NDArray[np.float32]

    @property
    def single(self) -> bool:
        """Whether every pattern was looked at by itself, so that its patch is the same in any part of the scan."""
        return self.indices.shape[1] == 1

    def subset(self, rows: NDArray[np.intp] | slice) -> Predicted:
        """Return what is predicted of a part of the scan, where patterns were looked at one by one."""
        patches = self.patches[rows] if isinstance(rows, slice) else gathered(self.patches, rows)
        return Predicted(np.arange(len(patches))[:, None], patches, self.weight)

    def stitched(self, scan: Scan, inference: InferenceConfig, on_event: OnEvent = ignore) -> Image:
        """Give all patches one phase reference, and stitch them."""
        return assemble(self.patches, scan, self.indices, self.weight, inference.phase_alignment, on_event)


def predict(
    scan: Scan, model: Model, inference: InferenceConfig, on_event: OnEvent = ignore, stage: str = "reconstruction"
) -> Predicted:
    """Predict all patches of a scan, under the name of a stage."""
    samples = samples_of(scan, model, inference)
    indices = samples.groups.indices
    weight = patch_weight(model.config, calibration_of(model).probe)
    half = lit_half(weight)
    lit, aligned = central(weight, half), inference.phase_alignment
    estimate = partial(model.predictions, data_consistency=inference.data_consistency)
    for patches in estimated(samples, estimate, inference.batch_size, half):
        done = len(patches)
        so_far = partial(assemble, patches, scan, indices[:done], lit, aligned)
        on_event(StageEvent(stage, done, len(samples), image=so_far))
    return Predicted(indices, patches, lit)


def samples_of(scan: Scan, model: Model, inference: InferenceConfig) -> Samples:
    """Return the groups of a scan that a model predicts, equal for equal seeds."""
    rng = np.random.default_rng([inference.seed, 3])
    groups = group_positions(scan.positions_px, model.config.gridsize, inference.neighbor_count, None, rng)
    return Samples(scan, groups, model.calibration)


def estimated(
    samples: Samples, estimates: Callable[[Iterable[Batch]], Iterable[NDArray[Any]]], batch_size: int, half: int
) -> Iterator[NDArray[np.complex64]]:
    """
    Estimate all patches of a scan, batch after batch; yield all there are so far, (group, channel, y, x), after each.

    Only the centre of side 2·half is kept, and not in memory where the scan is large (spec: data 8).
    """
    patches = scratch_array((len(samples), samples.groups.channels, 2 * half, 2 * half), np.complex64)
    done = 0
    for part in estimates(samples.batches(batch_size)):
        patches[done : done + len(part)] = central(part, half)
        release(patches)
        done += len(part)
        yield patches[:done]


def assemble(
    patches: NDArray[np.complex64],
    scan: Scan,
    indices: NDArray[np.int64],
    weight: NDArray[np.float32],
    phase_alignment: bool = True,
    on_event: OnEvent = ignore,
) -> Image:
    """
    Align and stitch patches (group, channel, y, x) of the groups `indices` (group, channel).

    Patches may be smaller than the window, if they are cut out around its centre; the canvas is the scan's.
    """
    frame = CanvasFrame.around(scan.positions_px, scan.N)
    return stitch_groups(patches, scan.positions_px[indices], weight, frame, phase_alignment, on_event)


def stitch_groups(
    patches: NDArray[np.complex64],
    positions_px: NDArray[np.float64],
    weight: NDArray[np.float32],
    frame: CanvasFrame,
    phase_alignment: bool = True,
    on_event: OnEvent = ignore,
) -> Image:
    """
    Align and stitch groups of patches on a canvas.

    Parameters
    ----------
    patches : complex64, shape (group, channel, y, x), may be memory-mapped
    positions_px : float64, shape (group, channel, 2), (y, x)
    weight : float32, shape (y, x)
        Trust in each pixel of a patch.
    frame : CanvasFrame
    phase_alignment : bool
        Give all groups one phase reference first.
    on_event : callable
        Receives StageEvents.
    """
    flat, positions = patches.reshape(-1, *patches.shape[2:]), positions_px.reshape(-1, 2)
    owners = np.repeat(np.arange(len(patches)), patches.shape[1])
    factors = align_phases(flat, positions, weight, owners, on_event) if phase_alignment else None
    stitcher = Stitcher(frame, weight)
    for start in range(0, len(flat), CHUNK):
        part = slice(start, start + CHUNK)
        turned = flat[part] if factors is None else flat[part] * factors[owners[part], None, None]
        stitcher.add(turned, positions[part])
        release(flat)
        on_event(StageEvent("stitching", min(part.stop, len(flat)), len(flat)))
    return stitcher.result()


def lit_half(weight: NDArray[np.float32]) -> int:
    """Return half the side of the smallest centred square that holds every lit pixel."""
    N = weight.shape[-1]
    lit = np.argwhere(weight > LIT * weight.max()) - N // 2
    return int(min(N // 2, max(-lit.min(), lit.max() + 1)))


def central(array: NDArray, half: int) -> NDArray:  # type: ignore[type-arg]
    """Return the square of side 2·half around pixel ``[N//2, N//2]`` of the last two axes."""
    middle = array.shape[-1] // 2
    cut = slice(middle - half, middle + half)
    return array[..., cut, cut]


def _wrong_size(model: Model, scan: Scan) -> ShapeError:
    return ShapeError(
        "This model reconstructs patterns of one size only.",
        expected=f"patterns of {model.config.N}×{model.config.N} ({model.config.architecture})",
        received=f"patterns of {scan.N}×{scan.N} in '{scan.source}'",
        fix=f"load the scan with N={model.config.N} to crop or pad it",
    )


def _no_calibration() -> ConfigError:
    return ConfigError(
        "A model that was trained on no scan has no calibration of its own.",
        expected="calibration='auto' or 'scan'",
        received="calibration='model' for the network that ships with the package",
        fix="leave the option out",
    )
