"""Content of a report: plain rows, figures and texts of one run, from memory or from the files of a run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_backend.data.image import Image, load_image
from ptycho_backend.data.image_file import RECONSTRUCTION
from ptycho_backend.data.orientation import AS_GIVEN
from ptycho_backend.data.rows import EXCLUDED
from ptycho_backend.errors import DataError
from ptycho_backend.quality.causes import listed
from ptycho_backend.quality.scan_check import Check
from ptycho_backend.runtime.quantities import photons_text, pixel_text, resolution_text

Rows = tuple[tuple[str, str], ...]
ASSESSMENT, EVALUATION = "assessment.json", "evaluation.json"
MAX_JSON_BYTES = 2**28
CITATION = (
    "O. Hoidn, A. A. Mishra, A. Mehta: Physics constrained unsupervised deep learning for rapid, high resolution "
    "scanning coherent diffraction reconstruction. Scientific Reports 13, 22789 (2023), "
    "https://doi.org/10.1038/s41598-023-48351-7"
)


@dataclass(frozen=True, eq=False)
class Content:
    """
    Content of a report.

    Parameters
    ----------
    title : str
    image : Image, optional
        None for a training without a reconstruction.
    assessment : mapping
        Plain values, as in ``assessment.json``; empty without an assessment.
    evaluation : mapping
        Plain values, as in ``evaluation.json``; empty without a known object.
    warnings : tuple of str
    checks : tuple of Check
        Checks of the scan.
    measured, found, versions : tuple of (str, str)
        Labels and texts.
    losses : tuple of mappings of str to float
        Losses of every epoch of a training, by name, with their "epoch".
    settings : str
        Settings as YAML.
    files : tuple of str
        Names of the files of the run.
    """

    title: str
    image: Image | None = None
    assessment: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    measured: Rows = ()
    found: Rows = ()
    versions: Rows = ()
    losses: tuple[Mapping[str, float], ...] = ()
    settings: str = ""
    files: tuple[str, ...] = ()


def content_of_run(path: Path | str, title: str = "") -> Content:
    """
    Return the content of a run folder, or of the file of an image with its neighbours.

    Parameters
    ----------
    path : path
        Run folder, or a product in it.
    title : str
        Empty for the name of the folder or file.

    Raises
    ------
    DataError
        If there is no image, or a file is damaged.
    """
    path = Path(path)
    image = load_image(path)
    folder = path if path.is_dir() else path.parent
    # Figures beside a file with another name belong to another image.
    own = path.is_dir() or path.name == RECONSTRUCTION
    assessment, evaluation = (read_results(folder / name) if own else {} for name in (ASSESSMENT, EVALUATION))
    return Content(
        title or path.resolve().name,
        image,
        assessment,
        evaluation,
        tuple(str(text) for text in assessment.get("warnings", ())),
        measured=measured_rows(image),
        found=found_rows(image, assessment),
        versions=version_rows(image.provenance),
        settings=settings_text(image.provenance),
        files=file_names(folder) if own else (path.name,),
    )


def measured_rows(image: Image) -> Rows:
    """Return the patterns, dose, pixel and attributes of the scan of an image, as far as its file has them."""
    texts: dict[str, str] = {"scan": str(image.provenance.get("source", image.name))}
    if image.positions_px is not None:
        side = image.experiment.probe.shape[-1] if image.experiment is not None else 0
        texts["patterns"] = f"{len(image.positions_px)} of {side} × {side} px"
    if image.photons_per_pattern is not None:
        texts["dose"] = f"{photons_text(image.photons_per_pattern)} photons per pattern"
    texts["object pixel"] = "unknown" if image.pixel_size_m is None else pixel_text(image.pixel_size_m)
    scan = image.provenance.get("scan")
    attributes = dict(scan) if isinstance(scan, Mapping) else {}
    plain = {key: value for key, value in attributes.items() if isinstance(value, str | int | float) and value != ""}
    texts["attributes"] = ", ".join(f"{key} = {_short(value)}" for key, value in plain.items())
    if excluded := attributes.get(EXCLUDED):
        texts["left out before"] = f"{len(excluded)} patterns (numbers from 0: {listed(excluded)})"
    if "data_sha256" in image.provenance:
        texts["SHA-256 of the data"] = str(image.provenance["data_sha256"])
    return tuple((label, text) for label, text in texts.items() if text)


def found_rows(image: Image, assessment: Mapping[str, Any]) -> Rows:
    """Return the findings of the solver about image and experiment, and the assessment by the patterns alone."""
    rows = [("image", f"{image.shape[0]} × {image.shape[1]} px")]
    if "start" in image.provenance:
        rows.append(("initial object", str(image.provenance["start"])))
    if image.errors:
        rows.append(("error", f"{image.errors[-1]:.3g} after {len(image.errors)} iterations"))
    rows += _experiment_rows(image, assessment.get("experiment") or {})
    if assessment:
        rows += _assessment_rows(image, assessment)
    return tuple(rows)


def _experiment_rows(image: Image, figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    experiment = image.experiment
    if experiment is None:
        return []
    as_given = experiment.orientation == AS_GIVEN
    flux = experiment.scales**2
    moved_px = figures.get("moved_px") or _moved_px(image)
    shares = [] if image.probe_shares is None else [f"{share:.1%}" for share in image.probe_shares]
    scale = image.counts_per_intensity or 0.0
    texts = {
        "orientation": f"{experiment.orientation} (as given)" if as_given else f"{experiment.orientation}, turned",
        "positions": f"moved by {moved_px:.2g} px (root mean square)" if moved_px else "as given",
        "flux": f"{flux.min():.2f} to {flux.max():.2f} of the mean"
        if np.ptp(flux) > 0
        else "the same for all patterns",
        "background": f"{experiment.background * scale:.3g} photons per pixel" if experiment.background else "none",
        "probe modes": f"{len(shares)}: {', '.join(shares)} of the photons",
        "left-out patterns": f"{len(experiment.left_out)} contradict all others" if experiment.left_out else "none",
    }
    if experiment.unfitted:
        texts["needed, not fitted"] = ", ".join(experiment.unfitted)
    return list(texts.items())


def _moved_px(image: Image) -> float:
    """Return the root mean square step from the windows of an image to its positions, pixels."""
    if image.experiment is None or image.experiment.windows_px.shape != image.experiment.positions_px.shape:
        return 0.0
    steps = image.experiment.positions_px - image.experiment.windows_px
    return float(np.sqrt((steps**2).sum(axis=1).mean())) if len(steps) else 0.0


def _assessment_rows(image: Image, assessment: Mapping[str, Any]) -> list[tuple[str, str]]:
    residual, floor = number_of(assessment, "residual"), number_of(assessment, "shot_noise_floor")
    rows = []
    if np.isfinite(residual):
        text = f"{residual:.4g} half-deviance per pixel"
        rows.append(("residual", f"{text}, {residual / floor:.3g} × shot noise" if floor > 0 else text))
    unexplained = number_of(assessment, "unexplained_variance")
    if np.isfinite(unexplained):
        rows.append(("unexplained", f"{max(unexplained, 0.0):.2%} of the variance between patterns"))
    n, bad = len(assessment.get("residual_per_pattern") or ()), len(assessment.get("outliers") or ())
    rows.append(("outliers", f"{bad} of {n} patterns fit much worse" if bad else "none"))
    halves = assessment.get("halves")
    if isinstance(halves, Mapping):
        resolution = resolution_text(number_of(halves, "resolution"), image.pixel_size_m)
        rows.append(("half datasets", f"agree up to {resolution}"))
    elif assessment.get("no_halves"):
        rows.append(("half datasets", f"not compared: {assessment['no_halves']}"))
    return rows


def comparisons_of(evaluation: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the comparisons with a known object by name, from the content of ``evaluation.json``."""
    found = {name.replace("_", " "): figures for name, figures in evaluation.items() if isinstance(figures, Mapping)}
    return {name: figures for name, figures in found.items() if "frc" in figures}


