"""Markdown tables, which also read well as plain text; and the tables of benchmarks/puppets.py."""

from collections.abc import Mapping, Sequence
from typing import Any

from common.safe_paths import printable

Cell = str | float | None


def markdown_table(rows: Sequence[Mapping[str, Cell]]) -> str:
    """A table with a column for each key of the first row.

    Columns that have a number are aligned right. A cell is empty if its row has None or lacks the
    key.
    """
    titles = list(rows[0])
    cells = [titles, *([_text(title, row.get(title)) for title in titles] for row in rows)]
    lines = [[*map(printable, line)] for line in cells]  # a name may have a line end in it
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    is_number = [any(isinstance(row.get(title), float) for row in rows) for title in titles]
    rule = [
        "-" * (width - 1) + (":" if right else "-")
        for width, right in zip(widths, is_number, strict=True)
    ]
    lines.insert(1, rule)
    return "\n".join(
        "| "
        + " | ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, is_number, strict=True)
        )
        + " |"
        for line in lines
    )


def summary_text(summary: Mapping[str, float | None], form: str, sign: str = "") -> str:
    """A `metrics.intervals.Summary` as text: mean, ± standard deviation over seeds, [interval].

    Args:
        form: format of the numbers, such as `.2f`.
        sign: `+` to write the sign of positive numbers, too.
    """
    if summary["mean"] is None:
        return ""
    text = f"{summary['mean']:{sign}{form}}"
    if summary["seed_sd"] is not None:
        text += f" ±{summary['seed_sd']:{form}}"
    if summary["low"] is not None:
        text += f" [{summary['low']:{sign}{form}}, {summary['high']:{sign}{form}}]"
    return text


def summary_table(report: Mapping[str, Any]) -> str:
    """The headline figures of a report, and a table with a row for each animator and baseline."""
    names = list(dict.fromkeys(record["result"] for record in report["animation"]))
    rows = [_summary_row(report, name) for name in names]
    head = [
        f"{name} {_text(name, report[name])}"
        for name in ("mask_iou", "mask_iou_all_white", "swap_gain_db", "swap_figure_gain_db")
        if name in report
    ]
    return "\n\n".join(([", ".join(head)] if head else []) + [markdown_table(rows)])


def detailed_tables(report: Mapping[str, Any]) -> str:
    """Tables of the masks by threshold, the animation and the background swap; those that the model
    lacks are left out.
    """
    tables = [report["animation"], report["background_swap"]]
    sweeps = [name for name in ("mask_iou_train", "swap_psnr_train") if name in report]
    if sweeps:
        tables.insert(0, [{"threshold": name, **report[name]} for name in sweeps])
    return "\n\n".join(markdown_table(rows) for rows in tables if rows)


def _summary_row(report: Mapping[str, Any], name: str) -> dict[str, Cell]:
    """The row of the animator or baseline `name` in the summary table."""
    own, another = (_find(report["animation"], driver=d, result=name) for d in ("own", "another"))
    swap = _find(
        report["background_swap"],
        driver="own",
        animator=name,
        background_type="same",
        result="refined",
    )
    return {
        "result": name,
        "own l1": own.get("l1"),
        "own psnr": own.get("psnr"),
        "another l1": another.get("l1"),
        "another psnr": another.get("psnr"),
        "another figure_psnr": another.get("figure_psnr"),
        "swap_gain_db": swap.get("swap_gain_db"),
        "figure_gain_db": swap.get("figure_gain_db"),
    }


def _find(records: Sequence[Mapping[str, Cell]], **case: str) -> Mapping[str, Cell]:
    """The record of `case`, or an empty one if the case was not measured."""
    return next((record for record in records if case.items() <= record.items()), {})


def _text(name: str, value: Cell) -> str:
    """The text of the value of the column `name`: two decimals for dB, else four."""
    if isinstance(value, float):
        return f"{value:.2f}" if "psnr" in name or name.endswith("_db") else f"{value:.4f}"
    return value or ""
