"""Checks of whole models: results equal to the oracle's, and laws that hold for any weights."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import InferenceConfig
from ptycho_backend.data.batching import Batch, Samples
from ptycho_backend.data.image import Image
from ptycho_backend.data.scan import Scan
from ptycho_backend.engines.model import LOG_SCALE, PROBE, Model, complex_of, parts_of, trainable_names
from ptycho_backend.network import reference
from ptycho_backend.network.prediction import predict
from ptycho_backend.network.weights import starting_weights
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.physics.translation import translation_matrix
from ptycho_backend.solver.phase_synchronization import align_phases
from ptycho_backend.solver.scan_geometry import CanvasFrame
from ptycho_backend.solver.stitching import STITCHED_SUPPORT
from ptycho_backend.testing.assertions import relative_error
from ptycho_backend.testing.cases import ModelCase, random_case, training_case
from ptycho_backend.testing.checks.check import Check, CheckResult, EngineUnderTest, draw_seed, largest_error
from ptycho_backend.testing.tolerances import COUNTS, ENERGY32, GRADIENT, MODEL_LOSS, PATCHES, SAME_ENGINE, STITCHED

PHOTON_FACTOR = 3
MAX_N_BY_WEIGHT = 64  # largest pattern side for which gradients are compared weight by weight


def patches(engine: EngineUnderTest, rng: np.random.Generator, name: str) -> CheckResult:
    """Compare patches, without and with one more amplitude constraint."""
    case = random_case(name, engine.scan, draw_seed(rng))
    model = engine.model(case)
    plain, constrained = (model.predict_patches(case.batch, amplitude_constraint=flag) for flag in (False, True))
    errors = relative_error(plain, case.patches), relative_error(constrained, case.constrained_patches)
    return CheckResult(largest_error(*errors), PATCHES)


def counts(engine: EngineUnderTest, rng: np.random.Generator, name: str) -> CheckResult:
    """Compare expected counts."""
    case = random_case(name, engine.scan, draw_seed(rng))
    return CheckResult(relative_error(engine.model(case).expected_counts(case.batch), case.counts), COUNTS)


def loss(engine: EngineUnderTest, rng: np.random.Generator, name: str) -> CheckResult:
    """Compare the loss, the sum of all terms."""
    case = random_case(name, engine.scan, draw_seed(rng))
    found, _ = engine.model(case).loss_and_gradients(case.batch)
    return CheckResult(abs(found / case.loss() - 1), MODEL_LOSS)


def gradients(engine: EngineUnderTest, rng: np.random.Generator, name: str) -> CheckResult:
    """Compare the gradient by every trained weight with finite differences of the oracle's loss."""
    case = random_case(name, engine.scan, draw_seed(rng))
    model = engine.model(case)
    _, found = model.loss_and_gradients(case.batch)
    trained = trainable_names(model, case.weights)
    if set(found) != set(trained):
        return CheckResult(math.nan, GRADIENT)
    # The oracle is slow for large patterns, so kernels are then compared in one direction together.
    together = [(LOG_SCALE,), (PROBE,), tuple(trained)]
    sets = [(weight,) for weight in trained] if case.config.N <= MAX_N_BY_WEIGHT else together
    return CheckResult(largest_error(*(_derivative_error(case, found, names) for names in sets)), GRADIENT)


def _derivative_error(case: ModelCase, found: dict[str, NDArray[np.float32]], names: tuple[str, ...]) -> float:
    derivative = sum(float(np.vdot(found[name].astype(float), case.directions[name])) for name in names)
    # Root mean square derivative along a random direction of length 1.
    scale = math.sqrt(sum(np.square(found[name], dtype=float).mean() for name in names))
    return abs(derivative - case.derivative_along(names)) / max(scale, 1e-30)


