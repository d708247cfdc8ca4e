"""HDF5 members of a model file: weights with their calibration, and the trainer state."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

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
        If it is damaged, holds other data than numbers, or links to other files.
    """
    with _opened("weights.h5", content) as file:
        weights = _load(file, "weights")
        group = file["calibration"]
        numbers = {name: _positive(name, float(group.attrs[name])) for name in CALIBRATION_NUMBERS}
        calibration = Calibration(
            probe=np.asarray(group["probe"][()], dtype=np.complex64),
            probe_guess_sha256=str(group.attrs["probe_guess_sha256"]),
            **numbers,
        )
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
    with _opened("trainer_state.h5", content) as file:
        fields: dict[str, Any] = {name: _finite(name, float(file.attrs[name])) for name in NUMBERS}
        fields |= {name: int(fields[name]) for name in INTEGERS}
        fields |= {name: {key: float(value) for key, value in file[name].attrs.items()} for name in MAPPINGS}
        fields |= {name: _load(file, name) for name in ARRAYS}
        if "probe" in file:
            fields["probe"] = np.asarray(file["probe"][()], dtype=np.complex64)
    return TrainerState(**fields)


@contextmanager
def _opened(member: str, content: bytes) -> Iterator[Any]:
    """Open the content of a member; every error inside the block becomes a ValueError."""
    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"member '{member}' cannot be read ({error})") from None


def _store(file: Any, name: str, arrays: Arrays, dtype: str = "float32") -> None:
    group = file.create_group(name)
    for key, array in arrays.items():
        group.create_dataset(key, data=np.asarray(array, dtype=dtype))


def _load(file: Any, name: str) -> Arrays:
    arrays: Arrays = {}
    _read_group(file[name], "", arrays)
    return arrays


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value} instead of a positive number")
    return value


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value) or (name != "loss_sum" and value < 0):
        raise ValueError(f"{name} is {value}, which is no state of a training")
    return value


def _read_group(group: Any, prefix: str, arrays: Arrays) -> None:
    """Add the data sets of a group to `arrays`; links to other files are errors."""
    import h5py

    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"'{prefix}{name}' is a link out of the file")
        item = group[name]
        if isinstance(item, h5py.Group):
            _read_group(item, f"{prefix}{name}/", arrays)
        elif item.dtype.kind != "f" or item.external or item.is_virtual:
            raise ValueError(f"'{prefix}{name}' does not hold plain numbers")
        else:
            arrays[f"{prefix}{name}"] = np.asarray(item[()], dtype=np.float32)
