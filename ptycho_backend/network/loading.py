"""Loading of a model file on any engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.engines.model import Model
from ptycho_backend.engines.registry import available_backends, network_backend
from ptycho_backend.errors import ConfigError, ModelFileError
from ptycho_backend.model_file.bundle import Bundle, read_bundle
from ptycho_backend.network.shipped import shipped_bundle
from ptycho_backend.network.training_domain import training_domain_of
from ptycho_backend.network.weights import check_weights, weight_shapes


def load_model(
    path: Path | str | None = None, backend: str = "auto", execution: ExecutionConfig | None = None
) -> Model:
    """
    Load a model file on any engine.

    Parameters
    ----------
    path : path, optional
        ``wts.h5.zip``, a run folder, or an unpacked ``wts.h5.zip``; None takes the shipped network.
    backend : str
        Engine; "auto" takes the engine that wrote the file if it is installed, else an installed one.
    execution : ExecutionConfig, optional

    Raises
    ------
    ModelFileError, BackendNotInstalledError
    """
    bundle = checked_bundle(path)
    written_by = bundle.training.backend
    engine = network_backend(written_by if backend == "auto" and written_by in available_backends() else backend)
    training = dataclasses.replace(bundle.training, backend=engine.name)
    model = engine.create_model(training, bundle.calibration, execution)
    model.set_weights(bundle.weights)
    model.training_domain = training_domain_of(bundle.provenance, bundle.calibration)
    return model


def checked_bundle(path: Path | str | None = None) -> Bundle:
    """
    Read a model file whose weights and provenance suit its configuration.

    The check comes before a network of the claimed size takes memory. None reads the shipped network.

    Raises
    ------
    ModelFileError
    """
    bundle = shipped_bundle() if path is None else read_bundle(path)
    with _naming("the shipped network" if path is None else f"'{path}'"):
        check_weights(bundle.weights, weight_shapes(bundle.training, bundle.calibration))
        training_domain_of(bundle.provenance, bundle.calibration)
    return bundle


@contextmanager
def _naming(source: str) -> Iterator[None]:
    """Add the file to the errors of its values."""
    try:
        yield
    except (ModelFileError, ConfigError) as error:  # the latter for an architecture that is not registered
        raise ModelFileError(error.rule, error.expected, f"{error.received}, in {source}", error.fix) from error
