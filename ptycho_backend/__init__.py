"""
Ptychographic reconstruction by physics-informed networks, on TensorFlow or PyTorch.

    import ptycho_backend as pb

    scan = pb.load_scan("scan.npz")
    image = pb.reconstruct(scan)
    run = pb.train(scan, pb.TrainingConfig(nepochs=20))
    image = pb.reconstruct(scan, run.model)
    run.save("runs/first")

The package imports its names on first use, without any framework.
"""

from __future__ import annotations

from ptycho_backend._version import __version__

TYPE_CHECKING = False  # `typing` takes a tenth of the start of the program, in which Ctrl-C has no handler yet
if TYPE_CHECKING:
    from typing import Any

    from ptycho_backend.api import evaluate, load_model, reconstruct, train
    from ptycho_backend.config import ExecutionConfig, InferenceConfig, ModelConfig, TrainingConfig
    from ptycho_backend.data.hdf5_writer import write_hdf5
    from ptycho_backend.data.image import Image, load_image
    from ptycho_backend.data.npz import write_npz
    from ptycho_backend.data.readers import load_scan
    from ptycho_backend.data.scan import Scan
    from ptycho_backend.engines.registry import available_backends, get_backend
    from ptycho_backend.errors import PtychoError
    from ptycho_backend.events import BatchEvent, EpochEvent, StageEvent
    from ptycho_backend.importing.convert import import_scan
    from ptycho_backend.importing.description import ImportConfig
    from ptycho_backend.model_file.run import Run
    from ptycho_backend.quality.assessment import Assessment, assess
    from ptycho_backend.runtime.progress import progress
    from ptycho_backend.simulation.simulate import simulate_scan

_MODULES = {
    "evaluate": "api",
    "load_model": "api",
    "reconstruct": "api",
    "train": "api",
    "ExecutionConfig": "config",
    "InferenceConfig": "config",
    "ModelConfig": "config",
    "TrainingConfig": "config",
    "Image": "data.image",
    "load_image": "data.image",
    "Assessment": "quality.assessment",
    "assess": "quality.assessment",
    "write_hdf5": "data.hdf5_writer",
    "write_npz": "data.npz",
    "load_scan": "data.readers",
    "Scan": "data.scan",
    "simulate_scan": "simulation.simulate",
    "import_scan": "importing.convert",
    "ImportConfig": "importing.description",
    "PtychoError": "errors",
    "available_backends": "engines.registry",
    "get_backend": "engines.registry",
    "Run": "model_file.run",
    "BatchEvent": "events",
    "EpochEvent": "events",
    "StageEvent": "events",
    "progress": "runtime.progress",
}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'ptycho_backend' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"ptycho_backend.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
