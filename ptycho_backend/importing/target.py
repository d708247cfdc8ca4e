"""Output file of an import, checked before any work (spec: data 6.1, 12)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ptycho_backend.data.output import require_writable_name
from ptycho_backend.data.readers import HDF5, NPZ
from ptycho_backend.errors import OutputError
from ptycho_backend.importing.arrays import split_address
from ptycho_backend.importing.description import ImportConfig


def checked_target(output: Path | str, sources: Iterable[str], overwrite: bool) -> Path:
    """
    Return the path of an output file.

    Parameters
    ----------
    output : path
    sources : iterable of str
        Addresses of the files that are read; none of them is replaced, whatever `overwrite` is.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    OutputError
        If the suffix is neither HDF5 nor NPZ, the name is refused by the system, or the file exists.
    """
    target = Path(output)
    if target.suffix.lower() not in (*HDF5, *NPZ):
        raise OutputError(
            "The suffix of an output file gives its format.",
            expected=f"a name that ends with one of {', '.join((*HDF5, *NPZ))}",
            received=f"'{target}'",
            fix="--output SCAN.h5",
        )
    require_writable_name(target)
    if target.exists():
        for source in sources:
            path = split_address(source)[0]
            if path.exists() and path.samefile(target):
                raise OutputError(
                    "An import leaves the files that it reads as they are.",
                    expected="an output file of another name",
                    received=f"'{target}', which is read",
                    fix="choose another name for --output; --overwrite replaces no file that is read",
                )
        if not overwrite:
            raise OutputError.exists(target)
    return target


def addresses(config: ImportConfig) -> list[str]:
    """Return the addresses and paths of a description."""
    positions, detector = config.positions, config.detector
    named = (positions.y, positions.x, positions.text, detector.dark, detector.flat, detector.mask, config.probe.array)
    return [address for address in named if address]
