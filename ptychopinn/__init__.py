"""
The public names of ``ptycho_backend``, under the name of the distribution.

    import ptychopinn as pp

    image = pp.reconstruct(pp.load_scan("scan.npz"))

Both packages have the same objects, imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ptycho_backend
from ptycho_backend import __version__ as __version__

if TYPE_CHECKING:
    from ptycho_backend import *  # noqa: F403

__all__ = [*ptycho_backend.__all__]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ptychopinn' has no attribute {name!r}")
    return getattr(ptycho_backend, name)


def __dir__() -> list[str]:
    return sorted(__all__)
