"""
Simulated scans: photon counts of a known object and probe (spec: simulation 4).

The object is sampled on integer coordinates. The nearest pixel of a position selects the window, and the probe is
shifted by the remaining fraction inside the window. The choice of the window does not change the intensity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, Interval, Le
from numpy.typing import NDArray

from ptycho_backend.config import validate
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import ConfigError, ShapeError
from ptycho_backend.physics.propagation import far_field
from ptycho_backend.runtime.plain_values import to_plain
from ptycho_backend.simulation.limits import check_expected, check_size
from ptycho_backend.simulation.objects import make_object
from ptycho_backend.simulation.positions import make_positions
from ptycho_backend.simulation.probes import make_probe, shifted_probes

Origin = tuple[float, float]
Probe = NDArray[np.complex64]
Mask = NDArray[np.bool_]
CHUNK_PIXELS = 2**20  # detector pixels simulated at a time
STEP_OF_DIAMETER = 0.28  # about 70 % overlap of neighbouring discs
PIXEL_SIZE_M = 10e-9


@dataclass
class SimulationConfig:
    """
    Options of a simulated scan.

    Parameters
    ----------
    N : int
        Side of a pattern, pixels.
    n_positions : int
        Number of positions, with one pattern each.
    photons_per_pattern : float
        Mean photons of a noise-free pattern, over the whole detector.
    object_name : {"photographs", "textures", "lines", "siemens"}
        Object: photographs, textures, lines or siemens (a Siemens star).
    probe_name : {"disc", "zone-plate", "gaussian"}
        Probe: disc, zone-plate or gaussian; the curved wave of a zone plate hides slow phase changes of the object.
    scan_name : {"raster", "spiral", "random"}
        Arrangement of the positions: raster, spiral or random.
    step_px : float, optional
        Mean distance of neighbouring positions, pixels; None takes 28 % of the probe's diameter.
    diameter_fraction : float
        Diameter of the probe over N.
    modes : int
        Number of incoherent probe modes.
    probe_error : float
        Relative error of the diameter of the probe guess in the scan; the true probe makes the patterns.
    noise : bool
        Photon noise; without it the patterns are the expected counts, float32.
    bad_pixels : float
        Share of dead or hot detector pixels, which the mask excludes.
    phase_range_rad : float
        Largest minus smallest phase of the object.
    seed : int
        Seed of object, probe, positions, noise and mask; each has a random stream of its own.
    """

    N: Annotated[int, Ge(16), Le(1024)] = 64
    n_positions: Annotated[int, Ge(1)] = 1024
    photons_per_pattern: Annotated[float, Interval(gt=0.0, le=1e30)] = 1e6
    object_name: str = "photographs"
    probe_name: str = "disc"
    scan_name: str = "raster"
    step_px: Annotated[float, Gt(0.0)] | None = None
    diameter_fraction: Annotated[float, Interval(ge=1e-4, le=1.0)] = 0.35
    modes: Annotated[int, Ge(1), Le(8)] = 1
    probe_error: Annotated[float, Interval(gt=-0.9, lt=1.0)] = 0.0
    noise: bool = True
    bad_pixels: Annotated[float, Interval(ge=0.0, lt=0.5)] = 0.0
    phase_range_rad: Annotated[float, Interval(gt=0.0, le=1e4)] = 1.2
    seed: Annotated[int, Ge(0)] = 0


def simulate_scan(config: SimulationConfig | None = None, **fields: Any) -> Scan:
    """
    Simulate a scan with a known object.

    Parameters
    ----------
    config : SimulationConfig, optional
    **fields
        Fields of :class:`SimulationConfig` by name; they take precedence over `config`.

    Returns
    -------
    Scan
        Counts (uint16 or uint32; float32 without noise), probe guess in sqrt(photons), object with its origin, mask,
        and the settings as `attributes`.

    Raises
    ------
    ConfigError
        For unknown fields, values out of range, and a scan that does not fit in memory or in its dtype.

    Notes
    -----
    Spec: simulation 4.1 to 4.6.
    """
    config = _settings(config, fields)
    check_size(config.n_positions, config.N, _step_px(config))
    streams = _streams(config.seed)
    step_px, mask_rng = _step_px(config), _rng(streams, "mask")
    positions_px = make_positions(config.scan_name, config.n_positions, step_px, _rng(streams, "positions"))
    origin_px, size_px = covering_frame(positions_px, config.N)
    half = config.phase_range_rad / 2
    obj = make_object(config.object_name, size_px, _rng(streams, "object"), phase_range_rad=(-half, half))
    probe = _probe(config, config.diameter_fraction, _rng(streams, "probe"))
    scale = photon_scale(obj, origin_px, probe, positions_px, config.photons_per_pattern)
    expected = expected_counts(obj, origin_px, probe * scale, positions_px)
    check_expected(expected, config.photons_per_pattern, config.noise)
    patterns = detected(expected, _rng(streams, "noise")) if config.noise else expected.astype(np.float32)
    guess = _probe(config, config.diameter_fraction * (1 + config.probe_error), _rng(streams, "probe"))
    mask = mask_rng.random((config.N, config.N)) >= config.bad_pixels
    return Scan(
        patterns=with_bad_pixels(patterns, mask, mask_rng),
        positions_px=positions_px,
        probe=(guess * scale).astype(np.complex64),
        measurement="counts",
        mask=mask,
        obj=obj,
        obj_origin_px=origin_px,
        pixel_size_m=(PIXEL_SIZE_M, PIXEL_SIZE_M),
        source=f"simulation (seed {config.seed})",
        attributes=_provenance(config, patterns),
    )


def covering_frame(positions_px: NDArray[np.float64], N: int) -> tuple[Origin, tuple[int, int]]:
    """Return origin and size of the smallest array, on whole pixels, that contains every N×N window."""
    first = nearest_pixel(positions_px).min(axis=0) - N // 2
    last = nearest_pixel(positions_px).max(axis=0) - N // 2 + N
    return (float(first[0]), float(first[1])), (int(last[0] - first[0]), int(last[1] - first[1]))


def nearest_pixel(positions_px: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the nearest pixel of a position; halves round up, so that the remainder is in [-0.5, 0.5)."""
    return np.floor(positions_px + 0.5).astype(np.int64)


