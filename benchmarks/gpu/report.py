"""Writes report.md from the results so far: a table for each part."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.tables import Cell, markdown_table
from common.files import replacing
from common.safe_paths import printable

_OF_EVERY_RESULT: Final = ("part", "check", "status", "at", "seconds", "error", "traceback")


def write_report(
    output: Path, results: Sequence[Mapping[str, Any]], missing: Sequence[str] = ()
) -> None:
    """Write the tables of all results, and what was not run."""
    done = [found for found in results if found["status"] != "started"]
    lines = []
    for part in dict.fromkeys(found["part"] for found in done):
        of_part = [found for found in done if found["part"] == part]
        lines += [f"## {part.capitalize()}", "", _table(of_part), ""]
    if missing:
        lines += ["Not run: " + ", ".join(missing), ""]
    with replacing(output / "report.md") as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")


def one_line(found: Mapping[str, Any]) -> str:
    """One line about a result, for the console."""
    values = ", ".join(f"{name} {_text(value)}" for name, value in _values(found).items())
    head = f"{found['part']}: {found['check']}: {found['status']}"
    return f"{head} ({found.get('seconds', 0.0):.1f} s) {values or found.get('error', '')}"


def _table(results: Sequence[Mapping[str, Any]]) -> str:
    """A row for each result. Results with equal columns make one table."""
    tables: dict[tuple[str, ...], list[dict[str, Cell]]] = {}
    for found in results:
        values = _values(found)
        row: dict[str, Cell] = {"check": found["check"], "status": found["status"]}
        row |= {name: _text(value) for name, value in values.items()}
        if "error" in found:
            row["error"] = printable(found["error"].splitlines()[0][:200])
        row["seconds"] = f"{found['seconds']:.1f}" if "seconds" in found else None
        tables.setdefault(tuple(row), []).append(row)
    return "\n\n".join(markdown_table(rows) for rows in tables.values())


def _values(found: Mapping[str, Any]) -> dict[str, Any]:
    """What the check itself has found."""
    return {name: value for name, value in found.items() if name not in _OF_EVERY_RESULT}


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "; ".join(map(_text, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(number)}" for name, number in value.items())
    return printable(str(value))
