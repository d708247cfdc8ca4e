"""
How far a reconstruction can be trusted when nobody knows the truth (spec: metrics 8).

Every figure here comes from the measured patterns and the image alone, and none of them needs an engine of its own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import InferenceConfig, validate
from ptycho_backend.data.image import Image
from ptycho_backend.data.scan import Scan
from ptycho_backend.engines.model import Model
from ptycho_backend.events import OnEvent, ignore, without_images
from ptycho_backend.network.prediction import Predicted, predict
from ptycho_backend.network.training_domain import Conditions, outside, scan_conditions, training_domain_of
from ptycho_backend.quality.half_datasets import HalfDatasets, half_datasets
from ptycho_backend.quality.patch_agreement import PatchAgreement, patch_agreement
from ptycho_backend.quality.residuals import Residuals, residuals
from ptycho_backend.reconstruction import fit_to_scan

Real = NDArray[np.float64]

UNEXPLAINED = 0.15  # of what patterns differ in; a probe that is 5 % too wide gives 0.08, one of 10 % 0.3
OUTLIER_RATIO = 3.0  # residual over that of the median pattern
OUTLIER_SHARE = 0.01
DISAGREEMENT = 0.35  # of patches with the image; networks that do well reach 0.26 where probes are strongly curved
FLAT = 0.1  # variation of predicted patterns over that of measured ones
FLAT_NETWORK = 0.05  # contrast of patches over that of the image
DEMANDED = 5e-5  # variation between patterns that an object has made; a phase of 0.05 rad gives twice as much
SIGNIFICANT = 5.0  # standard deviations
POOR_RESOLUTION = 0.2  # of Nyquist
NAMED = 8  # patterns that a warning names


@dataclass(frozen=True, eq=False)
class Assessment:
    """
    What patterns and image say about each other.

    Parameters
    ----------
    residual, shot_noise_floor : float
        Mean half-deviance per good pixel of what probe and stitched image predict, and what photon noise alone gives;
        outliers apart.
    unexplained_variance : float
        Share of what patterns differ in that the image does not explain, photon noise apart: about 0 for a good image,
        1 for one that says nothing, more for one that contradicts.
    residual_per_pattern, floor_per_pattern : float64, shape (position,)
    outliers : tuple of int
        Patterns that fit much worse than the others, the worst first.
    disagreement : float
        Rms of what patches of single patterns differ from the image by, over the rms of the image, under the probe.
    disagreement_per_pattern : float64, shape (position,)
    measured_variation, predicted_variation : float
        Relative variance between patterns, as measured (without photon noise) and as predicted by the image.
    collapsed : bool
        The image, or what the network makes of single patterns, is nearly constant, and the patterns say it should not.
    halves : HalfDatasets, optional
    no_halves : str
        Why there are none.
    conditions, known : Conditions
        Of the scan, and those that the network has been trained for.
    warnings : tuple of str
        What a reader must know, and what to do about it.
    """

    residual: float
    shot_noise_floor: float
    unexplained_variance: float
    residual_per_pattern: Real = field(repr=False)
    floor_per_pattern: Real = field(repr=False)
    outliers: tuple[int, ...]
    disagreement: float
    disagreement_per_pattern: Real = field(repr=False)
    measured_variation: float
    predicted_variation: float
    collapsed: bool
    halves: HalfDatasets | None
    no_halves: str
    conditions: Conditions
    training_domain: Conditions
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything but pictures as plain values, ready for JSON."""
        own = {**vars(self), "conditions": self.conditions.to_dict(), "training_domain": self.training_domain.to_dict()}
        if self.halves is not None:
            own["halves"] = {k: _plain(v) for k, v in vars(self.halves).items() if k != "difference"}
        # What a reader looks for first stands first, and long lists stand last.
        order = sorted(own, key=lambda k: (k != "warnings", isinstance(own[k], np.ndarray)))
        return {k: _plain(own[k]) for k in order}


def assess(
    scan: Scan,
    image: Image,
    model: Model,
    inference: InferenceConfig | None = None,
    on_event: OnEvent = ignore,
    predicted: Predicted | None = None,
) -> Assessment:
    """
    Say how far an image can be trusted, from the patterns alone.

    Parameters
    ----------
    scan : Scan
        That the image was made of.
    image : Image
        From :func:`ptycho_backend.reconstruct`, with or without changes.
    model : Model
        That made it.
    inference : InferenceConfig, optional
        With which it was made. `half_datasets` off saves the time of a second reconstruction.
    on_event : callable, optional
    predicted : Predicted, optional
        What the model predicted for this image; None predicts it again.

    Returns
    -------
    Assessment
        Read its `warnings` first.

    Notes
    -----
    Spec: metrics 8.
    """
    inference = inference or InferenceConfig()
    validate(inference)
    fitted = fit_to_scan(model, scan, inference, on_event)
    as_fitted = dataclasses.replace(inference, calibration="model", probe_iterations=0)
    calibration = fitted.trained_calibration()
    explained = residuals(scan, calibration, image, on_event)
    if predicted is None:
        predicted = predict(scan, fitted, as_fitted, without_images(on_event), "prediction")
    agreement = patch_agreement(scan, calibration, predicted, image, inference.batch_size, on_event)
    halves: HalfDatasets | str = "not asked for"
    if inference.half_datasets:
        halves = half_datasets(scan, fitted, predicted, as_fitted, on_event)
    conditions = scan_conditions(scan, calibration.probe, explained.photons)
    return _assessed(
        explained, agreement, halves, (conditions, fitted.training_domain or training_domain_of({}, model.calibration))
    )


