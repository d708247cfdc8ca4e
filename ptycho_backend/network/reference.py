"""
A whole model in NumPy float64: the oracle that every engine is compared with (spec: network 1, physics 2 to 6).

It runs network descriptions and joins them with the physics of :mod:`ptycho_backend.physics` exactly as an engine
must. Made to be read and trusted, not to be fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import ModelConfig, TrainingConfig
from ptycho_backend.data.batching import Batch
from ptycho_backend.engines.model import LOG_SCALE, PROBE, parts_of
from ptycho_backend.network.architectures import Network, Op, describe
from ptycho_backend.network.physics_constants import PhysicsConstants, constraint_share
from ptycho_backend.physics import forward, losses
from ptycho_backend.physics.amplitude_constraint import accelerated, constrain_amplitude, initial_estimate

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]
Values = Mapping[str, NDArray[Any]]
Attributes = Mapping[str, Any]


def run_network(network: Network, inputs: Values, weights: Values) -> tuple[Real, ...]:
    """
    Run the operations of a network in order.

    Parameters
    ----------
    network : Network
    inputs : float, shape (batch, y, x, channel), by input name
    weights : float, by canonical parameter name

    Returns
    -------
    tuple of float64, shape (batch, y, x, channel)

    Notes
    -----
    Spec: network 1.
    """
    values: dict[str, Real] = {name: np.asarray(value, dtype=np.float64) for name, value in inputs.items()}
    for op in network.ops:
        operands = [values[name] for name in op.inputs]
        values[op.output] = _conv(operands[0], op, weights) if op.kind == "conv" else _run(op, operands)
    return tuple(values[name] for name in network.outputs)


def reference_patches(
    config: ModelConfig, weights: Values, constants: PhysicsConstants, batch: Batch, amplitude_constraint: bool = False
) -> Complex:
    """
    Return the object patches of a batch, complex128, shape (group, channel, y, x).

    Parameters
    ----------
    config : ModelConfig
    weights : float, by canonical name
        The network's parameters, ``"log_scale"`` and ``"probe"``.
    constants : PhysicsConstants
    batch : Batch
    amplitude_constraint : bool
        "unet": end with one more data-consistency step.
    """
    published = config.architecture == "cnn"
    patches = _cnn(config, weights, batch) if published else _unrolled(config, weights, constants, batch)
    if config.channels > 1 and config.object_big:
        weight = constants.weight.astype(np.float64)
        patches = forward.consistent_patches(patches, batch.offsets_px, weight, batch.canvas_px)
    if amplitude_constraint and not published:
        patches = constrain_amplitude(patches, _wide(batch.x), _probe(weights, constants), batch.mask)
    return patches


def reference_counts(config: ModelConfig, weights: Values, constants: PhysicsConstants, batch: Batch) -> Real:
    """Return predicted photons per pixel, float64, shape (group, channel, y, x)."""
    patches = reference_patches(config, weights, constants, batch)
    return _counts_of(patches, config, weights, constants)


def reference_loss(
    training: TrainingConfig,
    weights: Values,
    constants: PhysicsConstants,
    batch: Batch,
    turn: Complex | None = None,
) -> float:
    """
    Return the loss that training minimises, with all its terms and their weights.

    `turn` holds the groups' phases against their labels (:func:`ptycho_backend.physics.losses.best_turn`), which
    carry no gradient: give it to take differences of the loss.
    """
    config, trust = training.model, constants.weight.astype(np.float64)
    patches = reference_patches(config, weights, constants, batch)
    total = training.realspace_weight * losses.total_variation(patches, trust)
    if config.model_type == "supervised":
        return total + losses.label_mae(patches, _labels(batch), trust, turn)
    if training.realspace_mae_weight > 0:
        total += training.realspace_mae_weight * losses.label_mae(patches, _labels(batch), trust, turn)
    return total + _data_loss(training, weights, constants, batch, patches)


def _data_loss(
    training: TrainingConfig, weights: Values, constants: PhysicsConstants, batch: Batch, patches: Complex
) -> float:
    """Return the misfit to the data, in part before and in part after one more data-consistency step."""
    share, r = constraint_share(training), constants.amplitude_per_root_count
    counts = (_wide(batch.x) / r) ** 2
    judged = [(1.0 - share, patches)]
    if share > 0:
        probe = _probe(weights, constants)
        judged.append((share, constrain_amplitude(patches, _wide(batch.x), probe, batch.mask)))
    total = 0.0
    for part, candidate in judged:
        expected = _counts_of(candidate, training.model, weights, constants)
        misfit = training.nll_weight * losses.poisson(expected, counts, batch.mask)
        misfit += training.mae_weight * losses.amplitude_mae(expected, counts, batch.mask, r)
        total += part * misfit
    return total


def _counts_of(patches: Complex, config: ModelConfig, weights: Values, constants: PhysicsConstants) -> Real:
    return forward.expected_counts(
        patches,
        _probe(weights, constants),
        constants.counts_per_intensity,
        float(weights[LOG_SCALE]),
        config.gaussian_smoothing_sigma,
    )


def _unrolled(config: ModelConfig, weights: Values, constants: PhysicsConstants, batch: Batch) -> Complex:
    probe, x = _probe(weights, constants), _wide(batch.x)
    networks = describe(config)
    estimate = initial_estimate(x, probe)
    estimate = accelerated(estimate, x, probe, batch.mask, config.initial_iterations)
    estimate = estimate + _correction(networks["step1"], weights, estimate=estimate)
    for step in range(2, config.unrolled_steps + 1):
        consistent = constrain_amplitude(estimate, x, probe, batch.mask)
        network = networks[f"step{step}"]
        estimate = consistent + _correction(network, weights, consistent=consistent, estimate=estimate)
    return np.asarray(estimate)


def _correction(network: Network, weights: Values, **patches: Complex) -> Complex:
    """Run a network on patches as real and imaginary channels, every pattern by itself."""
    first = next(iter(patches.values()))
    flat = {name: value.reshape(-1, *value.shape[-2:]) for name, value in patches.items()}
    channels = {name: parts_of(value) for name, value in flat.items()}
    (output,) = run_network(network, channels, weights)
    return np.asarray(output[..., 0] + 1j * output[..., 1]).reshape(first.shape)


def _cnn(config: ModelConfig, weights: Values, batch: Batch) -> Complex:
    x = np.moveaxis(_wide(batch.x), 1, -1)
    amplitude, phase = run_network(describe(config)["cnn"], {"x": x}, weights)
    cartesian = config.decoder_outputs == "real_imaginary"
    return np.moveaxis(amplitude + 1j * phase if cartesian else amplitude * np.exp(1j * phase), -1, 1)


def _probe(weights: Values, constants: PhysicsConstants) -> Complex:
    parts = _wide(weights[PROBE])
    return np.asarray((parts[..., 0] + 1j * parts[..., 1]) * constants.probe_support)


def _labels(batch: Batch) -> Complex:
    assert batch.labels is not None
    return batch.labels.astype(np.complex128)


def _wide(values: NDArray[Any]) -> Real:
    return np.asarray(values, dtype=np.float64)


def _run(op: Op, operands: list[Real]) -> Real:
    return OPERATIONS[op.kind](operands, op.attributes)


def _conv(value: Real, op: Op, weights: Values) -> Real:
    name = op.attributes["name"]
    kernel, bias = _wide(weights[f"{name}/kernel"]), _wide(weights[f"{name}/bias"])
    height, width = kernel.shape[:2]
    padded = np.pad(value, ((0, 0), (height // 2,) * 2, (width // 2,) * 2, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    # Cross-correlation, as every framework calls it: kernel element [0, 0] meets the upper left neighbour.
    return np.asarray(np.tensordot(windows, kernel, axes=((3, 4, 5), (2, 0, 1))) + bias)


def _pool(operands: list[Real], _: Attributes) -> Real:
    n, height, width, channels = operands[0].shape
    return np.asarray(operands[0].reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4)))


def _space_to_depth(operands: list[Real], _: Attributes) -> Real:
    corners = [operands[0][:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    return np.concatenate(corners, axis=-1)


def _depth_to_space(operands: list[Real], _: Attributes) -> Real:
    n, height, width, channels = operands[0].shape
    found = np.empty((n, 2 * height, 2 * width, channels // 4), operands[0].dtype)
    for corner, values in enumerate(np.split(operands[0], 4, axis=-1)):
        found[:, corner // 2 :: 2, corner % 2 :: 2] = values
    return found


def _pad(operands: list[Real], attributes: Attributes) -> Real:
    sides = (attributes["width"],) * 2
    return np.pad(operands[0], ((0, 0), sides, sides, (0, 0)))


def _border(operands: list[Real], attributes: Attributes) -> Real:
    width, frame = attributes["width"], operands[0].copy()
    frame[:, width:-width, width:-width] = 0.0
    return frame


def _sigmoid(z: Real) -> Real:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))


ACTIVATIONS: dict[str, Callable[[Real], Real]] = {
    "relu": lambda z: np.maximum(z, 0.0),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "swish": lambda z: z * _sigmoid(z),
    "silu": lambda z: z * _sigmoid(z),
    "softplus": lambda z: np.logaddexp(z, 0.0),
}
OPERATIONS: dict[str, Callable[[list[Real], Attributes], Real]] = {
    "pool": _pool,
    "upsample": lambda operands, _: operands[0].repeat(2, axis=1).repeat(2, axis=2),
    "space_to_depth": _space_to_depth,
    "depth_to_space": _depth_to_space,
    "activation": lambda operands, attributes: ACTIVATIONS[attributes["function"]](operands[0]),
    "scale": lambda operands, attributes: operands[0] * attributes["factor"],
    "pad": _pad,
    "border": _border,
    "slice": lambda operands, attributes: operands[0][..., attributes["start"] : attributes["stop"]],
    "concatenate": lambda operands, _: np.concatenate(operands, axis=-1),
    "add": lambda operands, _: operands[0] + operands[1],
}
