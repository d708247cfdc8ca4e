"""The commands of ``ptychopinn``, one module each with `command_line()` and `run(options, terminal, line)`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

COMMANDS = {
    "import": "make a scan file from files of any layout",
    "simulate": "simulate a scan with a known object",
    "train": "train a model on a scan, and reconstruct the scan with it",
    "reconstruct": "reconstruct a scan, with the shipped network or a trained model",
    "evaluate": "compare a reconstruction with the known object or another one",
    "compare": "compare several runs on one page",
    "info": "describe a scan, a model or a reconstruction",
    "watch": "show image, losses and messages of a run in a browser",
    "convert": "convert a model archive of PtychoPINN",
    "migrate": "translate a configuration of PtychoPINN",
    "backends": "list the engines and their devices",
    "parity": "compare the engines with the reference",
}
MODULES = {"import": "import_scan"}  # of commands whose name cannot be that of a module


def command_module(command: str) -> Any:
    """Return the module of a command."""
    return import_module(f"ptycho_backend.commands.{MODULES.get(command, command)}")
