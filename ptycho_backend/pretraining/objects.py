"""
Random objects of a training set: one map of values 0 to 1 for each kind (spec: simulation 5.2).

The kinds differ in content: photographs have detail at every scale, lines and targets hard edges, fields a random
roughness, particles round thickness profiles, chips flat levels with right angles.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.simulation.objects import covered, random_lines, read_grey, siemens_star, stretched

Map = NDArray[np.float32]
Size = tuple[int, int]
Rng = np.random.Generator

# These pictures differ from those of `make_object`, including stereo pairs, because results are evaluated on those.
PICTURES = (
    "cell.png",
    "clock_motion.png",
    "color.png",
    "hubble_deep_field.jpg",
    "moon.png",
    "page.png",
    "phantom.png",
    "retina.jpg",
    "text.png",
)
LARGEST_REDUCTION = 3.0
EDGE_PX = 0.8  # softness of drawn edges; sharper edges would alias


def draw_map(kind: str, size_px: Size, rng: Rng) -> Map:
    """
    Draw a map of one kind, values 0 to 1.

    Parameters
    ----------
    kind : {"photographs", "lines", "fields", "particles", "targets", "chips"}
    size_px : (int, int), (y, x)
    rng : numpy Generator

    Returns
    -------
    float32, shape size_px

    Notes
    -----
    Spec: simulation 5.2.
    """
    drawn = stretched(np.asarray(KINDS[kind](size_px, rng), dtype=np.float32)).astype(np.float32)
    if rng.random() < 0.5:
        drawn = 1.0 - drawn
    # A random gamma makes the sample mostly bright or mostly dark.
    return drawn ** np.float32(np.exp(rng.uniform(-0.7, 0.7)))


def photographs(size_px: Size, rng: Rng) -> NDArray[Any]:
    """Draw a rotated and reduced part of a photograph."""
    picture = _picture(PICTURES[rng.integers(len(PICTURES))])
    angle = rng.uniform(0.0, 2.0 * np.pi)
    room = min(picture.shape) / (1.0 + max(size_px))
    reduction = np.exp(rng.uniform(0.0, np.log(np.clip(room, 1.0, LARGEST_REDUCTION))))
    return _rotated_part(picture, size_px, angle, reduction, rng)


def fields(size_px: Size, rng: Rng) -> NDArray[Any]:
    """Draw a random field of random roughness: smooth, two-phase, ridged or stepped."""
    field = random_field(size_px, rng.uniform(1.5, 4.5), rng)
    form = rng.integers(4)
    if form == 1:
        return np.tanh(field * np.exp(rng.uniform(0.0, 3.0)) + rng.normal())
    if form == 2:
        return -np.abs(field)
    return np.rint(field * rng.uniform(1.0, 3.0)) if form == 3 else field


def random_field(size_px: Size, exponent: float, rng: Rng) -> Map:
    """Return a Gaussian random field of unit variance with power proportional to frequency^(-exponent)."""
    import scipy.fft

    fy, fx = np.fft.fftfreq(size_px[0])[:, None], np.fft.rfftfreq(size_px[1])
    amplitude = ((fy**2 + fx**2) + 1.0 / max(size_px) ** 2) ** (-exponent / 4)
    spectrum = scipy.fft.rfft2(rng.standard_normal(size_px, dtype=np.float32)) * amplitude.astype(np.float32)
    field = scipy.fft.irfft2(spectrum, s=size_px)
    return np.asarray((field - field.mean()) / field.std(), dtype=np.float32)


def particles(size_px: Size, rng: Rng) -> NDArray[Any]:
    """Draw particles: ellipses of log-uniform size with the thickness of balls, plates or cells."""
    canvas = np.zeros(size_px, dtype=np.float32)
    profile = PROFILES[rng.integers(len(PROFILES))]
    largest = rng.uniform(0.08, 0.35) * min(size_px)
    for _ in range(int(np.exp(rng.uniform(np.log(8), np.log(120))))):
        radius = np.exp(rng.uniform(np.log(1.5), np.log(largest)))
        centre, squeeze, angle = rng.uniform(0, size_px), rng.uniform(0.5, 1.0), rng.uniform(0, np.pi)
        window = tuple(
            slice(max(0, int(c - radius - 2)), min(n, int(c + radius + 3)))
            for c, n in zip(centre, size_px, strict=True)
        )
        y, x = np.ogrid[window]
        y, x = y - centre[0], x - centre[1]
        along, across = y * np.cos(angle) + x * np.sin(angle), (x * np.cos(angle) - y * np.sin(angle)) / squeeze
        distance = np.sqrt(along**2 + across**2)
        canvas[window] += np.float32(rng.uniform(0.3, 1.0)) * profile(distance, radius).astype(np.float32)
    return canvas


def targets(size_px: Size, rng: Rng) -> NDArray[Any]:
    """Draw a resolution target: a Siemens star, or groups of bars with random periods."""
    if rng.random() < 0.4:
        return siemens_star(size_px, rng.uniform(0.2, 0.8, 2) * size_px, int(rng.integers(8, 64)))
    canvas = np.zeros(size_px, dtype=np.float32)
    angle = rng.uniform(0, np.pi) if rng.random() < 0.5 else 0.0
    y, x = (axis.astype(np.float32) for axis in np.ogrid[: size_px[0], : size_px[1]])
    along, across = y * np.cos(angle) + x * np.sin(angle), x * np.cos(angle) - y * np.sin(angle)
    low = (float(min(along.min(), along.max())), float(min(across.min(), across.max())))
    for _ in range(int(rng.integers(10, 30))):
        period = np.exp(rng.uniform(np.log(3.0), np.log(24.0)))
        height, width = rng.uniform(2, 6) * period, (rng.integers(2, 6) + 0.5) * period
        top, left = low[0] + rng.uniform() * np.ptp(along), low[1] + rng.uniform() * np.ptp(across)
        inside = covered(height / 2 - np.abs(along - top)) * covered(width / 2 - np.abs(across - left))
        bars, shade = (along, across) if rng.random() < 0.5 else (across, along), rng.uniform(0.5, 1.0)
        cycles = (bars[0] - (left if bars[0] is across else top)) / period
        tone = covered(period * (0.25 - np.abs(cycles - np.rint(cycles))))
        canvas = canvas * (1 - inside) + shade * inside * tone
    return canvas


def chips(size_px: Size, rng: Rng) -> NDArray[Any]:
    """Draw a layered chip: wires and pads at right angles, with a pitch and a thickness for each layer."""
    side = int(np.ceil(1.45 * max(size_px)))
    canvas = np.zeros((side, side), dtype=np.float32)
    for _ in range(int(rng.integers(2, 5))):
        layer = np.zeros_like(canvas)
        pitch, vertical = int(rng.integers(4, 25)), rng.random() < 0.5
        wires = layer.T if vertical else layer
        for start in range(int(rng.integers(pitch)), side, pitch):
            first, length = rng.integers(-side // 4, side), rng.integers(pitch, side)
            width = max(2, round(pitch * rng.uniform(0.3, 0.6)))
            wires[start : start + width, max(0, first) : max(0, first + length)] = 1.0
        for _ in range(int(rng.integers(0, 12))):
            top, left = rng.integers(0, side, 2)
            height, width = rng.integers(3, 3 + 2 * pitch, 2)
            layer[top : top + height, left : left + width] = float(rng.random() < 0.7)
        canvas += np.float32(rng.uniform(0.2, 1.0)) * layer
    return _rotated_part(canvas, size_px, rng.uniform(0, np.pi) if rng.random() < 0.6 else 0.0, 1.0, rng)


KINDS: dict[str, Callable[[Size, Rng], NDArray[Any]]] = {
    "photographs": photographs,
    "lines": random_lines,
    "fields": fields,
    "particles": particles,
    "targets": targets,
    "chips": chips,
}


def _ball(distance_px: NDArray[Any], radius_px: float) -> NDArray[Any]:
    return np.sqrt(np.clip(1.0 - (distance_px / radius_px) ** 2, 0.0, None))


def _plate(distance_px: NDArray[Any], radius_px: float) -> NDArray[Any]:
    return np.asarray(covered((radius_px - distance_px) / EDGE_PX))


def _cell(distance_px: NDArray[Any], radius_px: float) -> NDArray[Any]:
    wall, nucleus = max(1.0, 0.12 * radius_px), 0.4 * radius_px
    shell = _plate(distance_px, radius_px) - 0.6 * _plate(distance_px, radius_px - wall)
    return np.asarray(shell + 0.5 * _plate(distance_px, nucleus))


PROFILES = (_ball, _plate, _cell)


def _rotated_part(picture: NDArray[Any], size_px: Size, angle: float, reduction: float, rng: Rng) -> NDArray[Any]:
    """Return a rotated part at a random place of a picture; its pixels are `reduction` picture pixels wide."""
    from scipy.ndimage import affine_transform, gaussian_filter

    matrix = reduction * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    half = (np.asarray(size_px) - 1) / 2
    reach = np.abs(matrix) @ half
    room = np.maximum((np.asarray(picture.shape) - 1) / 2 - reach, 0.0)
    centre = (np.asarray(picture.shape) - 1) / 2 + rng.uniform(-room, room)
    first, last = np.floor(centre - reach - 8).astype(int), np.ceil(centre + reach + 9).astype(int)
    crop = tuple(slice(max(0, a), min(b, n)) for a, b, n in zip(first, last, picture.shape, strict=True))
    part = picture[crop]
    if reduction > 1.0:
        # Low-pass filter below the new Nyquist frequency.
        part = gaussian_filter(part, 0.4 * reduction)
    offset = centre - matrix @ half - [max(0, a) for a in first]
    return np.asarray(affine_transform(part, matrix, offset, output_shape=size_px, order=1, mode="reflect"))


@functools.cache
def _picture(filename: str) -> NDArray[np.float32]:
    """Return a picture, decoded once per process."""
    picture = read_grey(filename).astype(np.float32)
    picture.flags.writeable = False
    return picture
