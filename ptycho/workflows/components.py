"""Training, stitching and loading as existing users call them, by the front door (spec: ptychodus_api_spec 4.14)."""

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
    Train, and stitch the test data where asked to.

    Parameters
    ----------
    train_data, test_data : RawData or PtychoDataContainer
        Every epoch is validated on the test data; without them, on a part of the training data.
    config : ptycho.config.config.TrainingConfig
        Its `backend` says on which engine.
    flip_x, flip_y, transpose, M
        See :func:`reassemble_cdi_image`.
    do_stitching : bool
    execution : ExecutionConfig, optional
        How the training is executed.

    Returns
    -------
    amplitude, phase : float32, shape (y, x), or None
    results : dict
        See :func:`train_cdi_model`; with stitching also what :func:`reassemble_cdi_image` returns.

    Raises
    ------
    ConfigError, DataError, ShapeError, BackendNotInstalledError, TrainingError
    """
    legacy.update_legacy_dict(legacy.cfg, config)
    results = train_cdi_model(train_data, test_data, config, execution)
    if not do_stitching or test_data is None:
        return None, None, results
    turned = {"flip_x": flip_x, "flip_y": flip_y, "transpose": transpose, "M": M}
    amplitude, phase, stitched = reassemble_cdi_image(test_data, config, model=results["model"], **turned)
    return amplitude, phase, results | stitched


def train_cdi_model(
    train_data: Data, test_data: Data | None, config: TrainingConfig, execution: ExecutionConfig | None = None
) -> dict[str, Any]:
    """
    Train a model; :func:`ptycho.model_manager.save` saves it afterwards.

    Returns
    -------
    dict
        "history": a list for every metric, "train_loss" and "val_loss" among them; "history_epochs"; "model", with
        `predict`; "intensity_scale"; "backend"; "run", of `ptycho_backend`.
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
    Load a model, and write its settings into `params.cfg`, `intensity_scale` among them.

    Parameters
    ----------
    model_dir : path
        A folder with ``wts.h5.zip``, the folder that it unpacks to, or the file.
    backend : str
    execution : ExecutionConfig, optional

    Returns
    -------
    model : ObjectModel
    config : dict
        The settings that were written.

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
    """Return the history metric by metric, the losses also under names that do not depend on the model."""
    names = {name: name for row in run.history for name in row}
    names |= {"train_loss": run.model.train_loss_name, "val_loss": run.model.val_loss_name}
    return {
        shown: [row[name] for row in run.history]
        for shown, name in names.items()
        if all(name in row for row in run.history)
    }
