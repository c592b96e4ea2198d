"""Texts in the cells of CSV files, which spreadsheets must not take for formulas.

A cell that begins with `=` is computed when the file is opened there, and may fetch or run
something; names of files, which a stranger may have chosen, can begin so. An apostrophe in front
makes it a text, as spreadsheets expect.
"""

import re

# The last four are = + - @ in full width, which some spreadsheets read as such. A text that begins
# with apostrophes before such a character gets one more: what is read is what was written.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")


def protected(text: str) -> str:
    """`text` as a cell; numbers stay numbers."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def as_written(cell: str) -> str:
    """The text that `protected` made into `cell`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
