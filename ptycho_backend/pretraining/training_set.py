"""
Endless training set: random samples in random experiments, simulated one by one (spec: simulation 5).

Scans are neither stored nor downloaded. A recipe gives the frequencies, and a random generator draws the scan.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Interval, Len
from numpy.typing import NDArray

from ptycho_backend.config import validate
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import ConfigError, nearest_name
from ptycho_backend.physics.calibration import disc
from ptycho_backend.pretraining import objects, probes
from ptycho_backend.pretraining.objects import draw_map
from ptycho_backend.pretraining.probes import defocused, draw_probe
from ptycho_backend.simulation.positions import SCANS, make_positions
from ptycho_backend.simulation.simulate import covering_frame, detected, expected_counts, with_bad_pixels

Share = Annotated[float, Interval(ge=0.0, le=1.0)]
Shares = dict[str, Annotated[float, Ge(0.0)]]
Range = Annotated[list[float], Len(2, 2)]
Rng = np.random.Generator

MARGIN_PX = 6  # object around the windows, for the interpolation of labels
RELATIONS = ("independent", "correlated", "phase-only", "absorption-only")


@dataclass
class Recipe:
    """
    Distribution of the scans in a training set: ranges are [low, high], tables give relative frequencies.

    Parameters
    ----------
    sizes : dict of N to frequency
    pixels : int
        Detector pixels of a whole scan, which has pixels / N² patterns.
    objects, relations, probes, scans : dict of kind to frequency
        Kinds of :func:`draw_map`, relation of phase and amplitude, kinds of :func:`draw_probe`, kinds of
        :func:`make_positions`.
    modes : dict of number to frequency
        Incoherent modes of the probe.
    phase_range_rad : [float, float]
        Largest minus smallest phase of an object, log-uniform; 2π is from −π to π.
    darkest : [float, float]
        Smallest transmitted amplitude of an object, uniform.
    detail_sigma_px : [float, float]
        Width of the Gaussian that smooths an object, uniform.
    diameter_fraction : [float, float]
        Diameter of the probe over N, uniform.
    step_of_diameter : [float, float]
        Distance of neighbouring positions over the probe's diameter, uniform.
    photons_per_pattern : [float, float]
        Photons, log-uniform.
    wrong_probes, wrong_positions, bad_detectors, beamstops : float
        Share of scans with each of these faults.
    diameter_error : float
        Largest relative error of a wrong probe's diameter, either way.
    defocus_error_rad : float
        Largest error of a wrong probe's focus, as phase at the edge of its spectrum, either way.
    position_error_px : float
        Largest standard deviation of wrong positions.
    bad_pixels : float
        Largest share of bad pixels.
    beamstop : float
        Largest radius of a beamstop over N.
    """

    sizes: Shares = field(default_factory=lambda: {"32": 0.08, "64": 0.8, "128": 0.1, "256": 0.02})
    pixels: Annotated[int, Ge(4096)] = 64**3
    objects: Shares = field(
        default_factory=lambda: {
            "photographs": 0.3,
            "lines": 0.1,
            "fields": 0.2,
            "particles": 0.15,
            "targets": 0.1,
            "chips": 0.15,
        }
    )
    relations: Shares = field(
        default_factory=lambda: {"independent": 0.5, "correlated": 0.25, "phase-only": 0.15, "absorption-only": 0.1}
    )
    probes: Shares = field(
        default_factory=lambda: {"disc": 0.3, "gaussian": 0.15, "zone-plate": 0.2, "aberrated": 0.2, "speckle": 0.15}
    )
    scans: Shares = field(default_factory=lambda: {"raster": 0.4, "spiral": 0.3, "random": 0.3})
    modes: Shares = field(default_factory=lambda: {"1": 0.8, "2": 0.12, "3": 0.08})
    phase_range_rad: Range = field(default_factory=lambda: [0.05, 2 * np.pi])
    darkest: Range = field(default_factory=lambda: [0.2, 0.95])
    detail_sigma_px: Range = field(default_factory=lambda: [0.8, 1.4])
    diameter_fraction: Range = field(default_factory=lambda: [0.1, 0.45])
    step_of_diameter: Range = field(default_factory=lambda: [0.05, 0.4])
    photons_per_pattern: Range = field(default_factory=lambda: [1e3, 1e8])
    wrong_probes: Share = 0.4
    diameter_error: Share = 0.1
    defocus_error_rad: Annotated[float, Ge(0.0)] = 0.8
    wrong_positions: Share = 0.4
    position_error_px: Annotated[float, Ge(0.0)] = 0.5
    bad_detectors: Share = 0.3
    bad_pixels: Share = 0.02
    beamstops: Share = 0.1
    beamstop: Annotated[float, Interval(ge=0.0, le=0.1)] = 0.04


# Allowed keys of each table of frequencies, and allowed bounds of each range.
NAMES = {
    "objects": tuple(objects.KINDS),
    "relations": RELATIONS,
    "probes": tuple(probes.KINDS),
    "scans": tuple(SCANS),
    "modes": ("1", "2", "3", "4"),
    "sizes": tuple(str(N) for N in range(32, 513, 16)),
}
LIMITS = {
    "phase_range_rad": (1e-3, 2 * np.pi),
    "darkest": (0.0, 1.0),
    "detail_sigma_px": (0.3, 10.0),
    "diameter_fraction": (0.02, 1.0),
    "step_of_diameter": (1e-3, 1.0),
    "photons_per_pattern": (10.0, 1e12),
}


@dataclass(frozen=True, eq=False)
class SimulatedScan:
    """
    Simulated scan with its true probe and positions.

    Parameters
    ----------
    scan : Scan
        Counts, guess of the probe, recorded positions, known object.
    probe : complex128, shape (mode, y, x), sqrt(photons)
        True probe.
    positions_px : float64, shape (position, 2), (y, x)
        True positions.
    """

    scan: Scan
    probe: NDArray[np.complex128]
    positions_px: NDArray[np.float64]


def check_recipe(recipe: Recipe, source: str = "the given values") -> None:
    """
    Check a recipe.

    Raises
    ------
    ConfigError
        If a value is out of range, or a table names an unknown kind.
    """
    validate(recipe, source)
    for table, names in NAMES.items():
        shares = getattr(recipe, table)
        unknown = [name for name in shares if name not in names]
        if unknown or sum(shares.values()) <= 0:
            raise _wrong_table(table, unknown, names, source)
    for name, (low, high) in LIMITS.items():
        first, last = getattr(recipe, name)
        if not low <= first <= last <= high * (1 + 1e-12):
            raise ConfigError(
                f"The range '{name}' of a recipe is [low, high].",
                expected=f"{low:g} ≤ low ≤ high ≤ {high:g}",
                received=f"{name}=[{first:g}, {last:g}] in {source}",
                fix="correct the range",
            )


def draw_scan(recipe: Recipe, rng: Rng) -> Scan:
    """Draw a scan with a known object; its `attributes` record all drawn settings."""
    return draw(recipe, rng).scan


def draw(recipe: Recipe, rng: Rng) -> SimulatedScan:
    """
    Draw a scan with its true probe and positions.

    Parameters
    ----------
    recipe : Recipe
        Recipe that :func:`check_recipe` has accepted.
    rng : numpy Generator
        Equal generators draw equal scans.

    Notes
    -----
    Spec: simulation 5.1 to 5.6.
    """
    N = int(_choice(recipe.sizes, rng))
    settings: dict[str, Any] = {"N": N, "n_positions": max(4, recipe.pixels // N**2)}
    diameter_px = N * _within(recipe.diameter_fraction, rng)
    positions_px = _positions(recipe, diameter_px, settings, rng)
    (top, left), (height, width) = covering_frame(positions_px, N)
    origin_px, size_px = (top - MARGIN_PX, left - MARGIN_PX), (height + 2 * MARGIN_PX, width + 2 * MARGIN_PX)
    obj = _object(recipe, size_px, settings, rng)
    probe, guess = _probes(recipe, N, diameter_px, settings, rng)
    photons = _log_within(recipe.photons_per_pattern, rng)
    expected = expected_counts(obj, origin_px, probe, positions_px)
    # The propagation is unitary, so a factor on the counts is a factor on the probe.
    dose = photons * len(positions_px) / expected.sum()
    mask = _mask(recipe, N, settings, rng)
    patterns = with_bad_pixels(detected(expected * dose, rng), mask, rng)
    recorded_px = positions_px + _position_errors(recipe, settings, rng, positions_px.shape)
    scan = Scan(
        patterns=patterns,
        positions_px=recorded_px,
        probe=guess * np.sqrt(dose),
        measurement="counts",
        mask=mask,
        obj=obj,
        obj_origin_px=origin_px,
        source="training set",
        attributes={**settings, "photons_per_pattern": photons},
    )
    return SimulatedScan(scan, probe * np.sqrt(dose), positions_px)


def _positions(recipe: Recipe, diameter_px: float, settings: dict[str, Any], rng: Rng) -> NDArray[np.float64]:
    name, step_px = _choice(recipe.scans, rng), diameter_px * _within(recipe.step_of_diameter, rng)
    settings |= {"scan_name": name, "step_px": step_px, "diameter_px": diameter_px}
    return make_positions(name, settings["n_positions"], step_px, rng)


def _object(recipe: Recipe, size_px: tuple[int, int], settings: dict[str, Any], rng: Rng) -> NDArray[np.complex64]:
    from scipy.ndimage import gaussian_filter

    relation, kind = _choice(recipe.relations, rng), _choice(recipe.objects, rng)
    sigma, phase_range = _within(recipe.detail_sigma_px, rng), _log_within(recipe.phase_range_rad, rng)
    darkest = 1.0 if relation == "phase-only" else _within(recipe.darkest, rng)
    phase_range = 0.0 if relation == "absorption-only" else phase_range
    first = draw_map(kind, size_px, rng)
    other = kind if relation == "correlated" else _choice(recipe.objects, rng)
    second = draw_map(other, size_px, rng) if relation == "independent" else first
    phase = phase_range * (gaussian_filter(first, sigma, truncate=3.0) - 0.5)
    amplitude = 1.0 - (1.0 - darkest) * gaussian_filter(second, sigma, truncate=3.0)
    settings |= {"object_name": kind, "amplitude_name": other, "relation": relation, "detail_sigma_px": sigma}
    settings |= {"phase_range_rad": phase_range, "darkest": darkest}
    return np.asarray(amplitude * np.exp(1j * phase), dtype=np.complex64)


def _probes(
    recipe: Recipe, N: int, diameter_px: float, settings: dict[str, Any], rng: Rng
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Draw the true probe and its guess, with equal energy."""
    kind, modes, seed = _choice(recipe.probes, rng), int(_choice(recipe.modes, rng)), int(rng.integers(2**32))
    wrong = rng.random() < recipe.wrong_probes
    error, focus = (
        wrong * rng.uniform(-1, 1) * largest for largest in (recipe.diameter_error, recipe.defocus_error_rad)
    )
    settings |= {"probe_name": kind, "modes": modes, "probe_error": error, "defocus_error_rad": focus}
    probe = draw_probe(kind, N, diameter_px, modes, np.random.default_rng(seed))
    if not wrong:
        return probe, probe
    guess = draw_probe(kind, N, diameter_px * (1 + error), modes, np.random.default_rng(seed))
    return probe, defocused(guess, focus)


