"""Exceptions with four lines (the rule, expected, received, fix) and constructors for rules that recur."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

Error = TypeVar("Error", bound="PtychoError")

OVERWRITE = "overwrite=True in Python, --overwrite on the command line"


class PtychoError(Exception):
    """
    Base class of the errors of this package.

    Parameters
    ----------
    rule : str
        The violated rule, one sentence.
    expected, received, fix : str, optional
        Expected value, received value with its file and field, and a remedy.

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

    @classmethod
    def unknown(
        cls: type[Error], kind: str, name: str, known: Iterable[str], received: str = "", otherwise: str = ""
    ) -> Error:
        """
        Return the error of a name that does not exist; the fix suggests the nearest known name.

        Parameters
        ----------
        kind : str
            Kind of the name, for example "metric".
        name : str
            The unknown name.
        known : iterable of str
            Names that exist.
        received : str
            Name with its option or file; empty for the quoted name.
        otherwise : str
            Fix without a similar name; empty for a choice of a known name.
        """
        names = list(known)
        nearest = nearest_name(name, names)
        return cls(
            f"Unknown {kind} '{name}'.",
            expected=f"one of {', '.join(names)}",
            received=received or f"'{name}'",
            fix=f"did you mean '{nearest}'?" if nearest else otherwise or f"choose a known {kind}",
        )

    @classmethod
    def not_installed(
        cls: type[Error], owner: str, packages: Sequence[str], missing: Sequence[str], extra: str
    ) -> Error:
        """Return the error of missing packages; `extra` is the extra of ``ptychopinn`` that installs them."""
        return cls(
            f"{owner} needs packages that are not installed.",
            expected=f"the packages {', '.join(packages)}",
            received=f"missing: {', '.join(missing)}",
            fix=f"pip install 'ptychopinn[{extra}]'",
        )


class ConfigError(PtychoError, ValueError):
    """Invalid configuration value or key."""

    @classmethod
    def invalid_fields(cls, owner: str, problems: Sequence[str], source: str) -> ConfigError:
        """Return the error of a configuration whose values violate their constraints; `problems` names the fields."""
        return cls(
            f"{owner} has {len(problems)} invalid value(s).",
            expected="; ".join(problems),
            received=source,
            fix="correct the fields named above; the --help of the command lists every field",
        )

    @classmethod
    def changed(cls, rule: str, before: Mapping[str, Any], now: Mapping[str, Any], fix: str) -> ConfigError | None:
        """Return the error of settings that differ from earlier ones, None for equal settings."""
        names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        if not names:
            return None
        expected, received = (", ".join(f"{name}={values.get(name)!r}" for name in names) for values in (before, now))
        return cls(rule, expected, received, fix)


class DataError(PtychoError, ValueError):
    """Data file or scan against the data specification."""

    @classmethod
    def in_field(cls: type[Error], rule: str, expected: str, received: str, fix: str, key: str, source: str) -> Error:
        """Return the error of the field `key` of the file or scan `source`."""
        return cls(rule, expected, f"{received}, field '{key}' of '{source}'", fix)


class ShapeError(DataError):
    """Arrays with incompatible shapes."""

    @classmethod
    def of_patterns(cls, rule: str, expected: str, N: int, source: str, fix: str) -> ShapeError:
        """Return the error of diffraction patterns with the wrong side length `N`, pixels."""
        return cls(rule, expected, f"patterns of {N}×{N} px in '{source}'", fix)


class ModelFileError(PtychoError, ValueError):
    """Damaged or foreign model file, or one of another version."""


class OutputError(PtychoError, OSError):
    """Result that cannot be written to the given path."""

    @classmethod
    def exists(cls, path: object, fix: str = "choose another name") -> OutputError:
        """Return the error of an output file that exists and may not be replaced."""
        return cls(
            "An existing file is replaced only on request.",
            expected="a new name",
            received=f"'{path}', which exists",
            fix=f"{fix}, or overwrite it: {OVERWRITE}",
        )

    @classmethod
    def not_writable(cls, path: object, reason: str, fix: str = "") -> OutputError:
        """Return the error of a path that the system refuses to write to."""
        return cls(
            "Results need a folder with write permission.",
            expected="an existing folder with write permission and free space",
            received=f"'{path}': {reason}",
            fix=fix or "create the folder, free space on the disk, or choose another folder",
        )


class DeviceError(PtychoError, RuntimeError):
    """Device or precision that this machine or engine lacks."""


class ProcessError(PtychoError, RuntimeError):
    """Lost connection to another process of a group."""


class TrainingError(PtychoError, RuntimeError):
    """Training that cannot continue."""


class TrainingStopped(PtychoError):
    """Training that ended early on a signal, after a checkpoint; `signal` is the number of the signal."""

    signal: int = 2


class UnknownBackendError(PtychoError, ValueError):
    """Engine name without a registered engine."""


class BackendNotInstalledError(PtychoError, ImportError):
    """Registered engine whose framework cannot be imported."""


class BackendSetupError(PtychoError, RuntimeError):
    """Installed framework in a state that the engine cannot use."""


class InertOptionWarning(UserWarning):
    """Option without effect in this combination."""


class DeprecatedNameWarning(DeprecationWarning):
    """Setting under its earlier name or with an earlier value, which is still accepted."""


def first_line(error: BaseException, otherwise: str = "no message") -> str:
    """Return the first line of the message of an error, or `otherwise` for an empty message."""
    return next(iter(str(error).splitlines()), otherwise)


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to a mistyped one, or None."""
    from difflib import get_close_matches

    matches = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def field_problems(errors: Iterable[Any]) -> list[str]:
    """Return one sentence for each invalid field of a validation; the alternatives of a union are joined by "or"."""
    messages: dict[tuple[str, str], list[str]] = {}
    for item in errors:
        # The location of an error inside a union ends with its alternative, such as "literal[0]".
        name = ".".join(str(part) for part in item["loc"] if isinstance(part, int) or part.isidentifier())
        texts = messages.setdefault((name, repr(item["input"])), [])
        texts.append(item["msg"].removeprefix("Input should be ") if texts else item["msg"])
    return [f"{name}: {' or '.join(texts)}, not {value}" for (name, value), texts in messages.items()]
