"""The table of what came of many animations."""

import csv
from pathlib import Path

from files import replacing

Row = dict[str, str]


class Results:
    """results.csv in the folder `output`, written anew after every job.

    Rows of an earlier run stay for outputs that this run skips.
    """

    def __init__(self, output: Path) -> None:
        self.path = output / "results.csv"
        self.rows: list[Row] = []
        self._earlier = {row.get("output", ""): row for row in _read_rows(self.path)}

    def add(self, row: Row) -> None:
        self.rows.append(row)
        self._write()

    def keep(self, row: Row) -> None:
        """Add the earlier row of the same output, `row` where there is none."""
        self.add(self._earlier.get(row["output"], row))

    def _write(self) -> None:
        columns = dict.fromkeys(column for row in self.rows for column in row)
        with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(columns), restval="")
            writer.writeheader()
            writer.writerows(self.rows)


def _read_rows(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
