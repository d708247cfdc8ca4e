"""How far an image, or a probe, is from a simulated scan's own, pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.image import Image
from ptycho_backend.data.scan import Scan
from ptycho_backend.physics.translation import extract_patches_at


def truth_on(image: Image, scan: Scan) -> NDArray[Any]:
    """Return the known object, bilinearly, on the pixels of an image."""
    assert scan.obj is not None
    side = max(image.obj.shape) + 2
    middle = np.array([image.origin_px]) + side // 2
    return extract_patches_at(scan.obj, middle, side, scan.obj_origin_px)[0, : image.obj.shape[0], : image.obj.shape[1]]


def error_of(image: Image, scan: Scan, share: float = 0.3) -> float:
    """Return the relative error where coverage is above a share of its peak, one complex factor aside."""
    good = image.coverage > share * image.coverage.max()
    found, truth = image.obj[good], truth_on(image, scan)[good]
    factor = np.vdot(found, truth) / np.vdot(found, found)
    return float(np.linalg.norm(factor * found - truth) / np.linalg.norm(truth))


def probe_distance(probe: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the relative error of a probe (mode, y, x), one complex factor aside."""
    factor = np.vdot(probe, truth) / np.vdot(probe, probe)
    return float(np.linalg.norm(factor * probe - truth) / np.linalg.norm(truth))
