"""Scale bar of a map: a round length, on a dark box (spec: metrics 7.4)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ptycho_backend.plots.figures import SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_SHARE = 0.3  # of the width of the axes
THICKNESS = 0.015  # of the shorter side
DIGITS = (5, 2, 1)


def round_length(longest: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is not longer than a positive length."""
    power = 10.0 ** math.floor(math.log10(longest))
    # A hair of tolerance: 0.3 / 0.1 is below 3.
    return next(digit * power for digit in DIGITS if digit * power <= longest * (1 + 1e-9))


def draw_scale_bar(axes: Axes, unit: str) -> Axes:
    """
    Draw a scale bar of a round length into the lower left corner of a map.

    Parameters
    ----------
    axes : Axes
        Axes in lengths, whose limits are set; the bar is at most 0.3 of their width.
    unit : str
        Unit of the axes.
    """
    from matplotlib.font_manager import FontProperties
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    length = round_length(MAX_SHARE * abs(right - left))
    bar = AnchoredSizeBar(
        axes.transData,
        length,
        f"{length:g} {unit}",
        "lower left",
        pad=0.5,
        sep=3,
        borderpad=0.5,
        color="white",
        size_vertical=THICKNESS * min(abs(top - bottom), abs(right - left)),
        fill_bar=True,
        fontproperties=FontProperties(size=SMALL),
    )
    bar.patch.set(facecolor="black", edgecolor="none", alpha=0.6)
    axes.add_artist(bar)
    return axes
