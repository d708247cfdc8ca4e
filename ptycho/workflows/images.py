"""Image and output functions of the earlier TensorFlow package (spec: ptychodus_api_spec 4.14)."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho import model_manager, tf_helper
from ptycho.config.config import TrainingConfig
from ptycho.object_model import ObjectModel
from ptycho.scan_array import ScanArray
from ptycho.workflows.data import Data, create_ptycho_data_container
from ptycho_backend.data.output import prepare_run_folder
from ptycho_backend.model_file.run import Run

logger = logging.getLogger(__name__)


def reassemble_cdi_image(
    test_data: Data,
    config: TrainingConfig,
    flip_x: bool = False,
    flip_y: bool = False,
    transpose: bool = False,
    M: int = 20,
    coord_scale: float = 1.0,
    model: ObjectModel | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32], dict[str, Any]]:
    """
    Predict patches and stitch them.

    Parameters
    ----------
    test_data : RawData or PtychoDataContainer
    config : ptycho.config.config.TrainingConfig
        Its `model.gridsize`, `neighbor_count` and `seed` control the grouping.
    flip_x, flip_y : bool
        Change the sign of a coordinate, for data of opposite handedness; only at gridsize 1.
    transpose : bool
        Exchange the axes of each patch.
    M : int
        Argument of :func:`ptycho.tf_helper.reassemble_position`.
    coord_scale : float
        Factor of the coordinates.
    model : ObjectModel, optional
        None selects the last finished training of this thread.

    Returns
    -------
    amplitude, phase : float32, shape (y, x)
    dict
        "obj_tensor_full", "global_offsets", "recon_amp", "recon_phase".
    """
    model = model or ObjectModel(model_manager.last_run().model)
    container = create_ptycho_data_container(test_data, config)
    patches = model.predict([container.X * model.intensity_scale, container.local_offsets])
    patches = _transposed(patches) if transpose else patches
    signs = np.array([-1.0 if flip_x else 1.0, -1.0 if flip_y else 1.0]) * coord_scale
    offsets = container.global_offsets * signs[:, None]
    image = np.squeeze(tf_helper.reassemble_position(patches, offsets, M=M), axis=-1)
    amplitude, phase = np.abs(image), np.angle(image)
    stitched = {"obj_tensor_full": patches, "global_offsets": offsets}
    return amplitude, phase, {**stitched, "recon_amp": amplitude, "recon_phase": phase}


def _transposed(patches: ScanArray) -> ScanArray:
    """Exchange the axes of each patch and of its weight."""
    transposed, context = patches.swapaxes(1, 2), patches.context
    if context is None or context.weight is None:
        return transposed
    return ScanArray(transposed, dataclasses.replace(context, weight=context.weight.T))


def save_outputs(
    amplitude: NDArray[Any] | None, phase: NDArray[Any] | None, results: dict[str, Any], output_prefix: Path | str
) -> None:
    """
    Write ``metrics.csv`` and ``summary.json`` of a training, and pictures of amplitude and phase.

    Raises
    ------
    OutputError
    """
    from ptycho_backend.plots import plot_image

    folder = prepare_run_folder(output_prefix, overwrite=True)
    run = results.get("run")
    if isinstance(run, Run):
        run.write_record_into(folder)
    for name, image in (("amplitude", amplitude), ("phase", phase)):
        if image is not None:
            plot_image(folder / f"reconstructed_{name}.png", np.squeeze(image), name.capitalize(), name == "phase")
    logger.info("outputs written to '%s'", folder)