def batch_size(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that a group's patches and counts do not depend on the other groups of its batch."""
    case = random_case("unet", engine.scan, draw_seed(rng))
    model, samples = engine.model(case), case.samples
    rows = rng.choice(len(samples), size=3, replace=False)
    together, alone = samples.batch(rows), [samples.batch(rows[i : i + 1]) for i in range(3)]
    errors = [
        relative_error(np.concatenate([predict_batch(batch) for batch in alone]), predict_batch(together))
        for predict_batch in (model.predict_patches, model.expected_counts)
    ]
    return CheckResult(largest_error(*errors), SAME_ENGINE)


def probe_phase(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that a constant phase of the probe leaves patches and counts unchanged."""
    case = random_case("unet", engine.scan, draw_seed(rng))
    model = engine.model(case)
    expected = _patches_and_counts(model, case.batch)
    rotated = complex_of(case.weights[PROBE].astype(np.float64)) * np.exp(1j * rng.uniform(0, 2 * np.pi))
    model.set_weights({**case.weights, PROBE: parts_of(rotated).astype(np.float32)})
    found = _patches_and_counts(model, case.batch)
    return CheckResult(largest_error(*map(relative_error, found, expected)), PATCHES)


def photons(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that k times the photons give the same patches and k times the expected counts."""
    case = random_case("single", engine.scan, draw_seed(rng), n_groups=2)
    scan = _brighter(case.samples.scan)
    samples = Samples(scan, case.samples.groups, calibrate(scan, case.config))
    model = engine.backend.create_model(case.training, samples.calibration, engine.execution)
    model.set_weights(case.weights)
    rows = rng.choice(len(samples), size=2, replace=False)
    bright_patches, bright_counts = _patches_and_counts(model, samples.batch(rows))
    dim_patches, dim_counts = _patches_and_counts(engine.model(case), case.samples.batch(rows))
    errors = relative_error(bright_patches, dim_patches), relative_error(bright_counts, PHOTON_FACTOR * dim_counts)
    return CheckResult(largest_error(*errors), PATCHES)


def unit_object(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """
    Check that an object of 1 gives the mean measured energy, by the operators and by a whole model.

    A "cnn" of the whole window (network 3.6) with all weights at 0 predicts 2·sigmoid(0)·exp(i·π·tanh(0)) = 1. Its
    patches are not merged: the floor of a merge (physics 2.1) lowers pixels outside the probe by up to a thousandth.
    """
    case = random_case("flat", engine.scan, draw_seed(rng))
    calibration, mask = case.samples.calibration, engine.scan.mask
    model = engine.model(case)
    zeros = {name: np.zeros_like(value) for name, value in case.weights.items()}
    model.set_weights({**zeros, PROBE: parts_of(calibration.probe)})
    measured = calibration.photons_per_pattern
    by_model = model.expected_counts(case.batch).astype(float) * mask
    ones = np.ones((1, 1, *mask.shape), np.complex64)
    intensity = np.asarray(engine.operators.evaluate("intensity", ones, calibration.probe, 0.0))
    by_operator = intensity.astype(float) * case.constants.counts_per_intensity * mask
    errors = [np.abs(values.sum(axis=(-2, -1)) / measured - 1).max() for values in (by_model, by_operator)]
    return CheckResult(largest_error(*errors), ENERGY32)


def order_of_positions(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that a permutation of positions permutes the patches and leaves the image unchanged."""
    case = _untrained_case(engine, rng)
    model, order = engine.model(case), rng.permutation(len(engine.scan))
    permuted = Samples(engine.scan.subset(order), case.samples.groups, case.samples.calibration)
    rows = rng.choice(len(order), size=4, replace=False)
    found = model.predict_patches(permuted.batch(rows))
    expected = model.predict_patches(case.samples.batch(order[rows]))
    image, permuted_image = (_stitched(model, scan) for scan in (engine.scan, permuted.scan))
    return CheckResult(largest_error(relative_error(found, expected), _image_error(permuted_image, image)), STITCHED)


def stitched_image(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare an engine's image with the oracle's: float64 patches, aligned phases, dense stitching."""
    case = _untrained_case(engine, rng)
    return CheckResult(_image_error(_stitched(engine.model(case), engine.scan), numpy_image(case)), STITCHED)


def numpy_image(case: ModelCase) -> Image:
    """Return the oracle's image of a scan: patches, aligned phases, dense translation matrices (physics 7)."""
    scan, constants, batch = case.samples.scan, case.constants, case.samples.batch(slice(None))
    found = reference.reference_patches(case.config, case.weights, constants, batch, True)[:, 0]
    N, weight = scan.N, constants.weight
    support = np.argwhere(weight > STITCHED_SUPPORT * weight.max()) - N // 2
    half = int(min(N // 2, max(-support.min(), support.max() + 1)))
    centre = slice(N // 2 - half, N // 2 + half)
    central, central_weight = found[:, centre, centre], weight[centre, centre].astype(float)
    indices = np.arange(len(scan))
    phases = align_phases(central.astype(np.complex64), scan.positions_px, central_weight, indices)
    frame = CanvasFrame.around(scan.positions_px, N)
    total, coverage = np.zeros(frame.shape, complex), np.zeros(frame.shape)
    for patch, position, phase in zip(central, scan.positions_px, phases, strict=True):
        rows, columns = (
            _translation(position[axis] - frame.origin_px[axis], 2 * half, frame.shape[axis]) for axis in (0, 1)
        )
        total += rows @ (phase * central_weight * patch) @ columns.T
        coverage += rows @ central_weight @ columns.T
    mean = np.divide(total, coverage, out=np.zeros_like(total), where=coverage > 0)
    return Image(mean.astype(np.complex64), coverage.astype(np.float32), frame.origin_px)


def _translation(centre_px: float, side: int, canvas: int) -> NDArray[np.float64]:
    """Return the matrix from a window to a canvas; window pixel [side // 2] lies at a canvas coordinate."""
    offset = centre_px - side // 2 + (side - 1) / 2 - (canvas - 1) / 2
    return translation_matrix(np.asarray(offset), side, canvas)


def _untrained_case(engine: EngineUnderTest, rng: np.random.Generator) -> ModelCase:
    """Draw initial weights of a training: their patches are close enough to the object to align phases."""
    training, samples = training_case("single", engine.scan)
    # The configuration stays the same object, so that engines build the model only once.
    weights = starting_weights(dataclasses.replace(training, seed=draw_seed(rng)), samples.calibration)
    return ModelCase(training, samples, samples.batch(slice(0, 1)), weights)


def _patches_and_counts(model: Model, batch: Batch) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
    return model.predict_patches(batch), model.expected_counts(batch)


def _stitched(model: Model, scan: Scan) -> Image:
    inference = InferenceConfig(batch_size=8)
    return predict(scan, model, inference).stitched(scan, inference)


def _image_error(found: Image, expected: Image) -> float:
    # At the rim the coverage is a rounding error, and so is the image.
    covered = expected.coverage > 0.01 * expected.coverage.max()
    return largest_error(
        relative_error(found.obj * covered, expected.obj * covered),
        relative_error(found.coverage, expected.coverage),
        *np.abs(np.subtract(found.origin_px, expected.origin_px)),
    )


def _brighter(scan: Scan) -> Scan:
    factor = PHOTON_FACTOR if scan.measurement == "counts" else math.sqrt(PHOTON_FACTOR)
    return dataclasses.replace(scan, patterns=np.asarray(scan.patterns).astype(np.float64) * factor)


ORACLE_CHECKS = tuple(
    Check(f"backend_contract {clause}", f"{run.__name__} of a {name}", functools.partial(run, name=name), True)
    for name in ("unet", "cnn")
    for clause, run in (("4.1", patches), ("4.2", counts), ("4.3", loss), ("4.3", gradients))
)
CHECKS = (
    *ORACLE_CHECKS,
    Check("backend_contract 4.1", "independence of batch size", batch_size, True),
    Check("physics 4.2", "invariance to a constant probe phase", probe_phase, True),
    Check("physics 4.4", "scaling with the photons", photons, True),
    Check("physics 4.5", "energy of a unit object", unit_object, True),
    Check("physics 7.4", "order of positions", order_of_positions, True),
    Check("physics 7", "stitched image", stitched_image, True),
)
