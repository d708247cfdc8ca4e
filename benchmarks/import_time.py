"""
Time to import ``ptycho_backend`` and all its public names, and the frameworks that the import loads.

    python benchmarks/import_time.py
"""

from __future__ import annotations

import subprocess
import sys
from statistics import median

BARE = "import time; t = time.perf_counter(); import ptycho_backend; print(time.perf_counter() - t)"
NAMES = "import time; t = time.perf_counter(); from ptycho_backend import *; print(time.perf_counter() - t)"
FRAMEWORKS = "import sys; from ptycho_backend import *; print({'torch', 'tensorflow', 'keras'} & set(sys.modules))"


def main() -> None:
    """Print the median of seven fresh interpreters."""
    for label, code in (("import ptycho_backend", BARE), ("from ptycho_backend import *", NAMES)):
        print(f"{label}: {median(float(run(code)) for _ in range(7)):.3f} s")
    print(f"frameworks loaded: {run(FRAMEWORKS)}")


def run(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
