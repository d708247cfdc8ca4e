"""
Detector of a description: corrections, orientation, window and binning of blocks of patterns.

Notes
-----
Spec: data 12.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.cxi import HAS_SIGNAL
from ptycho_backend.errors import ConfigError, DataError, ShapeError
from ptycho_backend.importing.description import DetectorDescription

Mask = NDArray[np.bool_]
Image = NDArray[np.float32]
Sides = tuple[int, int]

MIN_N = 8  # least side of the written patterns, pixels


@dataclass(frozen=True, eq=False)
class DetectorImages:
    """
    Images of the detector as they are in the files, (y, x) each; None for no such image.

    Parameters
    ----------
    dark : array, shape (y, x), optional
        Dark frame, in the unit of the patterns.
    flat : array, shape (y, x), optional
        Flat field.
    mask : array, shape (y, x), optional
        Mask, in the convention of the description.
    """

    dark: NDArray[Any] | None = None
    flat: NDArray[Any] | None = None
    mask: NDArray[Any] | None = None


@dataclass(frozen=True, eq=False)
class Corrections:
    """
    Dark frame, flat field and gain: counts = max(value − dark, 0) / (flat · gain).

    Parameters
    ----------
    dark, flat : float32, shape (y, x), optional
    gain : float
        Value of one photon.
    """

    dark: Image | None
    flat: Image | None
    gain: float

    @property
    def active(self) -> bool:
        """True for a correction that changes a value."""
        return self.dark is not None or self.flat is not None or self.gain != 1.0

    def apply(self, patterns: NDArray[Any]) -> NDArray[Any]:
        """Return corrected patterns, float32; without a correction the patterns themselves."""
        if not self.active:
            return patterns
        with np.errstate(invalid="ignore", over="ignore"):
            values = patterns.astype(np.float32)
            if self.dark is not None:
                values -= self.dark
                np.maximum(values, 0, out=values)
            if self.flat is not None:
                values /= self.flat
            values /= np.float32(self.gain)
        return values


@dataclass(frozen=True)
class Orientation:
    """
    Order of the detector pixels, applied to the last two axes.

    Parameters
    ----------
    shifted : bool
        Move of the zero frequency from the corner to the middle.
    transpose, flip_y, flip_x : bool
        Changes of the description, in this order.
    """

    shifted: bool
    transpose: bool
    flip_y: bool
    flip_x: bool

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array (..., y, x) in the order of the written detector; a view unless it is shifted."""
        result = np.fft.fftshift(array, (-2, -1)) if self.shifted else array
        result = result.swapaxes(-2, -1) if self.transpose else result
        result = result[..., ::-1, :] if self.flip_y else result
        return result[..., ::-1] if self.flip_x else result


@dataclass(frozen=True)
class Window:
    """
    Square of detector pixels around the zero frequency, and the bins in it.

    Bin ``[N//2, N//2]`` holds the zero frequency.

    Parameters
    ----------
    start : (int, int), pixels, (y, x)
        First row and column; it may be negative.
    N : int
        Side after binning, pixels.
    bin : int
        Side of a bin, pixels.
    """

    start: Sides
    N: int
    bin: int

    @property
    def size_px(self) -> int:
        """Side before binning, pixels."""
        return self.N * self.bin

    def cut(self, array: NDArray[Any], outside: Any = 0) -> NDArray[Any]:
        """Return a copy of the window of an array (..., y, x), with one value outside of the detector."""
        result = np.full((*array.shape[:-2], self.size_px, self.size_px), outside, dtype=array.dtype)
        (y, to_y), (x, to_x) = (_overlap(first, self.size_px, n) for first, n in _paired(self.start, array))
        result[..., to_y, to_x] = array[..., y, x]
        return result

    def binned(self, patterns: NDArray[Any], dtype: np.dtype[Any], squared: bool) -> NDArray[Any]:
        """Return the sums of the bins, (..., N, N); amplitudes are added as intensities."""
        if self.bin == 1:
            return patterns.astype(dtype, copy=False)
        total = np.zeros((*patterns.shape[:-2], self.N, self.N), dtype=dtype)
        for y in range(self.bin):
            for x in range(self.bin):
                part = patterns[..., y :: self.bin, x :: self.bin]
                total += np.square(part) if squared else part
        return np.sqrt(total) if squared else total

    def all_in_bins(self, good: Mask) -> Mask:
        """Return the bins whose pixels are all good, (N, N)."""
        return np.asarray(good.reshape(self.N, self.bin, self.N, self.bin).all(axis=(1, 3)))


