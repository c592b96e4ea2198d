"""Makes the report of benchmarks/ablation.py: means, differences to a reference row, intervals."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.tables import markdown_table, summary_text
from metrics.intervals import summarize

REFERENCE: Final = "fomm"  # the row that all others are compared with

MeasuredRuns = Mapping[tuple[str, int], Mapping[str, Any]]  # reports of runs, by row and seed


def compare(found: MeasuredRuns, overrides: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Scores and summaries of each row, and its differences to the reference row, by row.

    Args:
        overrides: the overrides that make each row; they are copied to the report.
    """
    rows: dict[str, Any] = {}
    names = _names(found)
    for row in dict.fromkeys(row for row, _ in found):
        seeds = [seed for name, seed in found if name == row]
        paired = [seed for seed in seeds if (REFERENCE, seed) in found]
        difference = {}
        if row != REFERENCE and paired:
            difference = {
                name: summarize(
                    _scores(found, row, paired, name) - _scores(found, REFERENCE, paired, name)
                )._asdict()
                for name in names
            }
        rows[row] = {
            "overrides": list(overrides[row]),
            "summary": {
                name: summarize(_scores(found, row, seeds, name))._asdict() for name in names
            },
            f"difference_to_{REFERENCE}": difference,
            "scores": {str(seed): found[row, seed]["scores"] for seed in seeds},
        }
    return rows


def summarize_baseline(found: MeasuredRuns) -> dict[str, Any]:
    """Scores and summaries of the baseline that repeats the source frame."""
    scores = next(iter(found.values()))["baseline"]  # all runs have the same
    summary = {name: summarize(np.array([scores[name]], dtype=float))._asdict() for name in scores}
    return {"summary": summary, "scores": scores}


def means_table(report: Mapping[str, Any]) -> str:
    """A table of the mean of each metric: a line for each row, then one for the baseline."""
    return markdown_table(
        [
            {"row": row, **{name: summary[name]["mean"] for name in summary}}
            for row, summary in _summaries(report).items()
        ]
    )


def detailed_tables(report: Mapping[str, Any]) -> str:
    """Two tables, of means and of differences to the reference, with standard deviations over seeds
    and intervals.
    """
    tables = [
        [
            {"row": row, **{name: _cell(name, summary[name]) for name in summary}}
            for row, summary in _summaries(report).items()
        ],
        [
            {
                f"row - {REFERENCE}": row,
                **{name: _cell(name, difference[name], signed=True) for name in difference},
            }
            for row, entry in report["rows"].items()
            if (difference := entry[f"difference_to_{REFERENCE}"])
        ],
    ]
    return "\n\n".join(markdown_table(rows) for rows in tables if rows)


def _summaries(report: Mapping[str, Any]) -> dict[str, Any]:
    """The summaries of all rows and of the baseline, by name."""
    rows = {row: entry["summary"] for row, entry in report["rows"].items()}
    return rows | {"source": report["baseline"]["summary"]}


def _cell(name: str, summary: Mapping[str, float | None], *, signed: bool = False) -> str:
    """The text of a summary: mean, ± standard deviation over seeds, [interval]."""
    return summary_text(summary, ".2f" if "psnr" in name else ".4f", "+" if signed else "")


def _names(found: MeasuredRuns) -> list[str]:
    """The metrics that were measured; all runs have the same."""
    return [*next(iter(found.values()))["baseline"]]


def _scores(found: MeasuredRuns, row: str, seeds: Sequence[int], name: str) -> NDArray[np.float64]:
    """The metric `name` of a row's runs, seeds x clips; NaN for a clip without a value."""
    return np.array([found[row, seed]["scores"][name] for seed in seeds], dtype=float)