def _assessed(
    explained: Residuals,
    agreement: PatchAgreement,
    halves: HalfDatasets | str,
    conditions: tuple[Conditions, Conditions],
) -> Assessment:
    outliers = _outliers(explained)
    alike = np.ones(len(explained.residual), dtype=bool)
    alike[list(outliers)] = False
    residual, floor = float(explained.residual[alike].mean()), float(explained.floor[alike].mean())
    seen = explained.variation
    demanded = seen.measured > max(DEMANDED, SIGNIFICANT * seen.error)  # the object cannot be constant
    flat_image = demanded and seen.predicted < FLAT * seen.measured
    flat_network = demanded and agreement.patch_contrast < FLAT_NETWORK * agreement.image_contrast
    found = Assessment(
        residual=residual,
        shot_noise_floor=floor,
        unexplained_variance=float(explained.unexplained_variance[alike].mean())
        / max(seen.measured, SIGNIFICANT * seen.error, DEMANDED),
        residual_per_pattern=explained.residual,
        floor_per_pattern=explained.floor,
        outliers=outliers,
        disagreement=float(np.sqrt((agreement.disagreement**2).mean())),
        disagreement_per_pattern=agreement.disagreement,
        measured_variation=seen.measured,
        predicted_variation=seen.predicted,
        collapsed=flat_image or flat_network,
        halves=_without_false_resolution(halves, flat_image),
        no_halves=halves if isinstance(halves, str) else "",
        conditions=conditions[0],
        training_domain=conditions[1],
    )
    return dataclasses.replace(found, warnings=tuple(_warnings(found, flat_image, demanded)))


def _without_false_resolution(halves: HalfDatasets | str, collapsed: bool) -> HalfDatasets | None:
    """Two constants agree on everything: a ring correlation of next to nothing means nothing (metrics 6.1)."""
    if isinstance(halves, str):
        return None
    return dataclasses.replace(halves, resolution=0.0) if collapsed else halves


def _outliers(explained: Residuals) -> tuple[int, ...]:
    ratio = explained.residual / np.maximum(explained.floor, 1e-30)
    share = (explained.residual - explained.floor) / explained.counts
    bad = (ratio > OUTLIER_RATIO * np.median(ratio)) & (share > OUTLIER_SHARE)
    order = np.argsort(-ratio, kind="stable")
    return tuple(int(i) for i in order[bad[order]])


def _warnings(found: Assessment, flat_image: bool, demanded: bool) -> list[str]:
    told = []
    if flat_image:
        told.append(
            "The image is nearly constant, but the patterns differ from each other: the object was not found. "
            "Train again, or look whether probe, positions and mask are right."
        )
    elif found.collapsed:
        told.append(
            "The network gives nearly the same patch for every pattern; all that the image shows comes from the passes "
            "after it. Train again, or use another model."
        )
    ratio = found.residual / max(found.shot_noise_floor, 1e-30)
    if found.unexplained_variance > UNEXPLAINED and not flat_image:
        told.append(
            f"Image and probe do not explain {min(found.unexplained_variance, 1.0):.0%} of what patterns differ in (residual: "
            f"{ratio:.3g} times the shot noise). Most often the probe is wrong (add passes of probe refinement), or "
            "positions or the mask are; what two half scans agree on may then be a common error."
        )
    told += _about_patterns(found)
    told += _about_halves(found, demanded)
    unknown = outside(found.conditions, found.training_domain)
    if unknown:
        told.append(
            f"The network has not been trained for such a scan: {'; '.join(unknown)}. Train on this scan, or compare "
            "with some passes of ePIE (epie_iterations)."
        )
    return told


def _about_patterns(found: Assessment) -> list[str]:
    told = []
    if found.outliers:
        first = ", ".join(str(i) for i in found.outliers[:NAMED])
        more = ", …" if len(found.outliers) > NAMED else ""
        told.append(
            f"{len(found.outliers)} of {len(found.residual_per_pattern)} patterns fit much worse than the others "
            f"(numbers from 0: {first}{more}): look for a closed shutter, lost beam or wrong positions there, and "
            "leave them out."
        )
    if found.disagreement > DISAGREEMENT:
        told.append(
            f"Patches of single patterns differ from the image by {found.disagreement:.0%}: neighbours contradict each "
            "other. Look whether probe and positions are right, and train on this scan."
        )
    return told


def _about_halves(found: Assessment, demanded: bool) -> list[str]:
    if found.halves is None or not demanded or found.halves.resolution == 0.0:
        return []
    if found.halves.resolution > POOR_RESOLUTION:
        return []
    return [
        f"Two half scans agree only up to {found.halves.resolution:.2f} of Nyquist: finer detail is noise or depends "
        "on which patterns were used. More photons or more overlap would help, or a better probe."
    ]


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
