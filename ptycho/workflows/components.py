"""Training and loading functions of the earlier TensorFlow package (spec: ptychodus_api_spec 4.14)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho import model_manager
from ptycho.config.config import TrainingConfig
from ptycho.config.translation import to_training
from ptycho.object_model import ObjectModel
from ptycho.workflows.data import Data, create_ptycho_data_container, load_data
from ptycho.workflows.images import reassemble_cdi_image, save_outputs
from ptycho_backend import api
from ptycho_backend.compat import legacy
from ptycho_backend.config import ExecutionConfig
from ptycho_backend.model_file.run import Run
from ptycho_backend.runtime.progress import EventLog

__all__ = [
    "create_ptycho_data_container",
    "load_data",
    "load_inference_bundle",
    "reassemble_cdi_image",
    "run_cdi_example",
    "save_outputs",
    "train_cdi_model",
]


def run_cdi_example(
    train_data: Data,
    test_data: Data | None,
    config: TrainingConfig,
    flip_x: bool = False,
    flip_y: bool = False,
    transpose: bool = False,
    M: int = 20,
    do_stitching: bool = False,
    execution: ExecutionConfig | None = None,
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None, dict[str, Any]]:
    """
    Train a model, and optionally stitch the test data.

    Parameters
    ----------
    train_data, test_data : RawData or PtychoDataContainer
        Each epoch is validated on the test data, or on a part of the training data without them.
    config : ptycho.config.config.TrainingConfig
        Its `backend` selects the engine.
    flip_x, flip_y, transpose, M
        Arguments of :func:`reassemble_cdi_image`.
    do_stitching : bool
    execution : ExecutionConfig, optional
        Execution settings of the training.

    Returns
    -------
    amplitude, phase : float32, shape (y, x), or None
    results : dict
        Results of :func:`train_cdi_model`; with stitching also those of :func:`reassemble_cdi_image`.

    Raises
    ------
    ConfigError, DataError, ShapeError, BackendNotInstalledError, TrainingError
    """
    legacy.update_legacy_dict(legacy.cfg, config)
    results = train_cdi_model(train_data, test_data, config, execution)
    if not do_stitching or test_data is None:
        return None, None, results
    options = {"flip_x": flip_x, "flip_y": flip_y, "transpose": transpose, "M": M}
    amplitude, phase, stitched = reassemble_cdi_image(test_data, config, model=results["model"], **options)
    return amplitude, phase, results | stitched


def train_cdi_model(
    train_data: Data, test_data: Data | None, config: TrainingConfig, execution: ExecutionConfig | None = None
) -> dict[str, Any]:
    """
    Train a model, which :func:`ptycho.model_manager.save` can then write.

    Returns
    -------
    dict
        "history": a list for every metric, including "train_loss" and "val_loss"; "history_epochs"; "model", with
        `predict`; "intensity_scale"; "backend"; "run", a Run of `ptycho_backend`.
    """
    scan = train_data.to_scan()
    validation = None if test_data is None else test_data.to_scan()
    run = api.train(scan, to_training(config, scan), execution, EventLog(), validation=validation)
    model_manager.remember(run)
    model = ObjectModel(run.model)
    legacy.cfg["intensity_scale"] = model.intensity_scale
    return {
        "history": _columns(run),
        "history_epochs": [int(row["epoch"]) for row in run.history],
        "model": model,
        "intensity_scale": model.intensity_scale,
        "backend": run.provenance["backend"],
        "run": run,
    }


def load_inference_bundle(
    model_dir: Path | str, backend: str = "auto", execution: ExecutionConfig | None = None
) -> tuple[ObjectModel, dict[str, Any]]:
    """
    Load a model, and write its settings and `intensity_scale` into `params.cfg`.

    Parameters
    ----------
    model_dir : path
        ``wts.h5.zip``, a folder that holds it, or a folder with its unpacked content.
    backend : str
    execution : ExecutionConfig, optional

    Returns
    -------
    model : ObjectModel
    config : dict
        Settings that were written.

    Raises
    ------
    ModelFileError, BackendNotInstalledError
    """
    model = ObjectModel(api.load_model(model_dir, backend, execution))
    config: dict[str, Any] = {"intensity_scale": model.intensity_scale}
    legacy.update_legacy_dict(config, model.model.training)
    legacy.cfg.update(config)
    return model, config


def _columns(run: Run) -> dict[str, list[float]]:
    """Return the history by metric, with the losses also as "train_loss" and "val_loss"."""
    names = {name: name for row in run.history for name in row}
    names |= {"train_loss": run.model.train_loss_name, "val_loss": run.model.val_loss_name}
    return {
        column: [row[name] for row in run.history]
        for column, name in names.items()
        if all(name in row for row in run.history)
    }
