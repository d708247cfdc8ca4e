"""Help texts: one page or all options, descriptions from numpydoc docstrings, types in plain words."""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
import types
import typing
from argparse import SUPPRESS, Action
from collections.abc import Iterable
from typing import Any

from docstring_parser import DocstringStyle, parse
from jsonargparse import DefaultHelpFormatter

from ptycho_backend.runtime.printable import usable_width

METAVARS = {int: "INT", float: "FLOAT", str: "NAME"}
TYPE_NAMES = {int: "a whole number", float: "a number", str: "text"}
HELP_COLUMN, PAGE_COLUMN, MAX_WIDTH = 30, 24, 110
NONE = re.compile(r"\bNone\b")


class HelpFormatter(DefaultHelpFormatter):
    """Compact help: names in one column, descriptions and defaults beside them."""

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog, max_help_position=HELP_COLUMN, width=help_width())  # type: ignore[no-untyped-call]

    def _get_help_string(self, action: Action) -> str:
        text, default = action.help or "", action.default
        if action.nargs == 0 or default in (None, "", SUPPRESS):
            return text
        return f"{text} (default: {str(default).lower() if isinstance(default, bool) else default})"

    def _format_action_invocation(self, action: Action) -> str:
        return invocation(action)


def help_width() -> int:
    """Return the width of a help text in columns."""
    return min(usable_width(shutil.get_terminal_size().columns), MAX_WIDTH) - 2


def invocation(action: Action) -> str:
    """Return an option with hyphens, its short form first, and the placeholder or the choices of its value."""
    if not action.option_strings:
        return str(action.metavar or action.dest)
    # jsonargparse adds "--name+" to lists, which appends to a list of a file.
    names = sorted((hyphens(name) for name in action.option_strings if not name.endswith("+")), key=len)
    if action.nargs == 0:
        return ", ".join(names)
    allowed = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else ""
    return f"{', '.join(names)} {action.metavar or allowed or 'VALUE'}"


def hyphens(option: str) -> str:
    """Return an option in its one spelling: "--section.two-words"."""
    return option.replace("_", "-") if option.startswith("--") else option


def page(usage: str, summary: str, actions: Iterable[Action], more: str) -> str:
    """Return the help on one page: each action with the first sentence of its description."""
    width = help_width()
    lines = [*textwrap.wrap(f"usage: {usage}", width, subsequent_indent="  "), "", *textwrap.wrap(summary, width), ""]
    for action in actions:
        name = f"  {invocation(action)}"
        if len(name) >= PAGE_COLUMN:  # a long list of choices
            name = f"{name.partition('{')[0]}NAME" if "{" in name else name
        text = f"{(action.help or '').partition('. ')[0].rstrip('.')}."
        wrapped = textwrap.wrap(text, width - PAGE_COLUMN, break_on_hyphens=False)
        fits = len(name) < PAGE_COLUMN
        lines.append(name.ljust(PAGE_COLUMN) + wrapped.pop(0) if fits else name)
        lines += [" " * PAGE_COLUMN + line for line in wrapped]
    return "\n".join([*lines, "", *textwrap.wrap(more, width)])


def descriptions(documented_type: type[Any]) -> dict[str, str]:
    """
    Return the description of each parameter in the numpydoc docstring of a class, for options and YAML files.

    ``python -OO`` removes docstrings: the descriptions are then empty. "None" in Python is "null" there.
    """
    docstring = parse(inspect.getdoc(documented_type) or "", DocstringStyle.NUMPYDOC)
    texts = {item.arg_name: " ".join((item.description or "").split()) for item in docstring.params}
    return {name: NONE.sub("null", texts.get(name, "")) for name in [*typing.get_type_hints(documented_type), *texts]}


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
