"""``python -m ptycho_backend``: the program ``ptychopinn``."""

from __future__ import annotations

import sys

from ptycho_backend.cli import main

if __name__ == "__main__":
    sys.exit(main())
