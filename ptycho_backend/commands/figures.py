"""Figures for the terminal: tables of rows, comparisons and assessments, durations and sentences."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ptycho_backend.quality.metrics import Comparison
from ptycho_backend.runtime.quantities import period_text, resolution_text

if TYPE_CHECKING:
    from rich.table import Table

    from ptycho_backend.quality.assessment import Assessment
    from ptycho_backend.runtime.progress import Terminal

NAME_COLUMN, MIN_VALUE_COLUMN = 22, 40
SCORES = {"amplitude_psnr_db": "the amplitude", "phase_psnr_db": "the phase"}


def show_rows(terminal: Terminal, title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Show names and values in two columns; the second wraps between words, never inside a hash or path."""
    from rich.text import Text

    width = max(terminal.out.width - NAME_COLUMN, MIN_VALUE_COLUMN)
    text = Text.assemble((title, "bold"))
    for name, value in rows:
        lines = textwrap.wrap(value, width, break_long_words=False, break_on_hyphens=False)
        text.append("\n").append(name.ljust(NAME_COLUMN), "cyan")
        text.append(("\n" + " " * NAME_COLUMN).join(lines))
    terminal.show(text)


def comparison_table(title: str, comparisons: Mapping[str, Comparison]) -> Table:
    """Return a table with one line for every comparison."""
    from rich.table import Table

    table = Table(title=title, box=None, title_justify="left", title_style="bold", pad_edge=False, header_style="cyan")
    table.add_column("", no_wrap=True, min_width=NAME_COLUMN - 1)
    periods = {name: c.resolution_m for name, c in comparisons.items()}
    frequency = "FRC 0.5 at\nof Nyquist  period" if any(periods.values()) else "FRC 0.5 at\n(of Nyquist)"
    for heading in ("amplitude\nPSNR  SSIM", "phase\nPSNR  SSIM", frequency):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, c in comparisons.items():
        amplitude = f"{number(c.amplitude_psnr_db, '.1f')} dB  {number(c.amplitude_ssim, '.3f')}"
        phase = f"{number(c.phase_psnr_db, '.1f')} dB  {number(c.phase_ssim, '.3f')}"
        period_m = periods[name]
        period = f"  {period_text(period_m)}" if period_m is not None else ""
        table.add_row(name, amplitude, phase, number(c.frc_half, ".2f") + period)
    return table


def number(value: Any, form: str) -> str:
    """Return a number as text, "n/a" for a missing or non-finite one."""
    if value is None or not math.isfinite(value):
        return "n/a"
    return format(value, form)


def seconds(value: float) -> str:
    """Return a duration in seconds, minutes or hours."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def loss_rows(summary: Mapping[str, Any], data: str) -> list[tuple[str, str]]:
    """Return the loss and the shot-noise floor, with their ratio."""
    loss, floor = summary.get("half_deviance"), summary.get("shot_noise_floor")
    return [
        ("loss", f"{number(loss, '.4g')} half-deviance per pixel, {data}"),
        ("shot-noise floor", f"{number(floor, '.4g')} {_floor_note(loss, floor, bool(summary.get('overfitted')))}"),
    ]


def assessment_rows(assessment: Assessment) -> list[tuple[str, str]]:
    """Return the figures of an assessment by the patterns alone."""
    ratio = assessment.residual / max(assessment.shot_noise_floor, 1e-30)
    outliers, n_patterns = len(assessment.outliers), len(assessment.residual_per_pattern)
    halves = assessment.halves
    agreement = (
        f"agree up to {resolution_text(halves.resolution, assessment.pixel_size_m)}; "
        f"spread {halves.spread_amplitude:.2%} in amplitude, {halves.spread_phase_rad:.2g} rad in phase"
        if halves
        else f"not compared: {assessment.no_halves}"
    )
    patches = f"not compared: {assessment.no_network}"
    if assessment.disagreement is not None:
        patches = f"differ from the image by {assessment.disagreement:.1%}"
    return [
        ("residual", f"{assessment.residual:.4g} half-deviance per pixel, {ratio:.3g} times the shot noise"),
        ("unexplained", f"{max(assessment.unexplained_variance, 0.0):.2%} of the variance between patterns"),
        ("outliers", f"{outliers} of {n_patterns} patterns fit much worse than the others" if outliers else "none"),
        ("patches", patches),
        ("half datasets", agreement),
        *assessment.experiment.rows(),
    ]


def network_comparison(network: Comparison, baseline: Comparison) -> str:
    """Return a sentence if the network does not beat the reconstruction without a network, else ""."""
    worse = [part for score, part in SCORES.items() if not getattr(network, score) > getattr(baseline, score)]
    if not worse:
        return ""
    if len(worse) == len(SCORES):
        return "The network does not beat the reconstruction without a network, in amplitude or phase."
    return f"The network does not beat the reconstruction without a network in {worse[0]}."


def _floor_note(loss: Any, floor: Any, overfitted: bool) -> str:
    if overfitted:
        return "(the loss lies below it: the noise was fitted)"
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in (loss, floor)) or not floor:
        return ""
    return f"(loss / floor: {loss / floor:.3g})"


def comparison_figures(comparisons: Mapping[str, Comparison]) -> dict[str, Any]:
    """Return comparisons as plain values by name, with underscores, as all JSON documents have them."""
    return {name.replace(" ", "_"): comparison.to_dict() for name, comparison in comparisons.items()}


def comparison_warnings(comparisons: Mapping[str, Comparison]) -> list[str]:
    """Return the warnings of comparisons, with their names."""
    return [f"{name}: {warning}" for name, comparison in comparisons.items() for warning in comparison.warnings]