def expected_counts(
    obj: NDArray[Any], origin_px: Origin, probe: NDArray[Any], positions_px: NDArray[np.float64]
) -> NDArray[np.float64]:
    """
    Return the expected counts of every pattern.

    Parameters
    ----------
    obj : complex, shape (y, x)
        Transmission function that covers every window.
    origin_px : (float, float), (y, x)
        Scan coordinates of ``obj[0, 0]``, whole numbers.
    probe : complex, shape (mode, y, x), sqrt(photons)
    positions_px : float64, shape (position, 2), (y, x)

    Returns
    -------
    float64, shape (position, y, x)

    Notes
    -----
    Spec: simulation 4.2.
    """
    N = probe.shape[-1]
    counts = np.empty((len(positions_px), N, N))
    for rows, waves in _exit_waves(obj, origin_px, probe, positions_px):
        counts[rows] = (np.abs(far_field(waves)) ** 2).sum(axis=1)
    return counts


def photon_scale(
    obj: NDArray[Any],
    origin_px: Origin,
    probe: NDArray[Any],
    positions_px: NDArray[np.float64],
    photons_per_pattern: float,
) -> float:
    """Return the factor on the probe for a mean of `photons_per_pattern` in noise-free patterns."""
    # The propagation is unitary: the exit wave has the photons of the detector.
    waves = _exit_waves(obj, origin_px, probe, positions_px)
    energy = sum(float((np.abs(wave) ** 2).sum()) for _, wave in waves)
    return float(np.sqrt(photons_per_pattern * len(positions_px) / energy))


