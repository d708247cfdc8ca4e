"""Loss curves: training and validation losses, shot-noise floor and learning rate over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_backend.errors import DataError
from ptycho_backend.plots import figures
from ptycho_backend.plots.figures import NORMAL, SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

History = Sequence[Mapping[str, Any]]


def plot_losses(path: Path | str, history: History, floor: float | None = None, title: str = "") -> None:
    """
    Draw every training and validation loss, and the learning rate, over the epochs.

    Parameters
    ----------
    path : path
        PNG file; replaced as a whole.
    history : list of dict
        One per epoch: ``epoch``, any keys that end in ``_loss``, and ``lr``.
    floor : float, optional
        Loss of a perfect model, which photon noise alone causes.
    title : str

    Raises
    ------
    DataError
        If the history holds no epoch or no loss.
    """
    figure = figures.new_figure(7.0, 4.2, title)
    draw_losses(figure.subplots(), history, floor)
    figures.write_figure(figure, path)


def draw_losses(axes: Axes, history: History, floor: float | None = None) -> Axes:
    """Draw the losses of a history on the left axis and the learning rate on a new right axis."""
    names = list(dict.fromkeys(key for epoch in history for key in epoch if key.endswith("_loss")))
    if not names:
        raise DataError(
            "A loss curve needs losses.",
            expected="a list of dicts with keys such as 'poisson_train_loss'",
            received=f"{len(history)} epochs with the keys {sorted({key for e in history for key in e})}",
            fix="pass run.history after training",
        )
    kinds = list(dict.fromkeys(name.replace("_val_", "_train_") for name in names))
    for name in names:
        number = 2 * kinds.index(name.replace("_val_", "_train_")) + ("_val_" in name)
        _loss_curve(axes, history, name, f"C{number}")
    if floor is not None:
        axes.axhline(floor, color="0.35", linestyle=":", label=f"shot-noise floor ({floor:.3g})")
    _label_losses(axes)
    _learning_rate(axes, history)
    return axes


def _loss_curve(axes: Axes, history: History, name: str, colour: str) -> None:
    epochs = [entry.get("epoch", number) for number, entry in enumerate(history, 1)]
    values = np.array([entry.get(name, np.nan) for entry in history], dtype=np.float64)
    style = "--" if "_val_" in name else "-"
    axes.plot(epochs, values, marker="o", markersize=3, linewidth=1.6, linestyle=style, color=colour, label=name)


def _learning_rate(axes: Axes, history: History) -> None:
    points = [(entry.get("epoch", number), entry["lr"]) for number, entry in enumerate(history, 1) if "lr" in entry]
    if points:
        right = axes.twinx()
        right.plot(*zip(*points, strict=True), color="0.7", linewidth=1)
        right.set_ylabel("learning rate", fontsize=SMALL, color="0.5")
        right.tick_params(labelsize=SMALL, colors="0.5")
        right.set_ylim(bottom=0)


def _label_losses(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    values = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines])
    if (values[np.isfinite(values)] > 0).all():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("epoch", fontsize=NORMAL)
    axes.set_ylabel("loss", fontsize=NORMAL)
    axes.tick_params(labelsize=SMALL)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25, which="both")
    axes.legend(fontsize=SMALL, frameon=False)