def comparison_rows(content: Content) -> Rows:
    """Return the scores against the known object."""
    rows = [("known object", str(content.evaluation["truth"]))] if "truth" in content.evaluation else []
    pixel = None if content.image is None else content.image.pixel_size_m
    for name, figures in comparisons_of(content.evaluation).items():
        scores = (
            f"{part}: {number_of(figures, f'{part}_psnr_db'):.1f} dB, SSIM {number_of(figures, f'{part}_ssim'):.3f}"
            for part in ("amplitude", "phase")
        )
        resolution = resolution_text(number_of(figures, "frc_half"), pixel)
        rows.append((name, f"{'; '.join(scores)}; ring correlation 0.5 at {resolution}"))
    return tuple(rows)


def version_rows(provenance: Mapping[str, Any]) -> Rows:
    """Return versions, device and seed of an image."""
    versions = provenance.get("versions")
    rows = [(str(name), str(version)) for name, version in versions.items()] if isinstance(versions, Mapping) else []
    names = {"backend": "engine", "solver_device": "device", "seed": "seed", "model_file": "model"}
    return tuple(rows + [(label, str(provenance[key])) for key, label in names.items() if key in provenance])


def settings_text(provenance: Mapping[str, Any]) -> str:
    """Return the options of an image as YAML, for ``--config``."""
    import yaml

    options = provenance.get("inference")
    return yaml.safe_dump({"inference": dict(options)}, sort_keys=False) if isinstance(options, Mapping) else ""


def file_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the visible files of a folder."""
    return tuple(sorted(item.name for item in folder.iterdir() if item.is_file() and not item.name.startswith(".")))


def number_of(figures: Mapping[str, Any], name: str) -> float:
    """Return a number of a JSON object; NaN for a missing one and for null."""
    value = figures.get(name)
    return float(value) if isinstance(value, int | float) else float("nan")


def read_results(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file that a command wrote; {} for a missing file."""
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"more than {MAX_JSON_BYTES // 2**20} MiB")
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("another kind of value")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            "Results in JSON are one object.",
            expected="a file that 'ptychopinn train' or 'ptychopinn reconstruct' wrote",
            received=f"'{path}': {str(error).splitlines()[0]}",
            fix="remove the file, or write it again",
        ) from error
    return values


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
