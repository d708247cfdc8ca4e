"""The trainable model as TensorFlow variables and functions: from normalised amplitude to patches, counts, loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from numpy.typing import NDArray

from ptycho.engine import physics
from ptycho.engine.network import run_network
from ptycho_backend.config import TrainingConfig
from ptycho_backend.data.batching import Batch
from ptycho_backend.engines.model import LOG_SCALE, PROBE
from ptycho_backend.errors import DataError
from ptycho_backend.network.architectures import describe
from ptycho_backend.network.physics_constants import PhysicsConstants, constraint_share
from ptycho_backend.network.weights import starting_weights
from ptycho_backend.physics.calibration import Calibration

SCALES = ("weight", "counts_per_intensity", "amplitude_per_root_count")  # constants that follow the calibration


class TensorBatch(NamedTuple):
    """A :class:`~ptycho_backend.data.batching.Batch` as tensors; the canvas side stays a number."""

    x: tf.Tensor
    offsets_px: tf.Tensor
    mask: tf.Tensor
    labels: tf.Tensor | None = None
    canvas_px: int = 0


def arrays_of(batch: Batch) -> tuple[NDArray[Any], ...]:
    """Return the arrays of a batch in the order of :class:`TensorBatch`."""
    arrays = (batch.x, batch.offsets_px, batch.mask)
    return arrays if batch.labels is None else (*arrays, batch.labels)


def specification(batch: Batch) -> tuple[tf.TensorSpec, ...]:
    """Return what :func:`arrays_of` gives for any number of groups."""
    groups = [tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in arrays_of(batch)]
    groups[2] = tf.TensorSpec(batch.mask.shape, batch.mask.dtype)
    return tuple(groups)


class PtychoModule:
    """
    A model description with its variables and physics constants.

    Parameters
    ----------
    training : TrainingConfig
        Its `model` says what is built, its weights which losses count.
    calibration : Calibration
    """

    def __init__(self, training: TrainingConfig, calibration: Calibration) -> None:
        self.training, self.config = training, training.model
        self.networks = describe(self.config)
        self.constants = PhysicsConstants.of(self.config, calibration)
        self.variables = _variables(starting_weights(training, calibration))
        self.scales = _variables({name: getattr(self.constants, name) for name in SCALES})

    @property
    def state(self) -> list[keras.Variable]:
        """Everything that may differ between models that are described alike and have windows of one size."""
        return [*self.variables.values(), *self.scales.values()]

    @property
    def merges(self) -> bool:
        """Whether the patches of a group become one object, which needs a canvas."""
        return self.config.channels > 1 and self.config.object_big

    @property
    def probe(self) -> tf.Tensor:
        """Probe modes (mode, y, x), complex64, inside their support."""
        parts = self.variables[PROBE].value * self.constants.probe_support[..., None]
        return tf.complex(parts[..., 0], parts[..., 1])

    def patches(self, batch: TensorBatch, dtype: tf.DType, amplitude_constraint: bool = False) -> tf.Tensor:
        """Return object patches (group, channel, y, x); networks run in `dtype`."""
        unrolled = self.config.architecture != "cnn"
        patches = self._unrolled(batch, dtype) if unrolled else self._cnn(batch.x, dtype)
        if self.merges:
            patches = physics.consistent_patches(patches, batch.offsets_px, self._scale("weight"), batch.canvas_px)
        if amplitude_constraint and unrolled:
            patches = physics.constrain_amplitude(patches, batch.x, self.probe, batch.mask)
        return patches

    def expected_counts(self, patches: tf.Tensor) -> tf.Tensor:
        """Return predicted photons per pixel (group, channel, y, x)."""
        scale = self._scale("counts_per_intensity") * tf.exp(2.0 * self.variables[LOG_SCALE].value)
        return scale * physics.intensity(patches, self.probe, self._smoothing)

    def loss(self, batch: TensorBatch, dtype: tf.DType) -> tf.Tensor:
        """Return the loss that training minimises, a mean over the batch's groups."""
        return tf.add_n([tf.zeros(()), *self._loss_terms(self.patches(batch, dtype), batch)])

    def loss_and_gradients(
        self, batch: TensorBatch, dtype: tf.DType, variables: Sequence[keras.Variable]
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Return the loss and its gradient by some of the variables."""
        values = [variable.value for variable in variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            for value in values:
                tape.watch(value)
            loss = self.loss(batch, dtype)
        return loss, tape.gradient(loss, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    @property
    def _smoothing(self) -> tf.Tensor | None:
        return None if self.constants.smoothing is None else tf.constant(self.constants.smoothing)

    def _loss_terms(self, patches: tf.Tensor, batch: TensorBatch) -> list[tf.Tensor]:
        weights, trust = self.training, self._scale("weight")
        terms = []
        if self.config.model_type == "supervised":
            terms.append(physics.label_mae(patches, _labels(batch), trust))
        else:
            terms += self._data_terms(patches, batch)
            if weights.realspace_mae_weight > 0:
                error = physics.label_mae(patches, _labels(batch), trust)
                terms.append(weights.realspace_mae_weight * error)
        if weights.realspace_weight > 0:
            terms.append(weights.realspace_weight * physics.total_variation(patches, trust))
        return terms

    def _data_terms(self, patches: tf.Tensor, batch: TensorBatch) -> list[tf.Tensor]:
        weights, r = self.training, self._scale("amplitude_per_root_count")
        if weights.nll_weight == 0 and weights.mae_weight == 0:
            return []
        counts = tf.square(batch.x / r)
        terms = []
        for share, candidate in self._judged(patches, batch):
            expected = self.expected_counts(candidate)
            if weights.nll_weight > 0:
                terms.append(share * weights.nll_weight * physics.poisson(expected, counts, batch.mask))
            if weights.mae_weight > 0:
                terms.append(share * weights.mae_weight * physics.amplitude_mae(expected, counts, batch.mask, r))
        return terms

    def _judged(self, patches: tf.Tensor, batch: TensorBatch) -> list[tuple[float, tf.Tensor]]:
        """Return the patches that the data judge, before and after one more D, with their shares."""
        share = constraint_share(self.training)
        judged = [(1.0 - share, patches)] if share < 1.0 else []
        if share > 0.0:
            judged.append((share, physics.constrain_amplitude(patches, batch.x, self.probe, batch.mask)))
        return judged

    def _unrolled(self, batch: TensorBatch, dtype: tf.DType) -> tf.Tensor:
        probe = self.probe
        estimate = physics.initial_estimate(batch.x, probe)
        estimate = physics.accelerated(estimate, batch.x, probe, batch.mask, self.config.initial_iterations)
        estimate += self._correction("step1", dtype, estimate=estimate)
        for step in range(2, self.config.unrolled_steps + 1):
            consistent = physics.constrain_amplitude(estimate, batch.x, probe, batch.mask)
            estimate = consistent + self._correction(f"step{step}", dtype, consistent=consistent, estimate=estimate)
        return estimate

    def _correction(self, name: str, dtype: tf.DType, **patches: tf.Tensor) -> tf.Tensor:
        """Run a network on patches as real and imaginary channels, every pattern by itself."""
        shape = tf.shape(next(iter(patches.values())))
        inputs = {key: _as_channels(value) for key, value in patches.items()}
        (output,) = run_network(self.networks[name], inputs, self._values(), dtype)
        return tf.reshape(tf.complex(*tf.unstack(output, axis=-1)), shape)

    def _cnn(self, x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
        channels_last = tf.transpose(x, (0, 2, 3, 1))
        outputs = run_network(self.networks["cnn"], {"x": channels_last}, self._values(), dtype)
        amplitude, phase = (tf.transpose(output, (0, 3, 1, 2)) for output in outputs)
        if self.config.decoder_outputs == "real_imaginary":
            return tf.complex(amplitude, phase)
        return tf.complex(amplitude * tf.cos(phase), amplitude * tf.sin(phase))

    def _values(self) -> dict[str, tf.Tensor]:
        return {name: variable.value for name, variable in self.variables.items()}

    def _scale(self, name: str) -> tf.Tensor:
        return self.scales[name].value


def _variables(values: Mapping[str, Any]) -> dict[str, keras.Variable]:
    """Return float32 variables; their names have no slashes, which Keras refuses."""
    return {name: keras.Variable(value, dtype="float32", name=name.replace("/", "_")) for name, value in values.items()}


def _labels(batch: TensorBatch) -> tf.Tensor:
    if batch.labels is None:
        raise DataError(
            "This loss compares patches with labels.",
            expected="batches with labels, cut from a known object",
            received="a batch without labels",
            fix="use Samples(..., with_labels=True), or a loss without labels",
        )
    return batch.labels


def _as_channels(patches: tf.Tensor) -> tf.Tensor:
    """(group, channel, y, x) complex to (group·channel, y, x, 2)."""
    N = patches.shape[-1]
    # Re z = Re(z·1) and Im z = Re(z·(−i)), side by side in one product; stacking them takes twice as long.
    return tf.math.real(tf.reshape(patches, (-1, N, N, 1)) * tf.constant([1, -1j], tf.complex64))
