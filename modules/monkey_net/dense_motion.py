"""Monkey-Net's dense motion: the keypoints' translations, weighed and corrected by pixel."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.blocks import Hourglass
from modules.dense_motion import DenseMotion, sparse_motions
from modules.geometry import full_precision, resize, scaled_size, warp_by_candidates
from modules.heatmaps import HeatmapStyle, candidate_heatmaps
from modules.keypoint_detector import Keypoints
from modules.monkey_net.heatmaps import HeatmapNorm


class GroupBlock(nn.Module):
    """conv1x1 - BatchNorm - ReLU, in groups of channels that see nothing of each other."""

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=1, groups=num_groups)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class MonkeyNetDenseMotion(nn.Module):
    """Weighs the keypoints' translations pixel by pixel and adds a correction (Monkey-Net, section
    3.4): z + sum_k softmax_k (p_S - p_D)_k + correction(z), with a background that does not move.

    Published without an occlusion map; the head for it is ours. It starts near 1, so that at first
    nothing is hidden.

    Args:
        width, max_width, num_blocks: of the hourglass.
        scale: the network sees every (1/scale)-th pixel of the source, without a blur, and its
            output has that size.
        num_keypoints: K.
        heatmap_norm: of the heatmaps that tell the network where the keypoints are.
        num_group_blocks: before the hourglass, each candidate motion by itself.
        use_difference: show the network p_S - p_D as two constant maps for each candidate.
        occlusion: predict an occlusion map.
    """

    def __init__(
        self,
        width: int,
        max_width: int,
        num_blocks: int,
        scale: float,
        num_keypoints: int,
        heatmap_norm: HeatmapNorm,
        num_group_blocks: int,
        use_difference: bool,
        occlusion: bool,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.heatmap_style = HeatmapStyle(norm=heatmap_norm)
        self.use_difference = use_difference
        candidates = num_keypoints + 1
        # Per candidate: its heatmap, its shift if wanted, and the source warped by it.
        channels = candidates * (6 if use_difference else 4)
        self.group_blocks = nn.Sequential(
            *(GroupBlock(channels, candidates) for _ in range(num_group_blocks))
        )
        self.hourglass = Hourglass(width, channels, max_width, num_blocks)
        features = self.hourglass.out_channels
        self.weights_and_correction = _constant_conv(features, [2.0, *[0.0] * (num_keypoints + 2)])
        self.occlusion = _constant_conv(features, [3.0]) if occlusion else None

    def forward(self, source: Tensor, source_kp: Keypoints, driving_kp: Keypoints) -> DenseMotion:
        """Motion for `source`, B x 3 x H x W in [0, 1], from its keypoints to the driving ones."""
        source = resize(source, scaled_size(source, self.scale), "nearest")
        height, width = source.shape[-2:]
        with torch.autocast(source.device.type, enabled=False):
            motions = sparse_motions(source_kp, driving_kp, height, width)
            sparse = self._candidates(source, source_kp, driving_kp, motions)

        features = self.hourglass(self.group_blocks(sparse))
        maps = self.weights_and_correction(features)
        occlusion_logits = self.occlusion(features) if self.occlusion is not None else None
        with torch.autocast(source.device.type, enabled=False):
            logits, correction = full_precision(maps).split((motions.shape[1], 2), dim=1)
            motion_weights = logits.softmax(dim=1)
            deformation = torch.einsum("bkhw,bkhwc->bhwc", motion_weights, motions)
            deformation = deformation + correction.permute(0, 2, 3, 1)
            occlusion_map = None
            if occlusion_logits is not None:
                occlusion_map = full_precision(occlusion_logits).sigmoid()
        return DenseMotion(deformation, occlusion_map, motion_weights)

    def _candidates(
        self, source: Tensor, source_kp: Keypoints, driving_kp: Keypoints, motions: Tensor
    ) -> Tensor:
        """Candidate by candidate, the background first: its heatmap, driving minus source, its
        shift if wanted, and the source warped by it.
        """
        height, width = source.shape[-2:]
        heatmaps = candidate_heatmaps(source_kp, driving_kp, height, width, self.heatmap_style)
        parts = [heatmaps.unsqueeze(2), warp_by_candidates(source, motions)]
        if self.use_difference:
            shift = F.pad(source_kp.value - driving_kp.value, (0, 0, 1, 0))
            parts.insert(1, shift[..., None, None].expand(-1, -1, -1, height, width))
        return torch.cat(parts, dim=2).flatten(1, 2)


def _constant_conv(in_channels: int, values: list[float]) -> nn.Conv2d:
    """conv3x3 that starts as a constant for each output channel, whatever the input is."""
    conv = nn.Conv2d(in_channels, len(values), kernel_size=3, padding=1)
    nn.init.zeros_(conv.weight)
    with torch.no_grad():
        assert conv.bias is not None
        conv.bias.copy_(torch.tensor(values))
    return conv
