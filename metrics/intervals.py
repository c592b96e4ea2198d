"""Means of runs that differ in their seed, over the same clips."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

CONFIDENCE = 0.95


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


def summarize(values: NDArray[np.float64]) -> Summary:
    """Of `values`, seeds x clips; clips where one of them is not defined (NaN) are left out."""
    values = values[:, ~np.isnan(values).any(axis=0)]
    num_seeds, num_clips = values.shape
    if num_clips == 0:
        return Summary(None, None, None, None)
    of_clips = values.mean(axis=0)
    mean = float(of_clips.mean())
    seed_sd = float(values.mean(axis=1).std(ddof=1)) if num_seeds > 1 else None
    if num_clips == 1:
        return Summary(mean, seed_sd, None, None)
    quantile = t.ppf((1 + CONFIDENCE) / 2, num_clips - 1)
    half = float(quantile * of_clips.std(ddof=1) / num_clips**0.5)
    return Summary(mean, seed_sd, mean - half, mean + half)
