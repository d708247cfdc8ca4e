"""Small PNG pictures of maps and waves, reduced by a whole factor and with at most 256 colours, as data addresses."""

from __future__ import annotations

import base64
import io
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.plots.figures import NO_DATA, Limits, Real
from ptycho_backend.plots.probes import hue_and_brightness

MAX_SIDE_PX = 1024
MAX_BYTES = 420_000  # of one picture: two of them, the library of a page and the rest stay below 3 MB
N_COLOURS = 255  # one more is for pixels without data


class Pixels(NamedTuple):
    """PNG picture as a data address, and the number of object pixels on a side of one of its pixels."""

    address: str
    factor: int


def map_pixels(values: Real, colours: str, limits: Limits, max_bytes: int = MAX_BYTES) -> Pixels:
    """
    Return a map in the colours of a scale.

    Parameters
    ----------
    values : float64, shape (y, x)
        Not finite where there is no data; those pixels are light grey.
    colours : str
        Name of a matplotlib colour map.
    limits : (float, float)
        Values of the first and the last colour.
    max_bytes : int
        Largest size of the PNG; the factor grows until it fits.
    """
    low, high = limits
    palette = np.vstack([palette_of(colours), _hex(NO_DATA)])

    def encoded(factor: int) -> bytes:
        reduced = block_mean(values, factor)
        scaled = (reduced - low) / (high - low) * (N_COLOURS - 1)
        finite = np.isfinite(scaled)
        index = np.where(finite, np.clip(np.rint(np.where(finite, scaled, 0.0)), 0, N_COLOURS - 1), N_COLOURS)
        return _indexed_png(index.astype(np.uint8), palette)

    return _fitting(encoded, values.shape, max_bytes)


def wave_pixels(wave: NDArray[Any], max_bytes: int = MAX_BYTES) -> Pixels:
    """Return a complex wave (y, x): brightness is amplitude, hue is phase."""

    def encoded(factor: int) -> bytes:
        colours = hue_and_brightness(block_mean(np.asarray(wave, dtype=np.complex128), factor))
        return _png(np.rint(255 * colours).astype(np.uint8))

    return _fitting(encoded, wave.shape, max_bytes)


def block_mean(values: NDArray[Any], factor: int) -> NDArray[Any]:
    """
    Return the means of square blocks of pixels, of the finite ones; incomplete blocks at the end count too.

    Parameters
    ----------
    values : float or complex, shape (y, x)
    factor : int
        Side of a block, pixels.

    Returns
    -------
    float or complex, shape (ceil(y / factor), ceil(x / factor))
        NaN for a block without a finite value.
    """
    if factor == 1:
        return values
    starts = [np.arange(0, side, factor) for side in values.shape]
    finite = np.isfinite(values)
    total, count = (
        np.add.reduceat(np.add.reduceat(array, starts[0], axis=0), starts[1], axis=1)
        for array in (np.where(finite, values, 0), finite.astype(np.float64))
    )
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def palette_of(colours: str) -> NDArray[np.uint8]:
    """Return the colours of a matplotlib colour map, uint8, shape (255, 3)."""
    import matplotlib

    rgba = matplotlib.colormaps[colours](np.linspace(0.0, 1.0, N_COLOURS))
    return np.rint(255 * rgba[:, :3]).astype(np.uint8)


def hex_palette(colours: str) -> list[str]:
    """Return the colours of a matplotlib colour map as ``#rrggbb``."""
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in palette_of(colours)]


def _fitting(encoded: Any, shape: tuple[int, ...], max_bytes: int) -> Pixels:
    """Return the picture with the smallest factor whose side and size are within the limits."""
    factor = max(1, -(-max(shape) // MAX_SIDE_PX))
    content = encoded(factor)
    while len(content) > max_bytes and factor < max(shape):
        factor += 1 + int(0.5 * factor * (np.sqrt(len(content) / max_bytes) - 1))
        content = encoded(factor)
    return Pixels(f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}", factor)


def _hex(colour: str) -> NDArray[np.uint8]:
    return np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)], dtype=np.uint8)


def _indexed_png(index: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    picture = Image.fromarray(index)
    picture.putpalette(palette.tobytes())
    return _saved(picture)


def _png(colours: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    return _saved(Image.fromarray(colours))


def _saved(picture: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    return stream.getvalue()
