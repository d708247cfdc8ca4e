"""Files of a command: input scans, output folders, the reconstruction and its pictures."""

from __future__ import annotations

import logging
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.commands.interruption import Interrupted
from ptycho_backend.data.image import Experiment, Image
from ptycho_backend.data.image_file import RECONSTRUCTION as RECONSTRUCTION
from ptycho_backend.data.image_file import write_image_file
from ptycho_backend.data.output import is_temporary, require_writable_name
from ptycho_backend.data.run_folder import Contents, run_folder, updated_folder
from ptycho_backend.data.scan import Scan
from ptycho_backend.data.selection import Search, examined
from ptycho_backend.errors import ConfigError, OutputError, TrainingStopped
from ptycho_backend.model_file.bundle import FILE_NAME
from ptycho_backend.model_file.run import RUN_FILES
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.reconstruction import described
from ptycho_backend.runtime.printable import printable
from ptycho_backend.training.checkpoints import FOLDER as CHECKPOINTS
from ptycho_backend.training.checkpoints import LAST
from ptycho_backend.training.loggers import LOG_FILES

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from ptycho_backend.commands.command_line import CommandLine

logger = logging.getLogger(__name__)

EVALUATION = "evaluation.json"
ASSESSMENT = "assessment.json"
PICTURES = ("object.png", "probe.png", "baseline.png", "comparison.png", "assessment.png")
REPORT = "report.html"
EVALUATION_FILES = (EVALUATION, ASSESSMENT, REPORT, *PICTURES)
IMAGE_FILES = (RECONSTRUCTION, *EVALUATION_FILES)
LOSSES = "losses.png"
LAST_CHECKPOINT = f"{CHECKPOINTS}/{LAST}"
RECONSTRUCTING = Contents(IMAGE_FILES, (RECONSTRUCTION,))
TRAINING = Contents(
    (*RUN_FILES, LOSSES, CHECKPOINTS, *LOG_FILES, *IMAGE_FILES), (FILE_NAME, RECONSTRUCTION), LAST_CHECKPOINT
)
RANGE = re.compile(r" *([0-9]{1,12}) *(?:- *([0-9]{1,12}) *)?")


@contextmanager
def result_folder(path: str, overwrite: bool, contents: Contents | None = None, resume: bool = False) -> Iterator[Path]:
    """
    Yield a writable, claimed folder for results.

    Without `contents` the folder is written in place. With them, results that replace earlier ones are written to a
    hidden folder, which takes the final place at the end of the block. New folders that stay empty are removed.

    Raises
    ------
    OutputError
        If the folder is in use, holds files without `overwrite`, or cannot be written to.
    Interrupted
        On Ctrl-C or another signal, with the names of the completed files.
    """
    target = work = usable_path(path)
    new_parents = [folder for folder in target.parents if not folder.exists()]
    previous, claim = {}, updated_folder(target, overwrite)
    if contents is not None:
        claim = run_folder(target, contents, overwrite, resume)
    try:
        with claim as work:
            previous = _files_in(target)
            yield work
    except BaseException as error:
        for folder in new_parents:
            with suppress(OSError):  # a folder with files stays
                folder.rmdir()
        place = work if work.exists() else target  # a new run with results has replaced the old one
        names = sorted(name for name, stamp in _files_in(place).items() if previous.get(name) != stamp)
        saved = f"saved in '{place}': {', '.join(names)}" if names else ""
        if isinstance(error, (Interrupted, KeyboardInterrupt)):
            parts = (saved or "no file was complete", getattr(error, "saved", ""))
            raise Interrupted("; ".join(filter(None, parts)), getattr(error, "signal", signal.SIGINT)) from None
        if saved and not isinstance(error, TrainingStopped):
            logger.warning("%s", saved)
        raise


def usable_path(path: str) -> Path:
    """
    Return a path for results that the system accepts, whether it exists or not.

    Raises
    ------
    OutputError
        For a name that is too long, or contains a null byte.
    """
    target = Path(path)
    try:
        target.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return target
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError.not_writable(printable(str(target))[:80], reason, fix="choose another name") from error
    return target


def check_new_file(path: str, suffix: str, overwrite: bool) -> Path:
    """
    Return the path of an output file after a check of its suffix and folder, before any work.

    Raises
    ------
    OutputError
    """
    target = Path(path)
    require_writable_name(target)
    if target.suffix.lower() != suffix:
        raise OutputError(
            "The suffix of an output file gives its format.",
            expected=f"a name that ends with {suffix}",
            received=f"'{target}'",
            fix=f"--output {target.with_suffix(suffix) if target.name else target / f'scan{suffix}'}",
        )
    if not target.parent.is_dir():
        reason = f"folder '{target.parent}' does not exist"
        raise OutputError.not_writable(target, reason, fix=f"create it: mkdir -p '{target.parent}'")
    if target.exists() and not overwrite:
        raise OutputError.exists(target)
    return target


