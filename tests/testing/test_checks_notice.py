"""The checks can fail: engines that are wrong in the ways of this field are caught, by the checks that should."""

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
from ptycho_backend.testing.checks import CHECKS, CROSS_CHECKS, CheckResult, EngineUnderTest, builtin_scan
from ptycho_backend.testing.checks.oracle import worst
from ptycho_backend.testing.tolerances import EXACT64

SEED = 11  # draws small arrays, for which the oracle's gradients are quick
ROOT = Path(__file__).parents[2]
ORACLE = ReferenceOperators()
QUICK = {check.name: check for check in CHECKS if not check.slow}
SLOW = {check.name: check for check in CHECKS if check.slow}


class Broken(Operators):
    """The oracle with one thing wrong: a function of (name, arguments, correct answer) for each question."""

    device = "cpu"

    def __init__(self, answer=None, gradient=None, steps=None):
        self._answer, self._gradient, self._steps = answer, gradient, steps

    def evaluate(self, name, *arguments):
        correct = ORACLE.evaluate(name, *arguments)
        return (
            correct if self._answer is None else self._answer(name, [as_float64(value) for value in arguments], correct)
        )

    def gradient(self, name, *arguments, by=0, cotangent=None):
        correct = ORACLE.gradient(name, *arguments, by=by, cotangent=cotangent)
        return correct if self._gradient is None else self._gradient(name, by, correct)

    def optimiser_steps(self, value, gradients, learning_rate, clip=None):
        if self._steps is not None:
            return self._steps(np.asarray(value, float), gradients, learning_rate, clip)
        return ORACLE.optimiser_steps(value, gradients, learning_rate, clip)


def asked(operators, name, seed=SEED):
    subject = EngineUnderTest(None, operators, None, builtin_scan())
    return QUICK[name].run(subject, np.random.default_rng(seed))


def noticed(operators, names):
    return {name for name in names if not asked(operators, name).passed}


def only(*names):
    """Apply a change to some operators, and leave the others correct."""

    def wrap(change):
        return lambda name, arguments, correct: change(arguments, correct) if name in names else correct

    return wrap


def with_offsets(turn):
    """Change the offsets that every operator gets."""

    def answer(name, arguments, correct):
        known = OPERATORS[name].arguments
        places = [number for number, what in enumerate(known) if what in ("offset_px", "offsets_px")]
        for number in places:
            arguments[number] = turn(arguments[number])
        return ORACLE.evaluate(name, *arguments) if places else correct

    return answer


def summed_merge(arguments, correct):
    patches, offsets, weight, S = arguments
    return forward.place(weight * patches, offsets, S).sum(axis=1)


def coherent(arguments, correct):
    patches, probe, sigma = arguments
    return np.abs(ORACLE.evaluate("far_field", forward.exit_waves(patches, probe, sigma).sum(axis=-3))) ** 2


def blind_step(arguments, correct):
    patches, x, probe, mask = arguments
    return ORACLE.evaluate("constrain_amplitude", patches, x, probe, np.ones_like(mask))


def literal_deviance(arguments, correct):
    expected, counts, _ = (value.astype(np.float32) for value in arguments)
    with np.errstate(all="ignore"):
        return float(np.mean(expected - counts + counts * np.log(counts / np.maximum(expected, 1e-3))))


def mean_over_groups(arguments, correct):
    return correct - 0.1 * correct.mean(axis=0, keepdims=True)


def torchless_adam(value, gradients, learning_rate, clip):
    """Adam with epsilon inside the root and without clipping."""
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * np.square(g, dtype=float)
        value = value - learning_rate * m / (1 - 0.9**t) / np.sqrt(v / (1 - 0.999**t) + 1e-8)
    return value


def forgetful(name, arguments, correct):
    return correct * (1 + 1e-9 * np.random.default_rng().normal())


def per_row_clipping(value, gradients, learning_rate, clip):
    if clip is not None:
        gradients = [
            np.stack([row * min(1.0, clip / np.linalg.norm(row)) for row in gradient]) for gradient in gradients
        ]
    return ORACLE.optimiser_steps(value, gradients, learning_rate)


def generous_clipping(value, gradients, learning_rate, clip):
    if clip is not None:
        gradients = [gradient * min(1.0, clip / (np.linalg.norm(gradient) + 1e-6)) for gradient in gradients]
    return ORACLE.optimiser_steps(value, gradients, learning_rate)


def larger(name, arguments, correct):
    return correct * (1 + 1e-4)


