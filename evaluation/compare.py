"""Compares two evaluations, paired frame by frame (reconstruct.py --compare)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import UserError
from common.safe_paths import printable
from evaluation.evaluations import (
    Evaluation,
    check_same_frames,
    different_tools,
    read_evaluation,
)
from evaluation.frechet_results import FrechetResults
from evaluation.metric_names import FRECHET, METRICS, Metric
from evaluation.report import bounds, count_frames, number
from metrics.intervals import Interval, over_clips, over_frames


class Difference(NamedTuple):
    """Difference B - A of one metric.

    a, b: means over the frames where both are defined.
    over_clips, over_frames: mean difference with its interval.
    """

    a: float | None
    b: float | None
    over_clips: Interval
    over_frames: Interval


def compare_runs(a: Path, b: Path) -> str:
    """Compare the evaluations in the folders `a` and `b`: a table for the console.

    It has the metrics that both measured in the same way, and a line for each tool that differs.

    Raises:
        UserError: a folder holds no evaluation, or clips, frames or image sizes differ.
    """
    try:
        first, second = read_evaluation(a), read_evaluation(b)
        check_same_frames(first, second)
    except UserError as error:
        raise UserError(f"--compare {error}") from error
    lines = [_title("A", first), _title("B", second), ""]
    lines.append(
        f"{'':24}{'A':>10}{'B':>10}{'B - A':>11}  {'95% over clips':22}{'B - A':>11}  "
        "95% over frames"
    )
    different = _different_tools(first, second)
    for name, difference in differences(first, second).items():
        metric = METRICS[name]
        if metric.tool not in different:
            lines.append(_row(name, metric, difference))
    lines += _frechet_rows(first.frechet, second.frechet, different)
    lines += ["", "* the interval over clips leaves out 0; an interval over frames is too narrow"]
    lines += different.values()
    return "\n".join(map(printable, lines))


def differences(a: Evaluation, b: Evaluation) -> dict[str, Difference]:
    """Differences of the metrics that both have, in the order of the tables."""
    found = {}
    for name in METRICS:
        if name not in a.metrics & b.metrics:
            continue
        pairs = [(a.clips[clip].metrics[name], b.clips[clip].metrics[name]) for clip in a.clips]
        changes = [after - before for before, after in pairs]  # NaN if one is NaN
        both = [~np.isnan(change) for change in changes]
        found[name] = Difference(
            over_frames([pair[0][kept] for pair, kept in zip(pairs, both, strict=True)]).mean,
            over_frames([pair[1][kept] for pair, kept in zip(pairs, both, strict=True)]).mean,
            over_clips(changes),
            over_frames(changes),
        )
    return found


def _different_tools(a: Evaluation, b: Evaluation) -> dict[str | None, str]:
    """The tools of common metrics that differ between the runs, each with a line that says so."""
    known = (*METRICS.items(), *FRECHET.items())
    used = [metric.tool for name, metric in known if a.has(name) and b.has(name)]
    lines: dict[str | None, str] = {}
    for tool in dict.fromkeys(used):
        found = different_tools(tool, {"A": a, "B": b})
        if found:
            lines[tool] = f"{tool}: not compared: {found['A']} in A, {found['B']} in B"
    return lines


def _title(label: str, run: Evaluation) -> str:
    about = run.about
    num_frames = count_frames(run.clips.values())
    precision = about.get("precision", "float32")  # older evaluations have no such key
    return (
        f"{label}: {run.folder}: {about['checkpoint']} ({about['age']}), {about['animator']}, "
        f"{precision}; {len(run.clips)} clips, {num_frames} frames"
    )


def _frechet_rows(
    a: FrechetResults, b: FrechetResults, different: Mapping[str | None, str]
) -> Iterator[str]:
    """Rows of the distances that both have; they have no interval."""
    for name, metric in FRECHET.items():
        if name not in a or name not in b or name in different:
            continue
        found, other = a[name].model, b[name].model
        change = None if found is None or other is None else other - found
        numbers = (number(found, metric.digits), number(other, metric.digits))
        yield f"{name:24}{numbers[0]:>10}{numbers[1]:>10}{number(change, metric.digits):>11}"


def _row(name: str, metric: Metric, difference: Difference) -> str:
    digits = metric.digits
    clips, frames = difference.over_clips, difference.over_frames
    is_apart = clips.low is not None and clips.high is not None and clips.low * clips.high > 0
    return (
        f"{name:24}{number(difference.a, digits):>10}{number(difference.b, digits):>10}"
        f"{number(clips.mean, digits):>11}{'*' if is_apart else ' '} {bounds(clips, digits):22}"
        f"{number(frames.mean, digits):>11}  {bounds(frames, digits)}"
    )
