"""The numbers of an evaluation: per frame, per clip, and as a whole; as files and as a table."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.csv_cells import as_written, protected
from common.errors import UserError
from common.files import replacing
from common.safe_paths import check_name
from evaluation.metric_names import BASELINE, METRICS
from metrics.intervals import Interval, clip_means, over_clips, over_frames

SUMMARY_FILE = "metrics.json"
CLIPS_FILE = "metrics.csv"
FRAMES_FILE = "frames.csv"
PSNR_NOTE = (
    "The source is among the driving frames: repeating it is perfect there, which lifts its mean "
    "PSNR"
)
_PRECISION = ".7g"  # in the files: what float32 holds


class MeasuredClip(NamedTuple):
    """metrics: by name, one number per frame; NaN where it is not defined."""

    name: str
    num_frames: int
    metrics: Mapping[str, NDArray[np.float64]]


class MetricSummary(NamedTuple):
    """Of one metric: over all frames alike, and over the clips' means."""

    over_frames: Interval
    over_clips: Interval


Summaries = dict[str, MetricSummary]  # by metric, `baseline_...` among them


def summarize(clips: Sequence[MeasuredClip]) -> Summaries:
    """Each metric in the order of the tables, its baseline behind it."""
    names = [f"{prefix}{name}" for name in METRICS for prefix in ("", BASELINE)]
    return {
        name: MetricSummary(over_frames(values), over_clips(values))
        for name in names
        if (values := [clip.metrics[name] for clip in clips if name in clip.metrics])
    }


def write_report(
    folder: Path,
    about: Mapping[str, Any],
    summaries: Summaries,
    clips: Sequence[MeasuredClip],
) -> None:
    """metrics.json (`about` and the summaries), metrics.csv (a row for each clip) and frames.csv
    (a row for each frame). Where a number is not defined it is null, or empty; so it is for the
    clips in `about["failed"]`, which have a row in metrics.csv alone.
    """
    num_frames = sum(clip.num_frames for clip in clips)
    metrics = {
        name: {
            "over_frames": _short(summary.over_frames),
            "over_clips": _short(summary.over_clips),
            "frames_left_out": num_frames - summary.over_frames.num_values,
        }
        for name, summary in summaries.items()
    }
    with replacing(folder / SUMMARY_FILE) as temporary:
        text = json.dumps({**about, "metrics": metrics}, indent=2, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    _write_rows(
        folder / CLIPS_FILE,
        ["clip", "num_frames", *summaries],
        [
            *(
                [clip.name, clip.num_frames, *(clip_means([clip.metrics[n]])[0] for n in summaries)]
                for clip in clips
            ),
            *([name, 0, *[""] * len(summaries)] for name in about.get("failed", {})),
        ],
    )
    _write_rows(
        folder / FRAMES_FILE,
        ["clip", "frame", *summaries],
        [
            [clip.name, frame, *(clip.metrics[name][frame] for name in summaries)]
            for clip in clips
            for frame in range(clip.num_frames)
        ],
    )


def _write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in rows:
            writer.writerow([_field(value) for value in row])


def _field(value: str | int | float) -> str:
    if not isinstance(value, float):
        return protected(str(value))
    return "" if math.isnan(value) else f"{value:{_PRECISION}}"


def _short(interval: Interval) -> dict[str, float | int | None]:
    """As a dict, with numbers that can be read."""
    return {
        name: float(f"{value:{_PRECISION}}") if isinstance(value, float) else value
        for name, value in interval._asdict().items()
    }


def read_frames(folder: Path) -> list[MeasuredClip]:
    """The clips of an evaluation from its frames.csv.

    Raises:
        UserError: a clip has a name that none can have.
        OSError, ValueError, KeyError, TypeError, csv.Error: there is none, or it is damaged.
    """
    rows: dict[str, list[dict[str, str]]] = {}
    with (folder / FRAMES_FILE).open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            rows.setdefault(as_written(row["clip"]), []).append(row)
    for name in rows:
        try:
            check_name(name)
        except ValueError as error:
            raise UserError(f"{folder / FRAMES_FILE}: clip {error}; evaluate once more") from None
    return [
        MeasuredClip(
            name,
            len(frames),
            {
                metric: np.array([float(row[metric] or "nan") for row in frames])
                for metric in frames[0]
                if metric not in ("clip", "frame")
            },
        )
        for name, frames in rows.items()
    ]


def console_table(summaries: Summaries) -> str:
    """Each metric over all frames, with its mean and interval over clips, beside that of repeating
    the source; a note below.
    """
    lines = [
        f"{'':24}{'model':>10}  {'over clips, 95%':29}{'repeat source':>14}{'frames':>9}",
    ]
    for name, metric in METRICS.items():
        if name in summaries:
            model, baseline = summaries[name], summaries[BASELINE + name]
            lines.append(
                f"{name:24}{number(model.over_frames.mean, metric.digits):>10}  "
                f"{mean_and_bounds(model.over_clips, metric.digits):29}"
                f"{number(baseline.over_frames.mean, metric.digits):>14}"
                f"{model.over_frames.num_values:9}"
            )
    if "psnr" in summaries:
        lines.append(PSNR_NOTE)
    return "\n".join(lines)


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def mean_and_bounds(interval: Interval, digits: int) -> str:
    """`0.0560 (0.0512 to 0.0609)`: of clips of unlike lengths it is not the mean of all frames."""
    return f"{number(interval.mean, digits)} ({bounds(interval, digits)})"


def bounds(interval: Interval, digits: int) -> str:
    """`0.0512 to 0.0609`; a dash where there is no interval."""
    if interval.low is None or interval.high is None:
        return "-"
    return f"{interval.low:.{digits}f} to {interval.high:.{digits}f}"
