"""Clocks, tables, files and command-line values that the benchmarks share."""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ptycho_backend.model_file.run import write_json
from ptycho_backend.runtime.devices import processors

Result = TypeVar("Result")


@dataclass(frozen=True)
class Clock:
    """Wall time and processor time of this process, seconds."""

    wall_s: float
    cpu_s: float

    @staticmethod
    def now() -> Clock:
        """Read both clocks."""
        return Clock(time.perf_counter(), time.process_time())

    @property
    def elapsed(self) -> Clock:
        """Times since this reading."""
        now = Clock.now()
        return Clock(now.wall_s - self.wall_s, now.cpu_s - self.cpu_s)


def timed(function: Callable[[], Result]) -> tuple[Result, Clock]:
    """Call a function; return its result and its times."""
    started = Clock.now()
    result = function()
    return result, started.elapsed


def machine() -> dict[str, Any]:
    """Return system, processor and number of processors."""
    return {"system": platform.platform(), "processor": processor(), "cores": os.cpu_count(), "usable": processors()}


def processor() -> str:
    """Return the processor's name, or its architecture where the system gives no name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def markdown_row(cells: Iterable[Any]) -> str:
    """Return one row of a Markdown table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def markdown_head(columns: Sequence[str]) -> str:
    """Return the first two rows of a Markdown table."""
    return f"{markdown_row(columns)}\n|{'---|' * len(columns)}"


def save_json(path: Path, report: dict[str, Any]) -> None:
    """Write figures as JSON, in a new folder if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, report)


def key_value(text: str) -> tuple[str, Any]:
    """
    Read "key=value" from the command line, the value as YAML.

    Raises
    ------
    argparse.ArgumentTypeError
        Without a key and "=".
    """
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise argparse.ArgumentTypeError(f"expected key=value, received {text!r}")
    return key, yaml.safe_load(value)
