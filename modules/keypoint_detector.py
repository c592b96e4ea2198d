"""Keypoint detector: keypoints and their local affine motion, learned without labels (FOMM)."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from modules.blocks import AntiAliasDownsample, Hourglass
from modules.geometry import coordinate_grid, full_precision

JacobianMode = Literal["per_keypoint", "shared", "none"]


class Keypoints(NamedTuple):
    """K keypoints of B frames.

    value: B x K x 2, (x, y) in [-1, 1].
    jacobian: B x K x 2 x 2, Jacobian at the keypoint of the motion from an abstract reference frame
        to this frame; None for a detector without Jacobians (identity motion).
    covariance: B x K x 2 x 2, covariance of the heatmap of which the keypoint is the mean, in its
        coordinates squared; None for a detector that does not give it.
    """

    value: Tensor
    jacobian: Tensor | None
    covariance: Tensor | None = None


def detached(keypoints: Keypoints) -> Keypoints:
    """The same keypoints without a gradient."""
    jacobian, covariance = keypoints.jacobian, keypoints.covariance
    return Keypoints(
        keypoints.value.detach(),
        None if jacobian is None else jacobian.detach(),
        None if covariance is None else covariance.detach(),
    )


class KeypointDetector(nn.Module):
    """Detects keypoints: the expected coordinate and the mean Jacobian under each of K heatmaps
    (FOMM, section 3.1).

    Args:
        width, max_width, num_blocks: sizes of the hourglass.
        scale: factor by which the frame is downsampled first.
        num_keypoints: K.
        jacobian: one map of Jacobians for each keypoint, one shared by all, or none.
        temperature: temperature of the softmax over space; small values make the heatmaps sharp.
    """

    def __init__(
        self,
        width: int,
        max_width: int,
        num_blocks: int,
        scale: float,
        num_keypoints: int,
        jacobian: JacobianMode,
        temperature: float,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.down = AntiAliasDownsample(scale)
        self.predictor = Hourglass(width, 3, max_width, num_blocks)
        features = self.predictor.out_channels
        # No padding: zeros at the border would give away positions.
        self.kp = nn.Conv2d(features, num_keypoints, kernel_size=7)
        self.jacobian: nn.Conv2d | None = None
        if jacobian != "none":
            num_maps = num_keypoints if jacobian == "per_keypoint" else 1
            self.jacobian = nn.Conv2d(features, 4 * num_maps, kernel_size=7)
            # Jacobians start as the identity: training begins with pure translations.
            nn.init.zeros_(self.jacobian.weight)
            with torch.no_grad():
                assert self.jacobian.bias is not None
                self.jacobian.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(num_maps))

    def forward(self, frame: Tensor) -> Keypoints:
        """Detect the keypoints of `frame`, B x 3 x H x W in [0, 1]."""
        features = self.predictor(self.down(frame))
        logits = self.kp(features)
        jacobian_maps = self.jacobian(features) if self.jacobian is not None else None
        # The 8 bits of bf16 are too few for a coordinate: the expectation is taken in float32.
        with torch.autocast(frame.device.type, enabled=False):
            heatmaps = full_precision(logits).flatten(2).div(self.temperature).softmax(dim=-1)
            grid = coordinate_grid(logits.shape[-2], logits.shape[-1], heatmaps).view(-1, 2)
            value = heatmaps @ grid
            if jacobian_maps is None:
                return Keypoints(value, None)
            # B x (K or 1) x 4 x hw; the mean is weighted by each heatmap.
            maps = full_precision(jacobian_maps).flatten(2).unflatten(1, (-1, 4))
            maps = maps.expand(-1, value.shape[1], -1, -1)
            jacobian = torch.einsum("bkn,bkcn->bkc", heatmaps, maps)
            return Keypoints(value, jacobian.unflatten(-1, (2, 2)))
