"""Pictures of probes: brightness is amplitude, hue is phase."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.plots import figures
from ptycho_backend.plots.figures import NORMAL, SMALL, Real

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_probe(path: Path | str, probe: NDArray[Any], title: str = "") -> None:
    """
    Draw every mode of a probe with its share of the photons.

    Parameters
    ----------
    path : path
        PNG file; replaced as a whole.
    probe : complex, shape (mode, y, x) or (y, x)
    title : str
    """
    modes = np.asarray(probe, dtype=np.complex128).reshape(-1, *np.shape(probe)[-2:])
    energy = (np.abs(modes) ** 2).sum(axis=(1, 2))
    columns = min(4, len(modes))
    rows = -(-len(modes) // columns)
    figure = figures.new_figure(2.9 * columns + 0.9, 3.0 * rows + 0.4, title)
    panels = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for number, (axes, mode) in enumerate(zip(panels, modes, strict=False)):
        share = energy[number] / max(float(energy.sum()), 1e-300)
        draw_mode(axes, mode).set_title(f"Mode {number + 1}: {share:.1%} of the photons", fontsize=NORMAL)
    for axes in panels[len(modes) :]:
        axes.set_axis_off()
    _phase_bar(figure, panels)
    figures.write_figure(figure, path)


def draw_mode(axes: Axes, mode: NDArray[np.complex128]) -> Axes:
    """Draw one mode (y, x): brightness is amplitude, hue is phase."""
    axes.imshow(_hue_and_brightness(mode), interpolation="nearest")
    axes.tick_params(labelsize=SMALL)
    return axes


def _hue_and_brightness(wave: NDArray[np.complex128]) -> Real:
    from matplotlib.colors import hsv_to_rgb

    brightness = np.abs(wave) / max(float(np.abs(wave).max()), 1e-300)
    hue = np.angle(wave) / (2 * np.pi) % 1.0
    return np.asarray(hsv_to_rgb(np.stack([hue, np.ones_like(hue), brightness], axis=-1)))


def _phase_bar(figure: Figure, panels: list[Axes]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    unit_circle = np.exp(1j * np.linspace(-np.pi, np.pi, 256))
    colours = ListedColormap(_hue_and_brightness(unit_circle[None])[0])
    scale = ScalarMappable(Normalize(-np.pi, np.pi), colours)
    bar = figure.colorbar(scale, ax=panels, fraction=0.03, pad=0.02, ticks=[-np.pi, 0, np.pi])
    bar.ax.set_yticklabels(["−π", "0", "π"], fontsize=SMALL)
    bar.set_label("phase", fontsize=SMALL)
