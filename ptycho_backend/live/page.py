"""Files of the page of a live view, from this package."""

from __future__ import annotations

import functools
import hashlib
from importlib.resources import files

PAGE_FILES = {  # route: name in the package, type
    "": ("index.html", "text/html; charset=utf-8"),
    "watch.js": ("watch.js", "text/javascript; charset=utf-8"),
    "watch.css": ("watch.css", "text/css; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}


@functools.cache
def page_file(route: str) -> tuple[bytes, str]:
    """Return the content and the version of a file of the page."""
    content = files("ptycho_backend.live").joinpath("assets", PAGE_FILES[route][0]).read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:16]
