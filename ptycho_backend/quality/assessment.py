"""
Assessment of a reconstruction without a known object (spec: metrics 8).

All figures follow from the measured patterns, the image and, for a network, its patches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import InferenceConfig, Orientation, validate
from ptycho_backend.data.image import Image
from ptycho_backend.data.orientation import AS_GIVEN
from ptycho_backend.data.scan import Scan
from ptycho_backend.data.selection import measured_rows
from ptycho_backend.engines.model import Model
from ptycho_backend.events import OnEvent, ignore, without_images
from ptycho_backend.network.prediction import Predicted
from ptycho_backend.network.training_domain import Conditions, outside, scan_conditions, training_domain_of
from ptycho_backend.plots.notebook import curves_png, html_summary
from ptycho_backend.quality.causes import ExperimentFigures, listed
from ptycho_backend.quality.half_datasets import HalfDatasets, half_datasets
from ptycho_backend.quality.patch_agreement import PatchAgreement, patch_agreement
from ptycho_backend.quality.residuals import Residuals, Variation, residuals
from ptycho_backend.reconstruction import Reconstruction, prepare
from ptycho_backend.runtime.plain_values import to_plain
from ptycho_backend.runtime.quantities import resolution_m, resolution_text

Real = NDArray[np.float64]

STARTS = {"flat": "a flat object", "physics": "estimates from single patterns"}
MAX_UNEXPLAINED = 0.15  # share of the variance; a probe 5 % too wide gives 0.08, one 10 % too wide 0.3
OUTLIER_RATIO = 3.0  # residual over floor, relative to the median pattern
OUTLIER_EXCESS = 0.01  # residual above the floor, over the mean counts per pixel
MAX_DISAGREEMENT = 0.35  # of patches and image; good networks reach 0.26 for strongly curved probes
FLAT_IMAGE = 0.1  # predicted over measured variation of a constant image
FLAT_PATCHES = 0.05  # contrast of constant patches over that of the image
MIN_VARIATION = 5e-5  # between patterns of an object; a phase of 0.05 rad gives twice as much
SIGNIFICANCE = 5.0  # standard deviations
POOR_RESOLUTION = 0.2  # fraction of Nyquist


@dataclass(frozen=True, eq=False)
class Assessment:
    """
    Figures of merit from the patterns alone, and warnings.

    Parameters
    ----------
    residual, shot_noise_floor : float
        Mean half-deviance per good pixel for probe and stitched image, and its expectation from photon noise alone;
        both without outliers.
    unexplained_variance : float
        Share of the variance between patterns that the image does not explain, without photon noise. About 0 for a
        good image, 1 for a constant image, more for a wrong image.
    residual_per_pattern, floor_per_pattern : float64, shape (position,)
    outliers : tuple of int
        Patterns with a much larger residual than the others, largest first.
    disagreement : float, optional
        Rms difference of single patches and image under the probe, over the rms of the image; None without a network.
    disagreement_per_pattern : float64, shape (position,), optional
        None without a network.
    measured_variation, predicted_variation : float
        Relative variance between patterns, measured (without photon noise) and predicted by the image.
    collapsed : bool
        The image, or the network's patches, are nearly constant although the patterns vary.
    halves : HalfDatasets, optional
    no_halves : str
        Reason for missing halves; empty otherwise.
    conditions : Conditions
        Conditions of the scan.
    training_domain : Conditions, optional
        Conditions of the network's training; None without a network.
    no_network : str
        Reason for a missing disagreement and training domain; empty otherwise.
    experiment : ExperimentFigures
        Differences from what was given, as the solver found them: positions, flux and background.
    numbers : tuple of int
        Number in its file of every pattern that took part.
    warnings : tuple of str
        Problems with the image, each with a remedy.
    pixel_size_m : (float, float), optional
        Object pixel (y, x), metres, for the resolution as a length; None where it is unknown.
    """

    residual: float
    shot_noise_floor: float
    unexplained_variance: float
    residual_per_pattern: Real = field(repr=False)
    floor_per_pattern: Real = field(repr=False)
    outliers: tuple[int, ...]
    disagreement: float | None
    disagreement_per_pattern: Real | None = field(repr=False)
    measured_variation: float
    predicted_variation: float
    collapsed: bool
    halves: HalfDatasets | None
    no_halves: str
    conditions: Conditions
    training_domain: Conditions | None
    no_network: str = ""
    experiment: ExperimentFigures = field(default_factory=ExperimentFigures)
    numbers: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    pixel_size_m: tuple[float, float] | None = None

    @property
    def resolution_m(self) -> float | None:
        """Return the period up to which half datasets agree, metres; None without halves, or for an unknown pixel."""
        return None if self.halves is None else resolution_m(self.halves.resolution, self.pixel_size_m)

    def facts(self) -> dict[str, str]:
        """Return label and short text: residual, unexplained variance, resolution, outliers and number of warnings."""
        ratio = self.residual / max(self.shot_noise_floor, 1e-30)
        texts = {
            "residual": f"residual {ratio:.3g} × shot noise",
            "unexplained": f"{self.unexplained_variance:.2%} of the variance unexplained",
        }
        if self.halves is not None:
            agreed = resolution_text(self.halves.resolution, self.pixel_size_m)
            texts["resolution"] = f"half datasets agree to {agreed}"
        if self.outliers:
            texts["outliers"] = f"{len(self.outliers)} of {len(self.residual_per_pattern)} patterns fit much worse"
        n = len(self.warnings)
        texts["warnings"] = f"{n} warning{'s' * (n != 1)}" if n else "no warnings"
        return texts

    def __repr__(self) -> str:
        lines = [f"<Assessment: {', '.join(self.facts().values())}>", *self.warnings[:1]]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html_summary("Assessment", self.facts(), self._picture, self.warnings)

    def _picture(self) -> bytes:
        """Return a small PNG of the residual of every pattern and its expectation."""
        curves = {"residual": self.residual_per_pattern, "shot noise": self.floor_per_pattern}
        return curves_png(curves, "pattern", logarithmic=True)

    def to_dict(self) -> dict[str, Any]:
        """Return all figures but the difference image as plain values, ready for JSON."""
        values = vars(self) | {
            "conditions": self.conditions.to_dict(),
            "experiment": to_plain(dataclasses.asdict(self.experiment)),
        }
        if self.training_domain is not None:
            values["training_domain"] = self.training_domain.to_dict()
        if self.halves is not None:
            halves = {name: value for name, value in vars(self.halves).items() if name != "difference"}
            values["halves"] = {"resolution_m": self.resolution_m, **halves}
        # Warnings first and long lists last, for a human reader.
        order = sorted(values, key=lambda name: (name != "warnings", isinstance(values[name], np.ndarray | tuple)))
        return {name: to_plain(values[name]) for name in order}


def assess(
    scan: Scan,
    image: Image,
    model: Model | None = None,
    inference: InferenceConfig | None = None,
    on_event: OnEvent = ignore,
    predicted: Predicted | None = None,
) -> Assessment:
    """
    Assess an image by the patterns alone.

    Parameters
    ----------
    scan : Scan
        Measured scan of the image.
    image : Image
        Result of :func:`ptycho_backend.reconstruct`, also after changes by the caller.
    model : Model, optional
        Model of the reconstruction; None for a reconstruction without one.
    inference : InferenceConfig, optional
        Settings of the reconstruction. `half_datasets` off saves the time of a second reconstruction.
    on_event : callable, optional
    predicted : Predicted, optional
        Patches that the model predicted for this image; None predicts them again.

    Returns
    -------
    Assessment
        Its `warnings` are the summary.

    Notes
    -----
    Spec: metrics 8.
    """
    inference = inference or InferenceConfig()
    if image.experiment is not None and image.experiment.orientation != AS_GIVEN:
        inference = dataclasses.replace(inference, orientation=cast(Orientation, image.experiment.orientation))
    validate(inference)
    return assessment_of(prepare(scan, model, inference, on_event=on_event), image, on_event, predicted)


def assessment_of(
    reconstruction: Reconstruction, image: Image, on_event: OnEvent = ignore, predicted: Predicted | None = None
) -> Assessment:
    """
    Assess the image of a reconstruction (parameters and result of :func:`assess`).

    The calibration and the start of the reconstruction hold for the half datasets too.
    """
    scan, calibration, inference = reconstruction.scan, reconstruction.calibration, reconstruction.inference
    found = residuals(scan, calibration, image, on_event)
    predicted = predicted or reconstruction.predict(without_images(on_event), "prediction")
    network: _Network | str = f"the image started from {STARTS.get(reconstruction.start)}, without a network"
    if predicted is not None and reconstruction.model is not None:
        agreement = patch_agreement(scan, calibration, predicted, image, inference.batch_size, on_event)
        model = reconstruction.model
        network = _Network(agreement, model.training_domain or training_domain_of({}, model.calibration))
    halves: HalfDatasets | str = "not requested"
    if inference.half_datasets:
        halves = half_datasets(reconstruction, predicted, on_event)
    summary = _summarised(found, network, halves, scan_conditions(scan, calibration.probe, found.photons))
    figures = ExperimentFigures.of(reconstruction.given_scan, image, reconstruction.better_orientation)
    numbers = tuple(measured_rows(len(scan), scan.attributes).tolist())
    summary = dataclasses.replace(summary, numbers=numbers, experiment=figures, pixel_size_m=scan.pixel_size_m)
    return dataclasses.replace(summary, warnings=tuple(_warnings(summary, found.variation)))


class _Network(NamedTuple):
    """Agreement of the network's patches with the image, and the conditions of its training."""

    agreement: PatchAgreement
    domain: Conditions


