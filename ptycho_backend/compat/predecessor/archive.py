"""PtychoPINN's model archive: which files are one, and what stands in it (spec: model_file 7.1)."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptycho_backend.compat.predecessor.arrays import array_of, number_of
from ptycho_backend.compat.predecessor.keras_file import KerasFile, read_keras
from ptycho_backend.compat.predecessor.pickles import MAX_BYTES, read_pickle
from ptycho_backend.errors import ModelFileError
from ptycho_backend.model_file.bundle import FILE_NAME, read_member

MODELS = ("diffraction_to_obj", "autoencoder")  # the one that PtychoPINN reconstructs with comes first
TORCH = (".ckpt", ".pt", ".pth")
LONGEST = 1000  # letters of a setting
HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True, eq=False)
class Archive:
    """
    A model of PtychoPINN.

    Parameters
    ----------
    path : Path
    model : str
        Which of the archive's models.
    keras : KerasFile
    settings : dict
        `params.cfg` at the time, plain values only.
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
        If it is missing, damaged, or another kind of file, which the message names.
    """
    file = Path(path)
    _refuse_folders(file)
    file = file / FILE_NAME if file.is_dir() else file
    _refuse_single_files(file)
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            _refuse_other_kinds(file, names)
            if "config.json" in names:
                return Archive(file, file.name, read_keras(file.read_bytes()), {}, None)
            return _read(file, archive)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise refused(file, f"not a readable zip archive ({error})") from None
    except ValueError as error:
        if isinstance(error, ModelFileError):
            raise
        raise refused(file, str(error)) from None


def refused(file: Path | str, what: str, fix: str = "copy the file again from where it was written") -> ModelFileError:
    """Return the error for a file that cannot be converted."""
    return ModelFileError(
        "Only PtychoPINN's TensorFlow archives can be converted.",
        expected=f"{FILE_NAME} with manifest.dill, and model.keras and params.dill for each model",
        received=f"'{file}': {what}",
        fix=fix,
    )


def _read(file: Path, archive: zipfile.ZipFile) -> Archive:
    manifest = read_pickle(read_member(archive, "manifest.dill", MAX_BYTES), f"'{file}', manifest.dill")
    models = manifest.get("models") if isinstance(manifest, dict) else None
    known = [name for name in MODELS if isinstance(models, list) and name in models]
    if not known:
        raise ValueError(f"its manifest names neither {' nor '.join(MODELS)}")
    member = f"{known[0]}/params.dill"
    params = read_pickle(read_member(archive, member, MAX_BYTES), f"'{file}', {member}")
    if not isinstance(params, dict):
        raise ValueError(f"member '{member}' holds no dictionary")
    keras = read_keras(read_member(archive, f"{known[0]}/model.keras"))
    plain = {key: _plain(value) for key, value in params.items() if isinstance(key, str) and key != "probe"}
    return Archive(file, known[0], keras, plain, array_of(params.get("probe")))


def _plain(value: Any) -> Any:
    """Return a setting that is a short plain value, and for any other what kind it is."""
    number = number_of(value)
    small = not isinstance(number, int) or abs(number) < 2**63
    short = not isinstance(number, str) or len(number) <= LONGEST
    simple = number is None or isinstance(number, (bool, int, float, str))
    return number if simple and small and short else f"<{type(number).__name__}>"


def _refuse_folders(folder: Path) -> None:
    if not folder.is_dir() or (folder / FILE_NAME).is_file():
        return
    if list(folder.glob("**/saved_model.pb"))[:1]:
        raise _saved_model(folder)
    raise refused(folder, f"a folder without {FILE_NAME}", f"name the folder that holds {FILE_NAME}, or the file")


def _refuse_single_files(file: Path) -> None:
    if not file.is_file():
        raise refused(file, "no such file", "check the path")
    if file.suffix.lower() in TORCH:
        raise _torch(file)
    with file.open("rb") as stream:
        if stream.read(len(HDF5)) == HDF5:
            raise refused(file, "an HDF5 file, which holds weights without their network", _SAVE_AGAIN)


def _refuse_other_kinds(file: Path, names: list[str]) -> None:
    kinds: tuple[tuple[Callable[[str], bool], Callable[[Path], ModelFileError]], ...] = (
        (lambda name: name == "manifest.json", _own),
        (lambda name: name.endswith((*TORCH, "data.pkl")), _torch),
        (lambda name: name.endswith("saved_model.pb"), _saved_model),
    )
    for matches, error in kinds:
        if any(map(matches, names)):
            raise error(file)


_SAVE_AGAIN = "load it with the PtychoPINN that wrote it, and save it with TensorFlow 2.19 or newer"


def _own(file: Path) -> ModelFileError:
    return refused(file, "a model file of this package already", f"use it as it is: --model '{file}'")


def _saved_model(file: Path) -> ModelFileError:
    return refused(file, "a SavedModel, which is a program to be run", _SAVE_AGAIN)


def _torch(file: Path) -> ModelFileError:
    return refused(
        file,
        "a PyTorch checkpoint; PtychoPINN's PyTorch port has another network, with layers that are not here "
        "(attention, normalisation)",
        "train again: 'ptychopinn migrate' translates its configuration",
    )
