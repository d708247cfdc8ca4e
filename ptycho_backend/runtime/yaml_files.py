"""YAML files, read safely and within limits of size, depth and aliases (spec: config 4.1)."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho_backend.errors import ConfigError, first_line

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 2**20  # of a file
MAX_DEPTH = 32  # of nested sections and lists
MAX_NODES = 100_000  # after every alias is replaced by its content
COMPLETE = "correct the file; 'ptychopinn train --print-config' prints a complete one"
# The standard constructors raise these for a text that does not suit its tag.
CONSTRUCTOR_ERRORS = (ValueError, KeyError, AttributeError, TypeError, OverflowError, RecursionError)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """
    Read a YAML mapping with the safe loader.

    Parameters
    ----------
    path : path
        Regular file of at most 1 MiB, UTF-8. Dates stay text.

    Raises
    ------
    ConfigError
        If the file cannot be read, is no mapping, repeats a key, or holds a value that YAML cannot construct.
        Also for deep nesting, for recursive aliases, and for aliases whose content multiplies.
    """
    text = _text_of(path)
    values = _constructed(text, path)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            "A configuration file holds a mapping.",
            expected="key: value lines",
            received=f"'{path}': a {type(values).__name__}",
            fix=COMPLETE,
        )
    return values


def _text_of(path: Path | str) -> str:
    """Return the text of a small regular file; a pipe or device could block or have no end."""
    try:
        status = Path(path).stat()
        content = Path(path).read_bytes() if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_BYTES else b""
    except OSError as error:
        raise _unreadable(path, str(error.strerror)) from error
    except ValueError as error:  # a null byte in the name
        raise _unreadable(path, first_line(error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise _unreadable(path, "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file")
    if status.st_size > MAX_BYTES:
        raise _unreadable(path, f"{status.st_size} bytes, and a configuration has at most {MAX_BYTES}")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise _invalid(path, first_line(error)) from error


def _constructed(text: str, path: Path | str) -> Any:
    """Return the values of a YAML text."""
    import yaml

    try:
        loader = _loader_class()(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}: " if mark is not None else ""
        raise _invalid(path, f"{place}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise _invalid(path, first_line(error)) from error


def _loader_class() -> type[yaml.SafeLoader]:
    """Return the safe loader with a limited depth, without repeated keys and dates."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Safe loader whose only errors are those of YAML, with the line."""

        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            """Return a node and its children."""
            self.depth += 1
            if self.depth > MAX_DEPTH:
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                raise yaml.composer.ComposerError(None, None, f"more than {MAX_DEPTH} nested levels", mark)
            try:
                return super().compose_node(parent, index)
            finally:
                self.depth -= 1

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            """Return the value of a node."""
            try:
                return super().construct_object(node, deep)
            except CONSTRUCTOR_ERRORS as error:
                text = f"no value of type {node.tag.rpartition(':')[2]}: {str(node.value)[:40]!r}"
                raise yaml.constructor.ConstructorError(None, None, text, node.start_mark) from error

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            """Return a mapping without repeated keys."""
            seen = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"):
                if (key.tag, key.value) in seen:
                    text = f"the key '{key.value}' stands twice in one section"
                    raise yaml.constructor.ConstructorError(None, None, text, key.start_mark)
                seen.add((key.tag, key.value))
            return super().construct_mapping(node, deep)

    without_dates = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.yaml_implicit_resolvers = without_dates
    return Loader


def _check_size(root: yaml.Node) -> None:
    """Check the number of nodes after every alias is replaced by its content; each node is counted once."""
    import yaml

    sizes: dict[int, int] = {}  # 0 for a node that is being counted: an alias to it is recursive

    def size_of(node: yaml.Node) -> int:
        if id(node) in sizes:
            if not sizes[id(node)]:
                raise yaml.composer.ComposerError(None, None, "an alias that contains itself", node.start_mark)
            return sizes[id(node)]
        sizes[id(node)] = 0
        total = 1
        for child in _children(node):
            total += size_of(child)
            if total > MAX_NODES:
                text = f"aliases whose content multiplies to more than {MAX_NODES} values"
                raise yaml.composer.ComposerError(None, None, text, node.start_mark)
        sizes[id(node)] = total
        return total

    size_of(root)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node.value, str):
        return []
    return [child for item in node.value for child in (item if isinstance(item, tuple) else (item,))]


def _unreadable(path: Path | str, reason: str) -> ConfigError:
    return ConfigError(
        "The configuration file cannot be read.",
        expected="a readable YAML file",
        received=f"'{path}': {reason}",
        fix="check the path and its permissions",
    )


def _invalid(path: Path | str, reason: str) -> ConfigError:
    return ConfigError(
        "The configuration file is not valid YAML.",
        expected="key: value lines",
        received=f"'{path}': {reason}",
        fix=COMPLETE,
    )
