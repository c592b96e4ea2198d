"""Heatmaps of keypoints as a discriminator sees them, in the style of the motion model."""

from typing import NamedTuple

from torch import Tensor

from modules.geometry import gaussian_heatmaps
from modules.keypoint_detector import Keypoints
from modules.monkey_net.heatmaps import HeatmapNorm, covariance_heatmaps


class HeatmapStyle(NamedTuple):
    """How keypoints become heatmaps.

    variance: of isotropic Gaussians, in [-1, 1]^2, for keypoints without a covariance.
    norm: of heatmaps of a covariance, see `covariance_heatmaps`.
    """

    variance: float
    norm: HeatmapNorm = 1.0


def keypoint_heatmaps(keypoints: Keypoints, height: int, width: int, style: HeatmapStyle) -> Tensor:
    """Heatmaps of B x K keypoints: B x K x height x width."""
    if keypoints.covariance is not None:
        return covariance_heatmaps(keypoints, height, width, style.norm)
    return gaussian_heatmaps(keypoints.value, height, width, style.variance)
