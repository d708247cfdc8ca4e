"""Tools of the fuzz tests: seeds, limits of time and memory, and odd values (docs/reliability.md)."""

from __future__ import annotations

import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_backend.errors import PtychoError

FAST, SLOW = 2, 60  # seeds of every test in the fast suite, and in both together
SECONDS = 30.0
EXTRA_BYTES = 4 * 2**30  # that a case may take, beyond what the process has

OUTCOMES: Counter[str] = Counter()
TEXTS = (
    "",
    " ",
    "x",
    "nan",
    "-1",
    "1e400",
    "../..",
    "/",
    "~",
    "ä",
    "日本",
    "\x1b[31m",
    "a" * 5000,
    "\u202e",
    "{}",
    "[]",
)
NUMBERS = (0, -1, 1, 2**31, -(2**63), 2**63, 10**400, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with a `seed` for several seeds, most of them in the slow suite."""
    if "seed" in metafunc.fixturenames:
        slow = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(FAST, SLOW)]
        metafunc.parametrize("seed", [*range(FAST), *slow])


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how many inputs were refused and how many read; both numbers show that the generators are useful."""
    if OUTCOMES:
        terminalreporter.write_line(f"fuzz: {OUTCOMES['refused']} inputs refused, {OUTCOMES['read']} read")


@pytest.fixture
def draw(seed: int) -> Any:
    """Return the random generator of a case."""
    return np.random.default_rng([seed, 19])


@pytest.fixture
def outcome() -> Callable[..., Any]:
    """
    Return a function that calls another within limits of time and memory.

    It returns the result, or the PtychoError. Another exception, a result after 30 seconds, and 4 GiB of memory fail.
    """

    def call(work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        with limited():
            try:
                result = work(*arguments, **options)
            except PtychoError as error:
                OUTCOMES["refused"] += 1
                return checked(error)
            OUTCOMES["read"] += 1
            return result

    return call


def checked(error: PtychoError) -> PtychoError:
    """Return an error after a check of its lines: a rule, and a message of readable length."""
    assert error.rule
    assert len(str(error)) < 20_000
    return error


@contextmanager
def limited() -> Iterator[None]:
    """Bound the time and the address space of a block."""

    def late(number: int, frame: Any) -> None:
        raise AssertionError(f"no result after {SECONDS} s")

    before = resource.getrlimit(resource.RLIMIT_AS)
    previous = signal.signal(signal.SIGALRM, late)
    if sys.platform.startswith("linux"):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + EXTRA_BYTES, before[1]))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def odd_value(draw: Any) -> Callable[[], Any]:
    """Return a function that draws plain values that no option expects: texts, numbers, lists and mappings."""

    def value(depth: int = 0) -> Any:
        kind = draw.integers(0, 6 if depth < 3 else 4)
        if kind == 0:
            return TEXTS[draw.integers(len(TEXTS))]
        if kind in (1, 2):
            return NUMBERS[draw.integers(len(NUMBERS))]
        if kind == 3:
            return (None, True, False)[draw.integers(3)]
        if kind == 4:
            return [value(depth + 1) for _ in range(draw.integers(0, 4))]
        return {str(value(4)): value(depth + 1) for _ in range(draw.integers(0, 4))}

    return value


@pytest.fixture
def odd_array(draw: Any) -> Callable[..., np.ndarray]:
    """Return a function that draws an array in place of a given one: another shape, dtype, or values."""

    def change(array: np.ndarray) -> np.ndarray:
        array = np.asarray(array)
        numeric = array.dtype.kind in "iufcb" and array.size > 0
        choices: list[Callable[[], Any]] = [
            lambda: np.zeros((0,)),
            lambda: np.array(1.0),
            lambda: np.array(TEXTS[1 + draw.integers(8)].replace("\x00", "")),
            lambda: np.zeros(array.shape, array.dtype),
            lambda: array[..., None],
            lambda: array.reshape(-1),
            lambda: array[: max(len(array) // 2, 1)] if array.ndim else array,
            lambda: np.repeat(array, 2, axis=0) if array.ndim else array,
        ]
        if numeric:
            values = (np.nan, np.inf, -1.0, 1e300, 1e-300, 0.0)
            choices += [
                lambda: with_value(array, values[draw.integers(len(values))]),
                lambda: array * values[draw.integers(len(values))],
                lambda: array.astype(("c16", "f2", "i1", "u8", ">f8", "?")[draw.integers(6)]),
                lambda: array[..., ::-1] if array.ndim else array,
            ]
        with np.errstate(all="ignore"):
            return np.asarray(choices[draw.integers(len(choices))]())

    def with_value(array: np.ndarray, value: float) -> np.ndarray:
        changed = array.astype(np.result_type(array.dtype, np.float64))
        changed.reshape(-1)[draw.integers(changed.size)] = value
        return changed

    return change


@pytest.fixture
def damaged(draw: Any) -> Callable[[bytes], bytes]:
    """Return a function that damages bytes."""
    return lambda content: damage(content, draw)


def damage(content: bytes, draw: np.random.Generator) -> bytes:
    """Return damaged bytes: flipped bits, a cut, a hole, a repeated or an inserted piece."""
    data = bytearray(content)
    for _ in range(draw.integers(1, 4)):
        place, length = int(draw.integers(len(data) or 1)), int(draw.integers(1, 64))
        kind = draw.integers(5)
        if kind == 0 and data:
            data[min(place, len(data) - 1)] ^= 1 << int(draw.integers(8))
        elif kind == 1:
            del data[place:]
        elif kind == 2:
            data[place : place + length] = bytes(length)
        elif kind == 3:
            data[place:place] = data[:length]
        else:
            data[place : place + length] = draw.bytes(length)
    return bytes(data)