# What is wrong, and the checks that must say so.
MISTAKES = {
    "conjugated far field": (
        Broken(only("far_field")(lambda _, correct: correct.conj())),
        {"far field", "Parseval", "far and near field are adjoint"},
    ),
    "far field without norm": (
        Broken(only("far_field")(lambda arguments, correct: correct * np.sqrt(arguments[0][0].size))),
        {"far field", "Parseval", "far and near field are adjoint", "centre of the detector"},
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
        {"far field", "centre of the detector"},
    ),
    "sign of offsets": (
        Broken(with_offsets(np.negative)),
        {"scatter_patches", "extract_patches", "merge", "a bright pixel lands where its offset says", "between pixels"},
    ),
    "swapped axes": (
        Broken(with_offsets(lambda offsets: offsets[..., ::-1])),
        {"scatter_patches", "extract_patches", "a bright pixel lands where its offset says", "between pixels"},
    ),
    "rounded offsets": (Broken(with_offsets(np.rint)), {"scatter_patches", "extract_patches", "between pixels"}),
    "sum instead of mean": (
        Broken(only("merge")(summed_merge)),
        {"merge", "patches of an object merge to it", "the merge is a weighted mean"},
    ),
    "merged with the wrong neighbours": (
        Broken(only("consistent_patches")(lambda _, correct: correct[:, ::-1])),
        {"consistent patches", "patches of an object merge to it"},
    ),
    "mean over groups": (Broken(only("consistent_patches")(mean_over_groups)), {"groups are independent"}),
    "modes added as waves": (Broken(only("intensity")(coherent)), {"intensity", "energy behind the sample"}),
    "a phase in the counts": (
        Broken(only("intensity")(lambda arguments, _: np.square(arguments[0].real))),
        {"a constant phase is not seen"},
    ),
    "bad pixels trusted": (
        Broken(only("constrain_amplitude")(blind_step)),
        {"constrain amplitude", "the true object stays"},
    ),
    "estimate without the share": (
        Broken(only("initial_estimate")(lambda _, correct: correct - 1)),
        {"initial estimate"},
    ),
    "no blur": (
        Broken(only("exit_waves")(lambda arguments, _: ORACLE.evaluate("exit_waves", *arguments[:2], 0.0))),
        {"exit waves"},
    ),
    "deviance as it is written": (
        Broken(only("poisson")(literal_deviance)),
        {"poisson at the extremes", "finite in the dark"},
    ),
    "intensity for amplitude": (
        Broken(only("amplitude_mae")(lambda a, _: float(np.mean(a[3] * np.abs(a[0] - a[1]))))),
        {"amplitude mae"},
    ),
    "labels with a phase": (
        Broken(only("label_mae")(lambda a, _: losses.label_mae(*a, turn=np.ones((len(a[0]), 1, 1, 1))))),
        {"label mae"},
    ),
    "half the variation": (Broken(only("total_variation")(lambda _, correct: correct / 2)), {"total variation"}),
    "epsilon inside the root, no clipping": (Broken(steps=torchless_adam), {"Adam", "Adam, clipped"}),
    "every variable clipped alone": (Broken(steps=per_row_clipping), {"Adam, clipped"}),
    "clipped by more than was asked for": (Broken(steps=generous_clipping), {"Adam, clipped where little is left"}),
    "everything a little too large": (
        Broken(larger),
        {name.replace("_", " ") for name in OPERATORS} | {"Parseval", "between pixels"},
    ),
    "no two answers the same": (Broken(forgetful), {"equal questions, equal answers"}),
    "extract a little too large": (
        Broken(only("extract_patches")(lambda _, correct: correct * (1 + 1e-4))),
        {"place and extract are adjoint"},
    ),
}
GRADIENTS = {name for name in QUICK if " by " in name}


@pytest.mark.parametrize("name", QUICK)
def test_the_oracle_itself_passes(name):
    finding = asked(ORACLE, name)
    assert finding.passed, finding


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_noticed_by_the_checks_that_should(mistake):
    operators, expected = MISTAKES[mistake]
    assert noticed(operators, expected) == expected


def test_every_check_notices_some_mistake():
    caught = set().union(*(expected for _, expected in MISTAKES.values())) | GRADIENTS
    assert set(QUICK) - caught == set()


def test_a_pair_of_operators_with_one_mistake_in_both_passes_what_compares_them_with_each_other():
    # Why a bright pixel is looked for by its place: a round trip does not tell.
    operators = Broken(with_offsets(np.negative))
    assert noticed(operators, {"place and extract are adjoint", "groups are independent"}) == set()


