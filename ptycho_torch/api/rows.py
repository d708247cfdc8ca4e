"""Rows of the table of keywords: what can become of one (spec: ptychodus_api_spec 4.11)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

UNCHANGED: Mapping[Any, Any] = MappingProxyType({})


class Keyword(NamedTuple):
    """
    One row.

    Parameters
    ----------
    note : str
        What is done, in words.
    fields : tuple of str
        Fields of the package's own configurations that take the value, as "training.nepochs".
    done : tuple, optional
        Values that are realised without a field of their own; any other one is named in a warning. None: every value.
    values : mapping
        Values that fields spell in another way.
    """

    note: str = ""
    fields: tuple[str, ...] = ()
    done: tuple[Any, ...] | None = None
    values: Mapping[Any, Any] = UNCHANGED

    def describe(self) -> str:
        """Return the row's text for a table."""
        targets = ", ".join(f"`{name}`" for name in self.fields)
        said = ": ".join(text for text in (targets, self.note) if text)
        if self.done is None:
            return said
        realised = " or ".join(f"`{value!r}`" for value in self.done)
        return f"{realised} is what is done ({said}); else named" if realised else f"always named: {said}"


def field(*fields: str, values: Mapping[Any, Any] = UNCHANGED, note: str = "") -> Keyword:
    """Return the row of a keyword with a counterpart."""
    return Keyword(note, fields, None, values)


def only(*values: Any, note: str) -> Keyword:
    """Return the row of a keyword of which some values are realised anyway."""
    return Keyword(note, (), values)


def missing(note: str) -> Keyword:
    """Return the row of a keyword without any counterpart."""
    return Keyword(note, (), ())


def rule(note: str) -> Keyword:
    """Return the row of a keyword that is settled in code, or needs nothing."""
    return Keyword(note)


def head(*values: Any) -> Keyword:
    """Return the row of an option of the published network's heads; its default asks for nothing."""
    return only(*values, note='the default, for a head that "unet" lacks')
