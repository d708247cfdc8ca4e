"""HDF5 members of a model file: weights with their calibration, and the trainer state."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.model_file.hdf5_values import (
    LARGEST,
    SMALLEST,
    array_at,
    arrays_at,
    group_at,
    number_at,
    opened_values,
    positive_at,
    text_at,
)
from ptycho_backend.model_file.trainer_state import ARRAYS, MAPPINGS, NUMBERS, Arrays, TrainerState
from ptycho_backend.physics.calibration import Calibration

CALIBRATION_NUMBERS = ("rms_input_scale", "photon_scale", "photons_per_pattern")
INTEGERS = ("epoch", "batch", "steps")


def weights_to_bytes(weights: Arrays, calibration: Calibration, dtype: str = "float32") -> bytes:
    """Return ``weights.h5``; float16 halves its size and is read as float32."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        _store(file, "weights", weights, dtype)
        group = file.create_group("calibration")
        group.create_dataset("probe", data=calibration.probe)
        for name in CALIBRATION_NUMBERS:
            group.attrs[name] = float(getattr(calibration, name))
        group.attrs["probe_guess_sha256"] = calibration.probe_guess_sha256
    return buffer.getvalue()


def weights_from_bytes(content: bytes) -> tuple[Calibration, Arrays]:
    """
    Read ``weights.h5``.

    Raises
    ------
    ValueError
        If it is damaged, holds other data than finite numbers, or refers to other files.
    """
    with opened_values("weights.h5", content) as file:
        weights = arrays_at(file, "weights")
        group = group_at(file, "calibration")
        calibration = Calibration(
            probe=_probe_at(group),
            probe_guess_sha256=text_at(group, "probe_guess_sha256"),
            **{name: positive_at(group, name) for name in CALIBRATION_NUMBERS},
        )
        counts = calibration.counts_per_intensity
        if not SMALLEST <= counts <= LARGEST:
            raise ValueError(f"photon_scale / rms_input_scale² is {counts:g}, which float32 cannot hold")
    return calibration, weights


def state_to_bytes(state: TrainerState) -> bytes:
    """Return ``trainer_state.h5``."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name in ARRAYS:
            _store(file, name, getattr(state, name))
        for name in MAPPINGS:
            file.create_group(name).attrs.update({key: float(value) for key, value in getattr(state, name).items()})
        file.attrs.update({name: float(getattr(state, name)) for name in NUMBERS})
        if state.probe is not None:
            file.create_dataset("probe", data=state.probe)
    return buffer.getvalue()


def state_from_bytes(content: bytes) -> TrainerState:
    """
    Read ``trainer_state.h5``.

    Raises
    ------
    ValueError
        For the same reasons as in :func:`weights_from_bytes`.
    """
    with opened_values("trainer_state.h5", content) as file:
        fields: dict[str, Any] = {name: _checked_number(name, number_at(file, name)) for name in NUMBERS}
        fields |= {name: int(fields[name]) for name in INTEGERS}
        fields |= {name: _numbers_at(group_at(file, name)) for name in MAPPINGS}
        fields |= {name: arrays_at(file, name) for name in ARRAYS}
        if "probe" in file:
            fields["probe"] = _probe_at(file)
    return TrainerState(**fields)


def _store(file: Any, name: str, arrays: Arrays, dtype: str = "float32") -> None:
    group = file.create_group(name)
    for key, array in arrays.items():
        group.create_dataset(key, data=np.asarray(array, dtype=dtype))


def _probe_at(group: Any) -> NDArray[np.complex64]:
    probe = array_at(group, "probe", kind="c")
    if probe.ndim != 3 or probe.shape[1] != probe.shape[2]:
        raise ValueError(f"'probe' has the shape {probe.shape} instead of (mode, N, N)")
    if not probe.any():
        raise ValueError("'probe' holds zeros only")
    return probe


def _numbers_at(group: Any) -> dict[str, float]:
    """Return the attributes of a group; a monitored value may be infinite before the first epoch, or NaN."""
    values = {name: np.asarray(value) for name, value in group.attrs.items()}
    for name, value in values.items():
        if value.shape != () or value.dtype.kind not in "iuf":
            raise ValueError(f"attribute '{name}' is no number")
    return {name: float(value) for name, value in values.items()}


def _checked_number(name: str, value: float) -> float:
    if (name != "loss_sum" and value < 0) or (name in INTEGERS and not (value < 2**53 and value % 1 == 0)):
        raise ValueError(f"{name} is {value}, which is no state of a training")
    return value
