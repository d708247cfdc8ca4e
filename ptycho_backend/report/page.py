"""Page of a report: one HTML file that contains its pictures and their library, and loads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from ptycho_backend._version import __version__
from ptycho_backend.data.output import atomic_path
from ptycho_backend.plots.figures import title_of
from ptycho_backend.quality.scan_check import Check
from ptycho_backend.report import pictures
from ptycho_backend.report.content import CITATION, Content, Rows, comparison_rows, comparisons_of, number_of
from ptycho_backend.report.frames import Picture, map_ranges
from ptycho_backend.runtime.printable import printable

ZOOM = "Choose a tool above a picture, or turn the wheel with Ctrl. {what} zoom together."
CITED = f"ptychopinn {__version__}. Method: {CITATION}"


class Group(NamedTuple):
    """Pictures under a heading."""

    title: str
    pictures: Sequence[Picture]
    note: str = ""


class Table(NamedTuple):
    """Table with one line for each run."""

    title: str = ""
    headings: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, eq=False)
class Page:
    """
    Everything that a page shows; all texts are plain, and escaped when the page is written.

    Parameters
    ----------
    title, summary : str
    warnings : tuple of str
    checks : tuple of Check
    groups : tuple of Group
        Pictures.
    table : Table
    lists : tuple of (str, rows)
        Titles, and labels with texts.
    settings : str
        YAML.
    files : tuple of str
    """

    title: str
    summary: str = ""
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    groups: tuple[Group, ...] = ()
    table: Table = field(default_factory=Table)
    lists: tuple[tuple[str, Rows], ...] = ()
    settings: str = ""
    files: tuple[str, ...] = ()


def write_report(path: Path | str, content: Content) -> Path:
    """
    Write the report of a run, whole or not at all.

    Parameters
    ----------
    path : path
        HTML file; it is replaced.
    content : Content

    Raises
    ------
    OutputError
        If the file cannot be written.

    Notes
    -----
    Decision: ADR-018.
    """
    return write_page(path, page_of(content))


def write_page(path: Path | str, page: Page) -> Path:
    """
    Write a page, whole or not at all.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    text = page_html(page)
    with atomic_path(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
    return Path(path)


def page_of(content: Content) -> Page:
    """Return the page of a run."""
    return Page(
        title=content.title,
        summary=_summary(content),
        warnings=content.warnings,
        checks=content.checks,
        groups=tuple(_groups(content)),
        lists=(
            ("Measured", content.measured),
            ("Found", content.found),
            ("Against the known object", comparison_rows(content)),
            ("Computation", content.versions),
        ),
        settings=content.settings,
        files=content.files,
    )


def page_html(page: Page) -> str:
    """Return a page as HTML."""
    from bokeh.embed import components
    from bokeh.resources import Resources
    from jinja2 import DictLoader, Environment, StrictUndefined
    from markupsafe import Markup

    drawn = {
        f"p{first}_{second}": picture.figure
        for first, group in enumerate(page.groups)
        for second, picture in enumerate(group.pictures)
    }
    script, divisions = components(drawn) if drawn else ("", {})
    library = Resources(mode="inline", components=["bokeh"], minified=True).render_js() if drawn else ""
    groups = [
        {"title": group.title, "note": group.note, "pictures": _embedded(group, number, divisions)}
        for number, group in enumerate(page.groups)
    ]
    values = {name: getattr(page, name) for name in ("title", "summary", "warnings", "table", "lists", "settings")}
    shown = {
        **values,
        "groups": groups,
        "files": page.files,
        "citation": CITED,
        "faults": [check for check in page.checks if check.grade != "good"],
        "good": [check for check in page.checks if check.grade == "good"],
    }
    folder = files("ptycho_backend.report")
    template, style = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.html", "page.css"))
    environment = Environment(
        loader=DictLoader({"page": template}),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) or not isinstance(value, str) else printable(value),
    )
    code = {"style": style, "library": library, "script": script}
    return environment.get_template("page").render(page=shown, **{name: Markup(text) for name, text in code.items()})


def _embedded(group: Group, number: int, divisions: dict[str, str]) -> list[dict[str, Any]]:
    from markupsafe import Markup

    return [
        {
            "heading": picture.title,
            "caption": picture.caption,
            "alternative": picture.alternative,
            "division": Markup(divisions[f"p{number}_{second}"]),
        }
        for second, picture in enumerate(group.pictures)
    ]


def _groups(content: Content) -> Iterable[Group]:
    image, curves = content.image, {}
    if image is not None:
        ranges = map_ranges()
        maps = pictures.maps_of(image)
        drawn = pictures.object_pictures(maps, ranges)
        residual = pictures.residual_picture(image, content.assessment, ranges, maps.amplitude.shape)
        yield group_of("Object and residuals", [*drawn, residual], ZOOM.format(what="These pictures"))
        modes = pictures.probe_pictures(image)
        yield group_of("Probe", modes, ZOOM.format(what="The modes") if len(modes) > 1 else "")
        curves = correlations_of(content)
    errors = {} if image is None else {"error": image.errors}
    names = sorted({name for epoch in content.losses for name in epoch} - {"epoch"})
    losses = {name: [epoch.get(name, float("nan")) for epoch in content.losses] for name in names if "loss" in name}
    yield group_of(
        "Resolution and history",
        [
            pictures.correlation_picture(curves, None if image is None else image.pixel_size_m),
            pictures.history_picture(errors, "iteration", "error"),
            pictures.history_picture(losses, "epoch", "loss"),
        ],
    )


def correlations_of(content: Content) -> dict[str, tuple[Any, Any]]:
    """Return the ring correlations of a run by name: half datasets, and comparisons with a known object."""
    curves = {}
    halves = content.assessment.get("halves")
    if isinstance(halves, dict) and "correlation" in halves:
        curves["half datasets"] = halves.get("frequency"), halves["correlation"]
    for name, figures in comparisons_of(content.evaluation).items():
        curves[f"{name}, known object"] = figures.get("frc_frequency"), figures["frc"]
    return curves


def group_of(title: str, drawn: Iterable[Picture | None], note: str = "") -> Group:
    """Return a group of the pictures that exist."""
    return Group(title, [picture for picture in drawn if picture is not None], note)


def _summary(content: Content) -> str:
    """Return size, pixel, dose and residual of an image in one line."""
    image = content.image
    if image is None:
        return "Training without a reconstruction."
    size = f"{image.shape[0]} × {image.shape[1]} px"
    parts = [title_of(size, image.pixel_size_m, image.photons_per_pattern)]
    floor = number_of(content.assessment, "shot_noise_floor")
    if floor > 0:
        parts.append(f"residual {number_of(content.assessment, 'residual') / floor:.3g} × shot noise")
    return " · ".join(parts)
