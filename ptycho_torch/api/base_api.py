"""Public classes of the earlier PyTorch package, under their import path (spec: ptychodus_api_spec 4.11)."""

from __future__ import annotations

from ptycho_torch.api.configs import ConfigManager
from ptycho_torch.api.data import DataloaderFormats, PtychoDataLoader
from ptycho_torch.api.inference import InferenceEngine
from ptycho_torch.api.models import PtychoModel
from ptycho_torch.api.training import Trainer

__all__ = ["ConfigManager", "DataloaderFormats", "InferenceEngine", "PtychoDataLoader", "PtychoModel", "Trainer"]
