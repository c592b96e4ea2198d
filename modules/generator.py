"""Generator: warps the source's features by the dense motion and inpaints what is occluded."""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from modules.blocks import DownBlock, ResBlock, SameBlock, UpBlock
from modules.dense_motion import DenseMotion
from modules.geometry import full_precision, resize, resize_grid, warp


class GeneratedFrame(NamedTuple):
    """What the generator makes of B sources, each B x 3 x H x W in [0, 1].

    prediction: the result.
    decoded: what the decoder paints.
    warped: the source itself, warped; None without the skip connection.
    """

    prediction: Tensor
    decoded: Tensor
    warped: Tensor | None


class Generator(nn.Module):
    """Encoder, warp, occlusion, residual bottleneck, decoder (FOMM, section 3.2).

    `encode` uses the source alone: animation calls it once, and `generate` for every frame.

    Args:
        width: channels at full resolution, doubled by every down block up to `max_width`.
        num_down_blocks: the bottleneck works at H / 2^num_down_blocks.
        num_res_blocks: residual blocks of the bottleneck.
        skip: where the source is visible, the prediction is the warped source itself; what the
            decoder makes fills the rest. Needs an occlusion map. Not in FOMM; the generator of
            Siarohin et al., Motion Representations for Articulated Animation (CVPR 2021), has it.
    """

    def __init__(
        self,
        width: int,
        max_width: int,
        num_down_blocks: int,
        num_res_blocks: int,
        skip: bool = False,
    ) -> None:
        super().__init__()
        self.skip = skip
        channels = [min(max_width, width * 2**i) for i in range(num_down_blocks + 1)]
        self.first = SameBlock(3, channels[0])
        self.down_blocks = nn.ModuleList(DownBlock(a, b) for a, b in pairwise(channels))
        self.bottleneck = nn.Sequential()
        for i in range(num_res_blocks):
            self.bottleneck.add_module(f"r{i}", ResBlock(channels[-1]))
        channels.reverse()
        self.up_blocks = nn.ModuleList(UpBlock(a, b) for a, b in pairwise(channels))
        self.final = nn.Conv2d(channels[-1], 3, kernel_size=7, padding=3)

    def encode(self, source: Tensor) -> Tensor:
        """Features of `source`, B x 3 x H x W in [0, 1], at H / 2^num_down_blocks."""
        features = self.first(source)
        for block in self.down_blocks:
            features = block(features)
        return features

    def decode(self, features: Tensor, motion: DenseMotion) -> Tensor:
        """The picture from the source's features and the motion, B x 3 x H x W in [0, 1]."""
        size = (features.shape[-2], features.shape[-1])
        features = warp(features, resize_grid(motion.deformation, size))
        if motion.occlusion_map is not None:
            features = features * resize(motion.occlusion_map, size).to(features.dtype)
        features = self.bottleneck(features)
        for block in self.up_blocks:
            features = block(features)
        return torch.sigmoid(full_precision(self.final(features)))

    def generate(self, source: Tensor, features: Tensor, motion: DenseMotion) -> GeneratedFrame:
        """Move `source`, B x 3 x H x W in [0, 1], whose `features` are from `encode`."""
        decoded = self.decode(features, motion)
        if not self.skip:
            return GeneratedFrame(decoded, decoded, None)
        assert motion.occlusion_map is not None
        size = (source.shape[-2], source.shape[-1])
        warped = full_precision(warp(source, resize_grid(motion.deformation, size)))
        visible = resize(motion.occlusion_map, size)
        return GeneratedFrame(visible * warped + (1 - visible) * decoded, decoded, warped)

    def forward(self, source: Tensor, motion: DenseMotion) -> GeneratedFrame:
        """Move `source`, B x 3 x H x W in [0, 1], by `motion`."""
        return self.generate(source, self.encode(source), motion)
