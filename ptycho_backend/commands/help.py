"""Help that reads well: texts from the parameter sections of docstrings, and one column for names."""

from __future__ import annotations

import inspect
import re
import shutil
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from jsonargparse import DefaultHelpFormatter

METAVARS = {int: "INT", float: "FLOAT", str: "NAME"}
HELP_COLUMN, WIDEST = 30, 110

UNDERLINE = re.compile(r"-{3,}")
POINTER = re.compile(r"See :\w+:`[^`]+`\.")  # of use to a reader of the code only
ROLE = re.compile(r":\w+:`~?([^`]+)`")


class Parameter(NamedTuple):
    """The type slot and the text of a documented parameter."""

    kind: str
    text: str


def documented(documented_type: type[Any]) -> dict[str, Parameter]:
    """Return what a numpydoc docstring says about each parameter; "a, b : int" counts for both."""
    found: dict[str, Parameter] = {}
    for head, body in _entries(_parameter_lines(inspect.getdoc(documented_type) or "")):
        names, _, kind = head.partition(" : ")
        for name in names.split(","):
            found[name.strip()] = Parameter(kind.strip(), _plain(" ".join(body)))
    return found


class HelpFormatter(DefaultHelpFormatter):
    """Compact help: one column for names, the text beside it, no Python types."""

    def __init__(self, prog: str, **settings: Any) -> None:
        width = min(shutil.get_terminal_size().columns, WIDEST) - 2
        super().__init__(prog, max_help_position=HELP_COLUMN, width=width)  # type: ignore[no-untyped-call]

    def _get_help_string(self, action: Any) -> str:
        return action.help or ""


def metavar(action: Any) -> str:
    """Return the choices of an option, or a word for its type."""
    if action.choices:
        return "{" + ",".join(str(choice) for choice in action.choices) + "}"
    kind = getattr(action, "_typehint", str)
    choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
    if choices:
        return "{" + ",".join(choices) + "}"
    inner = [part for part in typing.get_args(kind) if part is not type(None)]
    return METAVARS.get(inner[0] if inner else kind, "VALUE")


def help_text(kind: str, text: str, default: Any) -> str:
    """Return what an option means, the names its type slot lists, and its default."""
    names = re.findall(r'"([^"]+)"', kind)
    choices = f" One of {', '.join(names)}." if names else ""
    shown = str(default).lower() if isinstance(default, bool) else default
    ending = "" if default is None else f" (default: {shown})"
    return f"{text}{choices}{ending}".strip()


def _parameter_lines(docstring: str) -> list[str]:
    lines = docstring.splitlines()
    if "Parameters" not in lines:
        return []
    rest = lines[lines.index("Parameters") + 2 :]
    after = [number for number, line in enumerate(rest) if UNDERLINE.fullmatch(line)]
    return rest[: after[0] - 1] if after else rest


def _entries(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    head, body = "", []
    for line in lines:
        if line[:1].isspace() or not line:
            body.append(line.strip())
            continue
        if head:
            yield head, body
        head, body = line, []
    if head:
        yield head, body


def _plain(text: str) -> str:
    return ROLE.sub(r"\1", POINTER.sub("", text)).replace("``", "").strip()
