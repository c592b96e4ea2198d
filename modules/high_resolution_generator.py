"""High-resolution generator: refines a low-resolution prediction with the source's detail."""

import torch
from torch import Tensor, nn

from modules.blocks import Hourglass
from modules.geometry import full_precision


class HighResolutionGenerator(nn.Module):
    """The network H (Perturbed Masks, section 3.3) and, with other inputs, BGRefine.

    Args:
        in_channels: number of channels of all input maps together.
        width, max_width, num_blocks: sizes of the hourglass, which has skip connections.
    """

    def __init__(self, in_channels: int, width: int, max_width: int, num_blocks: int) -> None:
        super().__init__()
        self.hourglass = Hourglass(width, in_channels, max_width, num_blocks)
        self.final_hourglass = nn.Conv2d(self.hourglass.out_channels, 3, kernel_size=7, padding=3)

    def forward(self, *maps: Tensor) -> Tensor:
        """Compute a picture, B x 3 x H x W in [0, 1], from `maps`, B x c x H x W each, in order."""
        features = self.hourglass(torch.cat(maps, dim=1))
        return torch.sigmoid(full_precision(self.final_hourglass(features)))
