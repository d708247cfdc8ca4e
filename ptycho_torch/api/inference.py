"""Reconstruction for clients."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.api import reconstruct
from ptycho_backend.runtime.progress import EventLog
from ptycho_torch.api.configs import ConfigManager
from ptycho_torch.api.data import PtychoDataLoader
from ptycho_torch.api.models import PtychoModel


class InferenceEngine:
    """
    Reconstructs scans with a trained model.

    Parameters
    ----------
    config_manager : ConfigManager
    ptycho_model : PtychoModel
    """

    def __init__(self, config_manager: ConfigManager, ptycho_model: PtychoModel) -> None:
        self._configs, self._model = config_manager, ptycho_model

    def predict_and_stitch(self, data_loader: PtychoDataLoader) -> NDArray[np.complex64]:
        """
        Return the object, one layer, shape (y, x), complex64.

        Its centre is the midpoint of the bounding box of the client's positions, and it holds every window.
        """
        settings = self._configs.settings
        settings.warn("inference_config")
        image = reconstruct(data_loader.scan, self._model.module.trained, settings.inference, EventLog())
        # The client's positions lie half a pixel before the scan's. So does the centre, without the last row and
        # column, which no window reaches.
        return np.ascontiguousarray(image.obj[:-1, :-1])
