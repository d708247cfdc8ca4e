"""Groups of a scan as arrays (group, y, x, channel), with the keys of the earlier TensorFlow package."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.lazy_values import GroupedData, LazyValue
from ptycho.raw_inputs import RawFields
from ptycho.scan_array import ScanArray, ScanContext
from ptycho_backend.config import ModelConfig
from ptycho_backend.data.batching import Samples
from ptycho_backend.data.fields import behind_middle_px
from ptycho_backend.data.grouping import Groups, group_positions, groups_from_indices
from ptycho_backend.data.scan import Scan
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.physics.translation import extract_patches_at

logger = logging.getLogger(__name__)

MAX_PER_POSITION = 16  # a larger `nsamples` is the total number of groups, as in later releases
CHUNK = 256


def draw_groups(scan: Scan, gridsize: int, neighbor_count: int, nsamples: int, rng: np.random.Generator) -> Groups:
    """
    Draw groups of gridsize² neighbours.

    Parameters
    ----------
    scan : Scan
    gridsize, neighbor_count : int
    nsamples : int
        Up to 16: groups per position; more: total number of groups. At gridsize 1 every position has one group.
    rng : numpy Generator
    """
    per_position = nsamples <= MAX_PER_POSITION
    rounds = nsamples if per_position else -(-nsamples // len(scan))
    rounds = 1 if gridsize == 1 else rounds
    drawn = [
        group_positions(scan.positions_px, gridsize, neighbor_count, None, rng).indices for _ in range(max(1, rounds))
    ]
    indices = np.concatenate(drawn)
    if not per_position:
        logger.info("nsamples=%d is the total number of groups; the scan yields %d", nsamples, len(indices))
        indices = indices[np.sort(rng.choice(len(indices), min(nsamples, len(indices)), replace=False))]
    return groups_from_indices(scan.positions_px, indices)


def grouped_arrays(raw: RawFields, scan: Scan, groups: Groups) -> GroupedData:
    """
    Return the groups of a scan as arrays (group, y, x, channel); coordinates are (group, 1, (x, y), channel).

    Parameters
    ----------
    raw : RawFields
        Gives the start coordinates.
    scan : Scan
        The scan of `raw`.
    groups : Groups

    Returns
    -------
    dict
        "X_full" and "diffraction" (B, N, N, C): normalised amplitude, and original patterns. "Y": patches of
        `objectGuess`, or None. "coords_nn" (B, 1, 2, C): coordinates, **x before y**. "coords_offsets" (B, 1, 2, 1):
        their mean. "coords_relative" (B, 1, 2, C): **mean minus member**. The same three for the start coordinates.
        "nn_indices" (B, C). "objectGuess".
    """
    samples = Samples(scan, groups, calibrate(scan, ModelConfig(N=scan.N)))
    amplitude = samples.batch(slice(None)).x
    context = ScanContext(
        scan=scan,
        groups=groups,
        input_scale=samples.calibration.rms_input_scale,
        energy=good_energy(amplitude, scan.mask),
        centre_px=_centre(raw, scan),
        shift_px=behind_middle_px(scan.N) if raw.middles else 0.0,
    )
    members = groups.indices
    coords = _coordinates(raw.xcoords, raw.ycoords, members)
    starts = _coordinates(raw.xcoords_start, raw.ycoords_start, members)
    return GroupedData(
        diffraction=LazyValue(lambda: np.moveaxis(np.asarray(scan.patterns)[members], 1, -1)),
        X_full=ScanArray(np.moveaxis(amplitude, 1, -1), context),
        Y=LazyValue(lambda: _labels(scan, members)),
        coords_offsets=ScanArray(_mean(coords), context),
        coords_relative=ScanArray(_mean(coords) - coords, context),
        coords_start_offsets=_mean(starts),
        coords_start_relative=_mean(starts) - starts,
        coords_nn=coords,
        coords_start_nn=starts,
        nn_indices=members,
        objectGuess=raw.objectGuess,
    )


def good_energy(amplitude: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return Σ amplitude² over channels and good pixels of each group; amplitude is (group, channel, y, x)."""
    starts = range(0, len(amplitude), CHUNK)
    sums = [(np.square(amplitude[i : i + CHUNK], dtype=np.float64) * mask).sum(axis=(1, 2, 3)) for i in starts]
    return np.concatenate(sums) if sums else np.zeros(0)


def _centre(raw: RawFields, scan: Scan) -> tuple[float, float] | None:
    """Return the centre (y, x) of the known object's grid, or else of the coordinates' bounding box."""
    if scan.obj is not None:
        (y, x), (height, width) = scan.obj_origin_px, scan.obj.shape
        return y + (height - 1) / 2, x + (width - 1) / 2
    if not raw.middles:
        return None
    y_px, x_px = np.asarray(raw.ycoords), np.asarray(raw.xcoords)
    return float(y_px.min() + y_px.max()) / 2, float(x_px.min() + x_px.max()) / 2


def _coordinates(x: Any, y: Any, members: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the members' coordinates, (group, 1, (x, y), channel)."""
    both = np.stack([np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)])
    return np.moveaxis(both[:, members], 0, 1)[:, None]


def _mean(coords: NDArray[np.float64]) -> NDArray[np.float64]:
    return coords.mean(axis=3, keepdims=True)


def _labels(scan: Scan, members: NDArray[np.int64]) -> NDArray[np.complex64] | None:
    """Return patches of the known object (group, y, x, channel), or None."""
    if scan.obj is None:
        return None
    patches = extract_patches_at(scan.obj, scan.positions_px[members.ravel()], scan.N, scan.obj_origin_px)
    return np.moveaxis(patches.reshape(*members.shape, scan.N, scan.N), 1, -1)
