"""Rows of the keyword table: target fields, supported values and a note (spec: ptychodus_api_spec 4.11)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

UNCHANGED: Mapping[Any, Any] = MappingProxyType({})


class Keyword(NamedTuple):
    """
    Translation of one keyword.

    Parameters
    ----------
    note : str
        Explanation.
    fields : tuple of str
        Target fields in `ptycho_backend`, for example "training.nepochs".
    supported : tuple, optional
        Values with the same effect here; a warning reports others. None supports every value.
    values : mapping
        Translation of values that have other names in the target fields.
    """

    note: str = ""
    fields: tuple[str, ...] = ()
    supported: tuple[Any, ...] | None = None
    values: Mapping[Any, Any] = UNCHANGED

    def describe(self) -> str:
        """Return the row's text for a table."""
        targets = ", ".join(f"`{name}`" for name in self.fields)
        text = ": ".join(part for part in (targets, self.note) if part)
        if self.supported is None:
            return text
        values = " or ".join(f"`{value!r}`" for value in self.supported)
        return f"supported: {values} ({text}); others are reported" if values else f"always reported: {text}"


def field(*fields: str, values: Mapping[Any, Any] = UNCHANGED, note: str = "") -> Keyword:
    """Return the row of a keyword with target fields."""
    return Keyword(note, fields, None, values)


def fixed(*values: Any, note: str) -> Keyword:
    """Return the row of a keyword with some supported values and no target field."""
    return Keyword(note, (), values)


def ignored(note: str) -> Keyword:
    """Return the row of a keyword without effect, which is always reported."""
    return Keyword(note, (), ())


def rule(note: str) -> Keyword:
    """Return the row of a keyword that a rule in :mod:`ptycho_torch.api.rules` handles, or that needs no action."""
    return Keyword(note)


def head(*values: Any) -> Keyword:
    """Return the row of an option of the published network's heads, with its supported values."""
    return fixed(*values, note='"unet" has no such head')
