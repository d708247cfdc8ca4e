"""Reader of PtychoPINN's model archives (spec: model_file 7.1)."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptycho_backend.compat.predecessor.arrays import array_of, number_of
from ptycho_backend.compat.predecessor.keras_file import KerasFile, read_keras
from ptycho_backend.compat.predecessor.pickles import MAX_BYTES, read_pickle
from ptycho_backend.errors import ModelFileError
from ptycho_backend.model_file.bundle import FILE_NAME
from ptycho_backend.model_file.zip_members import opened_archive, read_file, read_member

MODELS = ("diffraction_to_obj", "autoencoder")  # in order of preference; PtychoPINN reconstructs with the first
TORCH = (".ckpt", ".pt", ".pth")
MAX_TEXT = 1000  # characters of a setting
HDF5 = b"\x89HDF\r\n\x1a\n"
SAVE_AGAIN = "load it with the PtychoPINN that wrote it, and save it with TensorFlow 2.19 or newer"
SAVED_MODEL = ("a SavedModel, which is a program", SAVE_AGAIN)
TORCH_CHECKPOINT = (
    "a PyTorch checkpoint; the network of PtychoPINN's PyTorch port has layers that are not here "
    "(attention, normalisation)",
    "train again: 'ptychopinn migrate' translates its configuration",
)


@dataclass(frozen=True, eq=False)
class Archive:
    """
    A model of PtychoPINN.

    Parameters
    ----------
    path : Path
    model : str
        Name of the model in the archive.
    keras : KerasFile
    settings : dict
        `params.cfg` of the training, plain values only.
    probe : complex array, optional
    """

    path: Path
    model: str
    keras: KerasFile
    settings: dict[str, Any]
    probe: Any


def read_archive(path: Path | str) -> Archive:
    """
    Read an archive, or a single `.keras` file.

    Parameters
    ----------
    path : path
        ``wts.h5.zip``, a folder that holds it, or a `.keras` file.

    Raises
    ------
    ModelFileError
        If the file is missing, damaged, or of another kind; the message names the kind.
    """
    file = Path(path)
    if file.is_dir():
        _check_folder(file)
        file = file / FILE_NAME
    _check_file(file)
    try:
        with opened_archive(file) as archive:
            names = archive.namelist()
            _check_members(file, names)
            if "config.json" in names:
                return Archive(file, file.name, read_keras(read_file(file)), {}, None)
            return _read(file, archive)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise not_convertible(file, f"not a readable zip archive ({error})") from None
    except ValueError as error:
        if isinstance(error, ModelFileError):
            raise
        raise not_convertible(file, str(error)) from None


def not_convertible(
    file: Path | str, what: str, fix: str = "copy the file again from where it was written"
) -> ModelFileError:
    """Return the error for a file that cannot be converted."""
    return ModelFileError(
        "Only PtychoPINN's TensorFlow archives can be converted.",
        expected=f"{FILE_NAME} with manifest.dill, and model.keras and params.dill for each model",
        received=f"'{file}': {what}",
        fix=fix,
    )


def _read(file: Path, archive: zipfile.ZipFile) -> Archive:
    manifest = _unpickled(file, archive, "manifest.dill")
    listed = manifest.get("models") if isinstance(manifest, dict) else None
    models = [name for name in MODELS if isinstance(listed, list) and name in listed]
    if not models:
        raise ValueError(f"its manifest names neither {' nor '.join(MODELS)}")
    member = f"{models[0]}/params.dill"
    params = _unpickled(file, archive, member)
    if not isinstance(params, dict):
        raise ValueError(f"member '{member}' holds no dictionary")
    keras = read_keras(read_member(archive, f"{models[0]}/model.keras"))
    settings = {key: _plain(value) for key, value in params.items() if isinstance(key, str) and key != "probe"}
    return Archive(file, models[0], keras, settings, array_of(params.get("probe")))


def _unpickled(file: Path, archive: zipfile.ZipFile, member: str) -> Any:
    return read_pickle(read_member(archive, member, MAX_BYTES), f"'{file}', {member}")


def _plain(value: Any) -> Any:
    """Return a short plain value unchanged; return the type name of any other value."""
    number = number_of(value)
    small = not isinstance(number, int) or abs(number) < 2**63
    short = not isinstance(number, str) or len(number) <= MAX_TEXT
    simple = number is None or isinstance(number, (bool, int, float, str))
    return number if simple and small and short else f"<{type(number).__name__}>"


def _check_folder(folder: Path) -> None:
    if (folder / FILE_NAME).is_file():
        return
    if list(folder.glob("**/saved_model.pb"))[:1]:
        raise not_convertible(folder, *SAVED_MODEL)
    raise not_convertible(
        folder, f"a folder without {FILE_NAME}", f"name the folder that holds {FILE_NAME}, or the file"
    )


def _check_file(file: Path) -> None:
    if not file.is_file():
        raise not_convertible(file, "no such file", "check the path")
    if file.suffix.lower() in TORCH:
        raise not_convertible(file, *TORCH_CHECKPOINT)
    with file.open("rb") as stream:
        if stream.read(len(HDF5)) == HDF5:
            raise not_convertible(file, "an HDF5 file, which holds weights without their network", SAVE_AGAIN)


def _check_members(file: Path, names: list[str]) -> None:
    if "manifest.json" in names:
        raise not_convertible(file, "a model file of this package already", f"use it as it is: --model '{file}'")
    if any(name.endswith((*TORCH, "data.pkl")) for name in names):
        raise not_convertible(file, *TORCH_CHECKPOINT)
    if any(name.endswith("saved_model.pb") for name in names):
        raise not_convertible(file, *SAVED_MODEL)
