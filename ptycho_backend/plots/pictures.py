"""
Pictures of results, written as PNG files (spec: metrics 7).

Figures are objects of their own: neither pyplot nor any global setting is touched, so pictures can be drawn
in threads and next to a host application's own plots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.output import atomic_path
from ptycho_backend.errors import DataError
from ptycho_backend.quality.metrics import Comparison
from ptycho_backend.solver.registration import fit_plane, level

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Real = NDArray[np.float64]
Extent = tuple[float, float, float, float]
Limits = tuple[float, float]
Draw = Callable[["Axes", Real, Extent, Limits], None]

DPI = 150
MOST_DRAWN_PX = 2048  # of a side; every second, third … pixel of a larger object is drawn
ROBUST_PERCENT = (0.5, 99.5)  # a few wild pixels at the rim must not set the grey scale
WRAPPING_SPAN_RAD = 1.6 * np.pi  # phases that fill more than this are drawn on a circle of colours
NO_DATA = "#d9d9d9"
SMALL, NORMAL, LARGE = 8, 9, 11


def plot_object(
    path: Path | str,
    obj: NDArray[Any],
    origin_px: tuple[float, float] = (0.0, 0.0),
    pixel_size_m: tuple[float, float] | None = None,
    title: str = "",
) -> None:
    """
    Draw amplitude and phase of an object side by side.

    Piston and ramp of the phase are removed for the picture, and the picture says so. Pixels of exactly 0,
    which no pattern has seen, stay light grey.

    Parameters
    ----------
    path : path
        PNG file; replaced as a whole.
    obj : complex, shape (y, x)
    origin_px : (float, float), pixels, (y, x)
        Scan coordinates of pixel (0, 0).
    pixel_size_m : (float, float), optional
        (y, x), metres; None labels the axes in pixels.
    title : str
    """
    step = max(1, -(-max(np.shape(obj)) // MOST_DRAWN_PX))  # a picture has fewer pixels anyway
    wide = np.asarray(obj[::step, ::step], dtype=np.complex128)
    plane = fit_plane(wide)
    seen = np.abs(wide) > 0
    extent, unit = extent_of(np.shape(obj), origin_px, pixel_size_m)
    figure = new_figure(10.0, 4.8, title)
    left, right = figure.subplots(1, 2)
    _amplitude(left, np.where(seen, np.abs(wide), np.nan), extent)
    _phase(right, np.where(seen, np.angle(level(wide, plane)), np.nan), extent)
    left.set_title("Amplitude", fontsize=NORMAL)
    right.set_title(
        f"Phase, rad\npiston removed, and a ramp of y {plane[1] / step:+.1e}, x {plane[2] / step:+.1e} rad/px",
        fontsize=NORMAL,
    )
    for axes in (left, right):
        axes.set_xlabel(f"x, {unit}", fontsize=SMALL)
        axes.set_ylabel(f"y, {unit}", fontsize=SMALL)
    write_figure(figure, path)


def plot_image(path: Path | str, values: NDArray[Any], title: str, is_phase: bool = False) -> None:
    """
    Draw one real image.

    Parameters
    ----------
    path : path
        PNG file; replaced as a whole.
    values : float, shape (y, x)
    title : str
    is_phase : bool
        Values are radians.
    """
    extent, unit = extent_of(values.shape, (0.0, 0.0), None)
    figure = new_figure(5.4, 4.8, title)
    axes = figure.subplots()
    (_phase if is_phase else _amplitude)(axes, np.asarray(values, dtype=np.float64), extent)
    axes.set_xlabel(f"x, {unit}", fontsize=SMALL)
    axes.set_ylabel(f"y, {unit}", fontsize=SMALL)
    write_figure(figure, path)


def plot_probe(path: Path | str, probe: NDArray[Any], title: str = "") -> None:
    """
    Draw every mode of a probe: brightness is amplitude, hue is phase.

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
    figure = new_figure(2.9 * columns + 0.9, 3.0 * rows + 0.4, title)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for number, axes in enumerate(panels):
        if number >= len(modes):
            axes.set_axis_off()
            continue
        axes.imshow(_hue_and_brightness(modes[number]), interpolation="nearest")
        share = energy[number] / max(float(energy.sum()), 1e-300)
        axes.set_title(f"Mode {number + 1}: {share:.1%} of the photons", fontsize=NORMAL)
        axes.tick_params(labelsize=SMALL)
    _phase_bar(figure, list(panels))
    write_figure(figure, path)