@pytest.mark.parametrize(
    "change",
    [np.conj, lambda gradient: gradient / 2, lambda gradient: gradient * (1 + 1e-4), np.zeros_like],
    ids=["conjugated", "halved", "a little too large", "missing"],
)
def test_wrong_gradients_are_noticed(change):
    operators = Broken(gradient=lambda name, by, correct: change(correct))
    names = {"far field by exit wave", "intensity by probe", "constrain amplitude by patches", "label mae by patches"}
    if change is not np.conj:
        names |= {"place by offset px", "merge by weight", "poisson by expected", "initial estimate by x"}
    assert noticed(operators, names) == names


def test_nan_never_passes():
    assert not CheckResult(np.nan, EXACT64).passed
    assert not CheckResult(np.inf, EXACT64).passed
    assert CheckResult(0.0, EXACT64).passed
    assert np.isnan(worst(1.0, np.nan, 2.0))
    operators = Broken(
        answer=lambda name, arguments, correct: correct * np.nan,
        gradient=lambda name, by, correct: correct * np.nan,
        steps=lambda value, *_: value * np.nan,
    )
    fast = {name for name in QUICK if name not in GRADIENTS} | {"far field by exit wave", "poisson by expected"}
    assert noticed(operators, fast) == fast


def test_equal_seeds_ask_equal_questions():
    operators = Broken(larger)
    assert asked(operators, "intensity", 5).error == asked(operators, "intensity", 5).error
    assert asked(operators, "intensity", 5).error != asked(operators, "intensity", 6).error


class NumpyModel(Model):
    """The oracle behind the contract, with one thing wrong on request."""

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


def asked_of_model(name, change=lambda what, model, batch, correct: correct):
    backend = SimpleNamespace(name="numpy", create_model=lambda *arguments: NumpyModel(*arguments, change))
    return SLOW[name].run(EngineUnderTest(backend, ORACLE, None, builtin_scan()), np.random.default_rng(0))


def on(what, change):
    return lambda asked, model, batch, correct: change(model, batch, correct) if asked == what else correct


MODEL_MISTAKES = {
    "patches of a unet": on("patches", lambda model, batch, correct: correct.conj()),
    "patches of a cnn": on("patches", lambda model, batch, correct: correct.swapaxes(-1, -2)),
    "counts of a unet": on("counts", lambda model, batch, correct: correct * 1.001),
    "counts of a cnn": on("counts", lambda model, batch, correct: correct[:, ::-1]),
    "batch size": on("patches", lambda model, batch, correct: correct / len(batch)),
    "a constant phase of the probe": on(
        "counts", lambda model, batch, correct: correct * (1 + 0.01 * model.get_weights()["probe"][0, 16, 16, 0])
    ),
    "k times the photons": on("counts", lambda model, batch, correct: correct * model.calibration.rms_input_scale),
    "an object of 1 gives the measured energy": on("counts", lambda model, batch, correct: correct * 1.001),
    "positions in another order": on(
        "patches", lambda model, batch, correct: correct * (1 + 0.01 * np.arange(len(batch)))[:, None, None, None]
    ),
    "patches to an image": on("patches", lambda model, batch, correct: correct[..., ::-1]),
}


@pytest.mark.parametrize("name", MODEL_MISTAKES)
def test_checks_of_models_pass_the_oracle_and_notice_mistakes(name):
    assert asked_of_model(name).passed
    assert not asked_of_model(name, MODEL_MISTAKES[name]).passed


@pytest.mark.parametrize("kind", ["unet", "cnn"])
def test_checks_of_losses_notice_and_missing_gradients_do_not_pass(kind):
    assert asked_of_model(f"loss of a {kind}").passed
    finding = asked_of_model(f"gradients of a {kind}")
    assert np.isnan(finding.error)


def test_names_are_unique_and_clauses_exist():
    checks = [*CHECKS, *CROSS_CHECKS]
    assert len({check.name for check in checks}) == len(checks)
    for check in checks:
        spec, number = check.clause.rsplit(" ", 1)
        text = (ROOT / "specs" / f"{spec}.md").read_text(encoding="utf-8")
        assert re.search(rf"^(## )?{re.escape(number)}\.? ", text, flags=re.MULTILINE), check.clause
    with pytest.raises(dataclasses.FrozenInstanceError):
        checks[0].name = "other"
