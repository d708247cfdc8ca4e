"""
Model file ``wts.h5.zip``: readable by every engine, without pickle (spec: model_file).

Members: ``manifest.json``, ``config.json``, ``weights.h5``, ``history.json``, and ``trainer_state.h5`` in a
checkpoint. The file is read as a zip, as a folder that holds the zip, or as the folder of the unpacked zip.
Members are read by name into memory (:mod:`ptycho_backend.model_file.zip_members`).
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ptycho_backend._version import __version__
from ptycho_backend.config import TrainingConfig, from_dict, to_dict
from ptycho_backend.data.output import atomic_path
from ptycho_backend.data.run_folder import after_swap
from ptycho_backend.errors import ConfigError, ModelFileError
from ptycho_backend.model_file.hdf5_weights import (
    state_from_bytes,
    state_to_bytes,
    weights_from_bytes,
    weights_to_bytes,
)
from ptycho_backend.model_file.trainer_state import TrainerState
from ptycho_backend.model_file.zip_members import MAX_MEMBER_BYTES, opened_archive, read_file, read_member
from ptycho_backend.physics.calibration import Calibration

FILE_NAME = "wts.h5.zip"
FORMAT = "ptychopinn-model"
FORMAT_VERSION = 2
MEMBERS = ("config.json", "weights.h5", "history.json")
STATE = "trainer_state.h5"
MAX_JSON_BYTES = 64 * 2**20
FIXED_DATE = (1980, 1, 1, 0, 0, 0)  # so that equal models give equal files


@dataclass(eq=False)
class Bundle:
    """
    Content of a model file.

    Parameters
    ----------
    training : TrainingConfig
        Configuration of the training, with that of the model.
    calibration : Calibration
    weights : dict of str to float32 array
        Weights under canonical names.
    history : list of dict
        One per epoch.
    provenance : dict
        Engine, library versions, data hash; plain values.
    state : TrainerState, optional
        State of an unfinished training; only in a checkpoint.
    """

    training: TrainingConfig
    calibration: Calibration
    weights: dict[str, NDArray[np.float32]]
    history: list[dict[str, float]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    state: TrainerState | None = None


def write_bundle(path: Path | str, bundle: Bundle, weights_dtype: Literal["float32", "float16"] = "float32") -> Path:
    """
    Write a model file, in one step in place of an earlier one; `path` is the zip or an existing folder.

    float16 weights halve the size of shipped models; they are read as float32.
    """
    target = Path(path)
    target = target / FILE_NAME if target.is_dir() else target
    members = {
        "config.json": _to_json(to_dict(bundle.training)),
        "weights.h5": weights_to_bytes(bundle.weights, bundle.calibration, weights_dtype),
        "history.json": _to_json(bundle.history),
    }
    if bundle.state is not None:
        members[STATE] = state_to_bytes(bundle.state)
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "package_version": __version__,
        "provenance": bundle.provenance,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in members.items()},
    }
    with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in {"manifest.json": _to_json(manifest), **members}.items():
            # Compression of weights takes longer than writing them, and saves nothing.
            method = zipfile.ZIP_STORED if name.endswith(".h5") else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(name, FIXED_DATE), content, method)
    return target


def read_bundle(path: Path | str) -> Bundle:
    """
    Read a model file.

    Parameters
    ----------
    path : path
        The zip, a folder that holds ``wts.h5.zip``, or the folder of the unpacked zip.

    Raises
    ------
    ModelFileError
        If it is missing, damaged, of another package or version, or does not match its checksums.
    """
    contents = _read_members(after_swap(path))
    manifest = _from_json(contents["manifest.json"], path, "manifest.json")
    _check_manifest(manifest, contents, path)
    training = _config_from(contents["config.json"], path)
    try:
        calibration, weights = weights_from_bytes(contents["weights.h5"])
        state = state_from_bytes(contents[STATE]) if STATE in contents else None
        _check_sizes(training, calibration, state)
        history = _checked_history(_from_json(contents["history.json"], path, "history.json"))
    except ValueError as error:
        raise error if isinstance(error, ModelFileError) else _damaged(path, str(error)) from None
    return Bundle(training, calibration, weights, history, manifest["provenance"], state)


def _check_sizes(training: TrainingConfig, calibration: Calibration, state: TrainerState | None) -> None:
    """Check that the probes have the side of the model's window."""
    for probe in (calibration.probe, None if state is None else state.probe):
        if probe is not None and training.model.N not in (0, probe.shape[-1]):
            raise ValueError(f"the probe has the shape {probe.shape} for a model of N={training.model.N}")