def plot_losses(
    path: Path | str, history: Sequence[Mapping[str, Any]], floor: float | None = None, title: str = ""
) -> None:
    """
    Draw every training and validation loss, and the learning rate, over the epochs.

    Parameters
    ----------
    path : path
        PNG file; replaced as a whole.
    history : list of dict
        One per epoch: ``epoch``, any keys that end in ``_loss``, and ``lr``.
    floor : float, optional
        Loss of a perfect model: what photon noise leaves.
    title : str

    Raises
    ------
    DataError
        If the history holds no epoch or no loss.
    """
    names = list(dict.fromkeys(key for epoch in history for key in epoch if key.endswith("_loss")))
    if not names:
        raise DataError(
            "A loss curve needs losses.",
            expected="a list of dicts with keys such as 'poisson_train_loss'",
            received=f"{len(history)} epochs with the keys {sorted({key for e in history for key in e})}",
            fix="pass run.history after training",
        )
    figure = new_figure(7.0, 4.2, title)
    axes = figure.subplots()
    kinds = list(dict.fromkeys(name.replace("_val_", "_train_") for name in names))
    for name in names:
        number = 2 * kinds.index(name.replace("_val_", "_train_")) + ("_val_" in name)
        _loss_curve(axes, history, name, f"C{number}")
    if floor is not None:
        axes.axhline(floor, color="0.35", linestyle=":", label=f"shot-noise floor ({floor:.3g})")
    _label_losses(axes)
    _learning_rate(axes, history)
    write_figure(figure, path)


def plot_comparison(path: Path | str, comparison: Comparison, title: str = "") -> None:
    """
    Draw reconstruction, truth and difference, in amplitude and phase, and the Fourier ring correlation.

    Parameters
    ----------
    path : path
        PNG file; replaced as a whole.
    comparison : Comparison
        From :func:`ptycho_backend.quality.metrics.compare`; its registered images are drawn.
    title : str
    """
    image, truth = comparison.image, comparison.truth
    top, left_x = comparison.area[:2]
    extent, _ = extent_of(truth.shape, (top, left_x), None)
    figure = new_figure(14.5, 6.9, title)
    grid = figure.add_gridspec(2, 4, width_ratios=(1, 1, 1, 1.15))
    panels = [[figure.add_subplot(grid[row, column]) for column in range(3)] for row in range(2)]
    piston = np.exp(-1j * np.angle(truth.sum()))
    _compared(panels[0], np.abs(image), np.abs(truth), np.abs(image) - np.abs(truth), extent, _amplitude)
    difference = np.angle(image * np.conj(truth))
    _compared(panels[1], np.angle(image * piston), np.angle(truth * piston), difference, extent, _phase)
    _headings(panels, comparison)
    _correlation_curve(figure.add_subplot(grid[0, 3]), comparison)
    _summary(figure.add_subplot(grid[1, 3]), comparison)
    write_figure(figure, path)


