"""Conversion of PtychoPINN's model archives to run folders of this package (spec: model_file 7)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.compat.predecessor.archive import Archive, not_convertible, read_archive
from ptycho_backend.compat.predecessor.cnn import branches, model_of, weights_of
from ptycho_backend.compat.predecessor.migration import migrate
from ptycho_backend.config import ExecutionConfig, ModelConfig, TrainingConfig, from_dict, validate
from ptycho_backend.data.output import prepare_run_folder
from ptycho_backend.engines.model import LOG_SCALE, PROBE, parts_of
from ptycho_backend.model_file.bundle import FILE_NAME, Bundle, write_bundle
from ptycho_backend.model_file.run import CONFIG, SUMMARY, provenance_of, write_config, write_json
from ptycho_backend.physics.calibration import Calibration, disc

GAUGE = 2.0  # object of this package over object of the published network (network 3.7)


@dataclass(frozen=True, eq=False)
class Conversion:
    """
    A converted model.

    Parameters
    ----------
    bundle : Bundle
        Content of its model file.
    notes : list of str
        Assumptions and limitations, for the user.
    """

    bundle: Bundle
    notes: list[str]


def convert(
    old: Path | str,
    new: Path | str,
    given: Mapping[str, Any] | None = None,
    intensity_scale: float | None = None,
    overwrite: bool = False,
) -> Conversion:
    """
    Convert an archive of PtychoPINN into a run folder, without executing anything in it.

    Parameters
    ----------
    old : path
        Path for :func:`~ptycho_backend.compat.predecessor.archive.read_archive`.
    new : path
        Run folder to write.
    given : mapping, optional
        Fields of ModelConfig that the archive lacks, or holds wrongly (`decoder_outputs`).
    intensity_scale : float, optional
        Root of photons per unit of normalised amplitude, if the archive lacks it.
    overwrite : bool
        Replace the content of the folder.

    Raises
    ------
    ModelFileError
        If the file is no archive, is damaged, or holds another network.
    OutputError
        If the folder is not empty, or cannot be written.
    """
    converted = converted_bundle(read_archive(old), given or {}, intensity_scale)
    folder = prepare_run_folder(new, overwrite)
    write_bundle(folder / FILE_NAME, converted.bundle)
    write_config(folder / CONFIG, converted.bundle.training, ExecutionConfig())
    write_json(folder / SUMMARY, {**converted.bundle.provenance, "notes": converted.notes})
    return converted


def converted_bundle(archive: Archive, given: Mapping[str, Any], intensity_scale: float | None) -> Conversion:
    """Return the converted model of an archive, in memory."""
    migrated = migrate(archive.settings)
    settings = migrated.values["training"]
    settings.pop("nphotons", None)  # PtychoPINN assumes it; the intensity scale or the scan gives the measured value
    stored = {key: value for key, value in settings.pop("model").items() if key != "architecture"}
    try:
        found = branches(archive.keras)
        model = model_of(archive.keras, found, stored, given)
        weights = weights_of(archive.keras, found, model)
    except ValueError as error:
        raise not_convertible(archive.path, str(error), "see docs/how-to/convert-old-models.md") from None
    training = from_dict(TrainingConfig, settings, source=f"'{archive.path}', params.dill")
    training.model = model
    validate(training, f"'{archive.path}'")
    scale = _intensity_scale(archive, model, intensity_scale)
    calibration, log_scale = calibration_of(archive.probe, model, scale or 1.0)
    weights |= {LOG_SCALE: np.asarray(log_scale, np.float32), PROBE: parts_of(calibration.probe).astype(np.float32)}
    notes = _notes(archive, model, scale)
    left = {option.old: option.note for option in migrated.left_out if option.note != "not set"}
    return Conversion(Bundle(training, calibration, weights, [], _provenance(archive, left)), notes)


def calibration_of(probe: NDArray[Any] | None, model: ModelConfig, scale: float) -> tuple[Calibration, float]:
    """
    Return the calibration and the `log_scale` for counts equal to PtychoPINN's.

    PtychoPINN has the input x = A/s and the counts λ = s²·|F(P·O)|². This package has r = 1/s, the probe c·P with
    c = (N/2)/‖P‖, and the object 2·O. Its counts are λ = exp(2·log_scale)·s²·4c²·|F(P·O)|², so log_scale = −ln 2c.
    """
    N = model.N
    modes = _as_modes(probe, N)
    if model.probe_mask:
        y, x = np.indices((N, N)) - N // 2 + 0.5
        modes = modes * (np.hypot(y, x) < N // 4) * disc(N, N / 4)
    ratio = (N / 2) / math.sqrt(float((np.abs(modes) ** 2).sum()))
    calibration = Calibration(
        rms_input_scale=1.0 / scale,
        probe=(modes * ratio).astype(np.complex64),
        photons_per_pattern=(scale * N / 2) ** 2,
    )
    return calibration, -math.log(GAUGE * ratio) if probe is not None else 0.0


def _as_modes(probe: NDArray[Any] | None, N: int) -> NDArray[np.complex128]:
    """Return a probe as (mode, y, x); axes of length 1 are dropped, and an unusable probe becomes a uniform disc."""
    if probe is None or probe.size != N * N or not np.isfinite(probe).all() or not np.abs(probe).any():
        return disc(N, N / 4)[None].astype(np.complex128)
    return probe.astype(np.complex128).reshape(1, N, N)


def _intensity_scale(archive: Archive, model: ModelConfig, given: float | None) -> float | None:
    """Return the root of photons per unit of normalised amplitude."""
    for value in (given, archive.settings.get("intensity_scale")):
        if _is_positive(value):
            return float(value)
    photons = archive.settings.get("nphotons")
    return math.sqrt(photons) / (model.N / 2) if _is_positive(photons) else None


def _is_positive(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and math.isfinite(value) and value > 0


def _notes(archive: Archive, model: ModelConfig, scale: float | None) -> list[str]:
    notes = []
    if archive.keras.layers["obj"].class_name == "CombineComplexLayer":
        words = "amplitude and phase" if model.decoder_outputs == "amplitude_phase" else "real and imaginary part"
        date = archive.keras.saved[:10] or "an unknown date"
        notes.append(
            f"the decoders' outputs are {words}, from the file's date ({date}); --decoder-outputs overrides this"
        )
    if archive.probe is None:
        notes.append("the archive holds no readable probe: the scan's probe is used, as by default")
    if scale is None:
        notes.append("the archive holds no intensity scale: the scan's scale is used, as by default")
    if model.channels > 1 and model.object_big:
        notes.append("overlapping patches of a group are merged by a weighted mean, not by PtychoPINN's sum")
    if model.gaussian_smoothing_sigma > 0:
        notes.append(
            "gaussian_smoothing_sigma is carried over; PtychoPINN cuts its kernel to 3 pixels, this package does not"
        )
    notes.append("losses of the training are not in the archive")
    return notes


def _provenance(archive: Archive, left: Mapping[str, str]) -> dict[str, Any]:
    digest = hashlib.sha256(archive.path.read_bytes()).hexdigest()
    keras = {"keras": archive.keras.version} if archive.keras.version else {}
    source = {
        "file": archive.path.name,
        "sha256": digest,
        "model": archive.model,
        "saved": archive.keras.saved,
        "not_carried_over": dict(left),
    }
    return provenance_of("PtychoPINN (TensorFlow)", keras, 0, "unknown") | {"converted_from": source}
