"""Content of run folders and of result folders: model, training, image, comparison and assessment."""

from __future__ import annotations

from pathlib import Path

from ptycho_backend.commands.describe import Rows, model_rows, product_rows
from ptycho_backend.commands.figures import loss_rows, number, seconds
from ptycho_backend.commands.files import ASSESSMENT, EVALUATION, RECONSTRUCTION
from ptycho_backend.data.product import read_product
from ptycho_backend.errors import DataError
from ptycho_backend.model_file.bundle import FILE_NAME, read_bundle
from ptycho_backend.model_file.run import SUMMARY
from ptycho_backend.report.content import read_results
from ptycho_backend.runtime.quantities import period_text
from ptycho_backend.training.checkpoints import FOLDER as CHECKPOINTS
from ptycho_backend.training.checkpoints import LAST, SUFFIX

Part = tuple[str, Rows]
UNPACKED = "weights.h5"
SCORES = {
    "amplitude_psnr_db": ("amplitude", ".1f", " dB"),
    "phase_psnr_db": ("phase", ".1f", " dB"),
    "frc_half": ("FRC 0.5 at", ".2f", " of Nyquist"),
}


def folder_parts(folder: Path) -> list[Part]:
    """
    Return titles and rows of the results in a folder.

    Raises
    ------
    DataError
        If the folder holds no result, or a damaged one.
    ModelFileError
    """
    parts: list[Part] = []
    if (folder / FILE_NAME).is_file() or (folder / UNPACKED).is_file():
        file = folder / FILE_NAME if (folder / FILE_NAME).is_file() else folder / UNPACKED
        parts.append(("Model", model_rows(read_bundle(folder), file)))
    readers = {
        CHECKPOINTS: ("Checkpoints", _checkpoint_rows),
        SUMMARY: ("Training", _training_rows),
        RECONSTRUCTION: ("Reconstruction", lambda path: product_rows(read_product(path), path)),
        EVALUATION: ("Against the known object", _evaluation_rows),
        ASSESSMENT: ("By the patterns alone", _assessment_rows),
    }
    for name, (title, rows_of) in readers.items():
        rows = rows_of(folder / name) if (folder / name).exists() else []
        parts += [(title, rows)] if rows else []
    if not parts:
        raise _no_results(folder)
    return parts


def folder_kind(parts: list[Part]) -> str:
    """Return the kind of a folder from its parts."""
    titles = [title for title, _ in parts]
    if "Model" in titles:
        return "Run" if len(titles) > 1 else "Model"
    return "Unfinished run" if "Checkpoints" in titles else "Result"


def _checkpoint_rows(folder: Path) -> Rows:
    names = sorted(path.name for path in folder.glob(f"*{SUFFIX}"))
    if not names:
        return []
    text = ", ".join(names)
    return [("checkpoints", f"{text}; --resume continues from {LAST}" if LAST in names else text)]


def _training_rows(path: Path) -> Rows:
    summary = read_results(path)
    rows = loss_rows(summary, "at the end") if "half_deviance" in summary else []
    duration = summary.get("training_seconds")
    return rows + ([("training time", seconds(float(duration)))] if isinstance(duration, (int, float)) else [])


def _evaluation_rows(path: Path) -> Rows:
    rows = []
    for name, figures in read_results(path).items():
        if isinstance(figures, dict):
            texts = [
                f"{word} {number(figures[key], form)}{unit}"
                for key, (word, form, unit) in SCORES.items()
                if key in figures
            ]
            period_m = figures.get("resolution_m")
            texts += [f"period {period_text(period_m)}"] if isinstance(period_m, float) else []
            rows.append((name.replace("_", " "), ", ".join(texts)))
        elif name == "truth":
            rows.append(("known object", str(figures)))
    return rows


def _assessment_rows(path: Path) -> Rows:
    figures = read_results(path)
    rows = [(name, number(figures.get(name), ".4g")) for name in ("residual", "shot_noise_floor") if name in figures]
    warnings = figures.get("warnings")
    texts = [str(text) for text in warnings] if isinstance(warnings, list) else []
    return [(name.replace("_", " "), text) for name, text in rows] + [("warning", text) for text in texts]


def _no_results(folder: Path) -> DataError:
    names = sorted(path.name for path in folder.iterdir())[:5]
    return DataError(
        "A folder of results holds files of 'ptychopinn train' or 'ptychopinn reconstruct'.",
        expected=f"{FILE_NAME}, {RECONSTRUCTION} or '{CHECKPOINTS}'",
        received=f"'{folder}' with {', '.join(names) or 'no file'}",
        fix="name a file in it; 'ptychopinn import' reads the files of a beamline",
    )