def _checked_history(history: Any) -> list[dict[str, float]]:
    """Return a history unchanged if it is a list with numbers by name for each epoch."""
    rows = history if isinstance(history, list) else [history]
    for number, row in enumerate(rows):
        if history is not rows or not isinstance(row, dict):
            raise ValueError(f"member 'history.json' holds {row!r:.60} instead of metrics by name for each epoch")
        for name, value in row.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not _fits_float(value):
                raise ValueError(f"member 'history.json', epoch {number + 1}: '{name}' is {value!r:.60}, no number")
    return rows


def _fits_float(value: float) -> bool:
    try:
        float(value)
    except OverflowError:  # a whole number with hundreds of digits
        return False
    return True


def _config_from(content: bytes, path: Path | str) -> TrainingConfig:
    values = _from_json(content, path, "config.json")
    if not isinstance(values, dict):
        raise _damaged(path, f"member 'config.json' holds a {type(values).__name__}")
    model = values.get("model")
    if isinstance(model, dict):
        model.setdefault("initial_iterations", 0)  # older files lack this option
    try:
        return from_dict(TrainingConfig, values, source=f"'{path}', config.json")
    except ConfigError as error:
        raise _damaged(path, f"member 'config.json': {error.rule} {error.expected}") from error


def _read_members(path: Path) -> dict[str, bytes]:
    names: tuple[str, ...] = ("manifest.json", *MEMBERS)
    try:
        if _is_folder(path) and not (path / FILE_NAME).exists():
            missing = [name for name in names if not (path / name).is_file()]
            if missing:
                raise ValueError(f"no {FILE_NAME} and no {', '.join(missing)} in this folder")
            names = (*names, STATE) if (path / STATE).is_file() else names
            return {name: read_file(path / name, _limit(name)) for name in names}
        path = path / FILE_NAME if _is_folder(path) else path
        with opened_archive(path) as archive:
            names = (*names, STATE) if STATE in archive.namelist() else names
            return {name: read_member(archive, name, _limit(name)) for name in names}
    except ValueError as error:
        raise _damaged(path, str(error)) from None


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError) as error:  # a name that the system refuses
        raise ValueError(getattr(error, "strerror", None) or str(error)) from None


def _limit(name: str) -> int:
    """Return the largest size of a member, bytes."""
    return MAX_MEMBER_BYTES if name.endswith(".h5") else MAX_JSON_BYTES


def _check_manifest(manifest: Any, contents: dict[str, bytes], path: Path | str) -> None:
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _damaged(path, "its manifest is not one of this package's")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ModelFileError(
            "A model file has a version that this package reads.",
            expected=f"format version {FORMAT_VERSION}",
            received=f"version {manifest.get('format_version')!r} in '{path}'",
            fix=f"install the ptychopinn that wrote it ({manifest.get('package_version', 'unknown')}) or newer",
        )
    if not isinstance(manifest.get("provenance"), dict):
        raise _damaged(path, "its manifest has no provenance")
    checksums = manifest.get("sha256")
    for name in (name for name in contents if name != "manifest.json"):
        expected = checksums.get(name) if isinstance(checksums, dict) else None
        if hashlib.sha256(contents[name]).hexdigest() != expected:
            raise _damaged(path, f"member '{name}' does not match its checksum")


def _to_json(value: Any) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=True).encode()


def _from_json(content: bytes, path: Path | str, member: str) -> Any:
    try:
        values = json.loads(content)
        json.dumps(values, ensure_ascii=False).encode()  # escapes may spell text that UTF-8 lacks
        return values
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"member '{member}' is not JSON ({error})") from None


def _damaged(path: Path | str, fault: str) -> ModelFileError:
    return ModelFileError(
        "A model file is a complete archive that this package wrote.",
        expected=f"{FILE_NAME} with manifest.json, {', '.join(MEMBERS)}",
        received=f"'{path}': {fault}",
        fix="copy the file again from the run folder, or train again",
    )
