"""
Command lines: plain options, and every field of a configuration as an option with a dotted name.

Precedence: command line, then settings file, then default.
Every mistake is a ConfigError that suggests the nearest existing name.
"""

from __future__ import annotations

import dataclasses
import logging
import typing
from argparse import SUPPRESS, Action
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from ptycho_backend.commands.help import HelpFormatter, choices, descriptions, hyphens, metavar, page, type_text
from ptycho_backend.compat.deprecated_names import modern_fields, modern_flag, modern_name, modern_value
from ptycho_backend.errors import ConfigError, nearest_name
from ptycho_backend.runtime.yaml_files import read_yaml

logger = logging.getLogger(__name__)


class CommandLine:
    """
    Options of one command, with their parser.

    Parameters
    ----------
    command : str
    usage : str
        Arguments of the command in short form.
    summary : str
        One sentence.

    Attributes
    ----------
    options : dict of str to Action
        Actions by option string.
    usual : tuple of str
        Options on the one page of ``--help``; empty for all that are no field of a section.
    base_settings : callable
        Returns the settings file that all other settings override, for parsed options; None for no such file.
    """

    def __init__(self, command: str, usage: str, summary: str) -> None:
        self.command, self.usage = command, usage
        self.parser = ArgumentParser(
            prog=f"ptychopinn {command}",
            usage=f"ptychopinn {command} {usage}",
            description=summary,
            formatter_class=HelpFormatter,
            exit_on_error=False,
            print_config=None,
            allow_abbrev=False,
            add_help=False,
        )
        self.options: dict[str, Action] = {}
        self.usual: tuple[str, ...] = ()
        self.base_settings: Callable[[Namespace], str | None] = lambda options: None
        self._types: dict[str, Any] = {}
        self._actions: list[Action] = []
        self._fields: list[str] = []
        self._sections: list[str] = []
        self._aliases: dict[str, tuple[str, str]] = {}
        self._ignored_sections: dict[str, str] = {}
        self.add("-h", "--help", action="help", help="Show the usual options.")
        self.add("--help-all", action="help", help="Show every option.")

    def add(self, *names: str, **settings: Any) -> None:
        """Add a positional argument or a plain option, with the settings of argparse."""
        self._add(self.parser, *names, **settings)

    def add_section(self, key: str, config_type: type[Any], title: str, inert: Container[str] = ()) -> None:
        """
        Add every field of a configuration as ``--key.field``; with an empty key as ``--field``.

        Fields in `inert` have no effect in this command. They are accepted, and missing in the help.
        """
        prefix = f"{key}." if key else ""
        group, texts, defaults = self.parser.add_argument_group(title), descriptions(config_type), config_type()
        for name, field_type in typing.get_type_hints(config_type).items():
            if dataclasses.is_dataclass(field_type):
                self.add_section(f"{prefix}{name}", typing.cast(type[Any], field_type), name.capitalize())
                continue
            self._fields.append(f"{prefix}{name}")
            default = getattr(defaults, name)
            text = SUPPRESS if name in inert else texts[name]
            self._add(group, f"--{prefix}{name}", type=field_type, default=default, help=text)
        self._sections += [key] if key else []

    def add_alias(self, flag: str, target: str, value: str = "", text: str = "") -> None:
        """Add a short option for a field of a section; with `value` it is a flag that sets this value."""
        field = self.options[f"--{target}"]
        self._aliases[flag] = (f"--{target}", value)
        settings: dict[str, Any] = {"action": "store_true"} if value else {"metavar": field.metavar}
        self._add(self.parser, flag, help=text or field.help, default=SUPPRESS, **settings)
        if not value:  # the field checks the value; completion and help show its choices
            self._types[self.options[flag].dest] = self._types[field.dest]

    def ignore_section(self, key: str, reason: str) -> None:
        """Accept a section in settings files without use for this command."""
        self._ignored_sections[key] = reason

    def help(self, complete: bool = False) -> str:
        """Return the help: the usual options on one page, or every option."""
        if complete:
            return self.parser.format_help().rstrip()
        plain = (name for name in self.options if name.startswith("--") and "." not in name)
        names = self.usual or [name for name in plain if not name.startswith("--help")]
        shown = [action for action in self.actions() if not action.option_strings]
        shown += [self.options[name] for name in names]
        n_options = sum(1 for action in self.actions() if action.option_strings)
        more = f"'ptychopinn {self.command} --help-all' shows all {n_options} options, with their choices and defaults."
        return page(f"ptychopinn {self.command} {self.usage}".rstrip(), self.parser.description or "", shown, more)

    def actions(self) -> list[Action]:
        """Return the positional arguments and options of the help, each once."""
        return [action for action in self._actions if action.help != SUPPRESS]

    def type_of(self, action: Action) -> Any:
        """Return the type of an argument or option."""
        return self._types[action.dest]

    def parse(self, argv: Sequence[str]) -> Namespace:
        """
        Parse a command line and its settings files.

        Raises
        ------
        ConfigError
            For an unknown option or key, a missing value, or a value of the wrong type.
        """
        options = self._parse(argv, [])
        base = self.base_settings(options)
        return self._parse(argv, [base]) if base else options

    def require(self, options: Namespace, name: str, example: str) -> str:
        """Return the value of a plain option that the command needs."""
        value = options[name]
        if value is None:
            raise ConfigError(
                f"'ptychopinn {self.command}' needs {example.split()[0]}.",
                expected=f"ptychopinn {self.command} {self.usage}",
                received=f"no {example.split()[0]}",
                fix=f"add {example}",
            )
        return str(value)

    def _add(self, container: Any, *names: str, **settings: Any) -> None:
        option_type = settings.get("type", str)
        if "action" not in settings and not choices(option_type):
            settings.setdefault("metavar", metavar(option_type))
        action = container.add_argument(*names, **settings)
        self._types[action.dest] = option_type
        self._actions.append(action)
        self.options |= dict.fromkeys(action.option_strings, action)

    def _parse(self, argv: Sequence[str], files: list[str]) -> Namespace:
        arguments, more_files = self._expanded(argv)
        files = [*files, *more_files]
        settings: dict[str, Any] = {}
        for file in files:
            settings |= self._read(file)
        pairs = [argument.partition("=") for argument in arguments]
        values = [(self.options[name].dest, value) for name, equals, value in pairs if equals and name in self.options]
        names = " and ".join(f"'{file}'" for file in files)
        with self._located_errors(settings.items(), names):
            defaults = self.parser.parse_object(settings)
        with self._located_errors(values, "the command line"):
            options = self.parser.parse_args(arguments, namespace=defaults)
        options["source"] = f"the command line and {names}" if files else "the command line"
        return options

    def _expanded(self, argv: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the arguments as ``--full-name=value``, and the settings files."""
        arguments: list[str] = []
        files: list[str] = []
        rest = list(argv)
        while rest:
            argument = rest.pop(0)
            if argument == "--":
                return [*arguments, argument, *rest], files
            if not argument.startswith("--"):
                arguments.append(argument)
                continue
            name, equals, value = argument.partition("=")
            name = self._known_option(name)
            if not equals and self.options[name].nargs != 0 and rest and not _is_option(rest[0]):
                equals, value = "=", rest.pop(0)
            if name == "--config" and equals:
                files.append(value)
                continue
            name, fixed_value = self._aliases.get(name, (name, ""))
            if fixed_value:
                equals, value = "=", fixed_value
            arguments.append(f"{name}{equals}{modern_value(name.rpartition('.')[2], value)}")
        return arguments, files

    def _known_option(self, name: str) -> str:
        """Return the present name of an option; "_" and "-" are equal."""
        given = name
        name = modern_flag(name) if "execution" in self._sections else name
        section, _, field = name.rpartition(".")
        if section == "--execution":
            name = f"{section}.{modern_name(field.replace('-', '_'))}"
        known = {hyphens(option): option for option in self.options}
        if hyphens(name) not in known:
            raise ConfigError(
                f"Unknown option '{given}'.",
                expected=f"an option of 'ptychopinn {self.command}'",
                received=f"'{given}' on the command line",
                fix=_suggestion(hyphens(name), known) or f"'ptychopinn {self.command} --help-all' lists every option",
            )
        return known[hyphens(name)]

    def _read(self, file: str) -> dict[str, Any]:
        """Return the settings in a file by dotted name."""
        values = read_yaml(file)
        for key in [key for key in values if key in self._ignored_sections]:
            logger.info("section '%s' of '%s' is not used: %s", key, file, self._ignored_sections[key])
            del values[key]
        if isinstance(values.get("execution"), dict):
            values["execution"] = modern_fields(values["execution"])
        return self._flat(values, "", f"file '{file}'")

    def _flat(self, values: Mapping[Any, Any], prefix: str, source: str) -> dict[str, Any]:
        """Return nested settings by dotted name, without empty sections."""
        settings: dict[str, Any] = {}
        for key, value in values.items():
            name = f"{prefix}{key}"
            if "." not in str(key) and name in self._fields:
                settings[name] = value
            elif "." in str(key) or name not in self._sections:
                raise ConfigError(
                    f"Unknown configuration key '{name}'.",
                    expected=f"a key in the output of 'ptychopinn {self.command} --print-config'",
                    received=f"'{name}' in {source}",
                    fix=_suggestion(name, [*self._fields, *self._sections]) or "remove the key",
                )
            elif isinstance(value, dict):
                settings |= self._flat(value, f"{name}.", source)
            elif value is not None:
                raise ConfigError(
                    f"Configuration key '{name}' is a section.",
                    expected="key: value lines below it",
                    received=f"{value!r} in {source}",
                    fix=f"'ptychopinn {self.command} --print-config' prints a complete file",
                )
        return settings

    @contextmanager
    def _located_errors(self, values: Iterable[tuple[str, Any]], source: str) -> Iterator[None]:
        """Turn an error of the parser into a ConfigError about the first value that also fails alone."""
        try:
            yield
        except ArgumentError as error:
            for name, value in values:
                self._check(name, value, source)
            raise ConfigError(
                "The command line cannot be read.",
                expected=f"ptychopinn {self.command} {self.usage}",
                received=" ".join(str(error).split()),
                fix=f"'ptychopinn {self.command} --help-all' lists every option",
            ) from error

    def _check(self, name: str, value: Any, source: str) -> None:
        try:
            self.parser.parse_object({name: value})
        except ArgumentError as error:
            option = name if name in self._fields else f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"'{option}' cannot take this value.",
                expected=type_text(self._types[name]),
                received=f"{str(value)!r} from {source}",
                fix=_suggestion(str(value), choices(self._types[name]))
                or f"'ptychopinn {self.command} --help-all' describes the option",
            ) from error


def _is_option(argument: str) -> bool:
    return argument.startswith("-") and not argument[1:2].isdigit()


def _suggestion(name: str, known: Iterable[str]) -> str:
    # The last part decides: '--nepoch' is close to '--training.nepochs', although most letters are missing.
    by_last_part = {option.rpartition(".")[2].lstrip("-"): option for option in known}
    last_part = name.rpartition(".")[2].lstrip("-")
    nearest = by_last_part.get(last_part) or nearest_name(name, known)
    nearest = nearest or by_last_part.get(nearest_name(last_part, by_last_part) or "")
    return f"did you mean '{nearest}'?" if nearest else ""
