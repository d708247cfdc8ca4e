"""The how-to page of the command line: its examples, commands, files and options exist."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from ptycho_backend.commands import COMMANDS
from ptycho_backend.commands.files import IMAGE_FILES

TEXT = (Path(__file__).parents[2] / "docs/how-to/command-line.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)
EXAMPLES = [line for block in BLOCKS for line in block.splitlines()]


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_parse(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("run.yaml", "runs/first/config.yaml"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("training: {nepochs: 3}", encoding="utf-8")
    program, command, *rest = shlex.split(example)
    assert program == "ptychopinn"
    import_module(f"ptycho_backend.commands.{command}").command_line().parse(rest)


def test_commands_and_files_are_listed():
    assert all(f"| `{command}` |" in TEXT for command in COMMANDS)
    assert all(f"`{name}`" in TEXT for name in (*IMAGE_FILES, "wts.h5.zip", "losses.png"))
    assert len(EXAMPLES) >= 8


def test_named_options_exist():
    named = set(re.findall(r"`(--[\w-]+)", TEXT))
    lines = [import_module(f"ptycho_backend.commands.{command}").command_line() for command in COMMANDS]
    known = {option for line in lines for option in line.options}
    assert named - known == set()
