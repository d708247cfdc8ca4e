"""Known objects for simulation, with contrast up to Nyquist: photographs, lines, a star (spec: simulation 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.errors import ConfigError, DataError

Real = NDArray[np.float64]
Size = tuple[int, int]
Pair = tuple[Real, Real]

# Photographs in the installed scikit-image, without any download.
PHOTOGRAPHS = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "motorcycle_left.png",
    "rocket.jpg",
)
TEXTURES = ("brick.png", "grass.png", "gravel.png", "ihc.png")
MAX_REDUCTION = 1.5  # photographs are softer than their pixels; a reduction brings contrast up to Nyquist
# The product of probe and object aliases if the object has full contrast at Nyquist, differently for every sub-pixel
# shift. This Gaussian transmits 37 % at half of Nyquist and 2 % at Nyquist.
DETAIL_SIGMA_PX = 0.9


def make_object(
    name: str,
    size_px: Size,
    rng: np.random.Generator,
    amplitude_range: tuple[float, float] = (0.6, 1.0),
    phase_range_rad: tuple[float, float] = (-1.0, 1.0),
) -> NDArray[np.complex64]:
    """
    Draw a random object.

    Parameters
    ----------
    name : {"photographs", "textures", "lines", "siemens"}
        Amplitude and phase show two different photographs, two different textures, two sets of random lines,
        or one Siemens star.
    size_px : (int, int), (y, x)
    rng : numpy Generator
    amplitude_range, phase_range_rad : (float, float)
        Lowest and highest value of amplitude and phase.

    Returns
    -------
    complex64, shape size_px
        Transmission function.

    Notes
    -----
    Spec: simulation 1.1, 1.2.
    """
    if name not in OBJECTS:
        raise ConfigError.unknown("object", name, OBJECTS, f"object_name={name!r}")
    amplitude, phase = (_softened(part) for part in OBJECTS[name](size_px, rng))
    modulus = _between(amplitude, amplitude_range)
    return np.asarray(modulus * np.exp(1j * _between(phase, phase_range_rad)), dtype=np.complex64)


def photographs(size_px: Size, rng: np.random.Generator) -> Pair:
    """Draw two different photographs, values 0 to 1."""
    return _two_of(PHOTOGRAPHS, size_px, rng)


def textures(size_px: Size, rng: np.random.Generator) -> Pair:
    """Draw two different textures, values 0 to 1: fine detail everywhere, the hardest object."""
    return _two_of(TEXTURES, size_px, rng)


def lines(size_px: Size, rng: np.random.Generator) -> Pair:
    """Draw two sets of random straight lines, values 0 to 1."""
    return random_lines(size_px, rng), random_lines(size_px, rng)


def siemens(size_px: Size, rng: np.random.Generator) -> Pair:
    """Draw a Siemens star with absorbing and phase-shifting spokes, values 0 to 1."""
    star = siemens_star(size_px, centre_px=(np.asarray(size_px) - 1) / 2 + rng.uniform(-2, 2, size=2))
    return 1.0 - star, star


OBJECTS: dict[str, Callable[[Size, np.random.Generator], Pair]] = {
    "photographs": photographs,
    "textures": textures,
    "lines": lines,
    "siemens": siemens,
}


def photograph(filename: str, size_px: Size, rng: np.random.Generator) -> Real:
    """Return a random part of a photograph, values 0 to 1; small photographs are mirrored."""
    import skimage.transform

    picture = read_grey(filename)
    room = min(picture.shape[0] / size_px[0], picture.shape[1] / size_px[1])
    reduction = float(np.clip(room, 1.0, MAX_REDUCTION))
    crop = [min(round(n * reduction), side) for n, side in zip(size_px, picture.shape, strict=True)]
    top, left = (int(rng.integers(0, side - n + 1)) for n, side in zip(crop, picture.shape, strict=True))
    part = picture[top : top + crop[0], left : left + crop[1]]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    if reduction > 1.0:
        resize: Any = skimage.transform.resize
        part = resize(part, size_px, order=3, anti_aliasing=True)
    padding = [(0, n - side) for n, side in zip(size_px, part.shape, strict=True)]
    return stretched(np.pad(part, padding, mode="reflect"))


def siemens_star(size_px: Size, centre_px: NDArray[np.float64], spokes: int = 48) -> Real:
    """Return an anti-aliased Siemens star, 0 to 1, with two radii at which black and white swap."""
    y, x = (axis - c for axis, c in zip(np.indices(size_px), centre_px, strict=True))
    radius = np.hypot(y, x)
    cycles = np.arctan2(y, x) * spokes / (2 * np.pi)
    edge_distance_px = (0.25 - np.abs(cycles - np.rint(cycles))) * 2 * np.pi * radius / spokes
    tone = covered(edge_distance_px) - 0.5
    for share in (0.2, 0.36):
        tone = tone * (1 - 2 * covered(radius - share * min(size_px)))
    return np.asarray(tone + 0.5)


def _two_of(filenames: tuple[str, ...], size_px: Size, rng: np.random.Generator) -> Pair:
    first, second = rng.choice(len(filenames), size=2, replace=False)
    return photograph(filenames[first], size_px, rng), photograph(filenames[second], size_px, rng)


def random_lines(size_px: Size, rng: np.random.Generator) -> Real:
    """Draw one set of random straight lines, values 0 to 1."""
    y, x = (np.indices(size_px) - (np.reshape(size_px, (2, 1, 1)) - 1) / 2).astype(np.float32)
    reach = float(np.hypot(*size_px)) / 2
    canvas = np.zeros(size_px, dtype=np.float32)
    for _ in range(max(24, max(size_px) // 2)):
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-reach, reach)
        half_width, strength = rng.uniform(0.5, 3.0), rng.uniform(-1.0, 1.0)
        distance = np.abs(y * np.float32(np.sin(angle)) + x * np.float32(np.cos(angle)) - np.float32(offset))
        canvas += np.float32(strength) * covered(np.float32(half_width) - distance)
    return stretched(canvas.astype(np.float64))


def covered(inside_px: NDArray[Any]) -> NDArray[Any]:
    """Return the covered share of a pixel at a signed distance inside of an edge: anti-aliasing."""
    return np.clip(inside_px + 0.5, 0.0, 1.0)


def read_grey(filename: str) -> Real:
    """Read a picture of the installed scikit-image, grey values 0 to 1."""
    from importlib.resources import files

    from skimage.color import rgb2gray
    from skimage.io import imread

    path = files("skimage") / "data" / filename
    if not path.is_file():
        raise DataError(
            "Photographs come from the installed scikit-image.",
            expected=f"the file '{filename}' in its data folder",
            received=f"no file '{path}'",
            fix="install a released scikit-image wheel, or choose the object 'lines' or 'siemens'",
        )
    picture = np.asarray(imread(str(path)), dtype=np.float64) / 255.0
    return np.asarray(rgb2gray(picture) if picture.ndim == 3 else picture)


def _softened(unit: Real) -> Real:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(unit, DETAIL_SIGMA_PX))


def stretched(picture: NDArray[Any]) -> Real:
    """Return a picture with its values stretched to 0 to 1 and the outermost percent clipped."""
    low, high = np.percentile(picture, [0.5, 99.5])
    return np.asarray(np.clip((picture - low) / max(high - low, 1e-12), 0.0, 1.0))


def _between(unit: Real, limits: tuple[float, float]) -> Real:
    return limits[0] + (limits[1] - limits[0]) * unit
