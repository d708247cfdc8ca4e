"""Trained model with `predict` of the earlier TensorFlow package (spec: ptychodus_api_spec 4.14)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.grouped_data import good_energy
from ptycho.scan_array import ScanArray, ScanContext, context_of
from ptycho_backend.config import InferenceConfig
from ptycho_backend.data.batching import Batch
from ptycho_backend.data.scan import Scan
from ptycho_backend.engines.model import Model
from ptycho_backend.errors import ShapeError
from ptycho_backend.network.physics_constants import patch_weight
from ptycho_backend.physics.amplitude_constraint import fill_amplitude
from ptycho_backend.physics.translation import canvas_size
from ptycho_backend.reconstruction import fit_to_scan


class ObjectModel:
    """
    Model with ``predict([X * intensity_scale, local_offsets])``.

    Parameters
    ----------
    model : Model
        Model of `ptycho_backend`, on either engine.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._fitted: tuple[Scan | None, Model] | None = None

    @property
    def intensity_scale(self) -> float:
        """Measured over normalised amplitude in the training data: sqrt(photons per pattern) / (N/2)."""
        calibration = self.model.calibration
        return math.sqrt(calibration.photons_per_pattern) / (calibration.N / 2)

    def predict(self, inputs: Sequence[Any], batch_size: int = 32, verbose: Any = None) -> ScanArray:
        """
        Predict object patches.

        Arrays with a scan context are reconstructed with the scan's probe, mask and scale, as in `reconstruct`. Their
        energy shows the `intensity_scale` that they were multiplied by. Plain arrays are divided by the model's
        `intensity_scale` and reconstructed with the model's probe.

        Parameters
        ----------
        inputs : [X · intensity_scale, local_offsets]
            float (B, N, N, C), and (B, 1, 2, C) as mean minus member, x before y, pixels.
        batch_size : int
        verbose : ignored

        Returns
        -------
        complex64, shape (B, N, N, C)
            One patch for every member, at the member's position. Patches of a model that merges groups agree where
            they overlap.

        Raises
        ------
        ShapeError
        """
        x, offsets_px = _amplitude_and_offsets(inputs)
        context = context_of(*inputs)
        context = context if context is not None and context.describes(np.shape(inputs[0])) else None
        model = self._model_for(context, x.shape[1])
        _check_shape(model, x)
        mask = np.ones(x.shape[-2:], dtype=bool) if context is None else context.scan.mask
        scale = np.float32(self._scale(x, model, context))
        fill = fill_amplitude(model.calibration.probe).astype(np.float32)
        canvas_px = canvas_size(x.shape[-1], offsets_px)
        patches = np.empty(np.shape(inputs[0]), dtype=np.complex64)
        for start in range(0, len(x), batch_size):
            rows = slice(start, start + batch_size)
            filled = np.where(mask, x[rows] * scale, fill)
            batch = Batch(filled, offsets_px[rows], mask.astype(np.float32), canvas_px)
            patches[rows] = np.moveaxis(model.predict_patches(batch, InferenceConfig().amplitude_constraint), 1, -1)
        if context is not None:
            weight = patch_weight(model.config, model.trained_calibration().probe)
            context = dataclasses.replace(context, weight=weight)
        return ScanArray(patches, context)

    def _model_for(self, context: ScanContext | None, channels: int) -> Model:
        """Return the model for a scan and a group size; the last one is cached, because it may be compiled."""
        scan = None if context is None else context.scan
        cached = self._fitted
        if cached is None or cached[0] is not scan or cached[1].config.channels != channels:
            model = self.model if scan is None else fit_to_scan(self.model, scan, InferenceConfig())
            cached = self._fitted = scan, _with_channels(model, channels)
        return cached[1]

    def _scale(self, x: NDArray[np.float32], model: Model, context: ScanContext | None) -> float:
        """Return the factor from the input to normalised amplitude."""
        if context is not None:
            energy = good_energy(x, context.scan.mask)
            if (energy > 0).any():
                ratio = float(np.median(context.energy[energy > 0] / energy[energy > 0]))
                return math.sqrt(ratio) * model.calibration.rms_input_scale / context.input_scale
        return 1.0 / self.intensity_scale


def _with_channels(model: Model, channels: int) -> Model:
    """Return a model for groups of C members; weights of "unet" work for any C, because patterns are separate."""
    gridsize = math.isqrt(channels)
    if channels == model.config.channels or model.config.architecture == "cnn" or gridsize**2 != channels:
        return model
    return model.with_calibration(model.trained_calibration(), gridsize)


def _check_shape(model: Model, x: NDArray[np.float32]) -> None:
    N, C = model.calibration.N, model.config.channels
    if x.shape[1:] != (C, N, N):
        raise ShapeError(
            "The input has the shape of the model's input.",
            expected=f"X of shape (B, {N}, {N}, {C})",
            received=f"X of shape {(len(x), *x.shape[2:], x.shape[1])}",
            fix="pass arrays of generate_grouped_data() with the N and gridsize of the model",
        )


def _amplitude_and_offsets(inputs: Sequence[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return amplitude (group, channel, y, x) and offsets (group, channel, 2), (y, x), member minus mean, pixels."""
    shapes = [np.shape(array) for array in inputs]
    valid = len(shapes) == 2 and len(shapes[0]) == 4 and shapes[0][1] == shapes[0][2]
    if not valid or shapes[1] != (shapes[0][0], 1, 2, shapes[0][3]):
        raise ShapeError(
            "A prediction needs diffraction and offsets.",
            expected="[X, local_offsets] of shapes (B, N, N, C) and (B, 1, 2, C)",
            received=f"shapes {', '.join(map(str, shapes))}",
            fix="pass [container.X * intensity_scale, container.local_offsets]",
        )
    x, local = (np.asarray(array) for array in inputs)
    offsets = -np.moveaxis(local[:, 0, ::-1, :], 1, -1)
    return np.moveaxis(x, -1, 1).astype(np.float32, copy=False), offsets.astype(np.float32)
