"""Protects text in CSV cells from being run as a formula by a spreadsheet.

A spreadsheet computes a cell that begins with `=`, and such a formula may fetch or run something.
Untrusted file names can begin like that. An apostrophe in front makes the cell plain text.
"""

import re

# The last four are = + - @ in full width, which some spreadsheets read as formulas too. A text that
# begins with apostrophes before such a character gets one more, so that `as_written` can undo it.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")


def protected(text: str) -> str:
    """Return `text` as a cell that no spreadsheet computes; numbers stay as they are."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def as_written(cell: str) -> str:
    """Undo `protected`: return the text that was written into `cell`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
