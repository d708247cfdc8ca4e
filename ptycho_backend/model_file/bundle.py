"""
Model file ``wts.h5.zip``: readable by every engine, without pickle (spec: model_file).

Members: ``manifest.json``, ``config.json``, ``weights.h5``, ``history.json``, and ``trainer_state.h5`` in a
checkpoint. The file is read as a zip, as a folder that holds the zip, or as the folder of the unpacked zip.
Members are read by name into memory. Nothing is extracted, so no name in an archive can reach the file system.
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
from ptycho_backend.errors import ConfigError, ModelFileError
from ptycho_backend.model_file.hdf5_weights import (
    state_from_bytes,
    state_to_bytes,
    weights_from_bytes,
    weights_to_bytes,
)
from ptycho_backend.model_file.trainer_state import TrainerState
from ptycho_backend.physics.calibration import Calibration

FILE_NAME = "wts.h5.zip"
FORMAT = "ptychopinn-model"
FORMAT_VERSION = 2
MEMBERS = ("config.json", "weights.h5", "history.json")
STATE = "trainer_state.h5"
MAX_MEMBER_BYTES = 2 * 2**30  # a model has megabytes; a larger member is damaged or an attack
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
    contents = _read_members(Path(path))
    manifest = _from_json(contents["manifest.json"], path, "manifest.json")
    _check_manifest(manifest, contents, path)
    training = _config_from(contents["config.json"], path)
    try:
        calibration, weights = weights_from_bytes(contents["weights.h5"])
        state = state_from_bytes(contents[STATE]) if STATE in contents else None
    except ValueError as error:
        raise _damaged(path, str(error)) from None
    return Bundle(
        training=training,
        calibration=calibration,
        weights=weights,
        history=_from_json(contents["history.json"], path, "history.json"),
        provenance=manifest["provenance"],
        state=state,
    )


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
    if path.is_dir() and not (path / FILE_NAME).exists():
        missing = [name for name in names if not (path / name).is_file()]
        if missing:
            raise _damaged(path, f"no {FILE_NAME} and no {', '.join(missing)} in this folder")
        names = (*names, STATE) if (path / STATE).is_file() else names
        return {name: (path / name).read_bytes() for name in names}
    file = path / FILE_NAME if path.is_dir() else path
    try:
        archive = zipfile.ZipFile(file)
    except FileNotFoundError:
        raise _damaged(file, "no such file") from None
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise _damaged(file, f"not a readable zip archive ({error})") from None
    with archive:
        names = (*names, STATE) if STATE in archive.namelist() else names
        try:
            return {name: read_member(archive, name, MAX_MEMBER_BYTES) for name in names}
        except ValueError as error:
            raise _damaged(file, str(error)) from None


def read_member(archive: zipfile.ZipFile, name: str, limit: int = MAX_MEMBER_BYTES) -> bytes:
    """
    Read one member of a zip archive into memory.

    Raises
    ------
    ValueError
        If it is missing, damaged, or larger than `limit` bytes.
    """
    try:
        info = archive.getinfo(name)
    except KeyError:
        found = ", ".join(archive.namelist()[:6])
        raise ValueError(f"no member '{name}' (found: {found or 'nothing'})") from None
    if info.file_size > limit:
        raise ValueError(f"member '{name}' claims {info.file_size} bytes")
    try:
        return archive.read(info)
    except Exception as error:  # zlib and zipfile raise many classes for damaged data
        raise ValueError(f"member '{name}' is damaged ({error})") from None


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
        return json.loads(content)
    except (ValueError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(path, f"member '{member}' is not JSON ({error})") from None


def _damaged(path: Path | str, fault: str) -> ModelFileError:
    return ModelFileError(
        "A model file is a complete archive that this package wrote.",
        expected=f"{FILE_NAME} with manifest.json, {', '.join(MEMBERS)}",
        received=f"'{path}': {fault}",
        fix="copy the file again from the run folder, or train again",
    )
