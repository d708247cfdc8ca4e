"""Curves of a live view: losses over the epochs, and the error over the iterations, as plain values."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

MAX_BYTES = 20_000_000  # of a metrics file; a longer one is read up to here
MAX_POINTS, MAX_CURVES = 1000, 12
Curve = dict[str, Any]  # "name", "x", "y": lists of numbers; None for a value that is not finite


def history_of(file: Path) -> list[dict[str, float]] | None:
    """
    Return the complete lines of a metrics file, one dict per epoch; None for a file that cannot be read.

    The last line may be half written, because an epoch is being appended. Other lines of another form are left out.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES)
    except (OSError, ValueError):
        return None
    complete = content[: content.rfind(b"\n") + 1].decode("utf-8", "replace")
    try:
        rows = list(csv.reader(complete.splitlines()))
    except csv.Error:
        return None
    names = rows[0] if rows else []
    found = (_numbers(names, row) for row in rows[1:] if len(row) == len(names))
    return [row for row in found if row]


def loss_curves(history: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Return the losses of a history: keys that end in ``_loss``, over the epoch, or over 1, 2, 3 … without it."""
    names = list(dict.fromkeys(key for epoch in history for key in epoch if str(key).endswith("_loss")))[:MAX_CURVES]
    epochs = [epoch.get("epoch", number) for number, epoch in enumerate(history, 1)]
    return [_curve(name, epochs, [epoch.get(name) for epoch in history]) for name in names]


def error_curves(recorded: Sequence[Mapping[str, Any]], errors: Iterable[float]) -> list[Curve]:
    """
    Return the error over the iterations: of every stage of a running command, else that of the image.

    Parameters
    ----------
    recorded : sequence of dict
        Entries "stage", "done" and "error" of a :class:`~ptycho_backend.live.record.ProgressRecord`.
    errors : float, one per iteration
    """
    stages = list(dict.fromkeys(str(entry.get("stage")) for entry in recorded))[:MAX_CURVES]
    if not stages:
        values = list(errors)
        return [_curve("error", list(range(1, len(values) + 1)), values)] if values else []
    of_stage = {stage: [entry for entry in recorded if str(entry.get("stage")) == stage] for stage in stages}
    return [
        _curve(name, [entry.get("done") for entry in some], [entry.get("error") for entry in some])
        for name, some in of_stage.items()
    ]


def _numbers(names: Sequence[str], row: Sequence[str]) -> dict[str, float]:
    """Return a line of the file by name; {} for a text that is no number."""
    try:
        return {name: float(text) for name, text in zip(names, row, strict=True) if text}
    except ValueError:
        return {}


def _curve(name: str, x: Sequence[Any], y: Sequence[Any]) -> Curve:
    """Return a curve of at most 1000 points."""
    step = max(1, -(-len(x) // MAX_POINTS))
    return {"name": name, "x": [_finite(value) for value in x[::step]], "y": [_finite(value) for value in y[::step]]}


def _finite(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None
