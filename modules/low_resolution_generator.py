"""Low-resolution generator: a picture at full size from maps at the size of the masks."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from modules.blocks import ResBlock, SameBlock, UpBlock
from modules.geometry import full_precision


class LowResolutionGenerator(nn.Module):
    """The network L (Perturbed Masks, section 3.3) and, with other inputs, BGBase.

    Args:
        in_channels: number of channels of all input maps together.
        width: channels at full resolution; each halving of the size doubles them up to `max_width`.
        num_up_blocks: log2 of the ratio of the picture's side to that of the maps.
        num_res_blocks: number of residual blocks, which work at the size of the maps.
    """

    def __init__(
        self, in_channels: int, width: int, max_width: int, num_up_blocks: int, num_res_blocks: int
    ) -> None:
        super().__init__()
        channels = [min(max_width, width * 2**i) for i in reversed(range(num_up_blocks + 1))]
        self.first = SameBlock(in_channels, channels[0])
        self.bottleneck = nn.Sequential()
        for i in range(num_res_blocks):
            self.bottleneck.add_module(f"r{i}", ResBlock(channels[0]))
        self.up_blocks = nn.ModuleList(UpBlock(a, b) for a, b in pairwise(channels))
        self.final = nn.Conv2d(channels[-1], 3, kernel_size=7, padding=3)

    def forward(self, *maps: Tensor) -> Tensor:
        """Compute a picture, B x 3 x H x W in [0, 1], from `maps`, B x c x h x w each, in order."""
        features = self.bottleneck(self.first(torch.cat(maps, dim=1)))
        for block in self.up_blocks:
            features = block(features)
        return torch.sigmoid(full_precision(self.final(features)))
