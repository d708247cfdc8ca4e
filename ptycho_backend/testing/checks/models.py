"""Whole models: answers against the oracle's, and laws that hold for any weights."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import InferenceConfig
from ptycho_backend.data.batching import Samples
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
from ptycho_backend.solver.stitching import LIT
from ptycho_backend.testing.assertions import relative_error
from ptycho_backend.testing.cases import ModelCase, described, drawn_case
from ptycho_backend.testing.checks.check import Check, CheckResult, EngineUnderTest, drawn_seed
from ptycho_backend.testing.checks.oracle import worst
from ptycho_backend.testing.tolerances import COUNTS, ENERGY32, GRADIENT, MODEL_LOSS, PATCHES, SAME_ENGINE, STITCHED

DOSE = 3  # times the photons
ONE_BY_ONE = 64  # largest side for which every weight is tried by itself


def patches(subject: EngineUnderTest, rng: np.random.Generator, kind: str) -> CheckResult:
    """Compare patches, without and with one more data-consistency step."""
    case = drawn_case(kind, subject.scan, drawn_seed(rng))
    model = subject.model(case)
    plain, more = (model.predict_patches(case.batch, amplitude_constraint=step) for step in (False, True))
    return CheckResult(worst(relative_error(plain, case.patches), relative_error(more, case.consistent)), PATCHES)


def counts(subject: EngineUnderTest, rng: np.random.Generator, kind: str) -> CheckResult:
    """Compare expected counts."""
    case = drawn_case(kind, subject.scan, drawn_seed(rng))
    return CheckResult(relative_error(subject.model(case).expected_counts(case.batch), case.counts), COUNTS)


def loss(subject: EngineUnderTest, rng: np.random.Generator, kind: str) -> CheckResult:
    """Compare the loss, all of its terms together."""
    case = drawn_case(kind, subject.scan, drawn_seed(rng))
    found, _ = subject.model(case).loss_and_gradients(case.batch)
    return CheckResult(abs(found / case.loss() - 1), MODEL_LOSS)


def gradients(subject: EngineUnderTest, rng: np.random.Generator, kind: str) -> CheckResult:
    """Compare the gradient by every trained weight with differences of the oracle's loss, one weight at a time."""
    case = drawn_case(kind, subject.scan, drawn_seed(rng))
    model = subject.model(case)
    _, found = model.loss_and_gradients(case.batch)
    trained = trainable_names(model, case.weights)
    if set(found) != set(trained):
        return CheckResult(math.nan, GRADIENT)
    together = [(LOG_SCALE,), (PROBE,), tuple(trained)]  # a large window makes the oracle slow
    tried = [(name,) for name in trained] if case.config.N <= ONE_BY_ONE else together
    return CheckResult(worst(*(_slope_error(case, found, names) for names in tried)), GRADIENT)


def _slope_error(case: ModelCase, found: dict[str, NDArray[np.float32]], names: tuple[str, ...]) -> float:
    slope = sum(float(np.vdot(found[name].astype(float), case.directions[name])) for name in names)
    # What a random direction of length 1 sees of a gradient on average.
    size = math.sqrt(sum(np.square(found[name], dtype=float).mean() for name in names))
    return abs(slope - case.slope_along(names)) / max(size, 1e-30)


