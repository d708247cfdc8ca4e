"""
State of a run folder for a live view: progress, losses and pictures of a run that goes on, or is done.

The folder may change at any time: files appear, are replaced, and vanish with a swap (spec: data 6.5, 6.6). A part that
cannot be read stays as it was.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptycho_backend.data.image import Image, load_image
from ptycho_backend.data.image_file import RECONSTRUCTION
from ptycho_backend.data.product import INCOMPLETE
from ptycho_backend.data.run_claim import PROGRESS, control_folder, owner_of
from ptycho_backend.data.run_folder import after_swap, folder_in_progress
from ptycho_backend.errors import PtychoError, first_line
from ptycho_backend.live.curves import error_curves, history_of, loss_curves
from ptycho_backend.model_file.bundle import FILE_NAME
from ptycho_backend.model_file.run import METRICS, without_nan
from ptycho_backend.runtime.printable import printable
from ptycho_backend.runtime.process_owner import ProcessOwner

logger = logging.getLogger(__name__)

REFRESH_S = 0.5  # shortest time between two looks at the folder
MAX_PROGRESS_BYTES = 2_000_000
PICTURES = ("amplitude", "phase", "probe")
WIDTH, HEIGHT = 5.6, 4.8  # inches
RESOLUTION_DPI = 130


@dataclass(frozen=True)
class Document:
    """Bytes for a browser, with their version, which changes with them."""

    content: bytes
    version: str


class RunState:
    """
    State and pictures of a run folder, for several threads.

    Parameters
    ----------
    path : path
        Run folder; it need not exist yet while a command holds its claim.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()
        self._lock, self._drawing = threading.Lock(), threading.Lock()
        self._document: Document | None = None
        self._next_refresh_s = 0.0
        self._image: Image | None = None
        self._image_version, self._note = "", ""
        self._history: list[dict[str, float]] = []
        self._pictures: dict[str, Document] = {}

    def document(self) -> Document:
        """Return the state as JSON; the same one until half a second has gone."""
        with self._lock:
            if self._document is None or time.monotonic() >= self._next_refresh_s:
                text = json.dumps(without_nan(self._values()), allow_nan=False)
                content = text.encode("ascii")
                self._document = Document(content, hashlib.sha256(content).hexdigest()[:16])
                self._next_refresh_s = time.monotonic() + REFRESH_S
            return self._document

    def picture(self, name: str) -> Document | None:
        """
        Return a picture as PNG; None if there is none.

        Parameters
        ----------
        name : {"amplitude", "phase", "probe"}
        """
        self.document()
        with self._lock:
            image, version = self._image, self._image_version
        if image is None or (name == "probe" and image.probe is None):
            return None
        with self._drawing:  # text in figures uses caches that are not safe in threads
            if name not in self._pictures or self._pictures[name].version != version:
                try:
                    self._pictures[name] = Document(_drawn(image, name), version)
                except Exception as error:  # of any kind: the other parts of the view are complete
                    logger.warning("picture '%s' could not be drawn: %s: %s", name, type(error).__name__, error)
                    return None
            return self._pictures[name]

    def _values(self) -> dict[str, Any]:
        """Return the state as plain values."""
        owner, folder = owner_of(self.path), self._read_files()
        progress = _progress(self.path) if owner is not None else {}
        if not self._history:  # a logger that writes no metrics file
            self._history = progress.get("epochs", [])
        image = self._image
        return {
            "name": printable(self.path.name),
            "status": self._status(owner, folder),
            "owner": "" if owner is None else f"process {owner.pid} on {printable(owner.host)}",
            "stages": progress.get("stages", []),
            "messages": progress.get("messages", []),
            "errors": error_curves(progress.get("errors", []), () if image is None else image.errors),
            "losses": loss_curves(self._history),
            "image": None if image is None else self._image_values(image),
            "note": self._note,
        }

    def _read_files(self) -> Path:
        """Read image and losses, and return their folder; once more if a swap has moved the folder meanwhile."""
        for _ in range(2):
            folder = folder_in_progress(self.path)
            folder = after_swap(self.path) if folder == self.path else folder
            self._read_image(folder / RECONSTRUCTION)
            self._history = history_of(folder / METRICS) or []
            if folder.is_dir():
                break
        return folder

    def _status(self, owner: ProcessOwner | None, folder: Path) -> str:
        if owner is not None:
            return "running"
        complete = self._image is not None and INCOMPLETE not in self._image.provenance
        return "complete" if complete or (self._image is None and (folder / FILE_NAME).is_file()) else "stopped"

    def _image_values(self, image: Image) -> dict[str, Any]:
        facts = {label: printable(text) for label, text in image.facts().items() if label != INCOMPLETE}
        return {
            "version": self._image_version,
            "title": printable(image.name),
            "facts": facts,
            "probe": image.probe is not None,
            "incomplete": printable(str(image.provenance.get(INCOMPLETE, ""))),
        }

    def _read_image(self, file: Path) -> None:
        """Read the image if its file has changed; a file that cannot be read leaves the last image."""
        try:
            stamp = file.stat()
        except (OSError, ValueError):
            self._image, self._image_version, self._note = None, "", ""
            return
        stamps = f"{file}\0{stamp.st_ino} {stamp.st_mtime_ns} {stamp.st_size}"
        version = hashlib.sha256(stamps.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        if version == self._image_version:
            return
        try:
            self._image, self._image_version, self._note = load_image(file), version, ""
        except (PtychoError, OSError) as error:
            received = getattr(error, "received", "") or first_line(error)
            self._note = f"{RECONSTRUCTION} cannot be read: {printable(received)}"


def _progress(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the record of a running command; {} without one, or for one of another form."""
    try:
        with (control_folder(path) / PROGRESS).open("rb") as stream:
            values = json.loads(stream.read(MAX_PROGRESS_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(values, Mapping):
        return {}
    lists = {name: value for name, value in values.items() if isinstance(value, list)}
    return {name: [entry for entry in value if isinstance(entry, dict)] for name, value in lists.items()}


def _drawn(image: Image, name: str) -> bytes:
    """Return one picture of an image as PNG."""
    from ptycho_backend.plots.figures import new_figure, title_of
    from ptycho_backend.plots.objects import draw_amplitude, draw_phase
    from ptycho_backend.plots.probes import probe_figure

    title = title_of(image.name, image.pixel_size_m, image.photons_per_pattern)
    if name == "probe" and image.probe is not None:
        figure = probe_figure(image.probe, "", image.pixel_size_m)
    else:
        figure = new_figure(WIDTH, HEIGHT, title)
        draw = draw_amplitude if name == "amplitude" else draw_phase
        draw(figure.subplots(), image.obj, image.coverage, image.origin_px, image.pixel_size_m)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=RESOLUTION_DPI)
    return stream.getvalue()
