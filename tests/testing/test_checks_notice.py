"""Checks of engines fail for engines with typical mistakes of the field: mutation tests of the checks."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ptycho_backend.engines.model import Model
from ptycho_backend.engines.operators import OPERATORS, Operators, ReferenceOperators, as_float64
from ptycho_backend.network import reference
from ptycho_backend.network.physics_constants import PhysicsConstants
from ptycho_backend.physics import forward, losses
from ptycho_backend.physics.translation import scatter_patches
from ptycho_backend.testing.checks import CHECKS, CROSS_CHECKS, CheckResult, EngineUnderTest, builtin_scan
from ptycho_backend.testing.checks.check import largest_error
from ptycho_backend.testing.tolerances import EXACT64

SEED = 11  # draws small arrays, for which the oracle's gradients are quick
ROOT = Path(__file__).parents[2]
ORACLE = ReferenceOperators()
QUICK = {check.name: check for check in CHECKS if not check.slow}
SLOW = {check.name: check for check in CHECKS if check.slow}


class Broken(Operators):
    """The oracle with one mistake: functions change the values, the gradients or the optimiser steps."""

    device = "cpu"

    def __init__(self, value=None, gradient=None, steps=None):
        self._value, self._gradient, self._steps = value, gradient, steps

    def evaluate(self, name, *arguments):
        correct = ORACLE.evaluate(name, *arguments)
        if self._value is None:
            return correct
        return self._value(name, [as_float64(argument) for argument in arguments], correct)

    def gradient(self, name, *arguments, by=0, cotangent=None):
        correct = ORACLE.gradient(name, *arguments, by=by, cotangent=cotangent)
        return correct if self._gradient is None else self._gradient(name, by, correct)

    def optimiser_steps(self, value, gradients, learning_rate, clip=None):
        if self._steps is not None:
            return self._steps(np.asarray(value, float), gradients, learning_rate, clip)
        return ORACLE.optimiser_steps(value, gradients, learning_rate, clip)


def result_of(operators, name, seed=SEED):
    engine = EngineUnderTest(None, operators, None, builtin_scan())
    return QUICK[name].run(engine, np.random.default_rng(seed))


def failing(operators, names):
    return {name for name in names if not result_of(operators, name).passed}


def only(*names):
    """Change some operators; the others stay correct."""

    def wrap(change):
        return lambda name, arguments, correct: change(arguments, correct) if name in names else correct

    return wrap


def with_offsets(change):
    """Change the offsets of every operator."""

    def value(name, arguments, correct):
        names = OPERATORS[name].arguments
        changed = [index for index, argument in enumerate(names) if argument in ("offset_px", "offsets_px")]
        for index in changed:
            arguments[index] = change(arguments[index])
        return ORACLE.evaluate(name, *arguments) if changed else correct

    return value


def summed_merge(arguments, correct):
    patches, offsets, weight, S = arguments
    return scatter_patches(weight * patches, offsets, S).sum(axis=1)


def coherent_modes(arguments, correct):
    patches, probe, sigma = arguments
    return np.abs(ORACLE.evaluate("far_field", forward.exit_waves(patches, probe, sigma).sum(axis=-3))) ** 2


def constraint_without_mask(arguments, correct):
    patches, x, probe, mask = arguments
    return ORACLE.evaluate("constrain_amplitude", patches, x, probe, np.ones_like(mask))


def literal_deviance(arguments, correct):
    expected, counts, _ = (value.astype(np.float32) for value in arguments)
    with np.errstate(all="ignore"):
        return float(np.mean(expected - counts + counts * np.log(counts / np.maximum(expected, 1e-3))))


def mean_over_groups(arguments, correct):
    return correct - 0.1 * correct.mean(axis=0, keepdims=True)


def epsilon_inside_root(value, gradients, learning_rate, clip):
    """Adam with epsilon inside the root and without clipping."""
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * np.square(g, dtype=float)
        value = value - learning_rate * m / (1 - 0.9**t) / np.sqrt(v / (1 - 0.999**t) + 1e-8)
    return value


def not_repeatable(name, arguments, correct):
    return correct * (1 + 1e-9 * np.random.default_rng().normal())


def per_row_clipping(value, gradients, learning_rate, clip):
    if clip is not None:
        gradients = [
            np.stack([row * min(1.0, clip / np.linalg.norm(row)) for row in gradient]) for gradient in gradients
        ]
    return ORACLE.optimiser_steps(value, gradients, learning_rate)


def clipping_with_epsilon(value, gradients, learning_rate, clip):
    if clip is not None:
        gradients = [gradient * min(1.0, clip / (np.linalg.norm(gradient) + 1e-6)) for gradient in gradients]
    return ORACLE.optimiser_steps(value, gradients, learning_rate)


def scaled(name, arguments, correct):
    return correct * (1 + 1e-4)


# Mistakes, and the checks that must fail.
MISTAKES = {
    "conjugated far field": (
        Broken(only("far_field")(lambda _, correct: correct.conj())),
        {"far field", "Parseval's theorem", "far and near field are adjoint"},
    ),
    "far field without norm": (
        Broken(only("far_field")(lambda arguments, correct: correct * np.sqrt(arguments[0][0].size))),
        {"far field", "Parseval's theorem", "far and near field are adjoint", "zero frequency at the centre"},
    ),
    "fftshift for ifftshift": (
        Broken(
            only("far_field")(
                lambda arguments, _: np.fft.fftshift(
                    np.fft.fft2(np.fft.fftshift(arguments[0], axes=(-2, -1)), norm="ortho"), axes=(-2, -1)
                )
            )
        ),
        {"far field"},
    ),
    "zero frequency in the corner": (
        Broken(only("far_field")(lambda arguments, _: np.fft.fft2(arguments[0], norm="ortho"))),
        {"far field", "zero frequency at the centre"},
    ),
    "sign of offsets": (
        Broken(with_offsets(np.negative)),
        {"scatter patches", "extract patches", "merge", "position of a bright pixel", "bilinear interpolation"},
    ),
    "swapped axes": (
        Broken(with_offsets(lambda offsets: offsets[..., ::-1])),
        {"scatter patches", "extract patches", "position of a bright pixel", "bilinear interpolation"},
    ),
    "rounded offsets": (
        Broken(with_offsets(np.rint)),
        {"scatter patches", "extract patches", "bilinear interpolation"},
    ),
    "sum instead of mean": (
        Broken(only("merge")(summed_merge)),
        {"merge", "merge of an object's patches", "merge is a weighted mean"},
    ),
    "merged with the wrong neighbours": (
        Broken(only("consistent_patches")(lambda _, correct: correct[:, ::-1])),
        {"consistent patches", "merge of an object's patches"},
    ),
    "mean over groups": (Broken(only("consistent_patches")(mean_over_groups)), {"independence of groups"}),
    "modes added coherently": (Broken(only("intensity")(coherent_modes)), {"intensity", "energy of the exit waves"}),
    "counts that depend on the phase": (
        Broken(only("intensity")(lambda arguments, _: np.square(arguments[0].real))),
        {"invariance to a constant phase"},
    ),
    "bad pixels constrained": (
        Broken(only("constrain_amplitude")(constraint_without_mask)),
        {"constrain amplitude", "true object is a fixed point"},
    ),
    "estimate without its constant": (
        Broken(only("initial_estimate")(lambda _, correct: correct - 1)),
        {"initial estimate"},
    ),
    "no blur": (
        Broken(only("exit_waves")(lambda arguments, _: ORACLE.evaluate("exit_waves", *arguments[:2], 0.0))),
        {"exit waves"},
    ),
    "deviance without a stable form": (
        Broken(only("poisson")(literal_deviance)),
        {"poisson at extreme counts", "finite values in darkness"},
    ),
    "intensity for amplitude": (
        Broken(only("amplitude_mae")(lambda a, _: float(np.mean(a[3] * np.abs(a[0] - a[1]))))),
        {"amplitude mae"},
    ),
    "labels with a phase": (
        Broken(only("label_mae")(lambda a, _: losses.label_mae(*a, phase_factor=np.ones((len(a[0]), 1, 1, 1))))),
        {"label mae"},
    ),
    "half the variation": (Broken(only("total_variation")(lambda _, correct: correct / 2)), {"total variation"}),
    "epsilon inside the root, no clipping": (Broken(steps=epsilon_inside_root), {"Adam", "Adam, clipped"}),
    "every variable clipped alone": (Broken(steps=per_row_clipping), {"Adam, clipped"}),
    "clipped with an epsilon": (Broken(steps=clipping_with_epsilon), {"Adam, clipped to a tiny norm"}),
    "all values slightly too large": (
        Broken(scaled),
        {name.replace("_", " ") for name in OPERATORS} | {"Parseval's theorem", "bilinear interpolation"},
    ),
    "values that differ from call to call": (Broken(not_repeatable), {"repeatability"}),
    "extract slightly too large": (
        Broken(only("extract_patches")(lambda _, correct: correct * (1 + 1e-4))),
        {"scatter and extract are adjoint"},
    ),
}
GRADIENTS = {name for name in QUICK if " by " in name}


@pytest.mark.parametrize("name", QUICK)
def test_the_oracle_passes(name):
    result = result_of(ORACLE, name)
    assert result.passed, result


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_fail_the_expected_checks(mistake):
    operators, expected = MISTAKES[mistake]
    assert failing(operators, expected) == expected


def test_every_check_fails_for_some_mistake():
    caught = set().union(*(expected for _, expected in MISTAKES.values())) | GRADIENTS
    assert set(QUICK) - caught == set()


def test_a_mistake_in_both_operators_passes_checks_that_compare_them():
    # A round trip cannot show this mistake; the position of a bright pixel does.
    operators = Broken(with_offsets(np.negative))
    assert failing(operators, {"scatter and extract are adjoint", "independence of groups"}) == set()


@pytest.mark.parametrize(
    "change",
    [np.conj, lambda gradient: gradient / 2, lambda gradient: gradient * (1 + 1e-4), np.zeros_like],
    ids=["conjugated", "halved", "slightly too large", "missing"],
)
def test_wrong_gradients_fail(change):
    operators = Broken(gradient=lambda name, by, correct: change(correct))
    names = {"far field by exit wave", "intensity by probe", "constrain amplitude by patches", "label mae by patches"}
    if change is not np.conj:
        names |= {"scatter patches by offset px", "merge by weight", "poisson by expected", "initial estimate by x"}
    assert failing(operators, names) == names


def test_nan_never_passes():
    assert not CheckResult(np.nan, EXACT64).passed
    assert not CheckResult(np.inf, EXACT64).passed
    assert CheckResult(0.0, EXACT64).passed
    assert np.isnan(largest_error(1.0, np.nan, 2.0))
    operators = Broken(
        value=lambda name, arguments, correct: correct * np.nan,
        gradient=lambda name, by, correct: correct * np.nan,
        steps=lambda value, *_: value * np.nan,
    )
    fast = {name for name in QUICK if name not in GRADIENTS} | {"far field by exit wave", "poisson by expected"}
    assert failing(operators, fast) == fast


def test_equal_seeds_draw_equal_inputs():
    operators = Broken(scaled)
    assert result_of(operators, "intensity", 5).error == result_of(operators, "intensity", 5).error
    assert result_of(operators, "intensity", 5).error != result_of(operators, "intensity", 6).error


class NumpyModel(Model):
    """The oracle as a model of the contract, optionally with one mistake."""

    backend = "numpy"

    def __init__(self, training, calibration, execution, change):
        self.training, self.config, self.calibration, self.execution = training, training.model, calibration, execution
        self._change, self._weights = change, {}
        self._constants = PhysicsConstants.of(self.config, calibration)

    def get_weights(self):
        return dict(self._weights)

    def set_weights(self, weights):
        self._weights = {name: np.array(value) for name, value in weights.items()}

    def predict_patches(self, batch, amplitude_constraint=False):
        patches = reference.reference_patches(self.config, self._weights, self._constants, batch, amplitude_constraint)
        return self._change("patches", self, batch, patches.astype(np.complex64))

    def expected_counts(self, batch, amplitude_constraint=False):
        counts = reference.reference_counts(self.config, self._weights, self._constants, batch)
        return self._change("counts", self, batch, counts)

    def loss_and_gradients(self, batch):
        return reference.reference_loss(self.training, self._weights, self._constants, batch), {}


def model_result(name, change=lambda quantity, model, batch, correct: correct):
    backend = SimpleNamespace(name="numpy", create_model=lambda *arguments: NumpyModel(*arguments, change))
    return SLOW[name].run(EngineUnderTest(backend, ORACLE, None, builtin_scan()), np.random.default_rng(0))


def on(changed, change):
    return lambda quantity, model, batch, correct: change(model, batch, correct) if quantity == changed else correct


MODEL_MISTAKES = {
    "patches of a unet": on("patches", lambda model, batch, correct: correct.conj()),
    "patches of a cnn": on("patches", lambda model, batch, correct: correct.swapaxes(-1, -2)),
    "counts of a unet": on("counts", lambda model, batch, correct: correct * 1.001),
    "counts of a cnn": on("counts", lambda model, batch, correct: correct[:, ::-1]),
    "independence of batch size": on("patches", lambda model, batch, correct: correct / len(batch)),
    "invariance to a constant probe phase": on(
        "counts", lambda model, batch, correct: correct * (1 + 0.01 * model.get_weights()["probe"][0, 16, 16, 0])
    ),
    "scaling with the photons": on("counts", lambda model, batch, correct: correct * model.calibration.rms_input_scale),
    "energy of a unit object": on("counts", lambda model, batch, correct: correct * 1.001),
    "order of positions": on(
        "patches", lambda model, batch, correct: correct * (1 + 0.01 * np.arange(len(batch)))[:, None, None, None]
    ),
    "stitched image": on("patches", lambda model, batch, correct: correct[..., ::-1]),
}


@pytest.mark.parametrize("name", MODEL_MISTAKES)
def test_model_checks_pass_for_the_oracle_and_fail_for_mistakes(name):
    assert model_result(name).passed
    assert not model_result(name, MODEL_MISTAKES[name]).passed


@pytest.mark.parametrize("name", ["unet", "cnn"])
def test_missing_gradients_fail(name):
    assert model_result(f"loss of a {name}").passed
    assert np.isnan(model_result(f"gradients of a {name}").error)


def test_names_are_unique_and_clauses_exist():
    checks = [*CHECKS, *CROSS_CHECKS]
    assert len({check.name for check in checks}) == len(checks)
    for check in checks:
        spec, number = check.clause.rsplit(" ", 1)
        text = (ROOT / "specs" / f"{spec}.md").read_text(encoding="utf-8")
        assert re.search(rf"^(## )?{re.escape(number)}\.? ", text, flags=re.MULTILINE), check.clause
    with pytest.raises(dataclasses.FrozenInstanceError):
        checks[0].name = "other"
