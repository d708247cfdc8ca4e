"""Help texts: descriptions from numpydoc docstrings, one column for names, types in plain words."""

from __future__ import annotations

import inspect
import shutil
import types
import typing
from argparse import SUPPRESS, Action
from typing import Any

from docstring_parser import DocstringStyle, parse
from jsonargparse import DefaultHelpFormatter

METAVARS = {int: "INT", float: "FLOAT", str: "NAME"}
TYPE_NAMES = {int: "a whole number", float: "a number", str: "text"}
HELP_COLUMN, MAX_WIDTH = 30, 110


class HelpFormatter(DefaultHelpFormatter):
    """Compact help: names in one column, descriptions and defaults beside them."""

    def __init__(self, prog: str, **settings: Any) -> None:
        width = min(shutil.get_terminal_size().columns, MAX_WIDTH) - 2
        super().__init__(prog, max_help_position=HELP_COLUMN, width=width)  # type: ignore[no-untyped-call]

    def _get_help_string(self, action: Action) -> str:
        text, default = action.help or "", action.default
        if action.nargs == 0 or default in (None, "", SUPPRESS):
            return text
        return f"{text} (default: {str(default).lower() if isinstance(default, bool) else default})"


def descriptions(documented_type: type[Any]) -> dict[str, str]:
    """Return the description of each parameter in the numpydoc docstring of a class."""
    docstring = parse(inspect.getdoc(documented_type) or "", DocstringStyle.NUMPYDOC)
    return {parameter.arg_name: " ".join((parameter.description or "").split()) for parameter in docstring.params}


def metavar(option_type: Any) -> str:
    """Return the placeholder of a value in the help; jsonargparse itself lists the choices."""
    return METAVARS.get(_without_none(option_type), "LIST")


def choices(option_type: Any) -> tuple[str, ...]:
    """Return the allowed names of a type, none for a number or free text."""
    plain = _without_none(option_type)
    if plain is bool:
        return "true", "false"
    return tuple(map(str, typing.get_args(plain))) if typing.get_origin(plain) is typing.Literal else ()


def type_text(option_type: Any) -> str:
    """Return a type in words."""
    names = choices(option_type)
    return f"one of {', '.join(names)}" if names else TYPE_NAMES.get(_without_none(option_type), "a list, as [1, 2]")


def _without_none(option_type: Any) -> Any:
    if typing.get_origin(option_type) not in (typing.Union, types.UnionType):
        return option_type
    return [part for part in typing.get_args(option_type) if part is not type(None)][-1]
