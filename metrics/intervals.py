"""Means with 95% t intervals: of one run, of differences between two runs, of runs over seeds.

Trust the interval over clips, which has one number for each clip. The interval over frames is too
narrow: it assumes that frames are independent, but the frames of a clip resemble each other.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean and its t interval.

    mean: None if there are no values.
    low, high: bounds of the interval; None for fewer than two values.
    num_values: number of values that are defined.
    """

    mean: float | None
    low: float | None
    high: float | None
    num_values: int


class Summary(NamedTuple):
    """A metric over seeds and clips; all fields are None if no clip has a value.

    mean: over clips and seeds.
    seed_sd: standard deviation of the seeds' means (n - 1); None for one seed.
    low, high: t interval of the mean over clips, after averaging over seeds; None for one clip.
    """

    mean: float | None
    seed_sd: float | None
    low: float | None
    high: float | None


def interval(values: NDArray[np.floating]) -> Interval:
    """Mean and interval of `values`, N; values that are not defined (NaN) are left out."""
    values = values[~np.isnan(values)].astype(np.float64)
    count = len(values)
    if count == 0:
        return Interval(None, None, None, 0)
    mean = float(values.mean())
    if count == 1:
        return Interval(mean, None, None, 1)
    half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1) * values.std(ddof=1) / count**0.5)
    return Interval(mean, mean - half, mean + half, count)


def over_frames(clips: Sequence[NDArray[np.floating]]) -> Interval:
    """Mean and interval over all frames, given one array for each clip; long clips weigh more."""
    return interval(np.concatenate(clips))


def over_clips(clips: Sequence[NDArray[np.floating]]) -> Interval:
    """Mean and interval over the means of the clips, given one array of frames for each clip."""
    return interval(clip_means(clips))


def clip_means(clips: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    """Mean of each clip over the frames with a value; NaN for a clip without any."""
    means = (interval(frames).mean for frames in clips)
    return np.array([np.nan if mean is None else mean for mean in means])


def summarize(values: NDArray[np.float64]) -> Summary:
    """Summarize `values`, seeds x clips; clips that are NaN for one of the seeds are left out."""
    values = values[:, ~np.isnan(values).any(axis=0)]
    mean, low, high, num_clips = interval(values.mean(axis=0))
    if num_clips == 0:
        return Summary(None, None, None, None)
    seed_sd = float(values.mean(axis=1).std(ddof=1)) if len(values) > 1 else None
    return Summary(mean, seed_sd, low, high)
