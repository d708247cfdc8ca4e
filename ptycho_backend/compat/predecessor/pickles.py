"""
Reader of pickles as data: plain values are returned, all else as inert placeholders (spec: model_file 7.2).

A pickle is a program. This reader imports nothing and calls nothing. It builds None, numbers, text, bytes, lists,
tuples, dictionaries and sets.
"""

from __future__ import annotations

import pickletools
from typing import Any

from ptycho_backend.compat.predecessor.interpreter import PickleInterpreter
from ptycho_backend.errors import ModelFileError

MAX_BYTES = 64 * 2**20
MAX_OPERATIONS = 2_000_000


def read_pickle(content: bytes, source: str) -> Any:
    """
    Read a pickle without executing it.

    Parameters
    ----------
    content : bytes
    source : str
        File and member, for messages.

    Raises
    ------
    ModelFileError
        If the pickle is truncated, malformed, or beyond the limits of this module.
    """
    if len(content) > MAX_BYTES:
        raise _not_readable(source, f"{len(content)} bytes")
    interpreter = PickleInterpreter()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if count > MAX_OPERATIONS:
                raise ValueError(f"more than {MAX_OPERATIONS} operations")
            interpreter.step(opcode.name, argument)
        return interpreter.result()
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise _not_readable(source, f"{type(error).__name__}: {error}"[:200]) from None


def _not_readable(source: str, what: str) -> ModelFileError:
    return ModelFileError(
        "Pickles are read as data, within limits.",
        expected=f"a whole pickle of at most {MAX_BYTES // 2**20} MiB and {MAX_OPERATIONS} operations",
        received=f"{source}: {what}",
        fix="copy the file again from where it was written",
    )
