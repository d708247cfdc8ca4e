"""Pictures of probes and their far fields: brightness is amplitude, hue is phase (spec: metrics 7.5)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.plots import figures
from ptycho_backend.plots.figures import NORMAL, SMALL, Pair, Real, extent_of, label_axes
from ptycho_backend.plots.scale_bar import draw_scale_bar
from ptycho_backend.runtime.quantities import length_unit, mode_shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MODES_PER_ROW = 4


def draw_mode(axes: Axes, mode: NDArray[Any], pixel_size_m: Pair | None = None) -> Axes:
    """
    Draw one mode of a probe: brightness is amplitude, hue is phase.

    Parameters
    ----------
    axes : Axes
    mode : complex, shape (y, x)
    pixel_size_m : (float, float), optional
        Object pixel (y, x), metres; with it the axes are lengths from the middle, and there is a scale bar.
    """
    axes.set_title("Probe: amplitude as brightness, phase as hue", fontsize=NORMAL)
    if pixel_size_m is None:
        axes.imshow(hue_and_brightness(mode), interpolation="nearest")
        return label_axes(axes, figures.PIXELS)
    origin = (-(mode.shape[0] // 2), -(mode.shape[1] // 2))
    extent, unit = extent_of(mode.shape, origin, pixel_size_m)
    axes.imshow(hue_and_brightness(mode), interpolation="nearest", extent=extent)
    return draw_scale_bar(label_axes(axes, unit), unit)


def draw_far_field(axes: Axes, mode: NDArray[Any], pixel_size_m: Pair | None = None) -> Axes:
    """
    Draw the far field of one mode, as the detector sees it without a sample: brightness is amplitude, hue is phase.

    Parameters
    ----------
    axes : Axes
    mode : complex, shape (y, x)
    pixel_size_m : (float, float), optional
        Object pixel (y, x), metres; with it the axes are spatial frequencies.
    """
    wave = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(np.asarray(mode, dtype=np.complex128)), norm="ortho"))
    origin = (-(wave.shape[0] // 2), -(wave.shape[1] // 2))
    if pixel_size_m is None:
        extent, unit = extent_of(wave.shape, origin, None)
    else:
        name, size_m = length_unit(2 * max(pixel_size_m))
        step = [size_m / (n * pixel) for n, pixel in zip(wave.shape, pixel_size_m, strict=True)]
        (left, right, bottom, top), _ = extent_of(wave.shape, origin, None)
        extent, unit = (left * step[1], right * step[1], bottom * step[0], top * step[0]), f"1/{name}"
    axes.imshow(hue_and_brightness(wave), interpolation="nearest", extent=extent)
    return label_axes(axes, unit)


def probe_figure(probe: NDArray[Any], title: str = "", pixel_size_m: Pair | None = None) -> Figure:
    """
    Return a figure of every mode with its share of the photons, and of the far field of the first one.

    Parameters
    ----------
    probe : complex, shape (mode, y, x) or (y, x)
    title : str
    pixel_size_m : (float, float), optional
        Object pixel (y, x), metres; None labels the axes in pixels.

    Returns
    -------
    Figure
    """
    modes = np.asarray(probe, dtype=np.complex128).reshape(-1, *np.shape(probe)[-2:])
    shares = mode_shares(modes)
    n_panels = len(modes) + 1
    columns = min(MODES_PER_ROW, n_panels)
    rows = -(-n_panels // columns)
    figure = figures.new_figure(3.1 * columns + 0.7, 3.1 * rows + 0.4, title)
    panels = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for number, (axes, mode) in enumerate(zip(panels, modes, strict=False)):
        draw_mode(axes, mode, pixel_size_m)
        axes.set_title(f"Mode {number + 1}: {shares[number]:.1%} of the photons", fontsize=NORMAL)
    draw_far_field(panels[len(modes)], modes[0], pixel_size_m).set_title("Far field of mode 1", fontsize=NORMAL)
    for axes in panels[n_panels:]:
        axes.set_axis_off()
    _phase_bar(figure, panels)
    return figure


def plot_probe(path: Path | str, probe: NDArray[Any], title: str = "", pixel_size_m: Pair | None = None) -> None:
    """
    Write a picture of a probe.

    Parameters
    ----------
    path : path
        PNG file; replaced as a whole.
    probe, title, pixel_size_m
        Parameters of :func:`probe_figure`.
    """
    figures.write_figure(probe_figure(probe, title, pixel_size_m), path)


def hue_and_brightness(wave: NDArray[Any]) -> Real:
    """Return a complex image as colours (y, x, 3) from 0 to 1: brightness is amplitude, hue is phase (red: 0)."""
    from matplotlib.colors import hsv_to_rgb

    brightness = np.abs(wave) / max(float(np.abs(wave).max()), 1e-300)
    hue = np.angle(wave) / (2 * np.pi) % 1.0
    return np.asarray(hsv_to_rgb(np.stack([hue, np.ones_like(hue), brightness], axis=-1)))


def _phase_bar(figure: Figure, panels: list[Axes]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    unit_circle = np.exp(1j * np.linspace(-np.pi, np.pi, 256))
    colours = ListedColormap(hue_and_brightness(unit_circle[None])[0])
    scale = ScalarMappable(Normalize(-np.pi, np.pi), colours)
    bar = figure.colorbar(scale, ax=panels, fraction=0.03, pad=0.02, ticks=[-np.pi, 0, np.pi])
    bar.ax.set_yticklabels(["−π", "0", "π"], fontsize=SMALL)
    bar.set_label("phase, rad; brightness is amplitude", fontsize=SMALL)
