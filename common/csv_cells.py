"""Reads tables in CSV, and protects text in their cells from being run by a spreadsheet.

A spreadsheet computes a cell that begins with `=`, and such a formula may fetch or run something.
Untrusted file names can begin like that. An apostrophe in front makes the cell plain text.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any, Final

from common.safe_paths import read_plain_file

MAX_BYTES: Final = 2**28  # of a table: some two million rows
MAX_CELLS: Final = 2**24  # of a table; they take 1.7 GB of memory
MAX_ROW: Final = 2**20  # characters of a row
_MIN_CELLS: Final = 4  # a shorter row takes as much memory

# The last four are = + - @ in full width, which some spreadsheets read as formulas too. A text that
# begins with apostrophes before such a character gets one more, so that `as_written` can undo it.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")


def open_table(path: Path, max_bytes: int = MAX_BYTES, errors: str = "strict") -> TextIOWrapper:
    """Open a CSV file, with or without a byte order mark, for the readers of the `csv` module.

    Args:
        max_bytes: largest size that is read; a file of one line could fill all memory.
        errors: how to read bytes that are not UTF-8, as in `open`.

    Raises:
        UserError: `path` is not a plain file, or is larger.
        OSError: the file cannot be read.
    """
    content = BytesIO(read_plain_file(path, max_bytes))
    return TextIOWrapper(content, encoding="utf-8-sig", errors=errors, newline="")


class TableReader(csv.DictReader):
    """Reads the rows of a table as dicts, up to a number of cells.

    Cells that a row lacks are made too: a row of one letter below a line of a million names has a
    million.

    Args:
        lines: lines of the table, as `open_table` gives them.
        max_cells: the largest number of cells; one more, or a row of more than MAX_ROW characters,
            raises csv.Error.
    """

    def __init__(self, lines: Iterable[str], max_cells: int = MAX_CELLS) -> None:
        super().__init__(self._counted(lines))
        self._max_cells = max_cells
        self._num_cells = self._length = 0

    def _counted(self, lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            self._length += len(line)
            if self._length > MAX_ROW:
                raise csv.Error(f"a row of more than {MAX_ROW:,} characters")
            yield line

    def __next__(self) -> dict[str | Any, str | Any]:
        row = super().__next__()
        self._length = 0
        self._num_cells += max(len(row), _MIN_CELLS)
        if self._num_cells > self._max_cells:
            raise csv.Error(f"more than {self._max_cells:,} cells, those that rows lack included")
        return row


def protected(text: str) -> str:
    """Return `text` as a cell that no spreadsheet computes; numbers stay as they are."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def as_written(cell: str) -> str:
    """Undo `protected`: return the text that was written into `cell`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
