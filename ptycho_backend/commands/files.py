"""Files of a command: scans that come in, and a folder that holds whole results or nothing."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.image import Image
from ptycho_backend.data.output import prepare_run_folder
from ptycho_backend.data.product import NUMBERS, Product, write_product
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import OutputError, TrainingStopped
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.training.checkpoints import FOLDER as CHECKPOINTS

if TYPE_CHECKING:
    from jsonargparse import Namespace

logger = logging.getLogger(__name__)

RECONSTRUCTION = "reconstruction.h5"
EVALUATION = "evaluation.json"
ASSESSMENT = "assessment.json"
PICTURES = ("object.png", "probe.png", "baseline.png", "comparison.png", "assessment.png")
IMAGE_FILES = (RECONSTRUCTION, EVALUATION, ASSESSMENT, *PICTURES)
BESIDE_IMAGE = tuple(name for name in IMAGE_FILES if name != RECONSTRUCTION)


class Interrupted(BaseException):
    """A command was stopped by a signal; `kept` says what it leaves behind."""

    def __init__(self, kept: str = "", number: int = signal.SIGINT) -> None:
        self.kept, self.signal = kept, number
        super().__init__(kept)


@contextmanager
def result_folder(path: str, overwrite: bool) -> Iterator[Path]:
    """
    Give a folder for results that has been checked before any work is done.

    When the work fails, folders that were made for it and hold nothing are removed again.

    Raises
    ------
    OutputError
        If the folder holds something and `overwrite` is off, or cannot be written to.
    Interrupted
        On Ctrl-C or another signal, with the names of the files that the command had completed.
    """
    target = Path(path)
    made = [folder for folder in (target / CHECKPOINTS, target, *target.parents) if not folder.exists()]
    before = _files_in(target)
    try:
        yield prepare_run_folder(target, overwrite)
    except BaseException as error:
        _remove_empty(made)
        new = sorted(name for name, stamp in _files_in(target).items() if before.get(name) != stamp)
        kept = f"kept in '{target}': {', '.join(new)}" if new else ""
        if isinstance(error, (Interrupted, KeyboardInterrupt)):
            said = (kept or "nothing was complete yet, nothing is kept", getattr(error, "kept", ""))
            raise Interrupted("; ".join(filter(None, said)), getattr(error, "signal", signal.SIGINT)) from None
        if kept and not isinstance(error, TrainingStopped):
            logger.warning("%s", kept)
        if isinstance(error, OutputError):
            raise _in_words_of_the_command(error) from error
        raise


def check_new_file(path: str, suffix: str, overwrite: bool) -> Path:
    """Refuse, before any work is done, an output file that could not be written in the end."""
    target = Path(path)
    if target.suffix.lower() != suffix:
        raise OutputError(
            "The name of an output file tells its kind.",
            expected=f"a name that ends with {suffix}",
            received=f"'{target}'",
            fix=f"--output {target.with_suffix(suffix)}",
        )
    if not target.parent.is_dir():
        raise OutputError(
            "Results need a place that can be written to.",
            expected="an existing folder",
            received=f"'{target}', whose folder '{target.parent}' does not exist",
            fix=f"create it: mkdir -p '{target.parent}'",
        )
    if target.exists() and not overwrite:
        raise OutputError(
            "An existing file is replaced only on request.",
            expected="a name that is free",
            received=f"'{target}', which exists",
            fix="choose another name, or add --overwrite",
        )
    return target


def remove_earlier(folder: Path, names: tuple[str, ...]) -> None:
    """Remove results of an earlier run that would no longer belong to what the folder holds."""
    for name in names:
        (folder / name).unlink(missing_ok=True)


def add_scan_options(line: Any) -> None:
    """Add the scan, and how it is loaded."""
    line.add("scan", nargs="?", metavar="SCAN", help="Scan file: .npz, .h5 (ptychodus) or .cxi.")
    line.add(
        "--patterns", metavar="FILE", help="HDF5 file with the patterns, where SCAN is a ptychodus product without."
    )
    line.add("--resize", type=int, metavar="INT", help="Crop or zero-pad the detector to this many pixels a side.")


def load(options: Namespace, path: str) -> Scan:
    """Load the scan that a command line names."""
    from ptycho_backend.data.readers import load_scan

    return load_scan(path, N=options.resize, patterns=options.patterns)


def write_image(
    folder: Path,
    scan: Scan,
    image: Image,
    calibration: Calibration,
    costs: list[float],
    attributes: dict[str, Any],
) -> None:
    """Write what ptychodus reads of a reconstruction, with the loss of every epoch and what made it."""
    product = Product(
        positions_px=scan.positions_px,
        probe=photon_probe(calibration),
        obj=image.obj,
        obj_origin_px=image.origin_px,
        pixel_size_m=scan.pixel_size_m,
        indexes=np.arange(len(scan)),
        costs=np.asarray(costs, dtype=np.float64),
        attributes={
            **{key: value for key, value in scan.attributes.items() if key in NUMBERS},
            "probe_photon_count": calibration.photons_per_pattern,
            "scan": scan.attributes,
            "name": folder.resolve().name,
            **attributes,
        },
    )
    write_product(folder / RECONSTRUCTION, product, {"coverage": image.coverage}, overwrite=True)


def photon_probe(calibration: Calibration) -> NDArray[np.complex64]:
    """Return the probe in sqrt(photons): with it and the object, |far field|² is the expected counts."""
    scale = np.sqrt(calibration.photon_scale) / calibration.rms_input_scale
    return np.asarray(calibration.probe * scale, dtype=np.complex64)


def is_product(path: Path) -> bool:
    """Whether a file is a ptychodus product: positions in metres, and no patterns."""
    from ptycho_backend.data.fields import opened_hdf5
    from ptycho_backend.data.product import POSITIONS
    from ptycho_backend.data.readers import HDF5

    if path.suffix.lower() not in HDF5:
        return False
    with opened_hdf5(path) as file:
        return POSITIONS[0] in file


def draw(picture: Callable[..., None], path: Path, *arguments: Any, **settings: Any) -> None:
    """Draw a picture; pictures are optional, so one that fails is a warning."""
    try:
        picture(path, *arguments, **settings)
    except Exception as error:  # whatever it is, the results are already safe
        logger.warning("picture '%s' could not be drawn: %s: %s", path.name, type(error).__name__, error)
        logger.debug("", exc_info=True)


def _files_in(folder: Path) -> dict[str, tuple[int, int]]:
    with suppress(OSError):
        return {
            item.name: (item.stat().st_mtime_ns, item.stat().st_ino)
            for item in folder.iterdir()
            if item.is_file() and not item.name.endswith(".tmp")
        }
    return {}


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _in_words_of_the_command(error: OutputError) -> OutputError:
    fix = error.fix.replace("pass overwrite=True", "add --overwrite")
    return OutputError(error.rule, error.expected, error.received, fix)