def _summarised(
    found: Residuals, network: _Network | str, halves: HalfDatasets | str, conditions: Conditions
) -> Assessment:
    outliers = _outliers(found)
    inliers = np.ones(len(found.residual), dtype=bool)
    inliers[list(outliers)] = False
    variation = found.variation
    threshold = _least_variation(variation)
    varied, flat_image = variation.measured > threshold, _is_flat(variation)
    agreement, domain = (None, None) if isinstance(network, str) else network
    flat_patches = agreement is not None and agreement.patch_contrast < FLAT_PATCHES * agreement.image_contrast
    unexplained = float(found.unexplained_variance[inliers].mean())
    return Assessment(
        residual=float(found.residual[inliers].mean()),
        shot_noise_floor=float(found.floor[inliers].mean()),
        unexplained_variance=unexplained / max(variation.measured, threshold),
        residual_per_pattern=found.residual,
        floor_per_pattern=found.floor,
        outliers=outliers,
        disagreement=float(np.sqrt((agreement.disagreement**2).mean())) if agreement else None,
        disagreement_per_pattern=agreement.disagreement if agreement else None,
        measured_variation=variation.measured,
        predicted_variation=variation.predicted,
        collapsed=flat_image or (varied and flat_patches),
        halves=None if isinstance(halves, str) else _without_false_resolution(halves, flat_image),
        no_halves=halves if isinstance(halves, str) else "",
        conditions=conditions,
        training_domain=domain,
        no_network=network if isinstance(network, str) else "",
    )


