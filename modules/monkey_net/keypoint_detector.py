"""Monkey-Net's keypoints: the mean and the covariance of each heatmap."""

import torch
from torch import Tensor, nn

from modules.blocks import Hourglass
from modules.geometry import (
    coordinate_grid,
    determinant_2x2,
    full_precision,
    resize,
    scaled_size,
)
from modules.keypoint_detector import Keypoints

_FLOOR = 1e-7  # added to every pixel of a heatmap, which is not normalized again; as published


class MonkeyNetKeypointDetector(nn.Module):
    """Mean and covariance under each heatmap (Monkey-Net, section 3.2).

    Args:
        width, max_width, num_blocks: of the hourglass.
        scale: the detector sees every (1/scale)-th pixel of the frame, without a blur.
        num_keypoints: K.
        temperature: of the softmax over space; small values make the heatmaps sharp.
        min_singular_value: of a covariance (`clip_covariance`); None: whatever the heatmap gives.
    """

    def __init__(
        self,
        width: int,
        max_width: int,
        num_blocks: int,
        scale: float,
        num_keypoints: int,
        temperature: float,
        min_singular_value: float | None,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.temperature = temperature
        self.min_singular_value = min_singular_value
        self.predictor = Hourglass(width, 3, max_width, num_blocks)
        self.kp = nn.Conv2d(self.predictor.out_channels, num_keypoints, kernel_size=3, padding=1)

    def forward(self, frame: Tensor) -> Keypoints:
        """Detect the keypoints of `frame`, B x 3 x H x W in [0, 1]."""
        logits = self.kp(self.predictor(resize(frame, scaled_size(frame, self.scale), "nearest")))
        # bf16 has 8 bits: not enough for a coordinate, so the moments are taken in float32.
        with torch.autocast(frame.device.type, enabled=False):
            heatmaps = full_precision(logits).flatten(2).div(self.temperature).softmax(dim=-1)
            heatmaps = heatmaps + _FLOOR
            grid = coordinate_grid(logits.shape[-2], logits.shape[-1], heatmaps).view(-1, 2)
            value, covariance = _moments(heatmaps, grid)
            if self.min_singular_value is not None:
                covariance = clip_covariance(covariance, self.min_singular_value)
            return Keypoints(value, None, covariance)


def _moments(heatmaps: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """p = sum h z and V = sum h (z - p)(z - p)^T, B x K x 2 and B x K x 2 x 2, of B x K x hw
    heatmaps over the hw x 2 coordinates of `grid`.
    """
    # V is inverted later, so it must be exact: torch's sums, which add up in pairs, round less than
    # products of matrices, and E[z z^T] - p p^T would lose digits where offsets from p do not.
    value = torch.stack([(heatmaps * axis).sum(dim=-1) for axis in grid.unbind(dim=-1)], dim=-1)
    x, y = (grid - value.unsqueeze(2)).unbind(dim=-1)
    xx, xy, yy = ((heatmaps * product).sum(dim=-1) for product in (x * x, x * y, y * y))
    return value, torch.stack((xx, xy, xy, yy), dim=-1).unflatten(-1, (2, 2))


def clip_covariance(covariance: Tensor, smallest: float) -> Tensor:
    """V max(c, sigma) / sigma for covariances V, ... x 2 x 2, with sigma the smaller singular value
    and c = `smallest`: the whole of V grows until sigma is c, and keeps its shape.
    """
    half_trace = (covariance[..., 0, 0] + covariance[..., 1, 1]) / 2
    half_difference = (covariance[..., 0, 0] - covariance[..., 1, 1]) / 2
    square = half_difference**2 + covariance[..., 0, 1] * covariance[..., 1, 0]
    # Of a round V the root is 0, where its slope is infinite. V has no negative eigenvalue, so its
    # singular values are its eigenvalues; the smaller one follows from their product, since the
    # difference of trace and root would cancel.
    largest = half_trace + square.clamp(min=torch.finfo(square.dtype).tiny).sqrt()
    sigma = determinant_2x2(covariance) / largest
    return covariance * (smallest / sigma).clamp(min=1)[..., None, None]
