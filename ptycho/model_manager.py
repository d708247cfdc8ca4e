"""
Saving under the name that existing users import.

Notes
-----
Spec: ptychodus_api_spec 4.14.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from ptycho.object_model import ObjectModel
from ptycho_backend.data.output import prepare_run_folder
from ptycho_backend.engines.model import Model
from ptycho_backend.errors import ConfigError
from ptycho_backend.model_file.bundle import FILE_NAME, write_bundle
from ptycho_backend.model_file.run import Run, bundle_of

# A context of its own for every thread: trainings side by side do not see each other's model.
_LAST_RUN: ContextVar[Run | None] = ContextVar("last_run", default=None)


def remember(run: Run) -> None:
    """Make a training the one that :func:`save` saves in this thread."""
    _LAST_RUN.set(run)


def last_run() -> Run:
    """
    Return the training that ended last in this thread.

    Raises
    ------
    ConfigError
        If none has.
    """
    run = _LAST_RUN.get()
    if run is None:
        raise _nothing_to_save("no training yet")
    return run


def save(path: Path | str, model: Any = None) -> Path:
    """
    Write ``wts.h5.zip`` into a folder, which is made if it is missing.

    Parameters
    ----------
    path : path
    model : optional
        What `run_cdi_example` or `train_cdi_model` returned as results, their ``results["model"]``, a run or a model of
        `ptycho_backend`. None takes the training that ended last in this thread.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ConfigError
        If there is nothing to save.
    OutputError
    """
    found = last_run() if model is None else model
    if isinstance(found, Mapping):
        found = found.get("run")
    if isinstance(found, ObjectModel):
        found = found.model
    if not isinstance(found, Run | Model):
        raise _nothing_to_save(f"a {type(model).__name__}")
    bundle = found.bundle() if isinstance(found, Run) else bundle_of(found, [], {"backend": found.backend})
    return write_bundle(prepare_run_folder(path, overwrite=True) / FILE_NAME, bundle)


def _nothing_to_save(received: str) -> ConfigError:
    return ConfigError(
        "A model is trained before it is used.",
        expected="a training that has ended in this thread, or the argument 'model'",
        received=received,
        fix="pass model=results, with the results that run_cdi_example() returned",
    )
