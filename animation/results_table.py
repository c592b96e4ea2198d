"""The table of what came of many animations."""

import csv
from pathlib import Path

from common.csv_cells import as_written, protected
from common.errors import UserError
from common.files import replacing

_KEY = "output"

Row = dict[str, str]


class Results:
    """results.csv in the folder `output`, written anew after every job.

    Rows of an earlier run stay until this one has made their output again.

    Raises:
        UserError: there is a results.csv that no earlier run wrote.
    """

    def __init__(self, output: Path) -> None:
        self.path = output / "results.csv"
        self._rows = {row[_KEY]: row for row in _read_rows(self.path)}

    def add(self, row: Row) -> None:
        """The row of one output."""
        self._rows[row[_KEY]] = row
        self._write()

    def keep(self, row: Row) -> None:
        """Leave the row of an output that is there already; `row` where none tells of it."""
        earlier = self._rows.get(row[_KEY], row)
        # It may tell of a later attempt, which failed and left the output as it was.
        self.add(row if earlier.get("error") else earlier)

    def _write(self) -> None:
        columns = [*dict.fromkeys(column for row in self._rows.values() for column in row)]
        rows = [[row.get(column, "") for column in columns] for row in self._rows.values()]
        # File names may be no text; they come back as they were.
        with (
            replacing(self.path) as temporary,
            temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            csv.writer(file).writerows([*map(protected, row)] for row in (columns, *rows))


def _read_rows(path: Path) -> list[Row]:
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            reader = csv.DictReader(file)
            is_ours = {_KEY, "status"} <= set(reader.fieldnames or ())
            rows = [
                # Somebody may have cut a row off, or added to it.
                {as_written(name): as_written(row[name] or "") for name in row if name is not None}
                for row in reader
            ]
    except (OSError, csv.Error):
        is_ours = False
    if not is_ours:
        raise UserError(f"{path}: no earlier run wrote this; choose another --output")
    return rows
