"""
Pictures of docs/how-to/axes-and-orientation.md: conventions, eight orientations of a star, and the twin image.

    python docs/images/make_axes.py

It takes about a minute.
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

import ptycho_backend as pb
from ptycho_backend.data.orientation import AS_GIVEN, ORIENTATIONS, oriented
from ptycho_backend.simulation.objects import siemens_star
from ptycho_backend.simulation.simulate import detected, expected_counts

Image = NDArray[np.float64]

FOLDER = Path(__file__).parent
N, SPOKES = 64, 14
PHASE_RAD = 1.2
SHOWN_PX = 38  # half the side of the part that is drawn
DPI = 96
WORDS = {
    AS_GIVEN: "right positions",
    "-y+x": "-y+x:\ny mirrored",
    "+y-x": "+y-x:\nx mirrored",
    "-y-x": "-y-x:\nboth mirrored",
    "+x+y": "+x+y:\naxes exchanged",
    "-x+y": "-x+y: exchanged,\nfirst one mirrored",
    "+x-y": "+x-y: exchanged,\nsecond one mirrored",
    "-x-y": "-x-y: exchanged,\nboth mirrored",
}
DOTS_PX = 6  # radius of the dots that show which way is up
COLOURS = {"cmap": "gray", "vmin": -PHASE_RAD / 2, "vmax": PHASE_RAD / 2}


def main() -> None:
    """Draw all pictures."""
    scan = star_scan()
    draw_conventions(scan)
    images = {name: phase_of(oriented(scan, name)) for name in ORIENTATIONS}
    draw_orientations(images)
    draw_twin(images[AS_GIVEN], phase_of(twin_of(scan)))


def star_scan() -> pb.Scan:
    """Return a scan of a star with one dot at the top and two at the left."""
    settings: dict[str, Any] = {"probe_name": "zone-plate", "scan_name": "spiral", "photons_per_pattern": 1e6}
    scan = pb.simulate_scan(N=N, n_positions=200, step_px=4.5, seed=2, **settings)
    assert scan.obj is not None
    middle = np.array(scan.obj.shape) / 2 - 0.5
    phase = siemens_star(scan.obj.shape, centre_px=middle, spokes=SPOKES)
    y, x = np.indices(phase.shape)
    for away_y, away_x in ((-25, 0), (8, -25), (-8, -25)):
        phase[np.hypot(y - middle[0] - away_y, x - middle[1] - away_x) < DOTS_PX] = 1.0
    obj = np.exp(1j * PHASE_RAD * (phase - 0.5)).astype(np.complex64)
    counts = expected_counts(obj, scan.obj_origin_px, scan.probe, scan.positions_px)
    return dataclasses.replace(scan, obj=obj, patterns=detected(counts, np.random.default_rng(0)))


def twin_of(scan: pb.Scan) -> pb.Scan:
    """Return a scan whose patterns are explained by the twin image: mirrored positions, conjugate mirrored probe."""
    mirrored = np.roll(scan.probe[:, ::-1, ::-1], 1, axis=(1, 2))  # about [N//2, N//2]
    return dataclasses.replace(oriented(scan, "-y-x"), probe=np.conj(mirrored))


def phase_of(scan: pb.Scan) -> Image:
    """Return the phase (y, x) at the centre of the image of a scan, rad."""
    unknown = dataclasses.replace(scan, obj=None)
    obj = pb.reconstruct(unknown, fit_positions="off", fit_background="off", half_datasets=False, seed=0).obj
    part = obj[tuple(slice(side // 2 - SHOWN_PX, side // 2 + SHOWN_PX) for side in obj.shape)]
    return np.asarray(np.angle(part * np.exp(-1j * np.angle(part.mean()))))


def draw_orientations(images: dict[str, Image]) -> None:
    """Draw the image of every wrong orientation, with the orientation that repairs it."""
    figure, panels = grid(2, 4, next(iter(images.values())).shape[0])
    for panel, (name, image) in zip(panels, images.items(), strict=True):
        panel.imshow(image, **COLOURS)
        panel.set_title(repaired_by(name), fontsize=8)
    save(figure, "axes-orientations.png")


def repaired_by(name: str) -> str:
    """Return the title of the orientation that turns positions back."""
    inverse = np.transpose(ORIENTATIONS[name])
    return WORDS[next(other for other, rows in ORIENTATIONS.items() if np.array_equal(rows, inverse))]


def draw_conventions(scan: pb.Scan) -> None:
    """Draw a pattern with its zero frequency in the middle and in the corner, and a window on the object."""
    assert scan.obj is not None
    mean = np.log10(1 + np.asarray(scan.patterns, dtype=np.float64).mean(axis=0))
    figure, (pattern, corner, window) = plt.subplots(1, 3, figsize=(9.4, 3.4), constrained_layout=True)
    for panel, image, place in ((pattern, mean, N // 2), (corner, np.fft.ifftshift(mean), 0)):
        panel.imshow(image, cmap="gray")
        panel.plot(place, place, "+", color="red", ms=12, mew=2)
    pattern.set_title("right: zero frequency at [N//2, N//2]", fontsize=9)
    corner.set_title("wrong: zero frequency in the corner", fontsize=9)
    y, x = (scan.positions_px - scan.obj_origin_px).T
    here = int(np.argmin(np.hypot(y - 0.4 * y.max(), x - 0.6 * x.max())))
    window.imshow(np.angle(scan.obj), **COLOURS)
    window.plot(x, y, ".", color="deepskyblue", ms=3)
    window.plot(x[here], y[here], "+", color="red", ms=12, mew=2)
    corner_px = np.array([x[here], y[here]]) - N // 2 - 0.5
    window.add_patch(Rectangle(tuple(corner_px), N, N, fill=False, color="red", lw=1.5))
    window.set_title("object, positions, and one window", fontsize=9)
    for panel in (pattern, corner, window):
        panel.set_xlabel("x →  columns, px", fontsize=8)
        panel.set_ylabel("←  y (downward)  rows, px", fontsize=8)
        panel.tick_params(labelsize=7)
    save(figure, "axes-conventions.png", 128)


def draw_twin(image: Image, twin: Image) -> None:
    """Draw an image and its twin, in which the dots stand upside down and the phase is reversed."""
    figure, panels = grid(1, 2, image.shape[0])
    for panel, values, title in zip(panels, (image, twin), ("image", "twin image"), strict=True):
        panel.imshow(values, **COLOURS)
        panel.set_title(title, fontsize=8)
    save(figure, "axes-twin.png")


def grid(rows: int, columns: int, side: int) -> tuple[Any, list[Any]]:
    """Return a figure with panels of two screen pixels for a pixel of the image: it stays small as PNG."""
    gap, head, size = 12, 34, 2 * side
    width, height = columns * (size + gap) + gap, rows * (size + head + 4)
    figure = plt.figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    panels = []
    for row in range(rows):
        for column in range(columns):
            left, top = gap + column * (size + gap), row * (size + head + 4) + head
            place = (left / width, 1 - (top + size) / height, size / width, size / height)
            panels.append(figure.add_axes(place))
            panels[-1].set_axis_off()
    return figure, panels


def save(figure: Any, name: str, n_colours: int = 12) -> None:
    """Write a figure with few colours."""
    with io.BytesIO() as stream:
        figure.savefig(stream, dpi=DPI)
        plt.close(figure)
        PIL.Image.open(stream).convert("RGB").quantize(n_colours, dither=PIL.Image.Dither.NONE).save(
            FOLDER / name, optimize=True
        )


if __name__ == "__main__":
    main()
