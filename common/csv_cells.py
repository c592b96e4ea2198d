"""Reads tables in CSV, and protects text in their cells from being run by a spreadsheet.

A spreadsheet computes a cell that begins with `=`, and such a formula may fetch or run something.
Untrusted file names can begin like that. An apostrophe in front makes the cell plain text.
"""

import re
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Final

from common.safe_paths import read_plain_file

MAX_BYTES: Final = 2**28  # of a table: some two million rows

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


def protected(text: str) -> str:
    """Return `text` as a cell that no spreadsheet computes; numbers stay as they are."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def as_written(cell: str) -> str:
    """Undo `protected`: return the text that was written into `cell`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