def _exit_waves(
    obj: NDArray[Any], origin_px: Origin, probe: NDArray[Any], positions_px: NDArray[np.float64]
) -> Iterator[tuple[slice, NDArray[np.complex128]]]:
    """Yield exit waves (position, mode, y, x) in chunks of positions."""
    N = probe.shape[-1]
    nearest = nearest_pixel(positions_px)
    corners = nearest - N // 2 - np.rint(np.asarray(origin_px)).astype(np.int64)
    _check_covered(corners, obj.shape, N, origin_px)
    windows = np.lib.stride_tricks.sliding_window_view(obj, (N, N))
    chunk = max(1, CHUNK_PIXELS // probe.size)
    for start in range(0, len(positions_px), chunk):
        rows = slice(start, start + chunk)
        probes = shifted_probes(probe, positions_px[rows] - nearest[rows])
        yield rows, windows[corners[rows, 0], corners[rows, 1]][:, None] * probes


def _check_covered(corners: NDArray[np.int64], shape: tuple[int, ...], N: int, origin_px: Origin) -> None:
    if (corners < 0).any() or (corners + N > np.asarray(shape)).any() or (np.asarray(origin_px) % 1).any():
        raise ShapeError(
            "The object covers every window of the scan on whole pixels.",
            expected=f"windows of {N} px inside an object of shape {shape} whose origin is a whole number",
            received=f"first pixels from {corners.min(axis=0)} to {corners.max(axis=0)}, origin {origin_px}",
            fix="create the object with covering_frame(positions_px, N)",
        )


def _settings(config: SimulationConfig | None, fields: dict[str, Any]) -> SimulationConfig:
    known = [field.name for field in dataclasses.fields(SimulationConfig)]
    for name in fields:
        if name not in known:
            raise ConfigError.unknown("simulation setting", name, known, f"{name}={fields[name]!r}")
    settings = dataclasses.replace(config or SimulationConfig(), **to_plain(fields))
    validate(settings, "simulate_scan")
    return settings


def _streams(seed: int) -> dict[str, np.random.SeedSequence]:
    # Independent streams: noise, mask and probe error do not change the object.
    names = ("object", "probe", "positions", "noise", "mask")
    return dict(zip(names, np.random.SeedSequence(seed).spawn(len(names)), strict=True))


def _rng(streams: dict[str, np.random.SeedSequence], name: str) -> np.random.Generator:
    return np.random.default_rng(streams[name])


def _step_px(config: SimulationConfig) -> float:
    return config.step_px or STEP_OF_DIAMETER * config.diameter_fraction * config.N


def _probe(config: SimulationConfig, diameter_fraction: float, rng: np.random.Generator) -> Probe:
    return make_probe(config.probe_name, config.N, rng, diameter_fraction, config.modes)


def _provenance(config: SimulationConfig, patterns: NDArray[Any]) -> dict[str, Any]:
    """Return the settings and the measured photons per pattern as plain values."""
    return dataclasses.asdict(config) | {
        "generator": "ptycho_backend.simulation.simulate",
        "step_px": _step_px(config),
        "measured_photons_per_pattern": float(patterns.sum(dtype=np.float64) / len(patterns)),
    }


def detected(expected: NDArray[np.float64], rng: np.random.Generator) -> NDArray[Any]:
    """Draw photon counts from Poisson distributions, as uint16 if possible, else uint32."""
    counts = rng.poisson(expected)
    return counts.astype(np.uint16 if counts.max() < 2**16 else np.uint32)


def with_bad_pixels(patterns: NDArray[Any], mask: Mask, rng: np.random.Generator) -> NDArray[Any]:
    """Return patterns with dead pixels (0) and hot pixels (maximum of the scan) outside of the mask."""
    hot = (rng.random(mask.shape) < 0.5) * patterns.max()
    return np.where(mask, patterns, hot.astype(patterns.dtype))
