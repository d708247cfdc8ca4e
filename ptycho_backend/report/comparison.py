"""Comparison of several runs on one page: table, objects with a shared zoom, ring correlations with the first run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ptycho_backend.data.image import Image
from ptycho_backend.errors import DataError, ShapeError
from ptycho_backend.plots.figures import Limits, robust_limits
from ptycho_backend.quality.metrics import Comparison, compare
from ptycho_backend.report import pictures
from ptycho_backend.report.content import Content, comparisons_of, content_of_run, number_of
from ptycho_backend.report.frames import Picture, Ranges, map_ranges
from ptycho_backend.report.page import ZOOM, Page, Table, correlations_of, group_of
from ptycho_backend.report.pixels import MAX_BYTES
from ptycho_backend.runtime.quantities import pixel_text, resolution_text

SAME_PIXEL = 0.01  # largest relative difference of two object pixels that count as equal
HEADINGS = (
    "run",
    "image",
    "pixel",
    "error",
    "residual / shot noise",
    "half datasets",
    "known object",
    "with the first run",
)
SHORT = ("run", "error", "residual / shot noise", "half datasets", "with the first run")  # columns for a terminal


class Agreement(NamedTuple):
    """Comparison of a run with the first one, or the reason for a missing one."""

    comparison: Comparison | None
    reason: str = ""


def contents_of(paths: Sequence[Path | str]) -> list[Content]:
    """
    Return the contents of runs, with different titles.

    Raises
    ------
    DataError
        If one of them is no run, or has no image.
    """
    names = [Path(path).resolve().name for path in paths]
    titles = [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]
    repeated = {title for title in titles if titles.count(title) > 1}
    if repeated:
        raise DataError(
            "A comparison has each run once.", "different runs", f"{sorted(repeated)} twice", "name other runs"
        )
    return [content_of_run(path, title) for path, title in zip(paths, titles, strict=True)]


def agreements_of(contents: Sequence[Content]) -> list[Agreement]:
    """
    Compare every run with the first one, after their registration.

    Images with another object pixel, or without a common area, have a reason in place of a comparison.
    """
    first = contents[0].image
    return [Agreement(None, "the first run")] + [_agreement(content.image, first) for content in contents[1:]]


def comparison_page(contents: Sequence[Content], agreements: Sequence[Agreement]) -> Page:
    """
    Return the page of several runs.

    Parameters
    ----------
    contents : sequence of Content
        Two or more, each with an image.
    agreements : sequence of Agreement
        From :func:`agreements_of`.
    """
    warnings = [f"{content.title}: {text}" for content in contents for text in content.warnings]
    warnings += [
        f"{content.title}: not compared with {contents[0].title}: {agreement.reason}"
        for content, agreement in zip(contents[1:], agreements[1:], strict=True)
        if agreement.comparison is None
    ]
    images = [content.image for content in contents if content.image is not None]
    pixel = images[0].pixel_size_m
    among = {
        f"{content.title} and {contents[0].title}": (agreement.comparison.frc_frequency, agreement.comparison.frc)
        for content, agreement in zip(contents, agreements, strict=True)
        if agreement.comparison is not None
    }
    own = {
        f"{content.title}: {name}": curve for content in contents for name, curve in correlations_of(content).items()
    }
    errors = {content.title: content.image.errors for content in contents if content.image is not None}
    same_pixel = all(_same_pixel(image, images[0]) for image in images)
    return Page(
        title=f"Comparison of {len(contents)} runs",
        summary=", ".join(content.title for content in contents),
        warnings=tuple(warnings),
        groups=(
            group_of("Objects", _objects(contents), ZOOM.format(what="Pictures in the same unit")),
            group_of("Agreement of the runs", [pictures.correlation_picture(among, pixel)]),
            group_of(
                "Resolution and error of each run",
                [
                    pictures.correlation_picture(own, pixel if same_pixel else None),
                    pictures.history_picture(errors, "iteration", "error"),
                ],
            ),
        ),
        table=Table("Figures", HEADINGS, tuple(comparison_table(contents, agreements))),
        lists=tuple((f"Found: {content.title}", content.found) for content in contents),
    )


def comparison_table(contents: Sequence[Content], agreements: Sequence[Agreement]) -> list[tuple[str, ...]]:
    """Return one line for each run, with the columns :data:`HEADINGS`."""
    return [_line(content, agreement) for content, agreement in zip(contents, agreements, strict=True)]


def _line(content: Content, agreement: Agreement) -> tuple[str, ...]:
    image, assessment = content.image, content.assessment
    if image is None:
        return (content.title, *[""] * (len(HEADINGS) - 1))
    floor, halves = number_of(assessment, "shot_noise_floor"), assessment.get("halves")
    scores = [
        f"{name}: phase {number_of(figures, 'phase_psnr_db'):.1f} dB"
        for name, figures in comparisons_of(content.evaluation).items()
    ]
    c = agreement.comparison
    return (
        content.title,
        f"{image.shape[0]} × {image.shape[1]} px",
        "unknown" if image.pixel_size_m is None else pixel_text(image.pixel_size_m),
        f"{image.errors[-1]:.3g} after {len(image.errors)}" if image.errors else "n/a",
        f"{number_of(assessment, 'residual') / floor:.3g}" if floor > 0 else "n/a",
        resolution_text(number_of(halves, "resolution"), image.pixel_size_m) if isinstance(halves, dict) else "n/a",
        "; ".join(scores) or "none",
        agreement.reason if c is None else f"phase {c.phase_psnr_db:.1f} dB, {_crossing_text(c.frc_half)}",
    )


def _crossing_text(frequency: float) -> str:
    return f"correlation 0.5 at {frequency:.2f} of Nyquist" if frequency < 1 else "correlation never below 0.5"


def _objects(contents: Sequence[Content]) -> list[Picture]:
    """Return amplitude and phase of every run: in one unit with a shared zoom, and with the same colours."""
    maps = [pictures.maps_of(content.image) for content in contents if content.image is not None]
    limits = _common([one.amplitude for one in maps]), _common([one.phase for one in maps])
    shared: dict[str, Ranges] = {}
    drawn = []
    for content, one in zip(contents, maps, strict=True):
        ranges = shared.setdefault(one.unit, map_ranges())
        for picture in pictures.object_pictures(one, ranges, limits, MAX_BYTES // len(maps)):
            drawn.append(picture._replace(title=f"{picture.title}: {content.title}"))
    return drawn


def _common(values: Sequence[Any]) -> Limits:
    limits = np.array([robust_limits(one) for one in values])
    return float(limits[:, 0].min()), float(limits[:, 1].max())


def _agreement(image: Image | None, first: Image | None) -> Agreement:
    if image is None or first is None:
        return Agreement(None, "there is no image")
    if not _same_pixel(image, first):
        sides = [pixel_text(one.pixel_size_m) for one in (image, first) if one.pixel_size_m is not None]
        return Agreement(None, f"the object pixels differ: {' and '.join(sides)}")
    try:
        return Agreement(compare(image.obj, image.origin_px, first.obj, first.origin_px, first.positions_px))
    except (DataError, ShapeError) as error:
        return Agreement(None, f"{error.rule} {error.received}")


def _same_pixel(image: Image, other: Image) -> bool:
    """Return whether two object pixels are equal; an unknown one counts as equal."""
    if image.pixel_size_m is None or other.pixel_size_m is None:
        return True
    return bool(np.allclose(image.pixel_size_m, other.pixel_size_m, rtol=SAME_PIXEL, atol=0))
