"""The table results.csv of many animations."""

import csv
from collections.abc import Iterable
from pathlib import Path

from common.csv_cells import TableReader, as_written, open_table, protected
from common.errors import UserError
from common.files import replacing
from common.safe_paths import exists, is_file

_KEY = "output"
_EARLIER, _KEPT = "earlier_result", "kept"  # a column and its value in the row of a failed job

Row = dict[str, str]


class Results:
    """results.csv in the folder `output`; the file is written again after every job.

    Rows of earlier runs stay until this run makes their output again. New rows follow them in the
    order of `expect`, in whatever order they come.

    Raises:
        UserError: there is a results.csv that no earlier run wrote.
    """

    def __init__(self, output: Path) -> None:
        self.path = output / "results.csv"
        self._rows = {row[_KEY]: row for row in _read_rows(self.path)}
        self._places: dict[str, int] = {}  # of the rows, by output
        self.expect(self._rows)

    def require_own(self, outputs: Iterable[Path]) -> None:
        """Make sure that no output would replace a file that no earlier run wrote.

        The rows tell; their paths may start from another working folder than these.

        Raises:
            UserError: it would; names the file.
        """
        written: dict[str, list[Path]] = {}  # by name
        for output, row in self._rows.items():
            if _was_written(row):
                written.setdefault(Path(output).name, []).append(Path(output))
        folder = self.path.parent
        for path in outputs:
            inner = path.relative_to(folder) if path.is_relative_to(folder) else path
            ending = inner.parts
            earlier = (found.parts[-len(ending) :] for found in written.get(path.name, ()))
            if is_file(path) and ending not in earlier:
                raise UserError(
                    f"{path}: is there, and {self.path} does not say that an earlier run wrote it; "
                    "move it away, or keep it with --skip-existing"
                )

    def expect(self, outputs: Iterable[str]) -> None:
        """Fix the order of the rows that are added later, by their outputs."""
        for output in outputs:
            self._places.setdefault(output, len(self._places))

    def add(self, row: Row) -> None:
        """Add the row of a finished or failed job; it replaces an earlier row of its output. A
        failed job leaves an earlier result as it was, and its row says so.
        """
        earlier = self._rows.get(row[_KEY], {})
        if row["status"] != "done" and _was_written(earlier):
            row = {**row, _EARLIER: _KEPT}
        if self._rows.get(row[_KEY]) != row:
            self._rows[row[_KEY]] = row
            self._write()

    def keep(self, row: Row) -> None:
        """Keep the earlier row of an output that is skipped; without one, add `row`."""
        earlier = self._rows.get(row[_KEY], row)
        # An earlier row may be of a later, failed attempt, which left the output as it was.
        self.add(row if earlier.get("error") else earlier)

    def _write(self) -> None:
        found = sorted(self._rows.values(), key=lambda row: self._places[row[_KEY]])
        columns = [*dict.fromkeys(column for row in found for column in row)]
        rows = [[row.get(column, "") for column in columns] for row in found]
        # File names may hold bytes that are not text; they are read back unchanged.
        with (
            replacing(self.path) as temporary,
            temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            csv.writer(file).writerows([*map(protected, row)] for row in (columns, *rows))


def _was_written(row: Row) -> bool:
    """Whether the run of the row or an earlier one wrote the file that the row names."""
    return row.get("status") == "done" or row.get(_EARLIER) == _KEPT


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
