"""Columns of numbers in text and CSV files (spec: data 12)."""

from __future__ import annotations

import csv
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.readers import existing_file
from ptycho_backend.errors import ConfigError, DataError, nearest_name

COLUMNS_OPTION = "--positions.columns"
TEXT_OPTION = "--positions.text"
DELIMITERS = (";", "\t", ",")  # in the order in which they are looked for; else blanks


def text_columns(path: str) -> tuple[NDArray[np.float64], list[str]]:
    """
    Read a table of numbers with commas, semicolons, tabs or blanks between its columns.

    Lines with # are comments. The header is a first line with a name for every column, as a comment or without #.

    Parameters
    ----------
    path : str

    Returns
    -------
    table : float64, shape (line, column)
        NaN for texts that are no number.
    header : list of str
        Names of the columns; empty without a header.

    Raises
    ------
    DataError
        If the file cannot be read, has no lines with numbers, or has lines of different length.
    """
    comments, lines = _lines(path)
    delimiter = next((mark for mark in DELIMITERS if any(mark in text for _, text in lines[:2])), " ")
    rows = [(number, _cells(text, delimiter)) for number, text in lines]
    header: list[str] = []
    if rows and not any(_is_number(cell) for cell in rows[0][1]):
        header = rows.pop(0)[1]
    if not rows:
        raise _not_a_table("no line with numbers", path)
    width = len(rows[0][1])
    if not header and comments:
        names = [name.strip(",;") for name in _cells(comments[-1], delimiter)]
        header = names if len(names) == width and not any(_is_number(name) for name in names) else []
    odd = next((number for number, cells in rows if len(cells) != width), None)
    if odd is not None or (header and len(header) != width):
        raise _not_a_table(f"another number of columns than {width} in line {odd or 'of the header'}", path)
    table = [[float(cell) if _is_number(cell) else np.nan for cell in cells] for _, cells in rows]
    return np.array(table, dtype=np.float64), header


def chosen_columns(
    table: NDArray[np.float64], columns: str, source: str, header: Sequence[str] = ()
) -> NDArray[np.float64]:
    """
    Return two columns of a table as (position, 2).

    Parameters
    ----------
    table : float64, shape (position, column)
    columns : str
        Numbers from 0 or names in the header, as 1,0 or sy,sx. Empty for the two columns of a table with two.
    source : str
        File and field, for messages.
    header : sequence of str
        Names of the columns.

    Raises
    ------
    ConfigError
        If a column does not exist, or if there are not two of them.
    DataError
        If a column holds no number at all.
    """
    width = table.shape[1]
    names = [name.strip() for name in columns.split(",")] if columns else ["0", "1"]
    if len(names) != 2 or (not columns and width != 2):
        raise ConfigError(
            "Positions have two columns, y and x.",
            expected="two numbers or names, as 1,0 or sy,sx",
            received=f"{COLUMNS_OPTION} '{columns}' for {width} columns in '{source}'",
            fix=f"give the columns of y and x in this order, as {COLUMNS_OPTION} 0,1",
        )
    numbers = [_number(name, width, source, header) for name in names]
    chosen = table[:, numbers]
    empty = [names[column] for column in range(2) if np.isnan(chosen[:, column]).all()]
    if empty:
        raise DataError(
            "The columns of the positions hold numbers.",
            expected="numbers with a decimal point",
            received=f"no number in column '{empty[0]}' of '{source}'",
            fix=f"give other columns by {COLUMNS_OPTION}",
        )
    return chosen


def _number(name: str, width: int, source: str, header: Sequence[str]) -> int:
    if name in header:
        if list(header).count(name) > 1:
            raise ConfigError.unknown("unique column", name, map(str, range(width)), f"two columns '{name}'")
        return list(header).index(name)
    if name.isdecimal() and int(name) < width:
        return int(name)
    known = [*header, *(str(number) for number in range(width))]
    nearest = nearest_name(name, header)
    raise ConfigError(
        f"Unknown column '{name}'.",
        expected=f"one of {', '.join(known)}",
        received=f"{COLUMNS_OPTION} with '{name}' for '{source}'",
        fix=f"did you mean '{nearest}'?" if nearest else f"give two of these columns by {COLUMNS_OPTION}",
    )


def _lines(path: str) -> tuple[list[str], list[tuple[int, str]]]:
    """Return the comments before the first line of the table, and the numbered lines of the table."""
    try:
        text = existing_file(path).read_text(encoding="utf-8-sig", errors="replace")
    except DataError as error:
        fix = f"check {TEXT_OPTION}: {error.fix}"
        raise DataError("Positions in text are a file.", "an existing text file", error.received, fix) from error
    except OSError as error:
        raise DataError(
            "Positions in text are a file.",
            expected="an existing text file",
            received=f"'{path}': {error.strerror or error}",
            fix=f"check {TEXT_OPTION}",
        ) from error
    comments: list[str] = []
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        content, mark, comment = line.partition("#")
        if content.strip():
            lines.append((number, content.strip(" \r\n")))
        elif mark and not lines:
            comments.append(comment.strip())
    return comments, lines


def _cells(line: str, delimiter: str) -> list[str]:
    if delimiter == " ":
        return line.split()
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _not_a_table(received: str, path: str) -> DataError:
    return DataError(
        "Positions in text are a table of numbers.",
        expected="one line for every pattern, columns with commas, semicolons, tabs or blanks between them",
        received=f"{received}, in '{path}'",
        fix=f"check {TEXT_OPTION}; lines with # are comments, and numbers have a decimal point",
    )
