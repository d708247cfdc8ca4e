"""
Command lines: plain flags, and every field of a configuration under its dotted name.

Precedence: command line, then configuration file, then default. Every mistake is a ConfigError that names the
nearest thing that exists.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import typing
from argparse import SUPPRESS
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from ptycho_backend.commands.help import HelpFormatter, documented, help_text, metavar
from ptycho_backend.compat.deprecated_names import VALUES, modern_fields, modern_flag, modern_name, modern_value
from ptycho_backend.config import fields_of
from ptycho_backend.errors import ConfigError, nearest_name
from ptycho_backend.runtime.yaml_files import read_yaml

logger = logging.getLogger(__name__)

WORDS = {"INT": "a whole number", "FLOAT": "a number", "NAME": "text"}
KEY = re.compile(r'key "([^"]+)"')
VALUE = re.compile(r"(?:Got|Given) value: (.*)")


class CommandLine:
    """
    The options of one command.

    Parameters
    ----------
    command : str
    usage : str
        What follows the command, in short.
    summary : str
        One sentence.

    Attributes
    ----------
    earlier_settings : callable
        Given the options, names a configuration file that all others come after; None, as by default, if there is none.
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
        )
        self.sections: dict[str, type[Any]] = {}
        self._flat: type[Any] | None = None
        self._aliases: dict[str, tuple[str, str]] = {}
        self._not_used: dict[str, str] = {}
        self.earlier_settings: Callable[[Namespace], str | None] = lambda options: None

    def add(self, *names: str, **settings: Any) -> None:
        """Add a positional argument or a flag, as argparse takes it."""
        self.parser.add_argument(*names, **settings)

    def add_section(self, key: str, config_type: type[Any], title: str) -> None:
        """Add every field of a configuration as ``--key.field``, with its documented text."""
        self.sections[key] = config_type
        self.parser.add_class_arguments(config_type, key)
        self._dress(config_type, f"{key}.", title)

    def set_default(self, name: str, value: Any, text: str) -> None:
        """Give a field another default than in Python, and say what it means."""
        self.parser.set_defaults({name: value})
        self._action(name).help = help_text("", text, value)

    def add_fields(self, config_type: type[Any], title: str) -> None:
        """Add every field of a configuration as ``--field``."""
        self._flat = config_type
        self.parser.add_class_arguments(config_type)
        self._dress(config_type, "", title)

    def add_alias(self, flag: str, target: str, metavar: str = "", value: str = "", text: str = "") -> None:
        """Add a short flag for a field; with `value` the flag stands alone and sets it."""
        self._aliases[flag] = (f"--{target}", value)
        settings: dict[str, Any] = {"action": "store_true"} if value else {"metavar": metavar}
        self.parser.add_argument(flag, help=text or f"Same as --{target}.", default=SUPPRESS, **settings)

    def accept_unused_section(self, key: str, why: str) -> None:
        """Let a file carry a section that this command does not use."""
        self._not_used[key] = why

    def parse(self, argv: Sequence[str]) -> Namespace:
        """
        Parse a command line.

        Raises
        ------
        ConfigError
            For anything that is unknown, missing its value, or of the wrong type.
        """
        options = self._parse(argv, [])
        earlier = self.earlier_settings(options)
        return self._parse(argv, [earlier]) if earlier else options

    def _parse(self, argv: Sequence[str], earlier: list[str]) -> Namespace:
        tokens, files = self._spelled_out(argv)
        files = [*earlier, *files]
        settings: dict[str, Any] = {}
        for file in files:
            _merge(settings, self._read(file))
        source = " and ".join(f"'{file}'" for file in files)
        try:
            given = self.parser.parse_object(settings) if settings else None
        except ArgumentError as error:
            self._refuse(str(error), source)
        try:
            options: Namespace = self.parser.parse_args(tokens, namespace=given)
        except ArgumentError as error:
            self._refuse(str(error), "the command line")
        options["config"] = f"the command line and {source}" if files else "the command line"
        return options

    def require(self, options: Namespace, name: str, example: str) -> str:
        """Return a plain option that the command cannot do without."""
        value = options[name]
        if value is None:
            raise ConfigError(
                f"'ptychopinn {self.command}' needs {example.split()[0]}.",
                expected=f"ptychopinn {self.command} {self.usage}",
                received=f"no {example.split()[0]}",
                fix=f"add {example}",
            )
        return str(value)

    def _dress(self, config_type: type[Any], prefix: str, title: str) -> None:
        """Give groups and options the words of the docstring instead of those of Python's types."""
        texts = documented(config_type)
        for name, kind in fields_of(config_type).items():
            dest = f"{prefix}{name}"
            if dataclasses.is_dataclass(kind):
                self._dress(typing.cast(type[Any], kind), f"{dest}.", name.capitalize())
                continue
            action = self._action(dest)
            action.metavar = action.metavar or metavar(action)
            kind_text = "" if str(action.metavar).startswith("{") else texts[name].kind
            action.help = help_text(kind_text, texts[name].text, action.default)
        for branch in self._branches():
            self._action(branch).help = SUPPRESS
        for group in self.parser._action_groups:
            if group.title == str(config_type):
                group.title = title

    def _spelled_out(self, argv: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the arguments with full names, and the configuration files among them."""
        tokens: list[str] = []
        files: list[str] = []
        rest = list(argv)
        while rest:
            token = rest.pop(0)
            if token == "--":
                return [*tokens, token, *rest], files
            if not token.startswith("--"):
                tokens.append(token)
                continue
            name, equals, value = token.partition("=")
            name = self._known(name)
            if name != "--config":
                target, fixed = self._aliases.get(name, (name, ""))
                if not equals and rest and is_old_value(target, rest[0]):
                    equals, value = "=", rest.pop(0)
                value = modern_value(target.rpartition(".")[2], value) if equals else value
                tokens.append(f"{target}={fixed}" if fixed else f"{target}{equals}{value}")
            elif equals or rest:
                files.append(value if equals else rest.pop(0))
            else:
                self._refuse("argument --config: expected one argument", "the command line")
        return tokens, files

    def _known(self, name: str) -> str:
        """Return an option's own spelling; "_" and "-" are the same in plain flags."""
        name = modern_flag(name) if "execution" in self.sections else name
        section, _, field = name.rpartition(".")
        if section == "--execution":
            name = f"{section}.{modern_name(field)}"
        hidden = {f"--{key}" for key in self._branches()}
        known = [option for option in self.parser._option_string_actions if option not in hidden]
        same = {option.replace("_", "-"): option for option in known if "." not in option}
        found = name if name in known else same.get(name.replace("_", "-"))
        if found:
            return found
        raise ConfigError(
            f"Unknown option '{name}'.",
            expected=f"an option of 'ptychopinn {self.command}'",
            received=f"'{name}' on the command line",
            fix=_suggestion(name, known) or f"'ptychopinn {self.command} --help' lists every option",
        )

    def _branches(self) -> list[str]:
        nested = [
            f"{key}.{name}"
            for key, config_type in self.sections.items()
            for name, kind in fields_of(config_type).items()
            if dataclasses.is_dataclass(kind)
        ]
        return [*self.sections, *nested]

    def _read(self, file: str) -> dict[str, Any]:
        values = read_yaml(file)
        for key in [key for key in values if key in self._not_used]:
            logger.info("section '%s' of '%s' is not used: %s", key, file, self._not_used[key])
            del values[key]
        if isinstance(values.get("execution"), dict):
            values["execution"] = modern_fields(values["execution"])
        known: Mapping[str, Any] = fields_of(self._flat) if self._flat else self.sections
        return self._checked(values, known, "", f"file '{file}'")

    def _checked(self, values: Mapping[Any, Any], known: Mapping[str, Any], prefix: str, source: str) -> dict[str, Any]:
        """Return the mapping of a file without empty sections; unknown keys and misplaced values are errors."""
        checked: dict[str, Any] = {}
        for key, value in values.items():
            name = f"{prefix}{key}"
            if key not in known:
                raise ConfigError(
                    f"Unknown configuration key '{name}'.",
                    expected=f"one of the keys that 'ptychopinn {self.command} --print_config' prints",
                    received=f"'{name}' in {source}",
                    fix=_suggestion(name, self._field_names()) or "remove the key",
                )
            if not dataclasses.is_dataclass(known[key]):
                checked[key] = value
            elif isinstance(value, dict):
                checked[key] = self._checked(value, fields_of(typing.cast(Any, known[key])), f"{name}.", source)
            elif value is not None:
                raise ConfigError(
                    f"Configuration key '{name}' is a section.",
                    expected="key: value lines below it",
                    received=f"{value!r} in {source}",
                    fix=f"'ptychopinn {self.command} --print_config' prints a complete file",
                )
        return checked

    def _action(self, dest: str) -> Any:
        return next(action for action in self.parser._actions if action.dest == dest)

    def _field_names(self) -> list[str]:
        if self._flat:
            return list(fields_of(self._flat))
        return [action.dest for action in self.parser._actions if "." in action.dest] + list(self.sections)

    def _refuse(self, message: str, source: str) -> NoReturn:
        key, value = KEY.search(message), VALUE.search(message)
        if key is None or value is None:
            raise ConfigError(
                "The command line cannot be read.",
                expected=f"ptychopinn {self.command} {self.usage}",
                received=" ".join(message.split()),
                fix=f"'ptychopinn {self.command} --help' lists every option",
            )
        kind = str(self._action(key[1]).metavar)
        choices = [] if kind in WORDS else kind.strip("{}").split(",")
        raise ConfigError(
            f"'{key[1]}' cannot take this value.",
            expected=WORDS.get(kind) or f"one of {', '.join(choices)}",
            received=f"{value[1]!r} from {source}",
            fix=_suggestion(value[1], choices) or f"'ptychopinn {self.command} --help' says what it means",
        )


def _merge(base: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def is_old_value(option: str, value: str) -> bool:
    """Whether a value of an execution setting has another spelling today."""
    return value in VALUES.get(option.rpartition(".")[2], {})


def _suggestion(name: str, known: Sequence[str]) -> str:
    # The last part decides: '--nepoch' is near to '--training.nepochs', though most of the letters are missing.
    last = {option.rpartition(".")[2].lstrip("-"): option for option in known}
    wanted = name.rpartition(".")[2].lstrip("-")
    nearest = last.get(wanted) or nearest_name(name, known) or last.get(nearest_name(wanted, last) or "")
    return f"did you mean '{nearest}'?" if nearest else ""
