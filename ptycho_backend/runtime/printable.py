"""Text for terminals and files: without control characters, in the characters of an encoding."""

from __future__ import annotations

import re

MIN_WIDTH, USUAL_WIDTH = 20, 80  # columns; a smaller terminal counts as the usual one
# C0 and C1 controls, marks of the writing direction, line separators, and bytes that are not UTF-8.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
ASCII = str.maketrans(
    {"×": "x", "µ": "u", "μ": "u", "²": "^2", "³": "^3", "±": "+-", "Å": "A", "°": " deg", "–": "-", "—": "-"}
    | {"…": "...", "−": "-", "·": ".", "’": "'", "“": '"', "”": '"'}
)


def printable(text: str) -> str:
    r"""
    Return a text with escapes such as ``\x1b`` in place of control characters; line breaks and tabs stay.

    Names in files could otherwise move the cursor, rename the window or clear the screen.
    """
    return UNPRINTABLE.sub(_escape, text)


def encodable(text: str, encoding: str | None) -> str:
    """Return a text in the characters of an encoding, with ASCII substitutes for units and signs."""
    encoding = encoding or "utf-8"
    try:
        text.encode(encoding)
        return text
    except UnicodeError:
        return text.translate(ASCII).encode(encoding, "backslashreplace").decode(encoding)
    except LookupError:
        return encodable(text, "ascii")


def usable_width(columns: int) -> int:
    """Return the width of a terminal in columns; one below `MIN_WIDTH`, as with COLUMNS=0, has the usual width."""
    return columns if columns >= MIN_WIDTH else USUAL_WIDTH


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is no UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
