"""The table results.csv of many animations."""

import csv
from pathlib import Path

from common.csv_cells import TableReader, as_written, open_table, protected
from common.errors import UserError
from common.files import replacing
from common.safe_paths import exists

_KEY = "output"

Row = dict[str, str]


class Results:
    """results.csv in the folder `output`; the file is written again after every job.

    Rows of earlier runs stay until this run makes their output again.

    Raises:
        UserError: there is a results.csv that no earlier run wrote.
    """

    def __init__(self, output: Path) -> None:
        self.path = output / "results.csv"
        self._rows = {row[_KEY]: row for row in _read_rows(self.path)}

    def add(self, row: Row) -> None:
        """Add the row of a finished or failed job; it replaces an earlier row of its output."""
        self._rows[row[_KEY]] = row
        self._write()

    def keep(self, row: Row) -> None:
        """Keep the earlier row of an output that is skipped; without one, add `row`."""
        earlier = self._rows.get(row[_KEY], row)
        # An earlier row may be of a later, failed attempt, which left the output as it was.
        self.add(row if earlier.get("error") else earlier)

    def _write(self) -> None:
        columns = [*dict.fromkeys(column for row in self._rows.values() for column in row)]
        rows = [[row.get(column, "") for column in columns] for row in self._rows.values()]
        # File names may hold bytes that are not text; they are read back unchanged.
        with (
            replacing(self.path) as temporary,
            temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            csv.writer(file).writerows([*map(protected, row)] for row in (columns, *rows))


def _read_rows(path: Path) -> list[Row]:
    if not exists(path):
        return []
    try:
        with open_table(path, errors="surrogateescape") as file:
            reader = TableReader(file)
            is_ours = {_KEY, "status"} <= set(reader.fieldnames or ())
            rows = [
                # Somebody may have cut a row off, or added cells to it.
                {as_written(name): as_written(row[name] or "") for name in row if name is not None}
                for row in reader
            ]
    except (OSError, csv.Error):
        is_ours = False
    if not is_ours:
        raise UserError(f"{path}: no earlier run wrote this; choose another --output")
    return rows