def batch_size(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that a group's answer does not depend on the other groups of its batch."""
    case = drawn_case("unet", subject.scan, drawn_seed(rng))
    model, samples = subject.model(case), case.samples
    rows = rng.choice(len(samples), size=3, replace=False)
    together, alone = samples.batch(rows), [samples.batch(rows[i : i + 1]) for i in range(3)]
    errors = [
        relative_error(np.concatenate([ask(batch) for batch in alone]), ask(together))
        for ask in (model.predict_patches, model.expected_counts)
    ]
    return CheckResult(worst(*errors), SAME_ENGINE)


def probe_phase(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that a constant phase of the probe changes neither patches nor counts."""
    case = drawn_case("unet", subject.scan, drawn_seed(rng))
    model = subject.model(case)
    before = model.predict_patches(case.batch), model.expected_counts(case.batch)
    turned = complex_of(case.weights[PROBE].astype(np.float64)) * np.exp(1j * rng.uniform(0, 2 * np.pi))
    model.set_weights({**case.weights, PROBE: parts_of(turned).astype(np.float32)})
    after = model.predict_patches(case.batch), model.expected_counts(case.batch)
    return CheckResult(worst(*map(relative_error, after, before)), PATCHES)


def photons(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that k times the photons give the same patches and k times the expected counts."""
    case = drawn_case("single", subject.scan, drawn_seed(rng), n_groups=2)
    brighter = _brighter(case.samples.scan)
    samples = Samples(brighter, case.samples.groups, calibrate(brighter, case.config))
    model = subject.backend.create_model(case.training, samples.calibration, subject.execution)
    model.set_weights(case.weights)
    rows = rng.choice(len(samples), size=2, replace=False)
    dim, bright = case.samples.batch(rows), samples.batch(rows)
    own = subject.model(case)
    return CheckResult(
        worst(
            relative_error(model.predict_patches(bright), own.predict_patches(dim)),
            relative_error(model.expected_counts(bright), DOSE * own.expected_counts(dim)),
        ),
        PATCHES,
    )


def unit_object(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """
    Check that an object of 1 gives the mean measured energy, by the operators and by a whole model.

    A "cnn" of the whole window (network 3.6) with all weights at 0 predicts 2·sigmoid(0)·exp(i·π·tanh(0)) = 1. Its
    patches are not merged: the floor of a merge (physics 2.1) takes up to a thousandth off pixels that the probe does
    not light.
    """
    case = drawn_case("flat", subject.scan, drawn_seed(rng))
    calibration, mask = case.samples.calibration, subject.scan.mask
    model = subject.model(case)
    flat = {name: np.zeros_like(value) for name, value in case.weights.items()}
    model.set_weights({**flat, PROBE: parts_of(calibration.probe)})
    measured = calibration.photons_per_pattern
    by_model = model.expected_counts(case.batch).astype(float) * mask
    ones = np.ones((1, 1, *mask.shape), np.complex64)
    intensity = np.asarray(subject.operators.evaluate("intensity", ones, calibration.probe, 0.0))
    by_operator = intensity.astype(float) * case.constants.counts_per_intensity * mask
    errors = [np.abs(values.sum(axis=(-2, -1)) / measured - 1).max() for values in (by_model, by_operator)]
    return CheckResult(worst(*errors), ENERGY32)


def permuted(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that positions in another order give the same patches in that order, and the same image."""
    case = _untrained(subject, rng)
    model, order = subject.model(case), rng.permutation(len(subject.scan))
    shuffled = Samples(subject.scan.subset(order), case.samples.groups, case.samples.calibration)
    rows = rng.choice(len(order), size=4, replace=False)
    found = model.predict_patches(shuffled.batch(rows))
    one, other = (_stitched(model, scan) for scan in (subject.scan, shuffled.scan))
    return CheckResult(
        worst(
            relative_error(found, model.predict_patches(case.samples.batch(order[rows]))),
            _image_error(other, one),
        ),
        STITCHED,
    )


def reconstructed(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare an engine's reconstruction with one in NumPy: float64 patches, one phase reference, dense stitching."""
    case = _untrained(subject, rng)
    return CheckResult(_image_error(_stitched(subject.model(case), subject.scan), numpy_image(case)), STITCHED)


def numpy_image(case: ModelCase) -> Image:
    """Reconstruct a scan with the oracle: patches, align, stitch by dense translation matrices (physics 7)."""
    scan, constants, whole = case.samples.scan, case.constants, case.samples.batch(slice(None))
    found = reference.reference_patches(case.config, case.weights, constants, whole, True)[:, 0]
    N, weight = scan.N, constants.weight
    lit = np.argwhere(weight > LIT * weight.max()) - N // 2
    half = int(min(N // 2, max(-lit.min(), lit.max() + 1)))
    cut = slice(N // 2 - half, N // 2 + half)
    inner, trust = found[:, cut, cut], weight[cut, cut].astype(float)
    turns = align_phases(inner.astype(np.complex64), scan.positions_px, trust, np.arange(len(scan)))
    frame = CanvasFrame.around(scan.positions_px, N)
    total, coverage = np.zeros(frame.shape, complex), np.zeros(frame.shape)
    for patch, position, turn in zip(inner, scan.positions_px, turns, strict=True):
        rows, columns = (
            _spread(position[axis] - frame.origin_px[axis], 2 * half, frame.shape[axis]) for axis in (0, 1)
        )
        total += rows @ (turn * trust * patch) @ columns.T
        coverage += rows @ trust @ columns.T
    mean = np.divide(total, coverage, out=np.zeros_like(total), where=coverage > 0)
    return Image(mean.astype(np.complex64), coverage.astype(np.float32), frame.origin_px)


def _spread(centre_px: float, side: int, canvas: int) -> NDArray[np.float64]:
    """Return the matrix that places a window whose pixel [side // 2] lies at a canvas coordinate."""
    offset = centre_px - side // 2 + (side - 1) / 2 - (canvas - 1) / 2
    return translation_matrix(np.asarray(offset), side, canvas)


def _untrained(subject: EngineUnderTest, rng: np.random.Generator) -> ModelCase:
    """Draw a model as training would start it: near to the physics, so that phases can be aligned."""
    training, samples = described("single", subject.scan)
    # The configuration stays the same object, so that engines build the model only once.
    weights = starting_weights(dataclasses.replace(training, seed=drawn_seed(rng)), samples.calibration)
    return ModelCase(training, samples, samples.batch(slice(0, 1)), weights)


def _stitched(model: Model, scan: Scan) -> Image:
    inference = InferenceConfig(batch_size=8)
    return predict(scan, model, inference).stitched(scan, inference)


def _image_error(found: Image, expected: Image) -> float:
    # At the rim the coverage is a rounding error, and with it the image.
    seen = expected.coverage > 0.01 * expected.coverage.max()
    return worst(
        relative_error(found.obj * seen, expected.obj * seen),
        relative_error(found.coverage, expected.coverage),
        *np.abs(np.subtract(found.origin_px, expected.origin_px)),
    )


def _brighter(scan: Scan) -> Scan:
    factor = DOSE if scan.measurement == "counts" else math.sqrt(DOSE)
    return dataclasses.replace(scan, patterns=np.asarray(scan.patterns).astype(np.float64) * factor)


def _asked(kind: str) -> tuple[Check, ...]:
    asked = (
        ("4.1", "patches", patches),
        ("4.2", "counts", counts),
        ("4.3", "loss", loss),
        ("4.3", "gradients", gradients),
    )
    return tuple(
        Check(f"backend_contract {clause}", f"{name} of a {kind}", functools.partial(run, kind=kind), True)
        for clause, name, run in asked
    )


CHECKS = (
    *_asked("unet"),
    *_asked("cnn"),
    Check("backend_contract 4.1", "batch size", batch_size, True),
    Check("physics 4.2", "a constant phase of the probe", probe_phase, True),
    Check("physics 4.4", "k times the photons", photons, True),
    Check("physics 4.5", "an object of 1 gives the measured energy", unit_object, True),
    Check("physics 7.4", "positions in another order", permuted, True),
    Check("physics 7", "patches to an image", reconstructed, True),
)
