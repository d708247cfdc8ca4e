"""Registry of engines: found by entry point, imported on first use."""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoints, entry_points
from importlib.util import find_spec

from ptycho_backend.engines.contract import Backend
from ptycho_backend.errors import BackendNotInstalledError, UnknownBackendError, nearest_name

GROUP = "ptycho_backend.backends"
# Packages that the engines of this distribution need, by import name, and the extra that installs them.
FRAMEWORKS = {"pytorch": (("torch", "lightning"), "torch"), "tensorflow": (("tensorflow", "keras"), "tensorflow")}


@functools.cache
def get_backend(name: str = "auto") -> Backend:
    """
    Return an engine, importing its framework on first use.

    Parameters
    ----------
    name : str
        "tensorflow", "pytorch", the name of an installed entry point, or "auto": PyTorch if it is
        installed, else TensorFlow.

    Raises
    ------
    UnknownBackendError
        If no engine has this name.
    BackendNotInstalledError
        If its framework is missing; the message names the extra to install.
    """
    registered = _registered()
    chosen = _installed_name() if name == "auto" else name
    if chosen not in registered.names:
        nearest = nearest_name(chosen, registered.names)
        raise UnknownBackendError(
            f"No engine is called '{chosen}'.",
            expected=f"one of {', '.join(sorted(registered.names))}",
            received=f"backend={chosen!r}",
            fix=f"did you mean '{nearest}'?" if nearest else "'ptychopinn backends' lists the engines",
        )
    missing = missing_packages(chosen)
    if missing:
        raise _not_installed(chosen, missing)
    backend: Backend = registered[chosen].load()()
    return backend


def available_backends() -> tuple[str, ...]:
    """Return the names of the engines whose framework is installed, without importing it."""
    return tuple(name for name in sorted(_registered().names) if not missing_packages(name))


def registered_backends() -> tuple[str, ...]:
    """Return the names of all engines, installed or not."""
    return tuple(sorted(_registered().names))


def missing_packages(name: str) -> tuple[str, ...]:
    """Return the packages that an engine needs and that are not installed."""
    required, _ = FRAMEWORKS.get(name, ((), ""))
    return tuple(package for package in required if find_spec(package) is None)


def _registered() -> EntryPoints:
    return entry_points(group=GROUP)


def _installed_name() -> str:
    for name in FRAMEWORKS:
        if name in _registered().names and not missing_packages(name):
            return name
    others = [name for name in available_backends() if name not in FRAMEWORKS]
    if others:
        return others[0]
    raise _not_installed("pytorch", FRAMEWORKS["pytorch"][0])


def _not_installed(name: str, missing: tuple[str, ...]) -> BackendNotInstalledError:
    _, extra = FRAMEWORKS[name]
    return BackendNotInstalledError(
        f"The engine '{name}' needs a framework that is not installed.",
        expected=f"the packages {', '.join(FRAMEWORKS[name][0])}",
        received=f"missing: {', '.join(missing)}",
        fix=f"pip install 'ptychopinn[{extra}]'",
    )
