"""Reconstructed image in scan coordinates, with the experiment that the solver found and its origin."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.product import INCOMPLETE
from ptycho_backend.runtime.quantities import mode_shares, photons_text, pixel_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WELL_COVERED = 0.25  # of the largest coverage
GIVEN = "+y+x"  # orientation of positions that stand as given


@dataclass(frozen=True, eq=False)
class Experiment:
    """
    Experiment as the solver found it, together with the object.

    Parameters
    ----------
    probe : complex64, shape (mode, y, x)
        Probe in the calibration's scale.
    positions_px : float64, shape (position, 2), (y, x)
        Fitted positions; those of the scan where they are not fitted.
    windows_px : float64, shape (position, 2), (y, x)
        Positions of the windows, from which the solver moved the probe: those of the scan, after its orientation and
        the correction of an affine error.
    scales : float64, shape (position,)
        Amplitude of each pattern over the calibration's; 1 where it is not fitted.
    background : float
        Normalised intensity that every pixel of every pattern contains; 0 where it is not fitted.
    unfitted : tuple of str
        "positions", "flux" or "background": fits that are switched off and needed.
    left_out : tuple of int
        Patterns that contradict all others and were left out during the iterations; nothing of them is fitted.
    orientation : str
        Orientation of the positions against those that were given (data 11).
    """

    probe: NDArray[np.complex64]
    positions_px: NDArray[np.float64]
    windows_px: NDArray[np.float64]
    scales: NDArray[np.float64]
    background: float = 0.0
    unfitted: tuple[str, ...] = ()
    left_out: tuple[int, ...] = ()
    orientation: str = GIVEN

    def facts(self) -> dict[str, str]:
        """Return label and short text: modes, positions, and what was found beyond the given values."""
        modes = len(self.probe)
        texts = {"probe": f"{modes} probe mode{'s' * (modes != 1)}", "positions": f"{len(self.positions_px)} positions"}
        if self.orientation != GIVEN:
            texts["orientation"] = f"orientation {self.orientation}"
        if np.any(self.scales != 1):
            texts["flux"] = f"relative flux {self.scales.min() ** 2:.2f} to {self.scales.max() ** 2:.2f}"
        if self.background:
            texts["background"] = f"background {self.background:.2g}"
        if self.left_out:
            texts["left out"] = f"{len(self.left_out)} left out"
        if self.unfitted:
            texts["not fitted"] = f"needed and not fitted: {', '.join(self.unfitted)}"
        return texts

    def __repr__(self) -> str:
        return f"<Experiment: {', '.join(self.facts().values())}>"

    @classmethod
    def given(cls, probe: NDArray[np.complex64], positions_px: NDArray[np.float64]) -> Experiment:
        """Return an experiment as the scan describes it, of which nothing is fitted."""
        return cls(probe, positions_px, positions_px, np.ones(len(positions_px)))


@dataclass(frozen=True, eq=False)
class Image:
    """
    Stitched image in scan coordinates.

    Parameters
    ----------
    obj : complex64, shape (y, x)
        Transmission function; 0 outside of the scan.
    coverage : float32, shape (y, x)
        Summed weights of the patterns that cover a pixel.
    origin_px : (float, float), (y, x)
        Scan coordinates of pixel (0, 0).
    experiment : Experiment, optional
        Probe, positions, flux and background of this image; None for an image that the solver did not make.
    pixel_size_m : (float, float), (y, x), optional
        Object pixel, metres; None if unknown.
    errors : tuple of float
        Σ(x − |ψ|)² / Σx² over good pixels, in every iteration of the solver.
    name : str
        Name of the scan, for titles.
    photons_per_pattern : float, optional
        Mean measured photons of a pattern.
    provenance : dict
        Plain values: source and attributes of the scan, options, start, device, versions and seed.
    counts_per_intensity : float, optional
        Photons of a pixel over its normalised intensity; the square root scales the probe to sqrt(photons).
    """

    obj: NDArray[np.complex64]
    coverage: NDArray[np.float32]
    origin_px: tuple[float, float]
    experiment: Experiment | None = None
    pixel_size_m: tuple[float, float] | None = None
    errors: tuple[float, ...] = ()
    name: str = ""
    photons_per_pattern: float | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    counts_per_intensity: float | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, pixels."""
        return self.obj.shape[0], self.obj.shape[1]

    @property
    def probe(self) -> NDArray[np.complex64] | None:
        """Probe (mode, y, x) in the calibration's scale; None without an experiment."""
        return None if self.experiment is None else self.experiment.probe

    @property
    def probe_shares(self) -> NDArray[np.float64] | None:
        """Share of every probe mode in the intensity, float64, shape (mode,); None without an experiment."""
        return None if self.experiment is None else mode_shares(self.experiment.probe)

    @property
    def positions_px(self) -> NDArray[np.float64] | None:
        """Fitted positions (position, 2), pixels, (y, x); None without an experiment."""
        return None if self.experiment is None else self.experiment.positions_px

    def save(self, path: Path | str, overwrite: bool = False) -> Path:
        """
        Write the image as a ptychodus product, HDF5, that :func:`load_image` reads back.

        Parameters
        ----------
        path : path
            Its suffix is .h5, .hdf5 or .hdf.
        overwrite : bool
            Replace an existing file.

        Raises
        ------
        OutputError
            If the file has another suffix, exists, or cannot be written.
        DataError
            If the provenance holds values that are not plain.

        Notes
        -----
        Spec: data 3.4, 14.
        """
        from ptycho_backend.data.image_file import checked_suffix, write_image_file

        target = checked_suffix(path)
        return write_image_file(target, vars(self), title=self.name or target.stem, overwrite=overwrite)

    def plot(self) -> Figure:
        """Return a figure of amplitude and phase, cropped to the illuminated part, outside of pyplot."""
        from ptycho_backend.plots.figures import title_of
        from ptycho_backend.plots.objects import object_figure

        title = title_of(self.name, self.pixel_size_m, self.photons_per_pattern)
        return object_figure(self.obj, self.coverage, self.origin_px, self.pixel_size_m, title)

    def to_tiff(self, path: Path | str, overwrite: bool = False) -> Path:
        """
        Write amplitude and phase as two float32 pages of an OME-TIFF file, with the pixel size in the tags.

        Piston and ramp are removed from the phase, because diffraction data leave both free. The phase is wrapped, rad.
        Pixels without coverage are 0.

        Raises
        ------
        OutputError
            If the file has another suffix than .tif or .tiff, exists without `overwrite`, or cannot be written.

        Notes
        -----
        Spec: data 14.
        """
        from ptycho_backend.data.image_exports import write_tiff

        return write_tiff(path, vars(self), overwrite)

    def to_xarray(self) -> Any:
        """
        Return an xarray Dataset: object, coverage, amplitude, phase, probe and positions.

        Coordinates are metres, or pixels where the pixel size is unknown.

        Raises
        ------
        ConfigError
            If xarray is not installed.
        """
        from ptycho_backend.data.image_exports import dataset

        return dataset(vars(self))

    def to_layers(self) -> list[tuple[Any, dict[str, Any], str]]:
        """
        Return napari's LayerDataTuples: amplitude, phase and positions, in micrometres or pixels.

        ``napari.layers.Layer.create(*layer)`` makes a layer of each; napari itself is not imported.
        """
        from ptycho_backend.data.image_exports import layers

        return layers(vars(self))

    def facts(self) -> dict[str, str]:
        """Return label and short text: size, pixel, dose, experiment and last error."""
        pixel = "" if self.pixel_size_m is None else f" of {pixel_text(self.pixel_size_m)}"
        texts = {"size": f"{self.shape[0]} × {self.shape[1]} px{pixel}"}
        if self.photons_per_pattern is not None:
            texts["dose"] = f"{photons_text(self.photons_per_pattern)} photons per pattern"
        if self.experiment is not None:
            texts |= self.experiment.facts()
        if self.errors:
            texts["error"] = f"error {self.errors[-1]:.3g} after {len(self.errors)} iterations"
        if INCOMPLETE in self.provenance:
            texts[INCOMPLETE] = f"incomplete ({self.provenance[INCOMPLETE]})"
        return texts

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<Image{name}: {', '.join(self.facts().values())}>"

    def _repr_html_(self) -> str:
        from ptycho_backend.plots.notebook import html_summary, object_png

        rows, shares = self.facts(), self.probe_shares
        if shares is not None and len(shares) > 1:
            rows["probe"] += f": {', '.join(f'{share:.1%}' for share in shares)}"

        def picture() -> bytes:
            return object_png(self.obj, self.coverage, self.pixel_size_m)

        return html_summary(f"Image {self.name}", rows, picture)


