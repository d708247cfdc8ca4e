"""Registry of engines: found by entry point, imported on first use."""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoints, entry_points
from importlib.util import find_spec

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.engines.contract import Backend
from ptycho_backend.engines.numpy.backend import NumpyBackend
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.engines.parallel_solver import ParallelKernels
from ptycho_backend.engines.solver_contract import SolverKernels
from ptycho_backend.errors import BackendNotInstalledError, UnknownBackendError, nearest_name
from ptycho_backend.runtime.devices import choose_device, gpu_driver_present
from ptycho_backend.runtime.forks import require_own_process
from ptycho_backend.training.parallel import ProcessRank, launched_rank, on_own_device

GROUP = "ptycho_backend.backends"
EXCHANGE = "pytorch"  # the engine whose process group serves the kernels of every engine
NUMPY = "numpy"  # part of this package, so without an entry point; it has no networks
# Packages that the engines of this distribution need, by import name, and the extra that installs them.
FRAMEWORKS = {"pytorch": (("torch", "lightning"), "torch"), "tensorflow": (("tensorflow", "keras"), "tensorflow")}


def get_backend(name: str = "auto") -> Backend:
    """
    Return an engine, importing its framework on first use.

    Parameters
    ----------
    name : str
        "tensorflow", "pytorch", "numpy", the name of an installed entry point, or "auto": PyTorch if it is
        installed, else TensorFlow.

    Raises
    ------
    UnknownBackendError
        If no engine has this name.
    BackendNotInstalledError
        If its framework is missing; the message names the extra to install.
    ProcessError
        In a child that was made by fork after its parent had used the engine.
    """
    chosen = _checked_name(name)
    if chosen != NUMPY:
        require_own_process(chosen)
    return _backend(chosen)


@functools.cache
def _backend(name: str) -> Backend:
    backend: Backend = NumpyBackend() if name == NUMPY else _registered()[name].load()()
    return backend


def network_backend(name: str = "auto") -> Backend:
    """
    Return an engine with networks (parameters of :func:`get_backend`).

    Raises
    ------
    UnknownBackendError
    BackendNotInstalledError
        Also for "numpy", which only solves.
    """
    if name == NUMPY:
        raise NumpyBackend.no_networks()
    return get_backend(name)


def solver_kernels(backend: str = "auto", device: str = "auto") -> SolverKernels:
    """
    Return the solver kernels for a device.

    On a processor these are the NumPy kernels, the fastest ones there, for every engine. On a GPU they are those of
    the engine. Without a GPU or its driver, "auto" imports no framework. In processes of a launcher, each process
    computes its share of the patterns on its own device, and torch.distributed sums the shares (clause 10.8).

    Parameters
    ----------
    backend : str
        Engine (:func:`get_backend`); "auto" takes an installed one for a GPU.
    device : str
        "auto", "cpu", "cuda" or "cuda:<index>"; "auto" takes a GPU if the engine finds one.

    Raises
    ------
    UnknownBackendError, BackendNotInstalledError
    DeviceError
        If this machine or this engine has no such device.
    """
    process = launched_rank()
    kernels = _local_kernels(backend, device, process)
    return kernels if process.world == 1 else ParallelKernels(kernels, get_backend(EXCHANGE).process_group(process))


def _local_kernels(backend: str, device: str, process: ProcessRank) -> SolverKernels:
    """Return the kernels on the device of one process."""
    name = NUMPY if backend == "auto" and not _installed() else _checked_name(backend)
    on_processor = device == "cpu" or (device == "auto" and not gpu_driver_present())
    if on_processor:
        return NumpyKernels()
    engine = get_backend(name)
    found = engine.devices()
    chosen = choose_device(on_own_device(ExecutionConfig(device=device), found, process).device, found, engine.name)
    return NumpyKernels() if chosen == "cpu" else engine.solver_kernels(chosen)


def available_backends() -> tuple[str, ...]:
    """Return the names of the engines with networks whose framework is installed, without importing it."""
    return tuple(name for name in sorted(_registered().names) if not missing_packages(name))


def registered_backends() -> tuple[str, ...]:
    """Return the names of all engines with networks, installed or not."""
    return tuple(sorted(_registered().names))


def missing_packages(name: str) -> tuple[str, ...]:
    """Return the packages that an engine needs and that are not installed."""
    required, _ = FRAMEWORKS.get(name, ((), ""))
    return tuple(package for package in required if find_spec(package) is None)


def _registered() -> EntryPoints:
    return entry_points(group=GROUP)


def _checked_name(name: str) -> str:
    """Return the name of an engine that exists and is installed."""
    known = (*_registered().names, NUMPY)
    chosen = _installed_name() if name == "auto" else name
    if chosen not in known:
        nearest = nearest_name(chosen, known)
        raise UnknownBackendError(
            f"No engine is called '{chosen}'.",
            expected=f"one of {', '.join(sorted(known))}",
            received=f"backend={chosen!r}",
            fix=f"did you mean '{nearest}'?" if nearest else "'ptychopinn backends' lists the engines",
        )
    missing = missing_packages(chosen)
    if missing:
        raise _not_installed(chosen, missing)
    return chosen


def _installed() -> list[str]:
    """Return the installed engines with networks, those of this distribution first."""
    names = available_backends()
    return [*(name for name in FRAMEWORKS if name in names), *(name for name in names if name not in FRAMEWORKS)]


def _installed_name() -> str:
    installed = _installed()
    if not installed:
        raise _not_installed("pytorch", FRAMEWORKS["pytorch"][0])
    return installed[0]


def _not_installed(name: str, missing: tuple[str, ...]) -> BackendNotInstalledError:
    packages, extra = FRAMEWORKS[name]
    return BackendNotInstalledError.not_installed(f"The engine '{name}'", packages, missing, extra)
