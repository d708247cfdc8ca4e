"""Reports of runs and evaluations: their content from the results of a command. A failure costs no result."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho_backend.commands.describe import geometry_rows
from ptycho_backend.commands.figures import comparison_figures, comparison_warnings
from ptycho_backend.commands.files import REPORT
from ptycho_backend.commands.results import Result, result_rows
from ptycho_backend.config import to_dict
from ptycho_backend.quality.metrics import Comparison
from ptycho_backend.quality.scan_report import FRAMES, NETWORK, scan_report
from ptycho_backend.report.content import (
    Content,
    content_of_run,
    file_names,
    found_rows,
    measured_rows,
    version_rows,
)
from ptycho_backend.runtime.progress import Terminal

if TYPE_CHECKING:
    from ptycho_backend.commands.command_line import CommandLine

logger = logging.getLogger(__name__)

Rows = Sequence[tuple[str, str]]


def add_report_option(line: CommandLine) -> None:
    """Add the option that leaves out the report."""
    line.add("--no-report", action="store_true", help=f"Leave out {REPORT}, the results on one page.")


def write_run_report(
    folder: Path,
    terminal: Terminal,
    settings: Mapping[str, Any],
    result: Result | None,
    losses: Sequence[Mapping[str, float]] = (),
    training: Rows = (),
) -> None:
    """
    Write the report of a reconstruction or a training.

    Parameters
    ----------
    folder : path
    terminal : Terminal
        Its warnings so far become part of the report.
    settings : mapping of str to configuration
        Sections of the command.
    result : Result, optional
        None for a training without a reconstruction.
    losses : sequence of mappings
        Losses of every epoch.
    training : sequence of (str, str)
        Figures of the training.
    """

    import yaml

    def content() -> Content:
        given = Content(folder.resolve().name, warnings=tuple(terminal.warnings))
        described = given if result is None else content_of_result(given, result)
        return dataclasses.replace(
            described,
            versions=(*training, *described.versions),
            losses=tuple(losses),
            settings=yaml.safe_dump({key: to_dict(section) for key, section in settings.items()}, sort_keys=False),
            files=tuple(sorted({*file_names(folder), REPORT})),
        )

    _try_to_write(folder / REPORT, content)


def write_evaluation_report(
    folder: Path, terminal: Terminal, image_path: str, reference: Path, comparisons: Mapping[str, Comparison]
) -> None:
    """Write the report of an image with its comparisons with a reference."""

    def content() -> Content:
        described = content_of_run(image_path)
        return dataclasses.replace(
            described,
            title=f"{image_path} against {reference}",
            evaluation=evaluation_of(str(reference), comparisons),
            warnings=(*described.warnings, *terminal.warnings, *comparison_warnings(comparisons)),
            files=tuple(sorted({*file_names(folder), REPORT})),
        )

    _try_to_write(folder / REPORT, content)


def content_of_result(given: Content, result: Result) -> Content:
    """Return the content of a report with everything that a result adds."""
    reconstruction, image = result.reconstruction, result.image
    scan, assessment = reconstruction.given_scan, result.assessment
    figures = {} if assessment is None else assessment.to_dict()
    checks = scan_report(scan, skip=(FRAMES, NETWORK)).checks
    # A check in the list needs no second warning of the same words.
    repeated = tuple(f"'{scan.source}': {check.name}: " for check in checks)
    shown = [text for text in given.warnings if not text.startswith(repeated)]
    found = () if assessment is None else assessment.warnings
    bad = int((~scan.mask).sum())
    masked = ("masked pixels", f"{bad} ({bad / scan.mask.size:.2%})" if bad else "none")
    return dataclasses.replace(
        given,
        image=image,
        assessment=figures,
        evaluation=evaluation_of(scan.source, result.comparisons) if result.comparisons else {},
        warnings=(*found, *shown, *comparison_warnings(result.comparisons)),
        checks=checks,
        measured=(
            *measured_rows(image),
            masked,
            *geometry_rows(scan.positions_px, reconstruction.calibration.probe, scan.pixel_size_m),
        ),
        found=found_rows(image, figures),
        versions=(*result_rows(result)[1:], *version_rows(image.provenance)),
    )


def evaluation_of(truth: str, comparisons: Mapping[str, Comparison]) -> dict[str, Any]:
    """Return comparisons as plain values, as in ``evaluation.json``."""
    return {"truth": truth, **comparison_figures(comparisons)}


def _try_to_write(path: Path, content: Callable[[], Content]) -> None:
    """Write a report; a failure is a warning, because the results are already complete."""
    try:
        from ptycho_backend.report.page import write_report

        write_report(path, content())
    except Exception as error:  # of any kind
        logger.warning("report '%s' could not be written: %s: %s", path.name, type(error).__name__, error)
        logger.debug("", exc_info=True)
