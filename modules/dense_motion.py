"""Dense motion: combines the motions at keypoints into a backward flow and an occlusion map."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from modules.blocks import AntiAliasDownsample, Hourglass
from modules.geometry import (
    coordinate_grid,
    full_precision,
    inverse_2x2,
    warp_by_candidates,
)
from modules.heatmaps import HeatmapStyle, candidate_heatmaps
from modules.keypoint_detector import Keypoints


class DenseMotion(NamedTuple):
    """Motion from the driving frame back to the source, at h x w = H * scale x W * scale.

    deformation: B x h x w x 2; the position of each driving pixel in the source, (x, y) in [-1, 1].
    occlusion_map: B x 1 x h x w in [0, 1]; 1 = visible in the source, 0 = to be inpainted. None for
        a network without occlusion.
    motion_weights: B x (K+1) x h x w; softmax over the candidate motions, the background first.
    """

    deformation: Tensor
    occlusion_map: Tensor | None
    motion_weights: Tensor


def sparse_motions(source: Keypoints, driving: Keypoints, height: int, width: int) -> Tensor:
    """Candidate backward motions, B x (K+1) x H x W x 2: the identity (background), then
    z -> p_S + J_S J_D^-1 (z - p_D) for each keypoint (FOMM, Eq. 4 and 5).
    """
    identity = coordinate_grid(height, width, driving.value)
    offset = identity - driving.value[:, :, None, None]
    if source.jacobian is not None and driving.jacobian is not None:
        affine = source.jacobian @ inverse_2x2(driving.jacobian)
        offset = torch.einsum("bkij,bkhwj->bkhwi", affine, offset)
    motions = source.value[:, :, None, None] + offset
    background = identity.expand(motions.shape[0], 1, -1, -1, -1)  # len() fixes B in ONNX
    return torch.cat((background, motions), dim=1)


class DenseMotionNetwork(nn.Module):
    """Weighs the candidate motions pixel by pixel and predicts occlusion (FOMM, section 3.2).

    Args:
        width, max_width, num_blocks: sizes of the hourglass.
        scale: factor by which the source is downsampled; the output has the downsampled size.
        num_keypoints: K.
        heatmap_variance: variance of the Gaussian heatmaps that show the keypoints to the network.
        occlusion: predict an occlusion map.
        heatmap_start: a. If above 0, the motion weights start as the softmax of a h_k - 3 a / 8 of
            the keypoints' heatmaps h_k and of 0 for the background, plus a little noise: around
            each keypoint its own motion, else none. Without it training often begins with two or
            three keypoints that move everything, and the others get no gradient any more. Ours.
    """

    def __init__(
        self,
        width: int,
        max_width: int,
        num_blocks: int,
        scale: float,
        num_keypoints: int,
        heatmap_variance: float,
        occlusion: bool,
        heatmap_start: float = 0.0,
    ) -> None:
        super().__init__()
        self.heatmap_style = HeatmapStyle(heatmap_variance)
        self.down = AntiAliasDownsample(scale)
        # Per candidate: its heatmap and the source warped by it.
        self.hourglass = Hourglass(width, 4 * (num_keypoints + 1), max_width, num_blocks)
        features = self.hourglass.out_channels
        self.mask = nn.Conv2d(features, num_keypoints + 1, kernel_size=7, padding=3)
        self.occlusion = nn.Conv2d(features, 1, kernel_size=7, padding=3) if occlusion else None
        if heatmap_start:
            self._start_at_heatmaps(heatmap_start)

    @torch.no_grad()
    def _start_at_heatmaps(self, sharpness: float) -> None:
        weight, bias = self.mask.weight, self.mask.bias
        assert bias is not None
        weight *= 0.1
        bias.zero_()
        bias[1:] = -0.375 * sharpness  # where heatmaps are below it, the background wins
        # The input is the last part of the features: of each candidate, the heatmap comes first.
        num_candidates, middle = len(weight), weight.shape[-1] // 2
        first = weight.shape[1] - 4 * num_candidates
        for k in range(1, num_candidates):
            weight[k, first + 4 * k, middle, middle] = sharpness

    def forward(self, source: Tensor, source_kp: Keypoints, driving_kp: Keypoints) -> DenseMotion:
        """Dense motion from the keypoints of `source`, B x 3 x H x W in [0, 1], to `driving_kp`."""
        source = self.down(source)
        height, width = source.shape[-2:]
        with torch.autocast(source.device.type, enabled=False):
            motions = sparse_motions(source_kp, driving_kp, height, width)
            warped = warp_by_candidates(source, motions)
            heatmaps = candidate_heatmaps(source_kp, driving_kp, height, width, self.heatmap_style)
            # Candidate by candidate, its heatmap and then its three warped channels.
            sparse = torch.cat((heatmaps.unsqueeze(2), warped), dim=2).flatten(1, 2)

        features = self.hourglass(sparse)
        logits = self.mask(features)
        occlusion_logits = self.occlusion(features) if self.occlusion is not None else None
        with torch.autocast(source.device.type, enabled=False):
            motion_weights = full_precision(logits).softmax(dim=1)
            deformation = torch.einsum("bkhw,bkhwc->bhwc", motion_weights, motions)
            occlusion_map = None
            if occlusion_logits is not None:
                occlusion_map = full_precision(occlusion_logits).sigmoid()
        return DenseMotion(deformation, occlusion_map, motion_weights)
