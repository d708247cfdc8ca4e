"""The HDF5 members of a model file: weights with their calibration, and the state of a training."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.model_file.trainer_state import ARRAYS, MAPPINGS, NUMBERS, Arrays, TrainerState
from ptycho_backend.physics.calibration import Calibration

CALIBRATION_NUMBERS = ("rms_input_scale", "photon_scale", "photons_per_pattern")
WHOLE = ("epoch", "batch", "steps")


def weights_to_bytes(weights: Arrays, calibration: Calibration, dtype: str = "float32") -> bytes:
    """Return ``weights.h5``; float16 halves it, and is read as float32 again."""
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
        If it is damaged, holds anything but numbers, or links out of itself.
    """
    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            weights = _load(file, "weights")
            group = file["calibration"]
            numbers = {name: _positive(name, float(group.attrs[name])) for name in CALIBRATION_NUMBERS}
            calibration = Calibration(
                probe=np.asarray(group["probe"][()], dtype=np.complex64),
                probe_guess_sha256=str(group.attrs["probe_guess_sha256"]),
                **numbers,
            )
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"member 'weights.h5' cannot be read ({error})") from None
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
        As :func:`weights_from_bytes`.
    """
    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            found: dict[str, Any] = {name: _count(name, float(file.attrs[name])) for name in NUMBERS}
            found |= {name: int(found[name]) for name in WHOLE}
            found |= {name: {key: float(value) for key, value in file[name].attrs.items()} for name in MAPPINGS}
            found |= {name: _load(file, name) for name in ARRAYS}
            if "probe" in file:
                found["probe"] = np.asarray(file["probe"][()], dtype=np.complex64)
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"member 'trainer_state.h5' cannot be read ({error})") from None
    return TrainerState(**found)


def _store(file: Any, name: str, arrays: Arrays, dtype: str = "float32") -> None:
    group = file.create_group(name)
    for key, array in arrays.items():
        group.create_dataset(key, data=np.asarray(array, dtype=dtype))


def _load(file: Any, name: str) -> Arrays:
    found: Arrays = {}
    _collect(file[name], "", found)
    return found


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value}, which no measurement gives")
    return value


def _count(name: str, value: float) -> float:
    if not math.isfinite(value) or (name != "loss_sum" and value < 0):
        raise ValueError(f"{name} is {value}, which no training reaches")
    return value


def _collect(group: Any, prefix: str, found: dict[str, NDArray[np.float32]]) -> None:
    """Read data sets that lie in this very file; links out of it are not followed."""
    import h5py

    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"'{prefix}{name}' is a link out of the file")
        item = group[name]
        if isinstance(item, h5py.Group):
            _collect(item, f"{prefix}{name}/", found)
        elif item.dtype.kind != "f" or item.external or item.is_virtual:
            raise ValueError(f"'{prefix}{name}' does not hold plain numbers")
        else:
            found[f"{prefix}{name}"] = np.asarray(item[()], dtype=np.float32)
