"""``ptychopinn watch``: serve image, losses and messages of a run to a browser on this machine, while it goes on."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from jsonargparse import Namespace

from ptycho_backend.commands.command_line import CommandLine
from ptycho_backend.commands.common import add_message_options
from ptycho_backend.commands.files import TRAINING
from ptycho_backend.commands.folders import folder_parts
from ptycho_backend.data.run_claim import owner_of
from ptycho_backend.data.run_folder import after_swap
from ptycho_backend.errors import DataError, nearest_name
from ptycho_backend.live.server import serving
from ptycho_backend.live.state import RunState
from ptycho_backend.model_file.run import METRICS
from ptycho_backend.runtime.log_filters import filtered_logs
from ptycho_backend.runtime.printable import printable
from ptycho_backend.runtime.progress import Terminal
from ptycho_backend.training.checkpoints import FOLDER as CHECKPOINTS

logger = logging.getLogger(__name__)

RULE = "A live view shows the folder of a run."
SHOWN = (*TRAINING.results, METRICS, CHECKPOINTS)  # files, of which a run has at least one
EXPECTED = "the --output folder of 'ptychopinn train' or 'ptychopinn reconstruct'"


def command_line() -> CommandLine:
    """Return the options."""
    line = CommandLine(
        "watch", "RUN [options]", "Show image, losses and messages of a run in a browser, as it goes on."
    )
    line.add("run", nargs="?", metavar="RUN", help="Folder of a run that goes on, or is done.")
    line.add("--port", type=int, default=0, help="Port on 127.0.0.1; 0 takes a free one.")
    line.add("--open", action="store_true", help="Open the page in the browser of this machine.")
    add_message_options(line)
    return line


def run(options: Namespace, terminal: Terminal, line: CommandLine) -> None:
    """Serve the live view until Ctrl-C."""
    folder = Path(line.require(options, "run", "RUN"))
    # Every version of an unfinished image would be one warning; the page shows it.
    with filtered_logs("ptycho_backend.data", level=logging.ERROR):
        check_run(folder)
        with serving(RunState(folder), options.port) as server:
            terminal.show_text(f"Watching '{printable(str(folder))}', until Ctrl-C:\n{server.url}")
            if options.open:
                open_browser(server.url)
            threading.Event().wait()


def check_run(folder: Path) -> None:
    """
    Check that a path is the folder of a run, or becomes one while a command works on it.

    Raises
    ------
    DataError
        For a missing path, a file, or a folder without results.
    """
    try:
        if owner_of(folder) is not None:
            return
        place = after_swap(folder)
        is_folder, exists = place.is_dir(), place.exists()
    except (OSError, ValueError, RuntimeError) as error:  # a name that the system refuses, or a loop of links
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(RULE, EXPECTED, f"'{printable(str(folder))[:80]}': {reason}", "check the path") from error
    if is_folder:
        if not any((place / name).exists() for name in SHOWN):  # a damaged one is a note on the page
            folder_parts(place)
    elif exists:
        raise DataError(RULE, EXPECTED, f"'{folder}', a file", f"ptychopinn info {folder.name} describes it")
    else:
        siblings = [item.name for item in place.parent.iterdir()] if place.parent.is_dir() else []
        nearest = nearest_name(place.name, siblings)
        fix = f"did you mean '{nearest}'?" if nearest else "start the run first, or check the path"
        raise DataError(RULE, EXPECTED, f"'{folder}', which does not exist", fix)


def open_browser(url: str) -> None:
    """Open an address in the browser of this machine; without one it is a warning."""
    import webbrowser

    try:
        opened = webbrowser.open(url)
    except (webbrowser.Error, OSError):
        opened = False
    if not opened:
        logger.warning("no browser could be opened; copy the address above into one")
