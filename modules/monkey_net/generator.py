"""Monkey-Net's generator: a U-Net whose skip connections are warped by the dense motion."""

from typing import Literal

import torch
from torch import Tensor, nn

from modules.blocks import Encoder, ResBlock, UpBlock
from modules.dense_motion import DenseMotion
from modules.geometry import full_precision, resize, resize_grid, scaled_size, warp
from modules.heatmaps import HeatmapStyle, heatmap_difference
from modules.keypoint_detector import Keypoints
from modules.monkey_net.heatmaps import HeatmapNorm


class MonkeyNetGenerator(nn.Module):
    """Encoder, warp of every map, decoder, refinement at full size (Monkey-Net, section 3.3).

    `encode` depends on the source alone: animation calls it once and `decode` for every frame.

    Args:
        width, max_width, num_blocks: of encoder and decoder, which reaches H / 2^num_blocks.
        num_refinement_blocks: residual blocks at full size, behind the decoder.
        num_keypoints: K.
        heatmap_scale: the heatmaps are made at H * heatmap_scale and resized to every map.
        heatmap_norm: of the heatmaps.
        interpolation: of motion, occlusion and heatmaps, where a map has another size.
    """

    def __init__(
        self,
        width: int,
        max_width: int,
        num_blocks: int,
        num_refinement_blocks: int,
        num_keypoints: int,
        heatmap_scale: float,
        heatmap_norm: HeatmapNorm,
        interpolation: Literal["bilinear", "nearest"],
    ) -> None:
        super().__init__()
        self.heatmap_scale = heatmap_scale
        self.heatmap_style = HeatmapStyle(norm=heatmap_norm)
        self.interpolation = interpolation
        self.encoder = Encoder(width, 3, max_width, num_blocks)
        encoded = [3, *(min(max_width, width * 2 ** (i + 1)) for i in range(num_blocks))]
        self.up_blocks = nn.ModuleList()
        channels = 0  # those of the up block before, of which the first has none
        for i in reversed(range(num_blocks)):
            in_channels = channels + encoded[i + 1] + num_keypoints
            channels = min(max_width, width * 2**i)
            self.up_blocks.append(UpBlock(in_channels, channels))
        channels += encoded[0] + num_keypoints
        self.refinement = nn.Sequential()
        for i in range(num_refinement_blocks):
            self.refinement.add_module(f"r{i}", ResBlock(channels))
        self.final = nn.Conv2d(channels, 3, kernel_size=1)

    def encode(self, source: Tensor) -> list[Tensor]:
        """`source`, B x 3 x H x W in [0, 1], and its features at H / 2, H / 4, ...,
        H / 2^num_blocks.
        """
        maps: list[Tensor] = self.encoder(source)
        return maps

    def decode(
        self, maps: list[Tensor], motion: DenseMotion, source_kp: Keypoints, driving_kp: Keypoints
    ) -> Tensor:
        """The prediction, B x 3 x H x W in [0, 1], from the maps of the source, the motion and the
        keypoints that it leads from and to.
        """
        height, width = scaled_size(maps[0], self.heatmap_scale)
        heatmaps = heatmap_difference(source_kp, driving_kp, height, width, self.heatmap_style)
        if maps[-1].is_contiguous(memory_format=torch.channels_last):
            heatmaps = heatmaps.contiguous(memory_format=torch.channels_last)
        x = self._skip(maps[-1], motion, heatmaps)
        for block, features in zip(self.up_blocks, reversed(maps[:-1]), strict=True):
            x = block(x)
            # In the decoder's precision: a float32 image would lift all that follows.
            x = torch.cat((x, self._skip(features, motion, heatmaps).to(x.dtype)), dim=1)
        return torch.sigmoid(full_precision(self.final(self.refinement(x))))

    def forward(
        self, source: Tensor, motion: DenseMotion, source_kp: Keypoints, driving_kp: Keypoints
    ) -> Tensor:
        """The source moved: B x 3 x H x W in [0, 1]."""
        return self.decode(self.encode(source), motion, source_kp, driving_kp)

    def warp(self, features: Tensor, motion: DenseMotion) -> Tensor:
        """`features`, B x C x h x w, or the source itself, moved as the decoder sees them, with
        nothing hidden.
        """
        size = (features.shape[-2], features.shape[-1])
        return warp(features, resize_grid(motion.deformation, size, self.interpolation))

    def _skip(self, features: Tensor, motion: DenseMotion, heatmaps: Tensor) -> Tensor:
        """B x (C + K) x h x w: what the decoder sees of a map."""
        size = (features.shape[-2], features.shape[-1])
        warped = self.warp(features, motion)
        if motion.occlusion_map is not None:
            occlusion_map = resize(motion.occlusion_map, size, self.interpolation)
            warped = warped * occlusion_map.to(warped.dtype)
        small = resize(heatmaps, size, self.interpolation)
        return torch.cat((warped, small.to(warped.dtype)), dim=1)
