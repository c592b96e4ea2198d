"""Markdown tables, which also read well as plain text; and the tables of benchmarks/puppets.py."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Final

from common.safe_paths import printable

Cell = str | float | None

# What docs/results.md calls the fields of a report of benchmarks/puppets.py, in its order.
_RESULTS: Final = {
    "motion": "motion",
    "masks": "masks",
    "source": "repeat the source",
    "driving": "copy the driving frame",
    "background": "the background alone",
}
_ANIMATION_COLUMNS: Final = {
    "own: L1": ("own", "l1"),
    "own: PSNR": ("own", "psnr"),
    "own: figure L1": ("own", "figure_l1"),
    "another: L1": ("another", "l1"),
    "another: PSNR": ("another", "psnr"),
    "another: figure PSNR": ("another", "figure_psnr"),
}
_COMPOSED_BY: Final = {"refined": "BGRefine", "base": "BGBase", "alpha": "alpha"}
_SWAP_COLUMNS: Final = {
    "PSNR": "psnr",
    "background PSNR": "background_psnr",
    "figure PSNR": "figure_psnr",
    "gain": "swap_gain_db",
    "figure gain": "figure_gain_db",
}


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


def demo_table(summary: Mapping[str, Any]) -> str:
    """The table of docs/results.md of the demo's summary, beside repeating the source, an all white
    mask and the old background.

    Raises:
        KeyError: a part of the model had not started, and was not measured.
    """
    lines = (("L1", "l1"), ("figure L1", "figure_l1"), ("PSNR", "psnr"), ("SSIM", "ssim"))
    rows: list[dict[str, Cell]] = []
    for title, name in lines:
        form = {"psnr": ".2f", "ssim": ".3f"}.get(name, ".4f")
        ratio = summary.get(f"{name}_ratio")
        rows.append(
            {
                "": title,
                "demo": f"{summary[name]:{form}}",
                "repeat the source": f"{summary[f'baseline_{name}']:{form}}",
                "ratio": "" if ratio is None else f"{ratio:.2f}",
            }
        )
    iou, white = summary["mask_iou"], summary["mask_iou_all_white"]
    rows.append({"": f"IoU of the masks (all white: {white:.2f})", "demo": f"{iou:.2f}"})
    for title, prefix in (("swap", "swap"), ("swap, driven by another", "another_swap")):
        for kind, name in (("", "gain_db"), (" of the figure", "figure_gain_db")):
            text = f"{summary[f'{prefix}_{name}']:.1f} dB"
            rows.append({"": f"{title}: gain{kind}", "demo": text})
    rows.append({"": "steps", "demo": str(summary["steps"])})
    return markdown_table(rows)


def masks_table(report: Mapping[str, Any]) -> str:
    """The table of docs/results.md of the masks' overlap with the figure, and of a white mask's.

    Raises:
        KeyError: the model of the report has no masks.
    """
    return markdown_table(
        [
            {
                "": f"masks, at `background.threshold` {report['threshold']}",
                "IoU": f"**{report['mask_iou']:.2f}**",
            },
            {"": "all white mask", "IoU": f"{report['mask_iou_all_white']:.2f}"},
        ]
    )


def thresholds_table(report: Mapping[str, Any]) -> str:
    """The table of docs/results.md of masks and swap by threshold, on training clips.

    Raises:
        KeyError: the model of the report has no masks, or no trained background branch.
    """
    lines = (("IoU", "mask_iou_train", ".3f"), ("swap, PSNR", "swap_psnr_train", ".2f"))
    return markdown_table(
        [
            {"threshold": title, **{key: f"{value:{form}}" for key, value in report[name].items()}}
            for title, name, form in lines
        ]
    )


def animation_table(report: Mapping[str, Any]) -> str:
    """The table of docs/results.md of the animators and baselines that were measured."""
    records = report["animation"]
    measured = {record["result"] for record in records}
    return markdown_table(
        [
            {
                "": title,
                **{
                    column: _text(score, _find(records, driver=driver, result=name).get(score))
                    for column, (driver, score) in _ANIMATION_COLUMNS.items()
                },
            }
            for name, title in _RESULTS.items()
            if name in measured
        ]
    )


def swap_table(report: Mapping[str, Any]) -> str:
    """The table of docs/results.md of all swaps that were measured, the gains of the headline in
    bold. The baselines, in which nothing is swapped or no figure is there, are left out.
    """
    rows: list[dict[str, Cell]] = []
    orders = (("own", "another"), ("motion", "masks"), ("same", "other"), _COMPOSED_BY)
    names = ("driver", "animator", "background_type", "result")
    for driver, animator, background_type, result in product(*orders):
        case = dict(zip(names, (driver, animator, background_type, result), strict=True))
        record = _find(report["background_swap"], **case)
        if not record:
            continue
        in_headline = (animator, background_type, result) == (report["animator"], "same", "refined")
        row: dict[str, Cell] = {
            "driver": driver,
            "animator": animator,
            "third image": background_type,
            "composed by": _COMPOSED_BY[result],
        }
        for column, score in _SWAP_COLUMNS.items():
            text = _text(score, record[score])
            row[column] = f"**{text}**" if in_headline and column.endswith("gain") else text
        rows.append(row)
    return markdown_table(rows)


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