def remove_files(folder: Path, names: tuple[str, ...]) -> None:
    """Remove the results of an earlier run from a folder; missing files are ignored."""
    for name in names:
        (folder / name).unlink(missing_ok=True)


def add_scan_options(line: CommandLine) -> None:
    """Add the scan file and the options for its loading."""
    line.add("scan", nargs="?", metavar="SCAN", help="Scan file: .npz, .h5 (ptychodus) or .cxi.")
    line.add("--patterns", metavar="FILE", help="HDF5 file with the patterns of a ptychodus product SCAN.")
    line.add("--resize", type=int, help="Side of the detector in pixels, after cropping or zero-padding.")
    add_selection_options(line)


def add_selection_options(line: CommandLine) -> None:
    """Add the options that leave out patterns and pixels of a scan."""
    line.add("--exclude", metavar="ROWS", help="Numbers of patterns to leave out, from 0: 3,17,40-45.")
    text = 'Mask the bad detector pixels that the patterns show ("auto"), or keep the mask of the file ("off").'
    line.add("--bad-pixels", type=Search, default="auto", help=text)
    text = 'Leave out empty, saturated and mad patterns ("auto"), or keep them ("off").'
    line.add("--odd-patterns", type=Search, default="auto", help=text)


def load(options: Namespace, path: Path | str) -> Scan:
    """
    Load a scan with the options of the command line, without its odd patterns.

    Raises
    ------
    ConfigError
        If `--exclude` is no list of numbers.
    DataError, ShapeError
    """
    return examined(read_scan(options, path))


def read_scan(options: Namespace, path: Path | str) -> Scan:
    """
    Read a scan with the options of the command line, with all patterns that are not excluded by number.

    Raises
    ------
    ConfigError
        If `--exclude` is no list of numbers.
    DataError, ShapeError
    """
    from ptycho_backend.data.readers import load_scan

    exclude, size, patterns = rows_of(options.exclude or ""), options.get("resize"), options.get("patterns")
    search = {"bad_pixels": options.bad_pixels, "odd_patterns": options.odd_patterns}
    return load_scan(path, size, patterns, exclude=exclude, **search)


def rows_of(text: str) -> NDArray[np.intp]:
    """
    Return the numbers in a text such as "3,17,40-45", whose ranges contain both ends.

    Raises
    ------
    ConfigError
        If the text has other parts, or a range descends.

    Notes
    -----
    Spec: data 3.8.3.
    """
    rows: list[NDArray[np.intp]] = [np.zeros(0, dtype=np.intp)]
    for part in text.split(",") if text else ():
        match = RANGE.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise ConfigError(
                "'--exclude' cannot take this value.",
                expected="numbers and ascending ranges of patterns, such as 3,17,40-45",
                received=f"{part!r} in {text!r} from the command line",
                fix="separate the numbers by commas, without spaces; the first pattern is 0",
            )
        rows.append(np.arange(first, last + 1))
    return np.concatenate(rows)


def write_image(
    folder: Path,
    scan: Scan,
    image: Image,
    calibration: Calibration,
    costs: list[float],
    attributes: dict[str, Any],
) -> None:
    """
    Write a reconstruction as a ptychodus product, with the loss of every epoch and further attributes.

    Probe and positions are those of the image, as the solver fitted them; the given positions stand beside them.
    """
    complete = described(image, scan, calibration)
    provenance = {**complete.provenance, "scan": scan.attributes, **attributes}
    fields = {
        **vars(complete),
        "experiment": image.experiment or Experiment.given(calibration.probe, scan.positions_px),
        "provenance": provenance,
    }
    extras = {"given_positions_px": scan.positions_px}
    write_image_file(folder / RECONSTRUCTION, fields, folder.resolve().name, costs, extras, overwrite=True)


def is_product(path: Path) -> bool:
    """Return True for a ptychodus product: positions in metres, and no patterns."""
    from ptycho_backend.data.fields import opened_hdf5
    from ptycho_backend.data.product import POSITIONS
    from ptycho_backend.data.readers import HDF5

    if path.suffix.lower() not in HDF5:
        return False
    with opened_hdf5(path) as file:
        return POSITIONS[0] in file


def draw(plot: Callable[..., None], path: Path, *arguments: Any, **settings: Any) -> None:
    """Draw a picture; a failure is a warning, because pictures are optional."""
    try:
        plot(path, *arguments, **settings)
    except Exception as error:  # of any kind: the results are already complete
        logger.warning("picture '%s' could not be drawn: %s: %s", path.name, type(error).__name__, error)
        logger.debug("", exc_info=True)


def _files_in(folder: Path) -> dict[str, tuple[int, int]]:
    with suppress(OSError):
        return {
            item.name: (item.stat().st_mtime_ns, item.stat().st_ino)
            for item in folder.iterdir()
            if item.is_file() and not is_temporary(item.name)
        }
    return {}
