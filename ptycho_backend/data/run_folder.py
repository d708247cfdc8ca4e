"""
Run folder that readers see before or after a command, and not in between (spec: data 6.5, 6.6).

A run in a new or empty folder is written in place. A run that replaces another one is written to a hidden folder beside
it: ``.NAME.ptychopinn/new/NAME``. The hidden folder takes the place of the old one when the run is complete.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ptycho_backend.data.output import is_temporary, prepare_run_folder
from ptycho_backend.data.run_claim import CONTROL, can_be_replaced, claimed, control_folder, owner_of
from ptycho_backend.errors import OVERWRITE, OutputError

NEW, OLD, ASIDE = "new", "old", "aside"  # inside the hidden folder
SWAP_S, SWAP_STEP_S = 2.0, 0.01  # longest time that a reader waits for a swap
RUN_RULE = "A run needs an empty folder."


@dataclass(frozen=True)
class Contents:
    """
    Names of the files of a command in its folder.

    Parameters
    ----------
    replaced : tuple of str
        Files and folders of an earlier run that a new run replaces, also those that it does not write itself.
        Everything else in the folder stays.
    results : tuple of str
        Files, of which each is worth keeping if the command ends early: the new run then replaces the old one.
    checkpoint : str
        File from which a later command resumes; "" for a command that cannot resume.
    """

    replaced: tuple[str, ...]
    results: tuple[str, ...]
    checkpoint: str = ""


@contextmanager
def updated_folder(path: Path | str, overwrite: bool = False) -> Iterator[Path]:
    """
    Yield a claimed folder whose other files stay, and which is written in place.

    Raises
    ------
    OutputError
        If the folder is in use, holds files without `overwrite`, or is not writable.
    """
    folder = Path(path)
    with _claim_of(folder) as control:
        _repair(folder, control)
        with _without_empty(folder):
            yield prepare_run_folder(folder, overwrite)


@contextmanager
def run_folder(path: Path | str, contents: Contents, overwrite: bool = False, resume: bool = False) -> Iterator[Path]:
    """
    Yield the claimed folder in which a run is written; a run that replaces another one is swapped in at the end.

    Parameters
    ----------
    path : path
        Run folder; parents are created too.
    contents : Contents
        Files of the command.
    overwrite : bool
        Replace the run in a folder that is not empty.
    resume : bool
        Continue a stopped run.

    Raises
    ------
    OutputError
        If the folder is in use, holds files without `overwrite`, or cannot be written or replaced.

    Notes
    -----
    Spec: data 6.2, 6.5, 6.6.
    """
    folder = Path(path)
    with _claim_of(folder) as control:
        _repair(folder, control)
        run = _ReplacedRun(folder, control / NEW / folder.resolve().name, control, contents)
        if run.is_in_place(overwrite, resume):
            with _without_empty(folder, folder / Path(contents.checkpoint).parent):
                yield prepare_run_folder(folder, overwrite or resume)
            return
        run.start(resume)
        try:
            yield run.new
        except BaseException:
            run.end_early()
            raise
        run.swap()


def folder_in_progress(path: Path | str) -> Path:
    """Return the folder that a command writes to now: the hidden one of a run that replaces another, else `path`."""
    folder = Path(path)
    new = control_folder(folder) / NEW / folder.resolve().name
    return new if new.is_dir() and owner_of(folder) is not None else folder


def resumable_folder(path: Path | str, checkpoint: str) -> Path:
    """Return the folder of the stopped run: the hidden one if it holds the file `checkpoint`, else `path`."""
    folder = Path(path)
    new = control_folder(folder) / NEW / folder.resolve().name
    return new if (new / checkpoint).is_file() else folder


def after_swap(path: Path | str) -> Path:
    """
    Return the path of a run folder, or of a file in it, after a swap that goes on or was killed.

    Between the two renamings of a swap the run folder does not exist. A reader waits then. It finishes the swap of a
    process that has ended.
    """
    given = Path(path)
    for folder in (given, *given.parents[:2]):
        with suppress(OSError, ValueError):  # the reader itself reports a bad path
            if not folder.exists() and _new_of_swap(folder) is not None:
                return given if _finish_swap(folder) else _inside(folder, given)
    return given


@dataclass(frozen=True)
class _ReplacedRun:
    """New run beside an old one."""

    folder: Path
    new: Path
    control: Path
    contents: Contents

    def is_in_place(self, overwrite: bool, resume: bool) -> bool:
        """Return whether the run is written to its final folder; an error without permission to replace files."""
        unfinished, items = _items(self.new), _items(self.folder)
        if resume:
            complete = self._has_results(self.folder) and (self.folder / self.contents.checkpoint).is_file()
            return not (complete or self._resumes_new())
        if not (items or unfinished):
            return True
        if not overwrite:
            held = f"which holds {len(items)} item(s)" if items else "with an unfinished run beside it"
            raise OutputError(
                RUN_RULE,
                expected="a new or empty folder",
                received=f"'{self.folder}', {held}",
                fix=f"choose another folder, or overwrite this one: {OVERWRITE}",
            )
        foreign = [name for name in unfinished if name not in self.contents.replaced and (self.new / name).is_dir()]
        if foreign:
            raise OutputError(
                "A stopped training is replaced only by another training.",
                expected="a run folder without a stopped training",
                received=f"'{self.folder}', with {', '.join(foreign[:5])} in '{self.new}'",
                fix=f"continue it with 'ptychopinn train --resume', or remove it: rm -r '{self.control}'",
            )
        return False

    def start(self, resume: bool) -> None:
        """Create the folder of the new run; one that resumes a complete run begins with links to its checkpoints."""
        self._check_replaceable()
        if resume and self._resumes_new():
            return
        _move_if_any(self.new, self._aside)
        prepare_run_folder(self.new)
        if resume:
            checkpoints = Path(self.contents.checkpoint).parent
            _link_missing(self.folder / checkpoints, self.new / checkpoints)

    def end_early(self) -> None:
        """Swap in a new run with results; keep one that a later command can resume; remove another one."""
        if self._has_results(self.new):
            self.swap()
            return
        if self._is_worth_resuming():
            shutil.rmtree(self._aside, ignore_errors=True)
        else:
            shutil.rmtree(self.new, ignore_errors=True)
            _move_if_any(self._aside, self.new)
        _remove_empty(self.control)

    def swap(self) -> None:
        """
        Put the new run in the place of the old one, with all other files of the old folder.

        Raises
        ------
        OutputError
            If the system refuses; both runs stay.
        """
        try:
            for name in set(_items(self.folder)) - set(self.contents.replaced):
                if not (is_temporary(name) or name.endswith(f".{CONTROL}")):
                    _link_missing(self.folder / name, self.new / name)
            old = self.control / OLD / self.new.name
            _move_if_any(self.folder.resolve(), old)
            self.new.rename(self.folder.resolve())
        except OSError as error:
            fix = f"the complete new run is in '{self.new}'; close programs that use the folder, and move it"
            raise OutputError.not_writable(self.folder, error.strerror or str(error), fix) from error
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(self._aside, ignore_errors=True)
        _remove_empty(self.control)

    @property
    def _aside(self) -> Path:
        return self.control / ASIDE / self.new.name

    def _resumes_new(self) -> bool:
        return bool(self.contents.checkpoint) and (self.new / self.contents.checkpoint).is_file()

    def _has_results(self, folder: Path) -> bool:
        return any((folder / name).is_file() for name in self.contents.results)

    def _is_worth_resuming(self) -> bool:
        """Return True for a checkpoint of its own; a link to one of the old run is no progress."""
        if not self._resumes_new():
            return False
        earlier = self.folder / self.contents.checkpoint
        return not (earlier.is_file() and earlier.samefile(self.new / self.contents.checkpoint))

    def _check_replaceable(self) -> None:
        place, here = self.folder.resolve(), Path()
        with suppress(OSError):  # the current folder may be gone
            here = Path.cwd()
        if can_be_replaced(place) and here != place and place not in here.parents:
            return
        raise OutputError(
            "A run is replaced together with its folder.",
            expected="a folder in another folder with write permission, outside the current folder",
            received=f"'{self.folder}', which cannot be renamed from here",
            fix="choose a new folder, or run the command from another folder",
        )


@contextmanager
def _claim_of(folder: Path) -> Iterator[Path]:
    try:
        folder.resolve().parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # a file stands in the place of a folder
        raise OutputError.not_writable(folder, "Not a directory") from error
    except OSError as error:
        raise OutputError.not_writable(folder, error.strerror or str(error)) from error
    with claimed(folder) as control:
        yield control


@contextmanager
def _without_empty(*folders: Path) -> Iterator[None]:
    """Remove the folders that a failed block has created, as far as they are empty."""
    created = [folder for folder in folders if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in reversed(created):
            with suppress(OSError):  # a folder with files stays
                folder.rmdir()
        raise


def _repair(folder: Path, control: Path) -> None:
    """Finish the swap of a command that was killed, and remove what it left."""
    place, name = folder.resolve(), folder.resolve().name
    new, old, aside = (control / part / name for part in (NEW, OLD, ASIDE))
    try:
        if old.is_dir() and not place.exists():
            (new if new.is_dir() else old).rename(place)
        shutil.rmtree(old, ignore_errors=True)
        if aside.is_dir() and _items(new):
            shutil.rmtree(aside, ignore_errors=True)
        elif aside.is_dir():
            shutil.rmtree(new, ignore_errors=True)
            _move_if_any(aside, new)
        elif new.is_dir() and not _items(new):
            new.rmdir()
    except OSError as error:
        raise OutputError.not_writable(folder, error.strerror or str(error)) from error
    _remove_empty(control)


def _items(folder: Path) -> list[str]:
    """Return the names in a folder, without the hidden folder of this package; [] for a missing folder."""
    try:
        return sorted(item.name for item in folder.iterdir() if item.name != f".{CONTROL}")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputError.not_writable(folder, error.strerror or str(error)) from error


def _move_if_any(source: Path, target: Path) -> None:
    if source.exists():
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)


def _remove_empty(control: Path) -> None:
    for part in (NEW, OLD, ASIDE):
        with suppress(OSError):  # a folder with a run stays
            (control / part).rmdir()


def _link_missing(source: Path, target: Path) -> None:
    """Give a file or folder a second name, which takes no space; existing names stay."""
    if source.is_dir() and not source.is_symlink():
        target.mkdir(parents=True, exist_ok=True)
        for item in source.iterdir():
            _link_missing(item, target / item.name)
    elif not os.path.lexists(target):
        try:
            os.link(source, target, follow_symlinks=False)
        except (OSError, NotImplementedError):  # a file system without links
            shutil.copy2(source, target, follow_symlinks=False)


def _new_of_swap(folder: Path) -> Path | None:
    """Return the new run of a swap between its two renamings."""
    control, name = control_folder(folder), folder.resolve().name
    new = control / NEW / name
    return new if new.is_dir() and (control / OLD / name).is_dir() else None


def _finish_swap(folder: Path) -> bool:
    """Wait for the end of a swap, and finish that of a process that has ended; return whether the folder exists."""
    deadline = time.monotonic() + SWAP_S
    while not folder.exists() and owner_of(folder) is not None and time.monotonic() < deadline:
        time.sleep(SWAP_STEP_S)
    if not folder.exists() and owner_of(folder) is None:
        with suppress(OutputError), claimed(folder) as control:  # a reader may lack permission
            _repair(folder, control)
    return folder.exists()


def _inside(folder: Path, given: Path) -> Path:
    """Return a path in the new run, for a reader without permission to finish the swap."""
    new = _new_of_swap(folder)
    return given if new is None else new / given.relative_to(folder)
