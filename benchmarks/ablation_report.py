"""Makes the report of benchmarks/ablation.py: means, differences to a reference row, intervals."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.ablation_scores import ClipScores
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
    for row in dict.fromkeys(row for row, _ in found):
        scores = {seed: report["scores"] for (name, seed), report in found.items() if name == row}
        paired = [seed for seed in scores if (REFERENCE, seed) in found]
        difference = {}
        if row != REFERENCE and paired:
            difference = paired_differences(
                [scores[seed] for seed in paired],
                [found[REFERENCE, seed]["scores"] for seed in paired],
            )
        rows[row] = {
            "overrides": list(overrides[row]),
            "summary": _summaries_of([*scores.values()]),
            f"difference_to_{REFERENCE}": difference,
            "scores": {str(seed): of_seed for seed, of_seed in scores.items()},
        }
    return rows


def paired_differences(
    scores: Sequence[ClipScores], others: Sequence[ClipScores]
) -> dict[str, dict[str, float | None]]:
    """A summary of each metric of one row minus that of another; both have a report for each of the
    same seeds, in the same order.
    """
    return {
        name: summarize(_by_seed(scores, name) - _by_seed(others, name))._asdict()
        for name in scores[0]
    }


def summarize_baseline(found: MeasuredRuns) -> dict[str, Any]:
    """Scores and summaries of the baseline that repeats the source frame."""
    scores = next(iter(found.values()))["baseline"]  # all runs have the same
    return {"summary": _summaries_of([scores]), "scores": scores}


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


def _summaries_of(scores: Sequence[ClipScores]) -> dict[str, dict[str, float | None]]:
    """A summary of each metric of a row, of which there is a report for each seed."""
    return {name: summarize(_by_seed(scores, name))._asdict() for name in scores[0]}


def _by_seed(scores: Sequence[ClipScores], name: str) -> NDArray[np.float64]:
    """A metric, seeds x clips; NaN for a clip without a value."""
    return np.array([of_seed[name] for of_seed in scores], dtype=float)
