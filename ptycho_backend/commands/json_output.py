"""JSON documents of `reconstruct` and `evaluate`: figures, files and warnings of a result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho_backend.commands.figures import comparison_figures, comparison_warnings
from ptycho_backend.model_file.run import without_nan
from ptycho_backend.quality.metrics import Comparison
from ptycho_backend.report.content import file_names
from ptycho_backend.runtime.progress import Terminal

if TYPE_CHECKING:
    from ptycho_backend.commands.results import Result


def show_json(terminal: Terminal, values: Mapping[str, Any]) -> None:
    """Write one JSON document (RFC 8259) to standard output, in ASCII; NaN and infinities are null."""
    terminal.show_text(json.dumps(without_nan(dict(values)), indent=2, allow_nan=False))


def result_document(folder: Path, result: Result, warnings: Sequence[str]) -> dict[str, Any]:
    """
    Return the figures, files and warnings of a reconstruction.

    Parameters
    ----------
    folder : Path
        Folder of the results.
    result : Result
    warnings : sequence of str
        Warnings of the command; those of the assessment are added.

    Returns
    -------
    dict of str
        Plain values. "figures" has the shape (y, x) in pixels, the duration in seconds, the comparisons with the known
        object and the assessment.
    """
    reconstruction, assessment = result.reconstruction, result.assessment
    figures = {
        "shape_px": list(result.image.obj.shape),
        "pixel_size_m": reconstruction.scan.pixel_size_m and list(reconstruction.scan.pixel_size_m),
        "patterns": len(reconstruction.scan),
        "start": reconstruction.start,
        "device": reconstruction.kernels.device,
        "seconds": result.seconds,
        "comparisons": comparison_figures(result.comparisons),
        "assessment": assessment.to_dict() if assessment is not None else None,
    }
    found = assessment.warnings if assessment is not None else ()
    return {
        "command": "reconstruct",
        "scan": reconstruction.scan.source,
        "folder": str(folder),
        "files": files_of(folder),
        "figures": figures,
        "warnings": [*warnings, *found, *comparison_warnings(result.comparisons)],
    }


def comparison_document(
    image_path: str,
    reference: Path,
    comparisons: Mapping[str, Comparison],
    folder: Path | None,
    warnings: Sequence[str],
) -> dict[str, Any]:
    """Return the figures, files and warnings of comparisons with a reference; None as `folder` for no files."""
    return {
        "command": "evaluate",
        "reconstruction": image_path,
        "reference": str(reference),
        "folder": None if folder is None else str(folder),
        "files": [] if folder is None else files_of(folder),
        "figures": {"comparisons": comparison_figures(comparisons)},
        "warnings": [*warnings, *comparison_warnings(comparisons)],
    }


def files_of(folder: Path) -> list[str]:
    """Return the paths of the result files in a folder."""
    return [str(folder / name) for name in file_names(folder)]
