"""Compares two evaluations, paired frame by frame (reconstruct.py --compare)."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.errors import UserError
from common.json_files import read_json
from common.safe_paths import printable
from evaluation.frechet_results import FrechetResults, read_frechet
from evaluation.metric_names import BASELINE, FRECHET, METRICS, Metric
from evaluation.report import FRAMES_FILE, SUMMARY_FILE, MeasuredClip, bounds, number, read_frames
from metrics.intervals import Interval, over_clips, over_frames

_SAME_TRUTH = 1e-4  # largest difference of baseline_l1 between two devices on the same frames
_NUM_NAMED = 3  # names in an error message
_NEEDED = ("checkpoint", "step", "animator", "image_size", "measured_with")  # keys of metrics.json


class Evaluation(NamedTuple):
    """Results that reconstruct.py wrote to `folder`.

    about: content of metrics.json.
    metrics: names of all metrics that were measured.
    clips: content of frames.csv, by clip name.
    frechet: FID and FVD, where they were measured.
    """

    folder: Path
    about: dict[str, Any]
    metrics: frozenset[str]
    clips: dict[str, MeasuredClip]
    frechet: FrechetResults


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
    first, second = read_evaluation(a), read_evaluation(b)
    _check_same_frames(first, second)
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


def read_evaluation(folder: Path) -> Evaluation:
    """Read the evaluation in `folder`; UserError if there is none or it is incomplete."""
    try:
        about = read_json(folder / SUMMARY_FILE)
        metrics = frozenset(about["metrics"])
        clips = {clip.name: clip for clip in read_frames(folder)}
        frechet = read_frechet(about)
    except UserError as error:
        raise UserError(f"--compare {error}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, csv.Error) as error:
        raise UserError(
            f"--compare {folder}: no metrics.json and frames.csv of an evaluation in it; give two "
            "folders that reconstruct.py wrote"
        ) from error
    missing = [name for name in _NEEDED if name not in about]
    if missing:
        raise UserError(
            f"--compare {folder}: {SUMMARY_FILE} lacks {', '.join(missing)}; evaluate once more"
        )
    if not clips:
        raise UserError(f"--compare {folder}: {FRAMES_FILE} has no frame in it; evaluate once more")
    for clip in clips.values():
        lost = sorted((metrics | {f"{BASELINE}l1"}) - clip.metrics.keys())
        if lost:
            raise UserError(
                f"--compare {folder}: {FRAMES_FILE} lacks {', '.join(lost[:_NUM_NAMED])}; "
                "evaluate once more"
            )
    return Evaluation(folder, about, metrics, clips, frechet)


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


def _check_same_frames(a: Evaluation, b: Evaluation) -> None:
    for one, other in ((a, b), (b, a)):
        further = [name for name in one.clips if name not in other.clips]
        if further:
            more = f" and {len(further) - _NUM_NAMED} more" if len(further) > _NUM_NAMED else ""
            raise UserError(
                f"--compare: {one.folder} has clips that {other.folder} lacks: "
                f"{', '.join(further[:_NUM_NAMED])}{more}; evaluate both on the same clips"
            )
    if a.about["image_size"] != b.about["image_size"]:
        sizes = [" x ".join(map(str, reversed(run.about["image_size"]))) for run in (a, b)]
        raise UserError(
            f"--compare: {a.folder} is of {sizes[0]} pixels, {b.folder} of {sizes[1]}; metrics of "
            "other sizes do not compare"
        )
    for name, clip in a.clips.items():
        other_clip = b.clips[name]
        repeated, other_repeated = (found.metrics[f"{BASELINE}l1"] for found in (clip, other_clip))
        if clip.num_frames != other_clip.num_frames or not np.allclose(
            repeated, other_repeated, rtol=0, atol=_SAME_TRUTH
        ):
            raise UserError(
                f"--compare: the clip {name} has other frames in {a.folder} than in {b.folder}; "
                "evaluate both on the same data"
            )


def _different_tools(a: Evaluation, b: Evaluation) -> dict[str | None, str]:
    """The tools that differ between the runs, each with a line that says so."""
    with_a, with_b = (run.about["measured_with"] for run in (a, b))
    return {
        kind: f"{kind}: not compared: {with_a[kind]['name']} ({with_a[kind]['weights']}) in A, "
        f"{with_b[kind]['name']} ({with_b[kind]['weights']}) in B"
        for kind in with_a
        if kind in with_b and with_a[kind] != with_b[kind]
    }


def _title(label: str, run: Evaluation) -> str:
    about = run.about
    num_frames = sum(clip.num_frames for clip in run.clips.values())
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
