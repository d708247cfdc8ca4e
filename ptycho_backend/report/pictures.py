"""Zoomable pictures of a report: object, probe modes, residuals at their positions, ring correlations and errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.image import Image
from ptycho_backend.plots.figures import Extent, Limits, Pair, Real, extent_of, robust_limits, scale_of
from ptycho_backend.plots.objects import WRAPPING_SPAN_RAD, view_of
from ptycho_backend.plots.positions import residual_limits
from ptycho_backend.report.frames import (
    Picture,
    Ranges,
    add_colour_bar,
    curve_figure,
    follow,
    map_figure,
    map_ranges,
    plain,
    put_legend_below,
)
from ptycho_backend.report.pixels import MAX_BYTES, Pixels, hex_palette, map_pixels, wave_pixels
from ptycho_backend.runtime.quantities import RESOLVED, RESOLVED_BY_HALVES, length_unit

MAX_MODES = 6
MODE_BYTES = 40_000
MAX_MARKS = 10_000  # drawn positions
COLOURS = ("#1f77b4", "#d95f02", "#1b7837", "#7b3294", "#8c510a", "#636363")
DASHES = ("solid", "dashed", "dotdash", "dotted")
PERIOD_TICKS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)  # fractions of Nyquist with a label in lengths


class Maps(NamedTuple):
    """
    Amplitude and phase of the illuminated part of an object, without piston and ramp.

    Parameters
    ----------
    amplitude, phase : float64, shape (y, x)
        NaN outside of the patterns; the phase in rad.
    extent : (float, float, float, float)
        Left, right, bottom, top in the unit of the axes.
    unit : str
    """

    amplitude: Real
    phase: Real
    extent: Extent
    unit: str


def maps_of(image: Image) -> Maps:
    """Return amplitude and phase of an image in scan coordinates."""
    view = view_of(image.obj, image.coverage, image.origin_px, image.pixel_size_m, max_px=max(image.shape))
    levelled, _ = view.levelled()
    amplitude, phase = (np.where(view.covered, values, np.nan) for values in (np.abs(levelled), np.angle(levelled)))
    return Maps(amplitude, phase, view.extent, view.unit)


def object_pictures(
    maps: Maps, ranges: Ranges, limits: tuple[Limits, Limits] | None = None, max_bytes: int = MAX_BYTES
) -> list[Picture]:
    """
    Return pictures of amplitude and phase that zoom together.

    Parameters
    ----------
    maps : Maps
    ranges : Ranges
    limits : pair of (float, float), optional
        Ends of the colour scales of amplitude and phase, rad; None takes the 0.5th and the 99.5th percentile.
    max_bytes : int
        Largest size of one picture.
    """
    from bokeh.models import LinearColorMapper

    of_amplitude, of_phase = limits or (robust_limits(maps.amplitude), robust_limits(maps.phase))
    colours = "cividis"
    if of_phase[1] - of_phase[0] > WRAPPING_SPAN_RAD:
        colours, of_phase = "twilight", (-np.pi, np.pi)
    pictures = []
    for title, values, scale, name, label in (
        ("Amplitude", maps.amplitude, of_amplitude, "gray", "no unit"),
        ("Phase", maps.phase, of_phase, colours, "rad, without constant and ramp"),
    ):
        pixels = map_pixels(values, name, scale, max_bytes)
        figure = map_figure(maps.unit, ranges)
        _place(figure, pixels, maps.extent)
        mapper = LinearColorMapper(palette=hex_palette(name), low=scale[0], high=scale[1])
        add_colour_bar(figure, mapper, f"{title.lower()}, {label}")
        height, width = values.shape
        text = f"{title} of the object, {height} × {width} px{_factor_text(pixels)}."
        pictures.append(Picture(title, figure, text, f"{text} From {scale[0]:.3g} to {scale[1]:.3g} {label}."))
    return pictures


def probe_pictures(image: Image) -> list[Picture]:
    """Return pictures of the probe modes that zoom together; [] without a probe."""
    if image.probe is None or image.probe_shares is None or not image.probe.size:
        return []
    ranges, pictures = map_ranges(), []
    for number, (mode, share) in enumerate(zip(image.probe[:MAX_MODES], image.probe_shares, strict=False), 1):
        origin = -float(mode.shape[0] // 2), -float(mode.shape[1] // 2)
        extent, unit = extent_of(mode.shape, origin, image.pixel_size_m)
        pixels = wave_pixels(mode, MODE_BYTES)
        figure = map_figure(unit, ranges)
        _place(figure, pixels, extent)
        title = f"Probe mode {number}: {share:.1%} of the photons"
        height, width = mode.shape
        text = f"{height} × {width} px{_factor_text(pixels)}. Brightness is amplitude, hue is phase (red: 0)."
        pictures.append(Picture(title, figure, text, f"{title}. {text}"))
    return pictures


def residual_picture(
    image: Image, assessment: Mapping[str, Any], ranges: Ranges, shape: tuple[int, ...]
) -> Picture | None:
    """Return a map of the residual of every pattern over its shot noise; None without an assessment."""
    from bokeh.models import ColumnDataSource, HoverTool, LogColorMapper

    positions_px = image.positions_px
    residual, floor = (_numbers(assessment.get(f"{name}_per_pattern")) for name in ("residual", "floor"))
    if positions_px is None or not len(residual) or not len(residual) == len(floor) == len(positions_px):
        return None
    ratio = residual / np.maximum(floor, 1e-30)
    numbers = _numbers(assessment.get("numbers")) if assessment.get("numbers") else np.arange(len(ratio))
    scale, unit = scale_of(shape, image.pixel_size_m)
    y, x = (positions_px * scale).T
    drawn = _rows_to_draw(ratio)
    values = {"x": x, "y": y, "ratio": ratio}
    source = {name: array[drawn].astype(np.float32) for name, array in values.items()}
    low, high = residual_limits(ratio)
    mapper = LogColorMapper(palette=hex_palette("viridis"), low=low, high=high)
    figure = map_figure(unit, ranges)
    spacing = float(np.sqrt(max(np.ptp(x), 1e-30) * max(np.ptp(y), 1e-30) / len(drawn)))
    data = ColumnDataSource({**source, "number": numbers[drawn].astype(np.int32)})
    marks = figure.circle("x", "y", radius=0.45 * spacing, source=data, line_color=None)
    follow(figure, marks)
    marks.glyph.fill_color = {"field": "ratio", "transform": mapper}
    figure.add_tools(HoverTool(tooltips=[("pattern", "@number"), ("residual / shot noise", "@ratio{0.00}")]))
    add_colour_bar(figure, mapper, "residual over shot noise")
    part = "" if len(drawn) == len(ratio) else f"; {len(drawn)} are drawn, with all of the largest residuals"
    text = f"Residuals of {len(ratio)} patterns at their positions{part}. 1 is a perfect image."
    return Picture(
        "Residual of each pattern", figure, text, f"{text} Median {np.median(ratio):.3g}, largest {ratio.max():.3g}."
    )


def correlation_picture(curves: Mapping[str, tuple[Any, Any]], pixel_size_m: Pair | None) -> Picture | None:
    """
    Return a picture of Fourier ring correlations, with periods as lengths where the pixel is known.

    Parameters
    ----------
    curves : mapping of str to (frequency, correlation)
        Each of shape (ring,); the frequency as a fraction of Nyquist.
    pixel_size_m : (float, float), optional
        Object pixel (y, x), metres.
    """
    from bokeh.models import Range1d, Span

    shown = {name: (_numbers(one), _numbers(other)) for name, (one, other) in curves.items()}
    shown = {name: curve for name, curve in shown.items() if len(curve[0]) == len(curve[1]) > 0}
    if not shown:
        return None
    lowest = min(-0.1, *(float(np.nanmin(correlation, initial=0.0)) for _, correlation in shown.values()))
    figure = curve_figure("fraction of Nyquist", "correlation", x_range=Range1d(0, 1), y_range=Range1d(lowest, 1.05))
    for style, (name, (frequency, correlation)) in enumerate(shown.items()):
        colour, dash = COLOURS[style % len(COLOURS)], DASHES[style % len(DASHES)]
        label = plain(name)
        figure.line(frequency, correlation, line_width=2, color=colour, line_dash=dash, legend_label=label)
    for place in (RESOLVED, RESOLVED_BY_HALVES):
        figure.add_layout(Span(location=place, dimension="width", line_color="#777777", line_dash="dotted"))
    put_legend_below(figure)
    if pixel_size_m is not None:
        _add_period_axis(figure, pixel_size_m)
    text = (
        f"Agreement for each spatial frequency: {', '.join(shown)}. Dotted: 0.5 (with a known object) and 1/7 (halves)."
    )
    return Picture("Fourier ring correlation", figure, text, text)


def history_picture(curves: Mapping[str, Sequence[float]], x_label: str, y_label: str) -> Picture | None:
    """Return a picture of errors or losses over iterations or epochs, logarithmic if all are above 0."""
    shown = {name: _numbers(values) for name, values in curves.items() if len(values)}
    if not shown:
        return None
    finite = np.concatenate([values[np.isfinite(values)] for values in shown.values()])
    title = f"{y_label.capitalize()} over the {x_label}s"
    figure = curve_figure(x_label, y_label, logarithmic=bool(finite.size and (finite > 0).all()))
    for style, (name, values) in enumerate(shown.items()):
        steps, colour = np.arange(1, len(values) + 1), COLOURS[style % len(COLOURS)]
        label = {"legend_label": plain(name)} if len(shown) > 1 else {}
        dash = DASHES[style % len(DASHES)]
        figure.line(steps, values, line_width=2, color=colour, line_dash=dash, **label)
        figure.scatter(steps, values, size=4, color=colour, **label)
    last = ", ".join(f"{name} {values[-1]:.3g}" for name, values in shown.items())
    put_legend_below(figure)
    text = f"{title}. At the end: {last}."
    return Picture(title, figure, text, text)


def _place(figure: Any, pixels: Pixels, extent: Extent) -> None:
    """Draw a picture over its extent; a quad without colour gives the ranges of the figure their data."""
    from bokeh.models import ColumnDataSource

    left, right, bottom, top = extent
    follow(figure, figure.quad(left=left, right=right, bottom=bottom, top=top, fill_alpha=0, line_alpha=0))
    source = ColumnDataSource({"url": [pixels.address]})
    figure.image_url(url="url", x=left, y=top, w=right - left, h=bottom - top, anchor="top_left", source=source)


def _add_period_axis(figure: Any, pixel_size_m: Pair) -> None:
    """Add an upper axis with the periods of some frequencies; the longer side of a pixel counts."""
    from bokeh.models import FixedTicker, LinearAxis

    nyquist_m = 2 * max(pixel_size_m)
    unit, size_m = length_unit(nyquist_m)
    labels = {fraction: f"{nyquist_m / fraction / size_m:.3g}" for fraction in PERIOD_TICKS}
    ticker = FixedTicker(ticks=list(PERIOD_TICKS))
    axis = LinearAxis(ticker=ticker, axis_label=f"period, {unit}", major_label_overrides=labels)
    axis.axis_label_text_font_style = "normal"
    figure.add_layout(axis, "above")


def _rows_to_draw(ratio: Real) -> NDArray[np.intp]:
    """Return the numbers of the positions to draw: all, or the largest residuals and evenly spread others."""
    if len(ratio) <= MAX_MARKS:
        return np.arange(len(ratio))
    largest = np.argsort(-ratio)[: MAX_MARKS // 10]
    spread = np.linspace(0, len(ratio) - 1, MAX_MARKS - len(largest)).astype(np.intp)
    return np.union1d(largest, spread)


def _factor_text(pixels: Pixels) -> str:
    return "" if pixels.factor == 1 else f", drawn as means of {pixels.factor} × {pixels.factor} px"


def _numbers(values: Any) -> Real:
    """Return a list of JSON as numbers, float64, shape (entry,); null becomes NaN."""
    if values is None:
        return np.zeros(0)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
