"""Heatmaps of keypoints with a covariance: how Monkey-Net tells a network where they are."""

from typing import Literal

import torch
from torch import Tensor

from modules.geometry import coordinate_grid, inverse_2x2
from modules.keypoint_detector import Keypoints

HeatmapNorm = float | Literal["sum"]

# Smallest determinant that is not guarded: of a covariance whose eigenvalues are both at the floor
# of 1e-6 that a transferred one has.
_SMALLEST_DETERMINANT = 1e-12


def covariance_heatmaps(keypoints: Keypoints, height: int, width: int, norm: HeatmapNorm) -> Tensor:
    """exp(-(z - p)^T V^-1 (z - p) / 2) / norm: B x K x height x width (Monkey-Net, section 3.2).

    Args:
        keypoints: with a covariance V.
        norm: a number, the same for all, or `sum`: each heatmap is divided by its own sum over the
            pixels.
    """
    assert keypoints.covariance is not None, "only Monkey-Net's detector gives a covariance"
    grid = coordinate_grid(height, width, keypoints.value)
    x = grid[0, :, 0] - keypoints.value[..., 0:1]  # B x K x width
    y = grid[:, 0, 1] - keypoints.value[..., 1:2]  # B x K x height
    x, y = x.unsqueeze(-2), y.unsqueeze(-1)
    inverse = inverse_2x2(keypoints.covariance, _SMALLEST_DETERMINANT)[..., None, None]
    mixed = (inverse[:, :, 0, 1] + inverse[:, :, 1, 0]) * x * y
    exponent = -(inverse[:, :, 0, 0] * x**2 + mixed + inverse[:, :, 1, 1] * y**2) / 2
    if norm == "sum":
        # The same as dividing by the sum, and finite where a keypoint far outside of the frame
        # leaves every pixel at exp(-large) = 0.
        return exponent.flatten(2).softmax(dim=-1).view_as(exponent)
    return torch.exp(exponent) / norm
