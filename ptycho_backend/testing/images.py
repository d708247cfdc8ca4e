"""Errors of an image or a probe against the known object or probe of a simulated scan."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.image import Image
from ptycho_backend.data.scan import Scan
from ptycho_backend.physics.translation import extract_patches_at


def truth_on(image: Image, scan: Scan) -> NDArray[Any]:
    """Return the known object on the pixels of an image, by bilinear interpolation."""
    assert scan.obj is not None
    side = max(image.obj.shape) + 2
    middle = np.array([image.origin_px]) + side // 2
    return extract_patches_at(scan.obj, middle, side, scan.obj_origin_px)[0, : image.obj.shape[0], : image.obj.shape[1]]


def error_of(image: Image, scan: Scan, share: float = 0.3) -> float:
    """Return ‖c·image − object‖ / ‖object‖ with the best complex c, where coverage exceeds a share of its maximum."""
    good = image.coverage > share * image.coverage.max()
    return scaled_distance(image.obj[good], truth_on(image, scan)[good])


def scaled_distance(found: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return ‖c·found − truth‖ / ‖truth‖ with the best complex factor c."""
    factor = np.vdot(found, truth) / np.vdot(found, found)
    return float(np.linalg.norm(factor * found - truth) / np.linalg.norm(truth))
