"""Faults of real experiments, as changes of a simulated scan with a known object."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ptycho_backend as pb
from ptycho_backend.physics.propagation import far_field

Real = NDArray[np.floating[Any]]
OUTER_FILES = ("make_data.py", "make_variants.py", "quality.py")
BACKGROUND = 0.01  # of the mean counts per pixel
GAPS = (slice(38, 40), slice(26, 28))  # rows and columns that the mask excludes
MAD_PERIOD, MAD_SCALE = 144, 3.0  # one frame of so many is another one, brighter by this factor
HOT_PIXEL = (20, 40)  # y, x
SCALE = 1.02 * np.eye(2)  # of all positions
ROTATION = np.array([[np.cos(0.035), -np.sin(0.035)], [np.sin(0.035), np.cos(0.035)]])  # by 2 degrees
# Scans of the package itself: a disc of 24 pixels, steps of 6 pixels, an object with slow phases.
OWN = {"N": 64, "n_positions": 1024, "diameter_fraction": 0.375, "step_px": 6.0, "phase_range_rad": 2.0}
OWN_CHANGES: dict[str, dict[str, Any]] = {
    "wide": {"probe_error": 0.1},
    "disc": {"probe_name": "zone-plate"},
    "gauss": {"probe_name": "zone-plate"},
    "modes": {"modes": 3},
    "sparse": {"step_px": 15.0},
}


@dataclass(frozen=True, eq=False)
class Experiment:
    """
    Scan as measured, and its known object.

    Parameters
    ----------
    patterns : real, shape (position, y, x)
        Counts, or expected counts before :meth:`detected`.
    positions_px, true_positions_px : float64, shape (position, 2), (y, x)
    probe : complex, shape (mode, y, x), or None
        Probe guess.
    mask : bool, shape (y, x)
    obj : complex, shape (y, x)
        Known object.
    obj_origin_px : (float, float), (y, x)
        Scan coordinates of ``obj[0, 0]``.
    """

    patterns: Real
    positions_px: NDArray[np.float64]
    true_positions_px: NDArray[np.float64]
    probe: NDArray[np.complex64] | None
    mask: NDArray[np.bool_]
    obj: NDArray[np.complex64]
    obj_origin_px: tuple[float, float] = (0.0, 0.0)

    def __len__(self) -> int:
        return len(self.patterns)

    def detected(self, rng: np.random.Generator) -> Experiment:
        """Draw counts from the expected counts; masked pixels are 0."""
        return dataclasses.replace(self, patterns=rng.poisson(self.patterns).astype(np.float32) * self.mask)


def moved(experiment: Experiment, rng: np.random.Generator, rms_px: float) -> Experiment:
    """Add errors of this rms along each axis to the given positions."""
    error_px = rms_px * rng.normal(size=experiment.positions_px.shape)
    return dataclasses.replace(experiment, positions_px=experiment.positions_px + error_px)


def distorted(experiment: Experiment, matrix: Real) -> Experiment:
    """Multiply the given positions by a matrix (2, 2) about their mean: wrong pixel size or rotated axes."""
    middle = experiment.positions_px.mean(axis=0)
    return dataclasses.replace(experiment, positions_px=(experiment.positions_px - middle) @ matrix.T + middle)


def varied(experiment: Experiment, flux: Real) -> Experiment:
    """Multiply every pattern by its flux, shape (position,)."""
    return dataclasses.replace(experiment, patterns=experiment.patterns * flux[:, None, None])


def flickering(experiment: Experiment, rng: np.random.Generator) -> Experiment:
    """Vary the flux by 10 % rms."""
    return varied(experiment, np.clip(1 + 0.1 * rng.normal(size=len(experiment)), 0.5, 1.5))


def with_background(experiment: Experiment) -> Experiment:
    """Add a flat background."""
    level = BACKGROUND * experiment.patterns.mean()
    return dataclasses.replace(experiment, patterns=experiment.patterns + level)


def with_gaps(experiment: Experiment) -> Experiment:
    """Mask two rows and two columns of the detector."""
    mask = experiment.mask.copy()
    mask[GAPS[0]] = mask[:, GAPS[1]] = False
    return dataclasses.replace(experiment, mask=mask)


def emptied(experiment: Experiment, rows: NDArray[np.intp]) -> Experiment:
    """Remove all counts of some patterns."""
    patterns = experiment.patterns.copy()
    patterns[rows] = 0
    return dataclasses.replace(experiment, patterns=patterns)


def with_mad_frames(experiment: Experiment) -> Experiment:
    """Replace single patterns by those of distant positions, brighter."""
    patterns, n = experiment.patterns.copy(), len(experiment)
    rows = np.arange(min(MAD_PERIOD, n) // 2, n, MAD_PERIOD)
    patterns[rows] = MAD_SCALE * experiment.patterns[(rows + n // 2) % n]
    return dataclasses.replace(experiment, patterns=patterns)


def with_hot_pixel(experiment: Experiment) -> Experiment:
    """Set one pixel of all patterns to the largest value of the scan."""
    patterns = experiment.patterns.copy()
    patterns[(slice(None), *HOT_PIXEL)] = patterns.max()
    return dataclasses.replace(experiment, patterns=patterns)


def with_probe(experiment: Experiment, probe: NDArray[Any] | None) -> Experiment:
    """Replace the probe guess by another one with the same photons, or by none."""
    if probe is not None:
        energy = float((np.abs(experiment.probe) ** 2).sum() / (np.abs(probe) ** 2).sum())
        probe = (probe * np.sqrt(energy)).astype(np.complex64)
    return dataclasses.replace(experiment, probe=probe)


def disc_of(probe: NDArray[Any]) -> Real:
    """Return a flat disc with the rms radius of a probe, shape (1, y, x)."""
    distance, rms_px = _distance(probe), rms_radius(probe)
    return 0.5 * (1 - np.tanh((distance - np.sqrt(2) * rms_px) / 1.5))[None]


def gaussian_of(probe: NDArray[Any]) -> Real:
    """Return a Gaussian with the rms radius of a probe, shape (1, y, x)."""
    return np.exp(-(_distance(probe) ** 2) / (2 * rms_radius(probe) ** 2))[None]


def rms_radius(probe: NDArray[Any]) -> float:
    """Return the rms distance of the photons of a probe (mode, y, x) from its middle, pixels."""
    energy = (np.abs(probe) ** 2).sum(axis=0)
    return float(np.sqrt((_distance(probe) ** 2 * energy).sum() / energy.sum()))


def _distance(probe: NDArray[Any]) -> Real:
    N = probe.shape[-1]
    y, x = np.indices((N, N)) - N // 2
    return np.hypot(y, x)


def everything(experiment: Experiment, rng: np.random.Generator) -> Experiment:
    """Combine all: no guess, positions 1 px, flux 10 %, background 1 %, three empty patterns."""
    n = len(experiment)
    changed = with_background(flickering(with_probe(moved(experiment, rng, 1.0), None), rng))
    return emptied(changed, np.array([n // 4, n // 2, 3 * n // 4]))


Fault = Callable[[Experiment, np.random.Generator], Experiment]
# Faults that leave object and true probe of an exact scan unchanged.
DERIVED: dict[str, Fault] = {
    "noprobe": lambda experiment, rng: with_probe(experiment, None),
    "flicker50": lambda experiment, rng: varied(experiment, rng.uniform(0.5, 1.5, len(experiment))),
    "empty": lambda experiment, rng: emptied(experiment, np.arange(5, len(experiment), 10)),
    "mad": lambda experiment, rng: with_mad_frames(experiment),
    "hot": lambda experiment, rng: with_hot_pixel(experiment),
    "scale": lambda experiment, rng: distorted(experiment, SCALE),
    "turned": lambda experiment, rng: distorted(experiment, ROTATION),
    "all": everything,
}
# The first ten are those of make_variants.py.
FAULTS: dict[str, Fault] = {
    "exact": lambda experiment, rng: experiment,
    "pos1": lambda experiment, rng: moved(experiment, rng, 1.0),
    "pos2": lambda experiment, rng: moved(experiment, rng, 2.0),
    "wide": lambda experiment, rng: experiment,
    "disc": lambda experiment, rng: with_probe(experiment, disc_of(experiment.probe)),
    "gauss": lambda experiment, rng: with_probe(experiment, gaussian_of(experiment.probe)),
    "modes": lambda experiment, rng: with_probe(experiment, experiment.probe[:1]),
    "flicker": flickering,
    "background": lambda experiment, rng: with_gaps(with_background(experiment)),
    "sparse": lambda experiment, rng: experiment,
    **DERIVED,
}


def own_experiment(name: str, seed: int, **changes: Any) -> Experiment:
    """
    Simulate a scan of the package with a fault.

    Parameters
    ----------
    name : str
        Name in FAULTS.
    seed : int
    **changes
        Fields of the simulation that replace those of OWN.
    """
    settings = {**OWN, **OWN_CHANGES.get(name, {}), **changes}
    scan = pb.simulate_scan(seed=seed, noise=False, **settings)
    exact = Experiment(
        scan.patterns, scan.positions_px, scan.positions_px, scan.probe, scan.mask, scan.obj, scan.obj_origin_px
    )
    return _detected(exact, name, seed)


def _detected(exact: Experiment, name: str, seed: int) -> Experiment:
    rng = np.random.default_rng([seed, list(FAULTS).index(name)])
    return FAULTS[name](exact, rng).detected(rng)


class OuterTools:
    """
    Programs outside of the project that make and score scans: make_data.py, make_variants.py and quality.py.

    Parameters
    ----------
    folder : path

    Raises
    ------
    SystemExit
        If a file is missing.
    """

    def __init__(self, folder: Path) -> None:
        missing = [name for name in OUTER_FILES if not (folder / name).is_file()]
        if missing:
            sys.exit(
                "The scans and their scores come from programs that the project does not contain.\n"
                f"  Expected: {', '.join(OUTER_FILES)} in one folder\n"
                f"  Received: '{folder}' without {', '.join(missing)}\n"
                "  Fix: give their folder by --scans"
            )
        sys.path.insert(0, str(folder))
        self._data, self._variants, self._quality = (self._module(Path(name).stem) for name in OUTER_FILES)

    @staticmethod
    def _module(name: str) -> ModuleType:
        return importlib.import_module(name)

    def experiment(self, name: str, seed: int) -> Experiment:
        """Return a scan with a fault; names in DERIVED change the exact scan before new photon noise."""
        data = self._variants.make("exact" if name in DERIVED else name, seed)
        experiment = Experiment(
            data["counts"],
            data["positions_px"],
            data["true_positions_px"],
            data["probe"],
            data["mask"],
            data["true_object"],
        )
        if name not in DERIVED:
            return experiment
        y, x = experiment.true_positions_px.T
        patches = self._data.patches_at(experiment.obj, x, y, experiment.patterns.shape[-1])
        expected = (np.abs(far_field(patches[:, None] * data["true_probe"])) ** 2).sum(axis=1)
        return _detected(dataclasses.replace(experiment, patterns=expected), name, seed)

    def score(self, image: pb.Image, experiment: Experiment) -> dict[str, Any]:
        """
        Compare an image with the known object inside the true positions.

        The comparison registers up to 8 pixels, and removes one amplitude scale and one phase plane.
        """
        offset = experiment.obj_origin_px
        top, left = (origin - first for origin, first in zip(image.origin_px, offset, strict=True))
        y, x = (experiment.true_positions_px - offset).T
        figures, _ = self._quality.evaluate(image.obj, 0, (left, top), x, y, experiment.obj)
        return {
            "amplitude_db": figures["amp_psnr_db"],
            "phase_db": figures["phase_psnr_db"],
            "shift_px": figures["shift_yx"],
            "amplitude_scale": figures["amp_scale"],
        }
