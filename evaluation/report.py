"""Writes the numbers of an evaluation per frame, per clip and as a whole: files and a table."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.csv_cells import TableReader, as_written, open_table, protected
from common.errors import UserError
from common.files import replacing
from common.safe_paths import check_name
from evaluation.frechet_results import FrechetResults, notes
from evaluation.metric_names import BASELINE, FRECHET, METRICS
from metrics.intervals import Interval, clip_means, over_clips, over_frames

SUMMARY_FILE = "metrics.json"
CLIPS_FILE = "metrics.csv"
FRAMES_FILE = "frames.csv"
CLIP_COLUMNS = ["clip", "num_frames"]  # the first of metrics.csv, by which it is known
PSNR_NOTE = (
    "The source is among the driving frames: repeating it is perfect there, which lifts its mean "
    "PSNR"
)
_LARGEST = 1e100  # of a number of frames.csv; the squares of larger ones are infinite
_PRECISION = ".7g"  # digits of numbers in the files; float32 has no more


class MeasuredClip(NamedTuple):
    """Metrics of one clip.

    metrics: by name, one number per frame; NaN if not defined.
    """

    name: str
    num_frames: int
    metrics: Mapping[str, NDArray[np.float64]]


def count_frames(clips: Iterable[MeasuredClip]) -> int:
    """The number of frames of all clips together."""
    return sum(clip.num_frames for clip in clips)


class MetricSummary(NamedTuple):
    """Mean and interval of one metric, over all frames and over the means of the clips."""

    over_frames: Interval
    over_clips: Interval


Summaries = dict[str, MetricSummary]  # by metric, `baseline_...` among them


def summarize(clips: Sequence[MeasuredClip]) -> Summaries:
    """Summarize each metric, in the order of the tables; its baseline follows it."""
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
    """Write metrics.json (`about` and the summaries), metrics.csv (a row for each clip) and
    frames.csv (a row for each frame) to `folder`.

    Numbers that are not defined are null in JSON and empty in CSV. The clips in `about["failed"]`
    have a row without numbers in metrics.csv, and none in frames.csv.
    """
    num_frames = count_frames(clips)
    metrics = {
        name: {
            "over_frames": _rounded(summary.over_frames),
            "over_clips": _rounded(summary.over_clips),
            "frames_left_out": num_frames - summary.over_frames.num_values,
        }
        for name, summary in summaries.items()
    }
    with replacing(folder / SUMMARY_FILE) as temporary:
        text = json.dumps({**about, "metrics": metrics}, indent=2, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    _write_rows(
        folder / CLIPS_FILE,
        [*CLIP_COLUMNS, *summaries],
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


def _rounded(interval: Interval) -> dict[str, float | int | None]:
    """`interval` as a dict for JSON, with rounded numbers."""
    return {
        name: float(f"{value:{_PRECISION}}") if isinstance(value, float) else value
        for name, value in interval._asdict().items()
    }


def read_frames(folder: Path) -> list[MeasuredClip]:
    """Read the clips of an evaluation from its frames.csv.

    Raises:
        UserError: a clip has a name that is not allowed, or a number beyond all metrics.
        OSError, ValueError, KeyError, TypeError, csv.Error: the file is missing or damaged.
    """
    rows: dict[str, list[dict[str, str]]] = {}
    with open_table(folder / FRAMES_FILE) as file:
        for row in TableReader(file):
            rows.setdefault(as_written(row["clip"]), []).append(row)
    for name in rows:
        try:
            check_name(name)
        except ValueError as error:
            raise UserError(f"{folder / FRAMES_FILE}: clip {error}; evaluate once more") from None
    clips = [
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
    for clip in clips:
        for metric, values in clip.metrics.items():
            if (np.abs(values) > _LARGEST).any():
                raise UserError(
                    f"{folder / FRAMES_FILE}: clip {clip.name}: {metric:.60} is infinite or above "
                    f"{_LARGEST:g}; evaluate once more"
                )
    return clips


def console_table(summaries: Summaries, frechet: FrechetResults) -> str:
    """A table for the console: each metric over all frames, its mean and interval over clips, and
    the metric of repeating the source. FID and FVD have no interval.
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
    for name, result in frechet.items():
        digits = FRECHET[name].digits
        lines.append(
            f"{name:24}{number(result.model, digits):>10}  {'':29}"
            f"{number(result.baseline, digits):>14}{result.num_frames:9}"
        )
    if "psnr" in summaries:
        lines.append(PSNR_NOTE)
    return "\n".join((*lines, *notes(frechet)))


def number(value: float | None, digits: int) -> str:
    """Format `value` with `digits` decimals; a dash for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def mean_and_bounds(interval: Interval, digits: int) -> str:
    """Format mean and bounds, such as `0.0560 (0.0512 to 0.0609)`."""
    return f"{number(interval.mean, digits)} ({bounds(interval, digits)})"


def bounds(interval: Interval, digits: int) -> str:
    """Format the bounds of an interval, such as `0.0512 to 0.0609`; a dash if it has none."""
    if interval.low is None or interval.high is None:
        return "-"
    return f"{interval.low:.{digits}f} to {interval.high:.{digits}f}"