def new_figure(width: float, height: float, title: str) -> Figure:
    """Return an empty figure, in inches, that belongs to no global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=LARGE)
    return figure


def write_figure(figure: Figure, path: Path | str) -> None:
    """Write a figure as a PNG file, whole or not at all."""
    with atomic_path(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=DPI)


def extent_of(
    shape: tuple[int, ...], origin_px: tuple[float, float], pixel_size_m: tuple[float, float] | None
) -> tuple[Extent, str]:
    """Return left, right, bottom, top of an image in scan coordinates, and their unit."""
    scale, unit = (1.0, 1.0), "px"
    if pixel_size_m is not None:
        span_m = max(n * size for n, size in zip(shape, pixel_size_m, strict=True))
        factor, unit = (1e6, "µm") if span_m >= 1e-6 else (1e9, "nm")
        scale = (pixel_size_m[0] * factor, pixel_size_m[1] * factor)
    # Integer coordinates are pixel centres, so the picture begins half a pixel before.
    low = [(o - 0.5) * s for o, s in zip(origin_px, scale, strict=True)]
    high = [(o - 0.5 + n) * s for o, n, s in zip(origin_px, shape, scale, strict=True)]
    return (low[1], high[1], high[0], low[0]), unit


def show_map(axes: Axes, values: Real, extent: Extent, colours: str, limits: Limits) -> None:
    """Draw a map with its scale; what is not finite stays light grey."""
    import matplotlib

    colormap = matplotlib.colormaps[colours].with_extremes(bad=NO_DATA)
    low, high = limits
    picture = axes.imshow(values, cmap=colormap, vmin=low, vmax=high, extent=extent, interpolation="nearest")
    bar = axes.figure.colorbar(picture, ax=axes, fraction=0.046, pad=0.02)
    bar.ax.tick_params(labelsize=SMALL)
    axes.tick_params(labelsize=SMALL)


def _amplitude(axes: Axes, values: Real, extent: Extent, limits: Limits | None = None) -> None:
    show_map(axes, values, extent, "gray", limits or _robust(values))


def _phase(axes: Axes, values: Real, extent: Extent, limits: Limits | None = None) -> None:
    low, high = limits or _robust(values)
    if high - low > WRAPPING_SPAN_RAD:
        show_map(axes, values, extent, "twilight", (-np.pi, np.pi))
    else:
        show_map(axes, values, extent, "cividis", (low, high))


def _robust(values: Real) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if known.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(known, ROBUST_PERCENT))
    return (low, high) if high - low > 1e-9 else (low - 0.5, high + 0.5)


def _compared(panels: list[Axes], image: Real, truth: Real, difference: Real, extent: Extent, draw: Draw) -> None:
    limits = _robust(truth)  # one scale for both, or a wrong contrast would not show
    draw(panels[0], image, extent, limits)
    draw(panels[1], truth, extent, limits)
    reach = max(abs(v) for v in _robust(difference))
    show_map(panels[2], difference, extent, "RdBu_r", (-reach, reach))


def _headings(panels: list[list[Axes]], comparison: Comparison) -> None:
    c = comparison
    for axes, text in zip(panels[0], ("Reconstruction", "Truth", "Difference"), strict=True):
        axes.set_title(text, fontsize=LARGE)
    scores = (
        ("Amplitude", f"{c.amplitude_psnr_db:.1f} dB, SSIM {c.amplitude_ssim:.3f}"),
        ("Phase, rad", f"{c.phase_psnr_db:.1f} dB, SSIM {c.phase_ssim:.3f}"),
    )
    for row, (name, score) in zip(panels, scores, strict=True):
        row[0].set_ylabel(f"{name}\n{score}", fontsize=NORMAL)
    for axes in panels[1]:
        axes.set_xlabel("px", fontsize=SMALL)


def _correlation_curve(axes: Axes, comparison: Comparison) -> None:
    axes.plot(comparison.frc_frequency, comparison.frc, color="tab:blue", linewidth=1.6)
    axes.axhline(0.5, color="0.5", linestyle="--", linewidth=1)
    axes.axvline(comparison.frc_half, color="tab:red", linestyle=":", linewidth=1.4)
    axes.set(xlim=(0, 1), ylim=(min(-0.05, float(comparison.frc.min())), 1.05))
    reached = f"0.5 at {comparison.frc_half:.2f} of Nyquist" if comparison.frc_half < 1 else "never below 0.5"
    axes.set_title(f"Fourier ring correlation: {reached}", fontsize=NORMAL)
    axes.set_xlabel("spatial frequency, fraction of Nyquist", fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    axes.grid(alpha=0.25)


def _summary(axes: Axes, comparison: Comparison) -> None:
    import textwrap

    c = comparison
    rows = [
        f"removed shift     {c.shift_px[0]:+.2f}, {c.shift_px[1]:+.2f} px",
        f"removed ramp      {c.ramp_rad_per_px[0]:+.1e}, {c.ramp_rad_per_px[1]:+.1e} rad/px",
        f"amplitude factor  {c.amplitude_scale:.4f}",
        f"correlation       {c.amplitude_correlation:.3f} amplitude, {c.phase_correlation:.3f} phase",
        f"area              {c.area[2]}×{c.area[3]} px from y={c.area[0]:g}, x={c.area[1]:g}",
    ]
    for warning in c.warnings:
        rows += ["", *textwrap.wrap(f"Warning: {warning}", 46)]
    text = "\n".join(rows)
    axes.text(0.0, 0.95, text, family="monospace", fontsize=SMALL, va="top", transform=axes.transAxes)
    axes.set_axis_off()


def _hue_and_brightness(wave: NDArray[np.complex128]) -> Real:
    from matplotlib.colors import hsv_to_rgb

    brightness = np.abs(wave) / max(float(np.abs(wave).max()), 1e-300)
    hue = np.angle(wave) / (2 * np.pi) % 1.0
    return np.asarray(hsv_to_rgb(np.stack([hue, np.ones_like(hue), brightness], axis=-1)))


def _phase_bar(figure: Figure, panels: list[Axes]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    turn = np.exp(1j * np.linspace(-np.pi, np.pi, 256))
    colours = ListedColormap(_hue_and_brightness(turn[None])[0])
    scale = ScalarMappable(Normalize(-np.pi, np.pi), colours)
    bar = figure.colorbar(scale, ax=panels, fraction=0.03, pad=0.02, ticks=[-np.pi, 0, np.pi])
    bar.ax.set_yticklabels(["−π", "0", "π"], fontsize=SMALL)
    bar.set_label("phase", fontsize=SMALL)


def _loss_curve(axes: Axes, history: Sequence[Mapping[str, Any]], name: str, colour: str) -> None:
    epochs = [entry.get("epoch", number + 1) for number, entry in enumerate(history)]
    values = np.array([entry.get(name, np.nan) for entry in history], dtype=np.float64)
    axes.plot(
        epochs,
        values,
        marker="o",
        markersize=3,
        linewidth=1.6,
        linestyle="--" if "_val_" in name else "-",
        color=colour,
        label=name,
    )


def _learning_rate(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    points = [(e.get("epoch", number + 1), e["lr"]) for number, e in enumerate(history) if "lr" in e]
    if points:
        right = axes.twinx()
        right.plot(*zip(*points, strict=True), color="0.7", linewidth=1)
        right.set_ylabel("learning rate", fontsize=SMALL, color="0.5")
        right.tick_params(labelsize=SMALL, colors="0.5")
        right.set_ylim(bottom=0)


def _label_losses(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    curves = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines])
    if (curves[np.isfinite(curves)] > 0).all():
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