def _mask(recipe: Recipe, N: int, settings: dict[str, Any], rng: Rng) -> NDArray[np.bool_]:
    share = recipe.bad_pixels * rng.random() if rng.random() < recipe.bad_detectors else 0.0
    radius_px = N * recipe.beamstop * rng.random() if rng.random() < recipe.beamstops else 0.0
    settings |= {"bad_pixels": share, "beamstop_px": radius_px}
    good = rng.random((N, N)) >= share
    return good & ~disc(N, radius_px) if radius_px > 0 else good


def _position_errors(
    recipe: Recipe, settings: dict[str, Any], rng: Rng, shape: tuple[int, ...]
) -> NDArray[np.float64] | float:
    wrong = rng.random() < recipe.wrong_positions
    sigma_px = recipe.position_error_px * rng.random() if wrong else 0.0
    settings["position_error_px"] = sigma_px
    return rng.normal(0.0, 1.0, shape) * sigma_px


def _choice(shares: Shares, rng: Rng) -> str:
    weights = np.fromiter(shares.values(), dtype=float)
    return list(shares)[rng.choice(len(weights), p=weights / weights.sum())]


def _within(limits: list[float], rng: Rng) -> float:
    return float(rng.uniform(limits[0], limits[1]))


def _log_within(limits: list[float], rng: Rng) -> float:
    return float(np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1]))))


def _wrong_table(table: str, unknown: list[str], names: tuple[str, ...], source: str) -> ConfigError:
    nearest = nearest_name(unknown[0], names) if unknown else None
    return ConfigError(
        f"The table '{table}' of a recipe gives the frequencies of its kinds.",
        expected=f"some of {', '.join(names)}, at least one above 0",
        received=f"{table} with {', '.join(unknown) or 'nothing above 0'} in {source}",
        fix=f"did you mean '{nearest}'?" if nearest else "give at least one kind",
    )
