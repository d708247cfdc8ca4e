"""Model files, under the name of the earlier TensorFlow package (spec: ptychodus_api_spec 4.14)."""

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

# A context variable, so that parallel threads keep separate trainings.
_LAST_RUN: ContextVar[Run | None] = ContextVar("last_run", default=None)


def remember(run: Run) -> None:
    """Set the training that :func:`save` writes in this thread."""
    _LAST_RUN.set(run)


def last_run() -> Run:
    """
    Return the last finished training of this thread.

    Raises
    ------
    ConfigError
        If this thread has none.
    """
    run = _LAST_RUN.get()
    if run is None:
        raise _no_model("no training yet")
    return run


def save(path: Path | str, model: Any = None) -> Path:
    """
    Write ``wts.h5.zip`` into a folder; a missing folder is created.

    Parameters
    ----------
    path : path
    model : optional
        Results of `run_cdi_example` or `train_cdi_model`, their ``results["model"]``, or a run or model of
        `ptycho_backend`. None selects the last finished training of this thread.

    Returns
    -------
    Path
        Path of the file.

    Raises
    ------
    ConfigError
        If there is no trained model.
    OutputError
    """
    found = last_run() if model is None else model
    if isinstance(found, Mapping):
        found = found.get("run")
    if isinstance(found, ObjectModel):
        found = found.model
    if not isinstance(found, Run | Model):
        raise _no_model(f"a {type(model).__name__}")
    bundle = found.bundle() if isinstance(found, Run) else bundle_of(found, [], {"backend": found.backend})
    return write_bundle(prepare_run_folder(path, overwrite=True) / FILE_NAME, bundle)


def _no_model(received: str) -> ConfigError:
    return ConfigError(
        "A trained model is needed.",
        expected="a finished training in this thread, or the argument 'model'",
        received=received,
        fix="pass model=results, with the results of run_cdi_example()",
    )
