"""Errors that say what to do: the rule, what was expected, what came, and the fix."""

from __future__ import annotations

from collections.abc import Iterable


class PtychoError(Exception):
    """
    Base of every error this package raises on purpose.

    Parameters
    ----------
    rule : str
        The rule that was broken, one sentence.
    expected, received, fix : str, optional
        What should have come, what came (with file and field), and how to mend it.

    Notes
    -----
    Instances survive pickling, because clients run the package in child processes.
    """

    def __init__(self, rule: str, expected: str = "", received: str = "", fix: str = "") -> None:
        self.rule, self.expected, self.received, self.fix = rule, expected, received, fix
        details = (("Expected", expected), ("Received", received), ("Fix", fix))
        super().__init__("\n".join([rule, *(f"  {label}: {text}" for label, text in details if text)]))

    def __reduce__(self) -> tuple[type[PtychoError], tuple[str, str, str, str]]:
        return type(self), (self.rule, self.expected, self.received, self.fix)


class ConfigError(PtychoError, ValueError):
    """A configuration value or key is not allowed."""


class DataError(PtychoError, ValueError):
    """A data file or a scan breaks the data specification."""


class ShapeError(DataError):
    """Arrays do not fit together."""


class ModelFileError(PtychoError, ValueError):
    """A model file is damaged, foreign, or of another version."""


class OutputError(PtychoError, OSError):
    """A result cannot be written where it was asked for."""


class DeviceError(PtychoError, RuntimeError):
    """A device or precision was asked for that this machine or engine lacks."""


class TrainingError(PtychoError, RuntimeError):
    """Training cannot go on."""


class TrainingStopped(PtychoError):
    """Training was asked to stop, and has been kept; `signal` is the number of the signal that asked."""

    signal: int = 2


class UnknownBackendError(PtychoError, ValueError):
    """No engine is registered under this name."""


class BackendNotInstalledError(PtychoError, ImportError):
    """An engine is registered, but its framework cannot be imported."""


class BackendSetupError(PtychoError, RuntimeError):
    """A framework is installed but set up in a way that the engine cannot use."""


class InertOptionWarning(UserWarning):
    """An option was set that has no effect in this combination."""


def first_line(error: BaseException, otherwise: str = "no message") -> str:
    """Return the first line of what an error says; some say nothing."""
    return next(iter(str(error).splitlines()), otherwise)


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to a mistyped one, or None."""
    from difflib import get_close_matches

    matches = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


class DeprecatedNameWarning(DeprecationWarning):
    """A setting has a new name or value; the old one is still read."""
