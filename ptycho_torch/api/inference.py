"""Reconstruction class of the earlier PyTorch package (spec: ptychodus_api_spec 4.11)."""

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
    Reconstruction of scans with a trained model.

    Parameters
    ----------
    config_manager : ConfigManager
    ptycho_model : PtychoModel
    """

    def __init__(self, config_manager: ConfigManager, ptycho_model: PtychoModel) -> None:
        self._configs, self._model = config_manager, ptycho_model

    def predict_and_stitch(self, data_loader: PtychoDataLoader) -> NDArray[np.complex64]:
        """
        Return the object of one layer, complex64 (y, x).

        Its centre is the midpoint of the bounding box of the client's positions. It contains every window.
        """
        settings = self._configs.settings
        settings.warn("inference_config")
        image = reconstruct(data_loader.scan, self._model.module.trained, settings.inference, EventLog())
        # The client's positions lie half a pixel before the scan's. Without the last row and column, which no window
        # reaches, the centre does so too.
        return np.ascontiguousarray(image.obj[:-1, :-1])
