"""
Files of the packages that one reconstruction enters, in order of entry.

    python benchmarks/call_trace.py                                  # pb.reconstruct(scan)
    python benchmarks/call_trace.py function --options iterations=4  # with fields of InferenceConfig
    python benchmarks/call_trace.py command --json runs/trace.json   # ptychopinn reconstruct

A file is *entered* when the body of one of its functions runs, in any thread, called from the traced function.
Module bodies do not count, nor functions that run during an import, nor generated code such as that of dataclasses.

A *return* is a step of a reader who follows the main thread and reads every function once, at its first call.
The files of these first calls, in order, make a sequence. A return is a step of the sequence to another file
that the sequence had already left. Loops do not count again, so the figures do not depend on the size of the scan.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from timing import key_value, machine, markdown_head, markdown_row, save_json

import ptycho_backend as pb

ROOT = Path(pb.__file__).parents[1]
PACKAGES = tuple(f"{ROOT / package}/" for package in ("ptycho_backend", "ptycho", "ptycho_torch"))
GOALS = {"function": (10, 15), "command": (25, None)}  # most files and returns
COLUMNS = ("", "file", "functions", "calls, main thread", "calls, workers", "called from")


@dataclass
class FileCalls:
    """
    Calls of the functions of one file.

    Parameters
    ----------
    functions : int
        Number of different functions.
    main_calls, worker_calls : int
        Calls in the main thread and in the others.
    callers : dict of str to int
        Number of first calls by the other file that made them; "" stands for code outside the packages.
    """

    functions: int = 0
    main_calls: int = 0
    worker_calls: int = 0
    callers: Counter[str] = field(default_factory=Counter)


class Trace:
    """Profile function that records the package functions entered, in all threads."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[CodeType, bool]] = Counter()  # by function, and whether in the main thread
        self.first: list[tuple[CodeType, str, bool]] = []  # function, calling file, main thread
        self._seen: set[CodeType] = set()
        self._local, self._lock = threading.local(), threading.Lock()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Record one event of :func:`sys.setprofile`."""
        code = frame.f_code
        if event not in ("call", "return"):
            return
        if code.co_name == "<module>":
            # Functions that a module body calls belong to the import.
            depth = getattr(self._local, "imports", 0)
            self._local.imports = max(0, depth + (1 if event == "call" else -1))
        elif event == "call" and not getattr(self._local, "imports", 0) and code.co_filename.startswith(PACKAGES):
            self._enter(frame)

    def _enter(self, frame: FrameType) -> None:
        code, main = frame.f_code, threading.current_thread() is threading.main_thread()
        with self._lock:
            self.calls[code, main] += 1
            if code in self._seen:
                return
            self._seen.add(code)
            self.first.append((code, _calling_file(frame), main))

    def files(self) -> dict[str, FileCalls]:
        """Return the files in order of entry."""
        found: dict[str, FileCalls] = defaultdict(FileCalls)
        for code, caller, _ in self.first:
            file = found[relative(code.co_filename)]
            file.functions += 1
            file.main_calls += self.calls[code, True]
            file.worker_calls += self.calls[code, False]
            if relative(caller) != relative(code.co_filename):
                file.callers[relative(caller)] += 1
        return dict(found)

    def returns(self) -> int:
        """Return the number of returns of the main thread."""
        return returns([code.co_filename for code, _, main in self.first if main])


def relative(path: str) -> str:
    """Return the path of a file of the packages from the root of the checkout; "" stays."""
    return Path(path).relative_to(ROOT).as_posix() if path else ""


def returns(sequence: Sequence[str]) -> int:
    """Count the steps to another file that the sequence had already left."""
    left: set[str] = set()
    count = 0
    for before, after in itertools.pairwise(sequence):
        if before != after:
            left.add(before)
            count += after in left
    return count


def _calling_file(frame: FrameType) -> str:
    """Return the nearest calling file of the packages; "" in a worker thread, or for a call from outside."""
    caller = frame.f_back
    while caller is not None and not caller.f_code.co_filename.startswith(PACKAGES):
        caller = caller.f_back
    return caller.f_code.co_filename if caller else ""


@contextmanager
def tracing() -> Iterator[Trace]:
    """Trace the calls of the block in this thread, and in threads that start inside it."""
    trace, before, before_in_threads = Trace(), sys.getprofile(), threading.getprofile()
    threading.setprofile(trace)
    sys.setprofile(trace)
    try:
        yield trace
    finally:
        sys.setprofile(before)
        threading.setprofile(before_in_threads)


def traced_function(scan: pb.Scan, options: dict[str, Any]) -> Trace:
    """Trace `pb.reconstruct`."""
    reconstruct = pb.reconstruct  # the package looks a name up on first use
    with tracing() as trace:
        reconstruct(scan, **options)
    return trace


def traced_command(scan: pb.Scan, options: dict[str, Any]) -> Trace:
    """Trace the command ``ptychopinn reconstruct`` in this process, from a file to the result folder."""
    from ptycho_backend.cli import main as command

    with tempfile.TemporaryDirectory() as folder:
        path = pb.write_npz(scan, Path(folder) / "scan.npz")
        fields = [f"--inference.{name}={value}" for name, value in options.items()]
        line = ["reconstruct", str(path), "--output", str(Path(folder) / "image"), "--quiet", *fields]
        with tracing() as trace:
            status = command(line)
    if status:
        sys.exit(f"The command ended with status {status}.")
    return trace


TRACED: dict[str, Callable[[pb.Scan, dict[str, Any]], Trace]] = {
    "function": traced_function,
    "command": traced_command,
}


def main() -> None:
    """Print the files of the traced call."""
    options = arguments()
    scan = pb.simulate_scan(n_positions=options.positions, seed=1)
    trace = TRACED[options.what](scan, dict(options.options))
    files, n_returns = trace.files(), trace.returns()
    print(f"{summary(options.what, len(files), n_returns)}\n\n{table(files)}")
    if options.json:
        save_json(options.json, report(options, files, n_returns))


def report(options: argparse.Namespace, files: dict[str, FileCalls], n_returns: int) -> dict[str, Any]:
    """Return all figures as plain values."""
    most_files, most_returns = GOALS[options.what]
    return {
        "machine": machine(),
        "what": options.what,
        "positions": options.positions,
        "options": dict(options.options),
        "files": {"number": len(files), "goal": most_files},
        "returns": {"number": n_returns, "goal": most_returns},
        "by_file": {path: vars(calls) for path, calls in files.items()},
    }


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # One call in each process: results that the first call stores would hide functions from the second.
    parser.add_argument("what", nargs="?", choices=tuple(TRACED), default="function")
    parser.add_argument("--positions", type=int, default=100, help="patterns of the simulated scan")
    parser.add_argument("--options", nargs="+", type=key_value, default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args()


def summary(name: str, files: int, n_returns: int) -> str:
    """Return the figures of a trace beside their goals."""
    most_files, most_returns = GOALS[name]
    title = "pb.reconstruct(scan)" if name == "function" else "ptychopinn reconstruct"
    allowed = "no goal" if most_returns is None else f"goal: at most {most_returns}"
    return f"{title}: {files} files (goal: at most {most_files}), {n_returns} returns ({allowed})"


def table(files: dict[str, FileCalls]) -> str:
    """Return the files in order of entry as a Markdown table."""
    rows = [
        (number, path, calls.functions, calls.main_calls, calls.worker_calls, callers(calls))
        for number, (path, calls) in enumerate(files.items(), 1)
    ]
    return "\n".join([markdown_head(COLUMNS), *map(markdown_row, rows)])


def callers(calls: FileCalls) -> str:
    """Return the calling files, the most frequent first; functions of a worker thread have none."""
    return ", ".join(f"{short(path)} ({n})" for path, n in calls.callers.most_common() if path) or "–"


def short(path: str) -> str:
    """Return a path without package and suffix."""
    return path.partition("/")[2].removesuffix(".py")


if __name__ == "__main__":
    main()
