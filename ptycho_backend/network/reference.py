"""
Reference model in NumPy float64, the oracle of every engine (spec: network 1, physics 2 to 6).

An interpreter of network descriptions, combined with :mod:`ptycho_backend.physics`. The code is simple, not fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import ModelConfig, TrainingConfig
from ptycho_backend.data.batching import Batch
from ptycho_backend.engines.model import LOG_SCALE, PROBE, parts_of, required_labels
from ptycho_backend.network.architectures import Network, Op, describe, merges_groups
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
        End "unet" with one more amplitude constraint.
    """
    unrolled = config.architecture != "cnn"
    patches = _unrolled(config, weights, constants, batch) if unrolled else _cnn(config, weights, batch)
    if merges_groups(config):
        weight = constants.weight.astype(np.float64)
        patches = forward.consistent_patches(patches, batch.offsets_px, weight, batch.canvas_px)
    if amplitude_constraint and unrolled:
        patches = constrain_amplitude(patches, _float64(batch.x), _probe(weights, constants), batch.mask)
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
    phase_factor: Complex | None = None,
) -> float:
    """
    Return the loss that training minimises: the weighted sum of its terms.

    `phase_factor` aligns the global phase of each group with its labels, shape (group, 1, 1, 1). Finite differences
    need a constant one (:func:`ptycho_backend.physics.losses.global_phase_factor`): it carries no gradient.
    """
    config, weight = training.model, constants.weight.astype(np.float64)
    patches = reference_patches(config, weights, constants, batch)
    total = training.realspace_weight * losses.total_variation(patches, weight)
    if config.model_type == "supervised":
        return total + losses.label_mae(patches, _labels(batch), weight, phase_factor)
    if training.realspace_mae_weight > 0:
        total += training.realspace_mae_weight * losses.label_mae(patches, _labels(batch), weight, phase_factor)
    return total + _data_loss(training, weights, constants, batch, patches)


def _data_loss(
    training: TrainingConfig, weights: Values, constants: PhysicsConstants, batch: Batch, patches: Complex
) -> float:
    """Return the data loss, a share of it after one more amplitude constraint."""
    constrained_share, r = constraint_share(training), constants.amplitude_per_root_count
    counts = (_float64(batch.x) / r) ** 2
    candidates = [(1.0 - constrained_share, patches)]
    if constrained_share > 0:
        constrained = constrain_amplitude(patches, _float64(batch.x), _probe(weights, constants), batch.mask)
        candidates.append((constrained_share, constrained))
    total = 0.0
    for share, candidate in candidates:
        expected = _counts_of(candidate, training.model, weights, constants)
        loss = training.nll_weight * losses.poisson(expected, counts, batch.mask)
        loss += training.mae_weight * losses.amplitude_mae(expected, counts, batch.mask, r)
        total += share * loss
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
    probe, x = _probe(weights, constants), _float64(batch.x)
    networks = describe(config)
    estimate = initial_estimate(x, probe)
    estimate = accelerated(estimate, x, probe, batch.mask, config.initial_iterations)
    estimate = estimate + _object_update(networks["step1"], weights, estimate=estimate)
    for step in range(2, config.unrolled_steps + 1):
        constrained = constrain_amplitude(estimate, x, probe, batch.mask)
        network = networks[f"step{step}"]
        estimate = constrained + _object_update(network, weights, constrained=constrained, estimate=estimate)
    return np.asarray(estimate)


def _object_update(network: Network, weights: Values, **patches: Complex) -> Complex:
    """Run a network on single patches, with real and imaginary parts as channels."""
    first = next(iter(patches.values()))
    flat = {name: value.reshape(-1, *value.shape[-2:]) for name, value in patches.items()}
    channels = {name: parts_of(value) for name, value in flat.items()}
    (output,) = run_network(network, channels, weights)
    return np.asarray(output[..., 0] + 1j * output[..., 1]).reshape(first.shape)


def _cnn(config: ModelConfig, weights: Values, batch: Batch) -> Complex:
    x = np.moveaxis(_float64(batch.x), 1, -1)
    amplitude, phase = run_network(describe(config)["cnn"], {"x": x}, weights)
    cartesian = config.decoder_outputs == "real_imaginary"
    return np.moveaxis(amplitude + 1j * phase if cartesian else amplitude * np.exp(1j * phase), -1, 1)


def _probe(weights: Values, constants: PhysicsConstants) -> Complex:
    parts = _float64(weights[PROBE])
    return np.asarray((parts[..., 0] + 1j * parts[..., 1]) * constants.probe_support)


def _labels(batch: Batch) -> Complex:
    return required_labels(batch.labels).astype(np.complex128)


def _float64(values: NDArray[Any]) -> Real:
    return np.asarray(values, dtype=np.float64)


def _run(op: Op, operands: list[Real]) -> Real:
    return OPERATIONS[op.kind](operands, op.attributes)


def _conv(value: Real, op: Op, weights: Values) -> Real:
    name = op.attributes["name"]
    kernel, bias = (_float64(weights[f"{name}/{part}"]) for part in ("kernel", "bias"))
    height, width = kernel.shape[:2]
    padded = np.pad(value, ((0, 0), (height // 2,) * 2, (width // 2,) * 2, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    # Cross-correlation, the "convolution" of every framework: kernel element [0, 0] weights the upper left neighbour.
    return np.asarray(np.tensordot(windows, kernel, axes=((3, 4, 5), (2, 0, 1))) + bias)


def _pool(operands: list[Real], _: Attributes) -> Real:
    n, height, width, channels = operands[0].shape
    return np.asarray(operands[0].reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4)))


def _space_to_depth(operands: list[Real], _: Attributes) -> Real:
    corners = [operands[0][:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    return np.concatenate(corners, axis=-1)


def _depth_to_space(operands: list[Real], _: Attributes) -> Real:
    n, height, width, channels = operands[0].shape
    result = np.empty((n, 2 * height, 2 * width, channels // 4), operands[0].dtype)
    for corner, values in enumerate(np.split(operands[0], 4, axis=-1)):
        result[:, corner // 2 :: 2, corner % 2 :: 2] = values
    return result


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