def window_around(centre_px: tuple[float, float], sides: Sides, detector: DetectorDescription) -> Window:
    """
    Return the window around a centre: of the described size, or the largest inside of the detector.

    Without a size, a part of the detector has a side with fast Fourier transforms (:func:`is_fast`).

    Parameters
    ----------
    centre_px : (float, float), pixels, (y, x)
        Zero frequency in the oriented detector.
    sides : (int, int), pixels
        Sides of the oriented detector.
    detector : DetectorDescription
        Description with size and bin.

    Raises
    ------
    ConfigError
        If the centre is outside of the detector, the size is no multiple of the bin, or the window is too small.

    Notes
    -----
    Spec: data 12.
    """
    if not all(0 <= centre <= side - 1 for centre, side in zip(centre_px, sides, strict=True)):
        raise ConfigError(
            "The zero frequency lies on the detector.",
            expected=f"y from 0 to {sides[0] - 1} and x from 0 to {sides[1] - 1}",
            received=f"(y, x) = ({centre_px[0]:g}, {centre_px[1]:g})",
            fix="correct --detector.centre_y_px and --detector.centre_x_px, after transpose and flips",
        )
    if detector.size_px is not None and detector.size_px % detector.bin:
        nearest = detector.size_px // detector.bin * detector.bin
        raise ConfigError(
            "Bins fill the window.",
            expected=f"a multiple of the bin, {detector.bin}",
            received=f"--detector.size_px {detector.size_px}",
            fix=f"--detector.size_px {nearest or detector.bin}, or another --detector.bin",
        )
    if detector.size_px is not None and detector.size_px > max(2 * max(sides), MIN_N * detector.bin):
        raise ConfigError(
            "A window beyond the whole detector holds no more light.",
            expected=f"at most {2 * max(sides)}, twice the longer side of {sides[0]}×{sides[1]} px",
            received=f"--detector.size_px {detector.size_px}",
            fix="choose a smaller --detector.size_px",
        )
    largest = min(sides) if detector.size_px is None else detector.size_px
    for N in range(largest // detector.bin, MIN_N - 1, -1):
        window = Window((_start(centre_px[0], N, detector.bin), _start(centre_px[1], N, detector.bin)), N, detector.bin)
        inside = all(0 <= first <= n - window.size_px for first, n in zip(window.start, sides, strict=True))
        whole = sides == (window.size_px, window.size_px)
        if (inside and (whole or is_fast(N))) or detector.size_px is not None:
            return window
    raise ConfigError(
        f"Written patterns have at least {MIN_N} pixels along each side.",
        expected="a centre farther from the edge, a larger size, or a smaller bin",
        received=f"centre ({centre_px[0]:g}, {centre_px[1]:g}) of {sides[0]}×{sides[1]} px, bin {detector.bin}",
        fix="give --detector.centre_y_px, --detector.centre_x_px and --detector.size_px",
    )


def is_fast(N: int) -> bool:
    """Return whether a side is even with the prime factors 2, 3 and 5: fast transforms, and a pixel in the middle."""
    rest = N
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1 and N % 2 == 0


def corrections(
    images: DetectorImages, detector: DetectorDescription, sides: Sides, source: str
) -> tuple[Corrections, Mask]:
    """
    Return the corrections on the detector of the files, and its good pixels.

    Pixels without a finite dark value, or without a flat field above 0, are bad.

    Parameters
    ----------
    images : DetectorImages
    detector : DetectorDescription
        Gain and convention of the mask.
    sides : (int, int), pixels
        Sides of the patterns.
    source : str
        Name of the patterns, for messages.

    Raises
    ------
    ShapeError
        If an image has other sides than the patterns.
    DataError
        If an image holds no real numbers.

    Notes
    -----
    Spec: data 12.
    """
    good = np.ones(sides, dtype=bool)
    if images.mask is not None:
        values = _image(images.mask, "mask", sides, detector.mask or source)
        if detector.mask_convention == "cxi":
            values = values.astype(np.int64) & ~np.int64(HAS_SIGNAL)
        good &= values != 0 if detector.mask_convention == "good" else values == 0
    dark, flat = (
        None if image is None else _image(image, name, sides, address or source).astype(np.float32)
        for image, name, address in ((images.dark, "dark", detector.dark), (images.flat, "flat", detector.flat))
    )
    if dark is not None:
        good &= np.isfinite(dark)
    if flat is not None:
        usable = np.isfinite(flat) & (flat > 0)
        good &= usable
        flat = np.where(usable, flat, np.float32(1)).astype(np.float32)
    return Corrections(dark, flat, float(detector.gain)), good


def in_window(given: Corrections, orientation: Orientation, window: Window) -> Corrections:
    """Return corrections on the pixels of the window."""
    dark, flat = (
        None if image is None else window.cut(orientation.apply(image), outside)
        for image, outside in ((given.dark, 0), (given.flat, 1))
    )
    return replace(given, dark=dark, flat=flat)


def _image(values: NDArray[Any], name: str, sides: Sides, source: str) -> NDArray[Any]:
    image = np.asarray(values)
    while image.ndim > 2 and image.shape[0] == 1:
        image = image[0]
    if image.dtype.kind not in "buif":
        raise DataError.in_field(
            *("Images of the detector are real numbers.", "an integer or real dtype", f"dtype {image.dtype}"),
            *(f"choose another array with --detector.{name}", name, source),
        )
    if image.shape != sides:
        raise ShapeError.in_field(
            *("Images of the detector have the sides of its patterns.", f"shape {sides}", f"shape {np.shape(values)}"),
            *(f"choose another array with --detector.{name}", name, source),
        )
    return image


def _start(centre: float, N: int, bin_px: int) -> int:
    """Return the first pixel of a window whose bin N//2 has its middle nearest to the centre, in half pixels."""
    half = math.floor(2 * centre + 0.5) / 2
    return math.floor(half - bin_px * (N // 2) - (bin_px - 1) / 2 + 0.5)


def _overlap(first: int, size: int, side: int) -> tuple[slice, slice]:
    """Return the part of an axis of the detector inside of the window, and its place in the window."""
    low, high = max(first, 0), max(min(first + size, side), max(first, 0))
    return slice(low, high), slice(low - first, high - first)


def _paired(start: Sides, array: NDArray[Any]) -> list[tuple[int, int]]:
    return list(zip(start, array.shape[-2:], strict=True))
