"""Heatmaps of keypoints as networks see them, in the style of the motion model."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from modules.geometry import gaussian_heatmaps
from modules.keypoint_detector import Keypoints
from modules.monkey_net.heatmaps import HeatmapNorm, covariance_heatmaps


class HeatmapStyle(NamedTuple):
    """How keypoints become heatmaps.

    variance: of isotropic Gaussians, in [-1, 1]^2, for keypoints without a covariance. FOMM was
        published with the default.
    norm: of heatmaps of a covariance, see `covariance_heatmaps`.
    """

    variance: float = 0.01
    norm: HeatmapNorm = 1.0


def keypoint_heatmaps(keypoints: Keypoints, height: int, width: int, style: HeatmapStyle) -> Tensor:
    """Heatmaps of B x K keypoints: B x K x height x width."""
    if keypoints.covariance is not None:
        return covariance_heatmaps(keypoints, height, width, style.norm)
    return gaussian_heatmaps(keypoints.value, height, width, style.variance)


def heatmap_difference(
    source: Keypoints, driving: Keypoints, height: int, width: int, style: HeatmapStyle
) -> Tensor:
    """Driving minus source heatmaps, B x K x height x width."""
    return keypoint_heatmaps(driving, height, width, style) - keypoint_heatmaps(
        source, height, width, style
    )


def candidate_heatmaps(
    source: Keypoints, driving: Keypoints, height: int, width: int, style: HeatmapStyle
) -> Tensor:
    """`heatmap_difference` after a map of zeros for the background: B x (K+1) x height x width."""
    difference = heatmap_difference(source, driving, height, width, style)
    return F.pad(difference, (0, 0, 0, 0, 1, 0))
