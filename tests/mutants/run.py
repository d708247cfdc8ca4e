"""
Mutation test: changes one line in a copy of the code and checks that a test fails, for each mutant.

    python tests/mutants/run.py [--only WORDS] [--jobs 2]

Prints one line per mutant; exit status 1 if any survives. A mutant whose tests cannot start counts as survived.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PACKAGES = ("ptycho", "ptycho_torch", "ptycho_backend")
PARITY = [f"tests/parity/test_{name}.py" for name in ("checks", "forward", "contract", "training")]
TESTS_FAILED = 1  # pytest's own exit status


def main() -> int:
    """Run all mutants and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only mutants whose file or name contains these words")
    parser.add_argument("--jobs", type=int, default=2, help="number of parallel mutants")
    options = parser.parse_args()
    selected = [mutant for mutant in mutants() if options.only in f"{mutant['file']} {mutant['name']}"]
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        survived = 0
        for mutant, (killed, seconds, by) in zip(selected, pool.map(attempt, selected), strict=True):
            survived += not killed
            word = "killed  " if killed else "SURVIVED"
            sys.stdout.write(f"{word} {seconds:4.0f} s  {mutant['file']}: {mutant['name']} ({by})\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(selected)} mutants, {len(selected) - survived} killed, {survived} survived\n")
    return int(survived > 0)


def mutants() -> list[dict]:
    """Return the list of mutants."""
    return yaml.safe_load(Path(__file__).with_name("mutants.yaml").read_text(encoding="utf-8"))


def attempt(mutant: dict) -> tuple[bool, float, str]:
    """Apply a mutant to a copy; return whether a test fails, the seconds, and the first failing test."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        root = Path(folder)
        for name in (*PACKAGES, "tests"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", root)
        file = root / mutant["file"]
        file.write_text(mutated(mutant), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile", "lane"]
        done = subprocess.run(
            [*command, *(mutant.get("tests") or PARITY), *engine_of(mutant)],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    first = lines[0].split(" - ")[0] if lines else f"exit status {done.returncode}"
    return done.returncode == TESTS_FAILED, time.monotonic() - started, first


def mutated(mutant: dict) -> str:
    """Return the text of the mutant's file with the change."""
    text = (ROOT / mutant["file"]).read_text(encoding="utf-8")
    if text.count(mutant["old"]) != 1:
        raise ValueError(f"{mutant['file']} holds {text.count(mutant['old'])} times: {mutant['old']}")
    return text.replace(mutant["old"], mutant["new"])


def engine_of(mutant: dict) -> list[str]:
    """Return the options that test only the changed engine."""
    names = {"ptycho": "tensorflow", "ptycho_torch": "pytorch"}
    name = names.get(mutant["file"].partition("/")[0])
    both = any("cross_engine" in test for test in mutant.get("tests") or [])
    return ["--backend", name] if name and not both else []


if __name__ == "__main__":
    sys.exit(main())