def _least_variation(variation: Variation) -> float:
    """Return the variation between patterns above which the object cannot be constant."""
    return max(MIN_VARIATION, SIGNIFICANCE * variation.error)


def _is_flat(variation: Variation) -> bool:
    """Return whether the image is nearly constant although the patterns vary."""
    varied = variation.measured > _least_variation(variation)
    return varied and variation.predicted < FLAT_IMAGE * variation.measured


def _warnings(assessment: Assessment, variation: Variation) -> Iterator[str]:
    yield from assessment.experiment.warnings(assessment.unexplained_variance)
    yield from _image_warnings(assessment, _is_flat(variation))
    yield from _pattern_warnings(assessment)
    if variation.measured > _least_variation(variation):
        yield from _resolution_warnings(assessment.halves, assessment.pixel_size_m)
    yield from _domain_warnings(assessment)


def _without_false_resolution(halves: HalfDatasets, collapsed: bool) -> HalfDatasets:
    """Set the resolution of a constant image to 0: its ring correlation carries no information (metrics 6.1)."""
    return dataclasses.replace(halves, resolution=0.0) if collapsed else halves


def _outliers(found: Residuals) -> tuple[int, ...]:
    ratio = found.residual / np.maximum(found.floor, 1e-30)
    excess = (found.residual - found.floor) / found.counts
    is_outlier = (ratio > OUTLIER_RATIO * np.median(ratio)) & (excess > OUTLIER_EXCESS)
    order = np.argsort(-ratio, kind="stable")
    return tuple(int(i) for i in order[is_outlier[order]])


def _image_warnings(assessment: Assessment, flat_image: bool) -> Iterator[str]:
    if flat_image:
        yield (
            "The image is nearly constant, but the patterns vary: the object was not found. "
            f"{'C' if assessment.no_network else 'Train again, or c'}heck probe, positions and mask."
        )
        return
    if assessment.collapsed:
        yield (
            "The network predicts nearly the same patch for every pattern; the solver alone made the image. "
            "Train again, or use another model."
        )
    if assessment.unexplained_variance > MAX_UNEXPLAINED:
        ratio = assessment.residual / max(assessment.shot_noise_floor, 1e-30)
        yield (
            f"Image and probe do not explain {min(assessment.unexplained_variance, 1.0):.0%} of the variance between "
            f"patterns (residual: {ratio:.3g} times the shot noise). Most often the probe is wrong (add iterations of "
            "probe refinement), or positions or the mask are. Half datasets may then agree on a common error."
        )


def _pattern_warnings(assessment: Assessment) -> Iterator[str]:
    outliers = assessment.outliers
    if outliers:
        yield (
            f"{len(outliers)} of {len(assessment.residual_per_pattern)} patterns fit much worse than the others "
            f"(numbers from 0: {listed([assessment.numbers[i] for i in outliers])}). Check them for a closed shutter, "
            "lost beam or wrong positions, and leave them out."
        )
    if assessment.disagreement is not None and assessment.disagreement > MAX_DISAGREEMENT:
        yield (
            f"Patches of single patterns differ from the image by {assessment.disagreement:.0%}: neighbours contradict "
            "each other. Check probe and positions, and train on this scan."
        )


def _resolution_warnings(halves: HalfDatasets | None, pixel_size_m: tuple[float, float] | None) -> Iterator[str]:
    if halves is not None and 0.0 < halves.resolution <= POOR_RESOLUTION:
        yield (
            f"Half datasets agree only up to {resolution_text(halves.resolution, pixel_size_m)}: finer detail is noise "
            "or depends on the choice of patterns. More photons, more overlap or a better probe would help."
        )


def _domain_warnings(assessment: Assessment) -> Iterator[str]:
    domain = assessment.training_domain
    if domain is not None and (deviations := outside(assessment.conditions, domain)):
        yield (
            f"The scan lies outside of the network's training domain: {'; '.join(deviations)}. Train on this scan, or "
            'compare with an image from a flat object (--compare, or start="flat").'
        )
