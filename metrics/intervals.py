"""Means with 95% t intervals: of one run, of the difference of two (given the differences), of runs
that differ in seed.

The frames of a clip resemble each other. An interval over frames takes them for independent and
comes out too narrow; the one over clips, one number each, is the one to trust.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """mean: None where there is no value. low, high: t interval of the mean; None for fewer than
    two values. num_values: how many are defined.
    """

    mean: float | None
    low: float | None
    high: float | None
    num_values: int


class Summary(NamedTuple):
    """mean: over clips and seeds.
    seed_sd: standard deviation of the seeds' means (n - 1); None for one seed.
    low, high: t interval of the mean over clips, each averaged over seeds first; None for one clip.

    All None where no clip has a value.
    """

    mean: float | None
    seed_sd: float | None
    low: float | None
    high: float | None


def interval(values: NDArray[np.floating]) -> Interval:
    """Of `values`, N; those that are not defined (NaN) are left out."""
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
    """Of all frames alike, from one array for each clip: long clips weigh more."""
    return interval(np.concatenate(clips))


def over_clips(clips: Sequence[NDArray[np.floating]]) -> Interval:
    """Of the clips' means, from one array of frames for each clip."""
    return interval(clip_means(clips))


def clip_means(clips: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    """Mean of each clip over the frames with a value; NaN for a clip without."""
    means = (interval(frames).mean for frames in clips)
    return np.array([np.nan if mean is None else mean for mean in means])


def summarize(values: NDArray[np.float64]) -> Summary:
    """Of `values`, seeds x clips; clips where one of them is not defined (NaN) are left out."""
    values = values[:, ~np.isnan(values).any(axis=0)]
    mean, low, high, num_clips = interval(values.mean(axis=0))
    if num_clips == 0:
        return Summary(None, None, None, None)
    seed_sd = float(values.mean(axis=1).std(ddof=1)) if len(values) > 1 else None
    return Summary(mean, seed_sd, low, high)
