"""
Description of the files of a scan: places of the arrays, units, axes and geometry.

A preset fills in a description from a file of a known layout, so that it can be printed, changed and stored as YAML.
An address is the path of a file, or ``file.h5:/entry/data`` for an array inside of it.

Notes
-----
Spec: data 12.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

LengthUnit = Literal["", "m", "mm", "um", "nm", "angstrom", "px"]
Sign = Literal[1, -1]
Switch = Literal["auto", "on", "off"]
Positive = Annotated[float, Gt(0.0)]
OptionalPositive = Positive | None


@dataclass
class PatternsDescription:
    """
    Patterns in the files.

    Parameters
    ----------
    dataset : str
        Name of the array inside of each file; empty for the only array with three or more axes.
    axes : str
        Letters of the axes in the order of the array: n (pattern), Y and X (row and column of a raster), y and x
        (detector). Empty for nyx, or YXyx with four axes.
    frames : str
        Slice of the patterns, as 10:500 or ::2; empty for all.
    unit : {"auto", "counts", "amplitude"}
        Unit of the values. "auto" takes whole numbers as counts; fractions are an error without a declared unit.
    raw_shape : str
        Shape of a raw file, as 1000x256x256.
    raw_dtype : str
        NumPy name of the numbers of a raw file, as <u2.
    raw_offset_bytes : int
        Length of the header of a raw file, bytes.
    raw_pattern_header_bytes : int
        Length of the header of every pattern in a raw file, bytes; 384 for most files (.mib) of Merlin detectors.
    """

    dataset: str = ""
    axes: str = ""
    frames: str = ""
    unit: Literal["auto", "counts", "amplitude"] = "auto"
    raw_shape: str = ""
    raw_dtype: str = ""
    raw_offset_bytes: Annotated[int, Ge(0)] = 0
    raw_pattern_header_bytes: Annotated[int, Ge(0), Le(2**20)] = 0


@dataclass
class PositionsDescription:
    """
    Positions of the probe on the sample, one for every pattern of the files.

    Parameters
    ----------
    y : str
        Address of an array with y. With `x` empty, an array with both.
    x : str
        Address of an array with x.
    text : str
        Path of a text or CSV file with one line for every pattern.
    columns : str
        Columns of y and x in `text` or in a single array: numbers from 0, or names in the header, as 1,0 or sy,sx.
    unit : {"", "m", "mm", "um", "nm", "angstrom", "px"}
        Unit of the positions and of the steps of a raster; px counts object pixels.
    y_sign : {1, -1}
        Factor of y; the result counts downward, as the rows of the object.
    x_sign : {1, -1}
        Factor of x; the result counts to the right, as the columns of the object.
    swap : bool
        Exchange of y and x, before the signs.
    rotation_deg : float
        Angle from the axes of the scan to those of the detector, about the middle of the scan; positive from +y
        to +x.
    raster_shape : str
        Rows and columns of a raster, as 51x51; a scan of four axes has its own.
    step_y : float, optional
        Distance of the rows of a raster, in `unit`.
    step_x : float, optional
        Distance of the columns of a raster, in `unit`; None takes `step_y`.
    snake : bool
        Direction of every second line of a raster: reversed.
    fast_axis : {"x", "y"}
        Axis along which a raster moves from one pattern to the next.
    """

    y: str = ""
    x: str = ""
    text: str = ""
    columns: str = ""
    unit: LengthUnit = ""
    y_sign: Sign = 1
    x_sign: Sign = 1
    swap: bool = False
    rotation_deg: float = 0.0
    raster_shape: str = ""
    step_y: OptionalPositive = None
    step_x: OptionalPositive = None
    snake: bool = False
    fast_axis: Literal["x", "y"] = "x"


@dataclass
class GeometryDescription:
    """
    Wavelength and size of the object's pixel.

    One of energy, wavelength and voltage gives the wavelength. The object's pixel follows from distance and detector
    pixel, from the reciprocal step, or from convergence angle and bright-field radius.

    Parameters
    ----------
    energy_kev : float, optional
        Energy of the photons, keV.
    energy_ev : float, optional
        Energy of the photons, eV.
    wavelength_m : float, optional
        Wavelength, metres.
    voltage_kv : float, optional
        Acceleration voltage of electrons, kV.
    distance_m : float, optional
        Distance from sample to detector, metres.
    detector_pixel_m : float, optional
        Pixel of the detector before binning, metres.
    detector_pixel_x_m : float, optional
        Width of a detector pixel, metres; None for square pixels.
    reciprocal_step_per_angstrom : float, optional
        Step of a detector pixel before binning, 1/Å, without a factor of 2π.
    convergence_mrad : float, optional
        Convergence semi-angle, mrad.
    bright_field_radius_px : float, optional
        Radius of the bright-field disc, detector pixels before binning; None measures it with a convergence angle.
    object_pixel_m : float, optional
        Pixel of the object, metres, if it is given at all: of the detector as it is written.
    """

    energy_kev: OptionalPositive = None
    energy_ev: OptionalPositive = None
    wavelength_m: OptionalPositive = None
    voltage_kv: OptionalPositive = None
    distance_m: OptionalPositive = None
    detector_pixel_m: OptionalPositive = None
    detector_pixel_x_m: OptionalPositive = None
    reciprocal_step_per_angstrom: OptionalPositive = None
    convergence_mrad: OptionalPositive = None
    bright_field_radius_px: OptionalPositive = None
    object_pixel_m: OptionalPositive = None


@dataclass
class DetectorDescription:
    """
    Detector: corrections, axes and window, in the order of the parameters.

    Parameters
    ----------
    dark : str
        Address of a dark frame (y, x) that is subtracted, with clipping at 0.
    flat : str
        Address of a flat field (y, x) that divides.
    gain : float
        Value of one photon.
    saturation : float, optional
        Least value of a saturated pixel in the files, before any correction; pixels that reach it are masked.
    mask : str
        Address of a mask (y, x).
    mask_convention : {"bad", "good", "cxi"}
        Pixels that are not 0 in the mask: bad, good, or bad with the exception of bit 0x1000 (has signal, "cxi").
    fftshift : {"auto", "on", "off"}
        Move of the zero frequency from the corner to the middle; "auto" where the mean pattern shows it.
    transpose : bool
        Exchange of the rows and columns of the detector.
    flip_y : bool
        Reversed order of the rows, after `transpose`.
    flip_x : bool
        Reversed order of the columns, after `transpose`.
    centre_y_px : float, optional
        Row of the zero frequency after `transpose` and flips; None finds it in the mean pattern.
    centre_x_px : float, optional
        Column of the zero frequency after `transpose` and flips; None finds it in the mean pattern.
    size_px : int, optional
        Side of the square around the centre, pixels before binning; what lies outside of the detector is masked.
        None takes a whole square detector, or the largest square inside of it whose side is even with the prime
        factors 2, 3 and 5.
    bin : int
        Side of the square of pixels that are added to one.
    """

    dark: str = ""
    flat: str = ""
    gain: Positive = 1.0
    saturation: OptionalPositive = None
    mask: str = ""
    mask_convention: Literal["bad", "good", "cxi"] = "bad"
    fftshift: Switch = "auto"
    transpose: bool = False
    flip_y: bool = False
    flip_x: bool = False
    centre_y_px: float | None = None
    centre_x_px: float | None = None
    size_px: Annotated[int, Ge(8), Le(4096)] | None = None
    bin: Annotated[int, Ge(1), Le(64)] = 1


@dataclass
class ProbeDescription:
    """
    Guess of the probe: an array, optics, or none.

    Parameters
    ----------
    array : str
        Address of a complex array (mode, y, x) or (y, x), on the grid of the written patterns.
    optics : {"none", "pinhole", "zone-plate", "lens", "gaussian"}
        Optics that form the probe. "none" leaves the search of a probe to the reconstruction.
    diameter_m : float, optional
        Diameter of the pinhole or zone plate, or of the waist of a Gaussian beam at 1/e² of its intensity, metres.
    outermost_zone_m : float, optional
        Width of the outermost zone of a zone plate, metres.
    central_stop_m : float
        Diameter of the central stop of a zone plate, metres.
    aperture_mrad : float, optional
        Semi-angle of the aperture of a lens, mrad; None takes the convergence angle of the geometry.
    defocus_m : float
        Distance from focus, or from pinhole, to sample, metres; positive downstream.
    cs_m : float
        Spherical aberration of a lens, metres.
    astigmatism_m : float
        Half the distance between the two line foci of a lens, metres.
    astigmatism_deg : float
        Direction of the stronger focusing, degrees from +x to +y; the line focus downstream lies along it.
    """

    array: str = ""
    optics: Literal["none", "pinhole", "zone-plate", "lens", "gaussian"] = "none"
    diameter_m: OptionalPositive = None
    outermost_zone_m: OptionalPositive = None
    central_stop_m: Annotated[float, Ge(0.0)] = 0.0
    aperture_mrad: OptionalPositive = None
    defocus_m: float = 0.0
    cs_m: float = 0.0
    astigmatism_m: float = 0.0
    astigmatism_deg: float = 0.0


@dataclass
class ImportConfig:
    """
    Description of a scan in files.

    Parameters
    ----------
    preset : str
        Known layout that fills in the description: "auto" recognises it, "none" takes the description alone.
    patterns : PatternsDescription
        Patterns.
    positions : PositionsDescription
        Positions.
    geometry : GeometryDescription
        Wavelength and object pixel.
    detector : DetectorDescription
        Detector.
    probe : ProbeDescription
        Probe guess.
    """

    preset: str = "auto"
    patterns: PatternsDescription = field(default_factory=PatternsDescription)
    positions: PositionsDescription = field(default_factory=PositionsDescription)
    geometry: GeometryDescription = field(default_factory=GeometryDescription)
    detector: DetectorDescription = field(default_factory=DetectorDescription)
    probe: ProbeDescription = field(default_factory=ProbeDescription)