def load_image(path: Path | str) -> Image:
    """
    Read an image that :meth:`Image.save` or a command wrote, or another ptychodus product.

    Parameters
    ----------
    path : path
        HDF5 file, or a run folder, of which ``reconstruction.h5`` is read.

    Returns
    -------
    Image
        Files of other programs, and of earlier versions, contain fewer fields: their coverage is 1 where the object is
        not 0, and the probe is scaled to Σ |P|² = (N/2)².

    Raises
    ------
    DataError
        If there is no such file, or it is no product, or it is damaged.

    Notes
    -----
    Spec: data 3.4, 14.
    """
    from ptycho_backend.data.image_file import image_fields

    fields = image_fields(path)
    experiment = fields.pop("experiment")
    if experiment is not None:
        names = {each.name for each in dataclasses.fields(Experiment)}
        experiment = Experiment(**{name: value for name, value in experiment.items() if name in names})
    return Image(**fields, experiment=experiment)


def well_covered(image: Image) -> Image:
    """Return the bounding rectangle of the well-covered part of an image; its rim is covered by few patterns."""
    covered = image.coverage > WELL_COVERED * image.coverage.max()
    if not covered.any():
        return image
    (top, bottom), (left, right) = (np.flatnonzero(covered.any(axis=axis))[[0, -1]] for axis in (1, 0))
    crop = slice(top, bottom + 1), slice(left, right + 1)
    origin = (image.origin_px[0] + float(top), image.origin_px[1] + float(left))
    return dataclasses.replace(image, obj=image.obj[crop], coverage=image.coverage[crop], origin_px=origin)
