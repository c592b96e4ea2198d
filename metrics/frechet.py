"""The Fréchet distance between two sets of features, on which FID and FVD rest.

Each set is described by the Gaussian of its mean and covariance. FID takes features of frames
(Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
Equilibrium", equation 6), FVD features of short clips (Unterthiner et al. 2018, "Towards Accurate
Generative Models of Video"). All sums are in float64.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FrechetMetric = Literal["fid", "fvd"]


class Gaussian(NamedTuple):
    """Mean, D, and covariance, D x D, of N features of D numbers.

    The covariance is divided by N - 1, as numpy.cov and the published scripts do.
    """

    mean: Array
    covariance: Array


class Moments:
    """Adds up the mean and the covariance of features without keeping the features.

    Batches are combined by their own means (Chan et al. 1979), so that no digits are lost where the
    mean is large.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: Array | None = None
        self._scatter: Array | None = None  # sum of (x - mean) (x - mean)^T

    @property
    def num_features(self) -> int:
        """D; 0 before the first features."""
        return 0 if self._mean is None else len(self._mean)

    def add(self, features: NDArray[np.floating], times: int = 1) -> None:
        """Add `features`, B x D with the same D each time; each of them counts `times` times."""
        values = features.astype(np.float64)
        added = times * len(values)
        if added == 0:
            return
        mean = values.mean(axis=0)
        centred = values - mean
        scatter = times * (centred.T @ centred)
        if self._mean is None or self._scatter is None:
            self.count, self._mean, self._scatter = added, mean, scatter
            return
        total, change = self.count + added, mean - self._mean
        self._scatter += scatter + np.outer(change, change) * (self.count * added / total)
        self._mean = self._mean + change * (added / total)
        self.count = total

    def gaussian(self) -> Gaussian | None:
        """The Gaussian of all features so far; None for fewer than two: they have no covariance."""
        if self._mean is None or self._scatter is None or self.count < 2:
            return None
        return Gaussian(self._mean.copy(), self._scatter / (self.count - 1))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Fréchet distance, squared as FID and FVD report it:

        ||m_a - m_b||^2 + tr(C_a) + tr(C_b) - 2 tr((C_a C_b)^(1/2)), at least 0.

    The last trace is the sum of the singular values of R_a^T R_b, where C = R R^T. Unlike a square
    root of the product itself it needs no complex numbers, and it keeps its digits where a
    covariance has no inverse, as with fewer features than dimensions.
    """
    difference = a.mean - b.mean
    shared = np.linalg.svd(_root(a.covariance).T @ _root(b.covariance), compute_uv=False).sum()
    spread = np.trace(a.covariance) + np.trace(b.covariance)
    return max(0.0, float(difference @ difference + spread - 2 * shared))


def _root(covariance: Array) -> Array:
    """R with R R^T = `covariance`, D x rank; eigenvalues that are rounding errors are left out."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > np.finfo(np.float64).eps * len(values) * max(values[-1], 0.0)
    return vectors[:, kept] * np.sqrt(values[kept])
